"""What the full and the lean form of a transformer share: scores, patterns, and which channels a layer may write."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

if TYPE_CHECKING:
    from meta_icl.models.transformer import Transformer


def score_scale(c: "Transformer", kind: str) -> float:
    """The factor on Q K^T: `score_scale` if given, else 1 for linear attention and 1/sqrt(d_head) otherwise."""
    if c.score_scale is not None:
        return c.score_scale
    return 1.0 if kind == "linear" else 1 / math.sqrt(c.head_width)


def attention_pattern(
    c: "Transformer", kind: str, scores: Float[Array, "*h q s"], mix: Float[Array, ""] | None
) -> Float[Array, "*h q s"]:
    """The weights with which values are summed; a causal linear pattern is masked with zeros."""
    if c.causal:
        visible = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        linear = jnp.where(visible, scores, 0)
        masked = jnp.where(visible, scores, -jnp.inf)
    else:
        linear = masked = scores
    if kind == "linear":
        return linear
    soft = jax.nn.softmax(masked, axis=-1)
    if kind == "softmax":
        return soft
    assert mix is not None
    share = jax.nn.sigmoid(10 * mix)
    return share * soft + (1 - share) * linear


def writable(c: "Transformer", dtype: Any) -> Float[Array, "1 d"] | float:
    """1 for the channels that a layer may write, 0 for the others."""
    return 1.0 if c.update == "all" else jnp.zeros((1, c.d_model), dtype).at[:, -1].set(1)
