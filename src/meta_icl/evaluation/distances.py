"""Distances between predictors, always on the same prompts.

Notation: f_a, f_b are two predictors, g = d f / d x_q their sensitivity to the query's input, "dy dx" per prompt.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.prompt import Predictor, Prompt, answer_batch, query_prediction


def query_losses(answers: Float[Array, "b dy"], prompts: Prompt) -> Float[Array, " b"]:
    """The loss of every prompt's query: half the squared error 1/2 |y_hat - y|^2, or of labels the cross-entropy.

    The cross-entropy, in nats, is minus the log-probability of the label under the softmax of the answers.
    """
    if prompts.has_labels:
        chosen = jnp.take_along_axis(jax.nn.log_softmax(answers), prompts.y[:, -1:], axis=-1)
        return -chosen[:, 0]
    return 0.5 * jnp.sum(jnp.square(answers - prompts.y[:, -1]), axis=-1)


def query_accuracy(answers: Float[Array, "b classes"], prompts: Prompt) -> Float[Array, " b"]:
    """1 for every prompt whose query's label has the largest logit, else 0; a logit that is not a number is wrong."""
    right = (jnp.argmax(answers, axis=-1) == prompts.y[:, -1]) & jnp.all(~jnp.isnan(answers), axis=-1)
    return right.astype(answers.dtype)


def with_inputs(prompt: Prompt, x: Float[Array, "*b n dx"]) -> Prompt:
    """The same prompt, or batch, with other inputs."""
    return eqx.tree_at(lambda p: p.x, prompt, x)


def sensitivity(predictor: Predictor, prompt: Prompt) -> Float[Array, "dy dx"]:
    """The derivative of the prediction by the query's input; for one step of gradient descent, the implicit weights."""

    def answer(x_query: Float[Array, " dx"]) -> Float[Array, " dy"]:
        return query_prediction(predictor, with_inputs(prompt, prompt.x.at[-1].set(x_query)))

    return jax.jacrev(answer)(prompt.x[-1])


def sensitivities(predictor: Predictor, prompts: Prompt) -> Float[Array, "b dy dx"]:
    """`sensitivity` for a batch of prompts, through the predictor's own batched form where it has one.

    An answer depends on its own prompt only, so the derivative of the sum of all answers holds every derivative.
    """

    def totals(x_query: Float[Array, "b dx"]) -> Float[Array, " dy"]:
        return answer_batch(predictor, with_inputs(prompts, prompts.x.at[:, -1].set(x_query))).sum(0)

    return jnp.swapaxes(jax.jacrev(totals)(prompts.x[:, -1]), 0, 1)


@eqx.filter_jit
def answers_and_sensitivities(
    predictor: Predictor, prompts: Prompt
) -> tuple[Float[Array, "b dy"], Float[Array, "b dy dx"]]:
    """Both of a batch, by one program."""
    return answer_batch(predictor, prompts), sensitivities(predictor, prompts)


def prediction_difference(f_a: Float[Array, "b dy"], f_b: Float[Array, "b dy"]) -> Float[Array, " b"]:
    """|f_a - f_b|_2 of every prompt (von Oswald et al., 2022, "preds diff")."""
    return jnp.linalg.norm(f_a - f_b, axis=-1)


def model_difference(g_a: Float[Array, "b dy dx"], g_b: Float[Array, "b dy dx"]) -> Float[Array, " b"]:
    """|g_a - g_b|_F of every prompt (von Oswald et al., 2022, "model diff")."""
    return jnp.sqrt(jnp.sum(jnp.square(g_a - g_b), axis=(-2, -1)))


def sensitivity_cosine(g_a: Float[Array, "b dy dx"], g_b: Float[Array, "b dy dx"]) -> Float[Array, " b"]:
    """<g_a, g_b> / (|g_a| |g_b|) of every prompt; 0 where one of them vanishes."""

    def norm(g: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(g), axis=(-2, -1)))

    return jnp.sum(g_a * g_b, axis=(-2, -1)) / ((norm(g_a) + 1e-8) * (norm(g_b) + 1e-8))


def prediction_error(f_a: Float[Array, "b dy"], f_b: Float[Array, "b dy"]) -> Float[Array, " b"]:
    """1/2 |f_a - f_b|^2 of every prompt (Rossi et al., 2024)."""
    return 0.5 * jnp.sum(jnp.square(f_a - f_b), axis=-1)


def gradient_error(g_a: Float[Array, "b dy dx"], g_b: Float[Array, "b dy dx"]) -> Float[Array, " b"]:
    """Half the mean over coordinates of (g_a - g_b)^2, for every prompt (Rossi et al., 2024)."""
    return 0.5 * jnp.mean(jnp.square(g_a - g_b), axis=(-2, -1))


class WeightAlignment(NamedTuple):
    """Cosines, per prompt, of the sensitivity with w and with w projected on the span of the context."""

    to_w: Float[Array, " b"]
    to_projection: Float[Array, " b"]


@eqx.filter_jit
def weight_alignment(predictor: Predictor, prompts: Prompt, w: Float[Array, "b dx"]) -> WeightAlignment:
    """Does the prediction change with the query as w.x_q does, as far as the context tells of w? (Garg et al., 2022)

    One output. For least squares without noise the second cosine is 1, and so is the first from dx examples on.
    """
    g = sensitivities(predictor, prompts)[:, 0]
    vectors, sizes, _ = jnp.linalg.svd(jnp.swapaxes(prompts.x[:, :-1], 1, 2), full_matrices=False)
    spanned = sizes > sizes[:, :1] * max(prompts.x.shape[1:]) * jnp.finfo(sizes.dtype).eps
    inside = jnp.einsum("bdk,bk->bd", vectors, jnp.where(spanned, jnp.einsum("bdk,bd->bk", vectors, w), 0))

    def cosine(v: Float[Array, "b dx"]) -> Float[Array, " b"]:
        norms = jnp.linalg.norm(g, axis=1) * jnp.linalg.norm(v, axis=1)
        return jnp.sum(g * v, axis=1) / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)

    return WeightAlignment(cosine(w), cosine(inside))
