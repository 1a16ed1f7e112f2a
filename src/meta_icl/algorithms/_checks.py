"""Fields of reference learners that hold one number, or one per step."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from meta_icl.conversions import number, require_entries
from meta_icl.errors import require
from meta_icl.prompt import Prompt

Numbers = ArrayLike | Sequence[Any]  # a number, an array, or nested sequences of numbers


def per_step(value: ArrayLike | Sequence[float]) -> Array:
    """A scalar leaf, or one number per step "k" from a sequence."""
    return jnp.asarray(value, jnp.result_type(float)) if isinstance(value, Sequence) else number(value)


def real(learner: Any, prompt: Prompt) -> Prompt:
    """The prompt, for a learner of real targets; raises `BadInput` where they are labels."""
    name = type(learner).__name__
    wanted = f"real numbers for {name}; OneHot({name}(..), n_labels) answers prompts with labels"
    require(not prompt.has_labels, "targets", "integer labels", wanted)
    return prompt


def labels_of(prompt: Prompt, n_labels: int) -> Int[Array, "*batch n"]:
    """The labels of a prompt; raises `BadInput` unless they are 0 to n_labels - 1, as far as values are known."""
    require(prompt.has_labels, "targets", "real numbers", "integer labels of shape (n,)")
    require_entries(lambda label: (label >= 0) & (label < n_labels), "labels", prompt.y, f"from 0 to {n_labels - 1}")
    return prompt.y


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
