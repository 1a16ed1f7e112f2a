"""Leaves of reference learners, and checks of their entries that also work where values are being traced."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from meta_icl.errors import require

Numbers = ArrayLike | Sequence[Any]  # a number, an array, or nested sequences of numbers


def number(value: ArrayLike) -> Array:
    """A leaf from a number or an array; a Python number adapts to the precision of what it is multiplied with."""
    return jnp.asarray(float(value) if isinstance(value, int | float) else value)


def numbers(value: ArrayLike) -> Array:
    """A leaf from nested numbers or an array, in the floating-point precision in use."""
    return jnp.asarray(value, jnp.result_type(float))


def optional_numbers(value: ArrayLike | None) -> Array | None:
    """As `numbers`; nothing stays nothing."""
    return None if value is None else numbers(value)


def per_step(value: ArrayLike | Sequence[float]) -> Array:
    """A scalar leaf, or one number per step "k" from a sequence."""
    return jnp.asarray(value, jnp.result_type(float)) if isinstance(value, Sequence) else number(value)


def require_entries(test: Callable[[np.ndarray], np.ndarray], field: str, value: ArrayLike, allowed: str) -> None:
    """Raise `BadInput` unless every entry passes `test`; values that are being traced cannot be looked at."""
    if not isinstance(value, Tracer):
        entries = np.asarray(value)
        require(bool(np.all(test(entries))), field, entries.tolist(), allowed)


def step_count(steps: int | None, **scalars: Array) -> int:
    """The number of steps, from `steps` or from the fields that hold one number per step (they must agree)."""
    for field, value in scalars.items():
        require(value.ndim <= 1, field, value.shape, "one number, or one per step")
        if value.ndim == 1:
            require(value.size >= 1, field, "an empty sequence", "one number, or one per step")
            agreed = steps is None or steps == value.size
            require(agreed, field, f"{value.size} numbers", f"one number, or one for each of {steps} steps")
            steps = value.size
    steps = 1 if steps is None else steps
    require(isinstance(steps, int) and steps >= 1, "steps", steps, "a positive integer")
    return steps
