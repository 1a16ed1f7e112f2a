"""The pieces of attention: how scores become weights of a sum, and what is carried from token to token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Cache(NamedTuple):
    """Keys and values of the last tokens in a ring, the prefix that is always visible, and the tokens so far."""

    keys: Float[Array, "groups w k"]
    values: Float[Array, "groups w k"]
    before: Float[Array, "groups k"] | None  # the last key before it was smeared, where keys are
    prefix: Float[Array, "p d_model"]
    position: Int[Array, ""]


class Front(NamedTuple):
    """Queries without a place, and the keys and values of a prefix that every row sees."""

    q: Float[Array, "heads q k"]
    k: Float[Array, "groups p k"]
    v: Float[Array, "groups p k"]


class Sums(NamedTuple):
    """What linear attention carries: sum phi(k) v^T and sum phi(k)."""

    products: Float[Array, "groups k v"]
    keys: Float[Array, "groups k"]


def softmax_pattern(
    scores: Float[Array, "*h q s"], seen: Bool[Array, "*h q s"] | None, empty: bool = False
) -> Float[Array, "*h q s"]:
    """Softmax over what is seen; where rows may see nothing (`empty`), zero everywhere in those that do not."""
    if not empty:
        return jax.nn.softmax(scores if seen is None else jnp.where(seen, scores, -jnp.inf), axis=-1)
    there = scores > -jnp.inf if seen is None else seen & (scores > -jnp.inf)
    largest = jnp.max(jnp.where(there, scores, -jnp.inf), axis=-1, keepdims=True)
    shifted = jnp.where(there, scores, 0) - lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))
    weights = jnp.where(there, jnp.exp(jnp.where(there, shifted, 0)), 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def linear_pattern(
    scores: Float[Array, "*h q s"], seen: Bool[Array, "*h q s"] | None, *, normalise: bool
) -> Float[Array, "*h q s"]:
    """The scores of what is seen, divided by their sum if asked; a score of minus infinity counts as unseen."""
    pattern = jnp.where(scores > -jnp.inf if seen is None else seen & (scores > -jnp.inf), scores, 0)
    if not normalise:
        return pattern
    total = jnp.sum(pattern, axis=-1, keepdims=True)
    return pattern / jnp.where(total > 0, total, 1)


def elu_plus_one(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """elu + 1, positive: exp(x) below zero, so that nothing cancels, and x + 1 above."""
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))  # of a minimum, half a slope would come at zero


def smeared(
    k: Float[Array, "g t k"], before: Float[Array, "g t k"], logit: Float[Array, " g"]
) -> Float[Array, "g t k"]:
    """s k_j + (1 - s) k_{j-1} with s = sigmoid(logit)."""
    share = jax.nn.sigmoid(logit)[:, None, None]
    return share * k + (1 - share) * before
