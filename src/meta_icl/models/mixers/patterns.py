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


def seen_rows(
    t: int, visible: Bool[Array, " t"] | None, causal: bool, window: int | None = None
) -> Bool[Array, "t t"] | None:
    """Which rows (second) a row (first) sees; `None` for all."""
    if not causal:
        return None if visible is None else jnp.broadcast_to(visible[None], (t, t))
    distance = jnp.arange(t)[:, None] - jnp.arange(t)[None]
    seen = distance >= 0
    if window is not None and window < t:
        seen = seen & (distance < window)
    return seen if visible is None else seen & visible[None]


def attention_pattern(
    kind: str,
    scores: Float[Array, "*h q s"],
    seen: Bool[Array, "#q s"] | None,
    empty: bool = False,
    mix: Float[Array, ""] | None = None,
) -> Float[Array, "*h q s"]:
    """The weights with which values are summed, by the kind of attention; `mix` is the logit u of "mixed"."""
    if seen is not None:
        seen = jnp.broadcast_to(seen, scores.shape)
    if kind in ("linear", "elu"):
        return linear_pattern(scores, seen, normalise=kind == "elu")
    soft = softmax_pattern(scores, seen, empty)
    if mix is None:
        return soft
    share = jax.nn.sigmoid(10 * mix)
    return share * soft + (1 - share) * linear_pattern(scores, seen, normalise=False)


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


def elu_features(
    q: Float[Array, "h q k"], k: Float[Array, "g s k"]
) -> tuple[Float[Array, "h q k"], Float[Array, "g s k"]]:
    """elu + 1 of queries and keys, up to a factor of a query's own, which the sum that divides its scores takes out.

    A query whose features would all vanish has the largest at exp(-20). Where those of all keys that it sees vanish
    too, below about -66 in every channel that the query has, the sum is zero and the row reads nothing.
    """
    lift = lax.stop_gradient(jnp.minimum(jnp.max(q, axis=-1, keepdims=True) + 20, 0))
    return elu_plus_one(q - lift), elu_plus_one(k)


def smeared(
    k: Float[Array, "g t k"], before: Float[Array, "g t k"], logit: Float[Array, " g"]
) -> Float[Array, "g t k"]:
    """s k_j + (1 - s) k_{j-1} with s = sigmoid(logit)."""
    share = jax.nn.sigmoid(logit)[:, None, None]
    return share * k + (1 - share) * before


def summed(
    state: Sums,
    q: Float[Array, "heads 1 k"],
    k: Float[Array, "groups 1 k"],
    v: Float[Array, "groups 1 k"],
    scale: float,
    *,
    elu: bool,
) -> tuple[Sums, Float[Array, "heads 1 k"]]:
    """One token of linear attention, or of that with elu + 1: the sums with it, and what its query reads of them."""
    if elu:
        q, k = elu_features(q, k)
    products = state.products + jnp.einsum("gsk,gsv->gkv", k, v)
    keys = state.keys + k[:, 0]
    shared = q.shape[0] // keys.shape[0]
    z = jnp.einsum("hqk,hkv->hqv", q, jnp.repeat(products, shared, axis=0)) * scale
    if elu:
        total = (jnp.einsum("hqk,hk->hq", q, jnp.repeat(keys, shared, axis=0)) * scale)[..., None]
        z = z / jnp.where(total > 0, total, 1)
    return Sums(products, keys), z
