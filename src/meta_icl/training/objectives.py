"""What a training minimises. An objective maps (predictor, task, batch size, key) to a scalar.

The batch is drawn inside, so an objective with a closed form (a population loss) has the same signature and simply
draws nothing.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl.prompt import Task, answer_batch

Objective = Callable[[Any, Task, int, Key[Array, ""]], Float[Array, ""]]


def half_mse(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """Half the mean squared error on the queries of a fresh batch, summed over outputs: mean_b 1/2 |y_hat - y|^2."""
    prompts = task.sample_batch(batch, key=key)
    return 0.5 * jnp.mean(jnp.sum(jnp.square(answer_batch(predictor, prompts) - prompts.y[:, -1]), axis=-1))
