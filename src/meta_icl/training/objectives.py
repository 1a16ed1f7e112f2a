"""What a training minimises. An objective maps (predictor, task, batch size, key) to a scalar.

The batch is drawn inside, so an objective with a closed form (a population loss) has the same signature and simply
draws nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from meta_icl.errors import require
from meta_icl.prompt import LabelledTokens, Prompt, Task, TokenPrompt, answer_batch, answer_positions, answer_tokens

Objective = Callable[[Any, Task, int, Key[Array, ""]], Float[Array, ""]]


def half_mse(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """Half the mean squared error on the queries of a fresh batch, summed over outputs: mean_b 1/2 |y_hat - y|^2."""
    prompts = _real("half_mse", task.sample_batch(batch, key=key))
    return 0.5 * jnp.mean(jnp.sum(jnp.square(answer_batch(predictor, prompts) - prompts.y[:, -1]), axis=-1))


def every_position_mse(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The squared error summed over outputs, averaged over all positions of a fresh batch (Garg et al., 2022).

    Row k is predicted from the rows before k and x_k. Positions count as `task.position_weights` says.
    """
    prompts = _real("every_position_mse", task.sample_batch(batch, key=key))
    errors = jnp.sum(jnp.square(answer_positions(predictor, prompts) - prompts.y), axis=-1)
    return _over_positions(errors, task)


def every_position_logistic(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The logistic loss log(1 + exp(-y f)) of labels y = +-1 in nats, averaged over all positions of a fresh batch."""
    prompts = _real("every_position_logistic", task.sample_batch(batch, key=key))
    losses = jnp.sum(jax.nn.softplus(-prompts.y * answer_positions(predictor, prompts)), axis=-1)
    return _over_positions(losses, task)


def cross_entropy(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The mean negative log-likelihood, in nats, of the query's integer label under the predictor's logits."""
    prompts = _labelled("cross_entropy", task.sample_batch(batch, key=key))
    logits = _wide_enough(answer_batch(predictor, prompts), task)
    return jnp.mean(_negative_log_likelihood(logits, prompts.y[:, -1]))


def every_position_cross_entropy(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The negative log-likelihood of the integer labels, in nats, averaged over all positions of a fresh batch."""
    prompts = _labelled("every_position_cross_entropy", task.sample_batch(batch, key=key))
    logits = _wide_enough(answer_positions(predictor, prompts), task)
    return _over_positions(_negative_log_likelihood(logits, prompts.y), task)


def next_token_cross_entropy(predictor: Any, task: Any, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The negative log-likelihood, in nats, of the tokens that follow the positions of `loss_mask`, averaged over them.

    The task is a `TokenTask`; the successor of the last token is unknown and never scored.
    """
    prompts = _of("next_token_cross_entropy", task.sample_batch(batch, key=key), TokenPrompt, "tokens")
    logits = _wide_enough(answer_tokens(predictor, prompts), task, "vocabulary")
    losses = _negative_log_likelihood(logits[:, :-1], prompts.tokens[:, 1:])
    scored = prompts.loss_mask[:, :-1]
    return jnp.sum(jnp.where(scored, losses, 0)) / jnp.maximum(jnp.sum(scored), 1)


def labelled_cross_entropy(predictor: Any, task: Any, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The negative log-likelihood, in nats, of the labels where `loss_mask` holds, for tasks of `LabelledTokens`."""
    prompts = _of("labelled_cross_entropy", task.sample_batch(batch, key=key), LabelledTokens, "labelled tokens")
    logits = _wide_enough(answer_tokens(predictor, prompts), task, "vocabulary")
    losses = _negative_log_likelihood(logits, prompts.labels)
    return jnp.sum(jnp.where(prompts.loss_mask, losses, 0)) / jnp.maximum(jnp.sum(prompts.loss_mask), 1)


NAMES = (
    "half_mse",
    "every_position_mse",
    "every_position_logistic",
    "cross_entropy",
    "every_position_cross_entropy",
    "next_token_cross_entropy",
    "labelled_cross_entropy",
)


def _of(objective: str, prompts: Any, kind: type, wanted: str) -> Any:
    """The prompts of a batch if they are of the kind that an objective scores."""
    require(isinstance(prompts, kind), "objective", objective, f"one for {type(prompts).__name__}: it scores {wanted}")
    return prompts


def _real(objective: str, prompts: Any) -> Prompt:
    """Prompts with real targets."""
    prompts = _of(objective, prompts, Prompt, "pairs (x, y)")
    require(not prompts.has_labels, "objective", objective, "one for integer labels, as cross_entropy")
    return prompts


def _labelled(objective: str, prompts: Any) -> Prompt:
    """Prompts with integer labels."""
    prompts = _of(objective, prompts, Prompt, "pairs (x, y)")
    require(prompts.has_labels, "objective", objective, "one for real targets, as half_mse")
    return prompts


def _wide_enough(
    logits: Float[Array, "... classes"], task: Any, count: str = "n_labels"
) -> Float[Array, "... classes"]:
    """Logits with a place for every label or token, where the task says how many there are (`count`)."""
    stated = getattr(task, count, 0)
    classes, what = stated if isinstance(stated, int) else 0, "tokens" if count == "vocabulary" else "labels"
    require(logits.shape[-1] >= classes, "logits", f"{logits.shape[-1]} per answer", f"at least {classes}, as {what}")
    return logits


def _negative_log_likelihood(logits: Float[Array, "... classes"], labels: Int[Array, "..."]) -> Float[Array, "..."]:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _over_positions(losses: Float[Array, "b n"], task: Task) -> Float[Array, ""]:
    weights = task.position_weights(losses.shape[1])
    return jnp.mean(losses @ weights) / jnp.sum(weights)
