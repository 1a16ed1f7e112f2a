"""Fields of reference learners that hold one number, or one per step."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from meta_icl.conversions import number
from meta_icl.errors import require

Numbers = ArrayLike | Sequence[Any]  # a number, an array, or nested sequences of numbers


def per_step(value: ArrayLike | Sequence[float]) -> Array:
    """A scalar leaf, or one number per step "k" from a sequence."""
    return jnp.asarray(value, jnp.result_type(float)) if isinstance(value, Sequence) else number(value)


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
