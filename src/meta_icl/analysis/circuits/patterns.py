"""Scores of attention patterns "... t t" (row: the reader): which circuit is at work, as pure functions of arrays.

Sequences of labels alternate x_1, l_1, .., x_N, l_N, x_q, so items stand at even places from zero, labels at odd ones,
and the query is last. All scores keep the leading axes (layers, heads, prompts) and lie between 0 and 1 unless said.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Pattern = Float[Array, "*lead t t"]


class CircuitScores(NamedTuple):
    """The three measures of Minegishi et al. (2025), table 2."""

    bigram: Float[Array, "*lead"]
    label: Float[Array, "*lead"]
    chunk: Float[Array, "*lead"]


def circuit_scores(pattern: Pattern) -> CircuitScores:
    """Bigram, label-attention and chunk-example scores of every layer and head."""
    return CircuitScores(bigram(pattern), label_attention(pattern), chunk_example(pattern))


def bigram(pattern: Pattern) -> Float[Array, "*lead"]:
    """What the query gives to itself."""
    return pattern[..., -1, -1]


def label_attention(pattern: Pattern) -> Float[Array, "*lead"]:
    """What the query gives to all labels: also the TLA of Reddy (2023)."""
    return pattern[..., -1, 1::2].sum(-1)


def chunk_example(pattern: Pattern) -> Float[Array, "*lead"]:
    """What a label gives to the item right before it, on average over labels: also the ILA of Reddy (2023)."""
    labels = jnp.arange(1, pattern.shape[-1], 2)
    return pattern[..., labels, labels - 1].mean(-1)


def own_item_share(pattern: Pattern) -> Float[Array, "*lead"]:
    """Of what labels give to items, the share that goes to their own, on average over labels but the first.

    The first label sees no other item. Uniform attention has the mean of 1 / k for k = 2 .. N; NaN for N = 1.
    """
    labels = jnp.arange(3, pattern.shape[-1], 2)
    return (pattern[..., labels, labels - 1] / pattern[..., labels, ::2].sum(-1)).mean(-1)


def uniform_circuit_scores(n_context: int) -> tuple[float, float, float]:
    """The three scores of attention that is uniform over all visible tokens."""
    t = 2 * n_context + 1
    return 1 / t, n_context / t, sum(1 / (2 * k) for k in range(1, n_context + 1)) / n_context


def matching_label_attention(pattern: Pattern, matches: Bool[Array, "*#lead n"]) -> Float[Array, "*lead"]:
    """What the query gives to the labels of the items that match it (`matches`, per context item): TILA of Reddy."""
    return jnp.sum(pattern[..., -1, 1::2] * matches, axis=-1)


def induction_strength(pattern: Pattern, matches: Bool[Array, "*#lead n"]) -> Float[Array, "*lead"]:
    """Attention of the query to the right labels less that to the other labels, from -1 to 1 (Singh et al., 2024)."""
    return 2 * matching_label_attention(pattern, matches) - label_attention(pattern)


def in_context_choice(logits: Float[Array, "*b l"], context: Int[Array, "*b n"]) -> Float[Array, "*b"]:
    """The probability that the prediction is one of the context's labels: CLA of Reddy (2023)."""
    present = jax.nn.one_hot(context, logits.shape[-1]).max(-2) > 0
    return jnp.sum(jax.nn.softmax(logits, axis=-1) * present, axis=-1)


def in_context_loss(
    logits: Float[Array, "*b l"], context: Int[Array, "*b n"], target: Int[Array, "*b"]
) -> Float[Array, "*b"]:
    """Cross-entropy in nats among the context's labels alone; ln 2 is a free choice of two (Singh et al., 2024)."""
    present = jax.nn.one_hot(context, logits.shape[-1]).max(-2) > 0
    inside = jax.nn.log_softmax(jnp.where(present, logits, -jnp.inf), axis=-1)
    return -jnp.take_along_axis(inside, target[..., None], axis=-1)[..., 0]


def previous_token(pattern: Pattern) -> Float[Array, "*lead"]:
    """What a token gives to the one before it, on average over tokens but the first (Olsson et al., 2022)."""
    t = pattern.shape[-1]
    return pattern[..., jnp.arange(1, t), jnp.arange(t - 1)].mean(-1)


def prefix_matching(pattern: Pattern, period: int, start: int = 1) -> Float[Array, "*lead"]:
    """What tokens of a repeated block give to tokens that followed earlier copies of them (Olsson et al., 2022).

    The block of `period` distinct tokens stands from place `start` on, several times. For every token i of the second
    copy on, attention to i - period m + 1 is summed over m >= 1 (the bounded form; the paper's wording averages single
    entries), then averaged over i. A perfect induction head scores 1.
    """
    t = pattern.shape[-1]
    i, j = jnp.arange(t)[:, None], jnp.arange(t)[None]
    followed = (j < i) & ((i - j + 1) % period == 0) & (j > start)
    rows = (jnp.arange(t) >= start + period).astype(pattern.dtype)
    lead = (1,) * (pattern.ndim - 2)
    given = jnp.sum(pattern * followed.reshape(*lead, t, t), axis=-1)
    return jnp.sum(given * rows.reshape(*lead, t), axis=-1) / rows.sum()


def icl_score(losses: Float[Array, "*b t"], late: int, early: int) -> Float[Array, "*b"]:
    """The loss at token `late` less that at token `early`, in nats; more negative is more context learning."""
    return losses[..., late] - losses[..., early]
