"""What a training minimises. An objective maps (predictor, task, batch size, key) to a scalar.

The batch is drawn inside, so an objective with a closed form (a population loss) has the same signature and simply
draws nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl.prompt import Task, answer_batch, answer_positions

Objective = Callable[[Any, Task, int, Key[Array, ""]], Float[Array, ""]]


def half_mse(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """Half the mean squared error on the queries of a fresh batch, summed over outputs: mean_b 1/2 |y_hat - y|^2."""
    prompts = task.sample_batch(batch, key=key)
    return 0.5 * jnp.mean(jnp.sum(jnp.square(answer_batch(predictor, prompts) - prompts.y[:, -1]), axis=-1))


def every_position_mse(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The squared error summed over outputs, averaged over all positions of a fresh batch (Garg et al., 2022).

    Row k is predicted from the rows before k and x_k. Positions count as `task.position_weights` says.
    """
    prompts = task.sample_batch(batch, key=key)
    errors = jnp.sum(jnp.square(answer_positions(predictor, prompts) - prompts.y), axis=-1)
    return _over_positions(errors, task)


def every_position_logistic(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The logistic loss log(1 + exp(-y f)) of labels y = +-1 in nats, averaged over all positions of a fresh batch."""
    prompts = task.sample_batch(batch, key=key)
    losses = jnp.sum(jax.nn.softplus(-prompts.y * answer_positions(predictor, prompts)), axis=-1)
    return _over_positions(losses, task)


def _over_positions(losses: Float[Array, "b n"], task: Task) -> Float[Array, ""]:
    weights = task.position_weights(losses.shape[1])
    return jnp.mean(losses @ weights) / jnp.sum(weights)
