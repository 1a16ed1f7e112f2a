"""Weights that implement a learning algorithm exactly, for comparison with trained ones (von Oswald et al., 2022).

In the row convention only the products A = W_Q W_K^T and B = W_V W_O of a head matter:
h_j <- h_j + sum_i (h_j A c_i^T) c_i B. A scale may move between A and B without any change ("gauge").
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.errors import require
from meta_icl.models import (
    Architecture,
    Attention,
    AttentionLayer,
    Concatenated,
    InContextLearner,
    Network,
    Separate,
    von_oswald,
)


def from_products(config: Architecture, qk: Float[Array, "l heads d d"], ov: Float[Array, "l heads d d"]) -> Network:
    """An attention-only network whose layers have the given products, scale included (W_K = W_O = I).

    The counterpart of `network.qk()` and `network.ov()`: one entry per layer with weights of its own, in their order.
    Raises `BadInput` unless every layer is nothing but attention, with heads as wide as the stream and their own keys.
    """
    for block in config.blocks:
        _require_plain(block.mixer, config.d_model)
        require(block.feed_forward is None, "feed_forward", block.feed_forward, "nothing: products are of attention")
    network = config(key=jax.random.key(0))
    period, n_distinct = len(network.blocks), sum(block.mixer.w_q.shape[0] for block in network.blocks)
    expected = (n_distinct, config.blocks[0].mixer.n_heads, config.d_model, config.d_model)
    require(qk.shape == expected and ov.shape == expected, "products", (qk.shape, ov.shape), f"of shape {expected}")
    identity = jnp.eye(config.d_model, dtype=qk.dtype)

    def made(place: int, mixer: AttentionLayer) -> AttentionLayer:
        read, write = qk[place::period] / mixer.scale, ov[place::period]
        ones = jnp.broadcast_to(identity, read.shape)
        return eqx.tree_at(lambda m: (m.w_q, m.w_k, m.w_v, m.w_o), mixer, (read, ones, write, ones))

    mixers = tuple(made(place, block.mixer) for place, block in enumerate(network.blocks))
    return eqx.tree_at(lambda n: tuple(block.mixer for block in n.blocks), network, mixers)


def _require_plain(mixer: Any, d: int) -> None:
    """Raise `BadInput` for a mixer that two products per head do not describe."""
    require(isinstance(mixer, Attention), "mixer", type(mixer).__name__, "attention")
    require(mixer.width(d) == d, "d_head", mixer.width(d), f"the width of the residual stream, {d}")
    require(mixer.project, "project", False, "True, to write a product")
    require(mixer.n_groups in (None, mixer.n_heads), "n_groups", mixer.n_groups, "one set of keys per head")


def gradient_descent_construction(
    rate: Float[Array | np.ndarray, "*k"] | float,
    *,
    d: int,
    n_context: int,
    n_steps: int = 1,
    n_out: int = 1,
    w0: Float[Array, "o d"] | None = None,
) -> InContextLearner:
    """A linear transformer whose K layers are K steps of gradient descent from W0 (Proposition 1).

    One step is W <- W - rate / N sum_i (W x_i - y_i) x_i^T; `rate` is shared (looped layers) or one per step, "k".
    A = diag(I_d, 0) and, with the query's y slot starting at -W0 x_q, B = (rate / N) [[0, W0^T], [0, -I]].
    """
    rates = jnp.asarray(rate, float)
    step, w0 = _gradient_step(w0, d, n_out, rates.dtype)
    return _regression_learner(rates, step[None] * _per_layer(rates) / n_context, d, n_out, n_steps, w0)


def gradient_descent_plus_plus_construction(
    rate: Float[Array | np.ndarray, "*k"] | float,
    gamma: Float[Array | np.ndarray, "*k"] | float,
    *,
    d: int,
    n_context: int,
    n_steps: int = 1,
    n_out: int = 1,
    w0: Float[Array, "o d"] | None = None,
) -> InContextLearner:
    """K layers of GD++ from W0: a gradient step and, at once, x_j <- (I - gamma S) x_j with S = sum_i x_i x_i^T.

    A = diag(I_d, 0), B = [[-gamma I_d, (rate / N) W0^T], [0, -(rate / N) I_o]], the query's y slot starting at
    -W0 x_q; both parameters shared or one per step.
    """
    rates, gammas = jnp.asarray(rate, float), jnp.asarray(gamma, float)
    require(rates.shape == gammas.shape, "gamma", gammas.shape, f"of the shape of rate, {rates.shape}")
    block_x = jnp.diag(jnp.repeat(jnp.array([1.0, 0.0], rates.dtype), jnp.array([d, n_out])))
    step, w0 = _gradient_step(w0, d, n_out, rates.dtype)
    write = step[None] * _per_layer(rates) / n_context - block_x[None] * _per_layer(gammas)
    return _regression_learner(rates, write, d, n_out, n_steps, w0)


def copy_then_descend_construction(
    rate: float, *, d: int, n_context: int, n_out: int = 1, d_position: int = 20, sharpness: float = 100.0
) -> InContextLearner:
    """Two layers for separate x and y tokens: copy y_i next to x_i, then one gradient step (Proposition 3).

    Layer 1 (softmax) scores by positional codes only, p_t rotated one position ahead times `sharpness`, so that every
    token attends to the next one and adds its y channels to its own. The query has no successor: it attends to itself,
    being the nearest key, and copies its empty y slot. Layer 2 (linear) is the gradient step; y tokens hold x = 0 and
    so take no part.
    """
    width = d + n_out
    d_model = width + d_position
    frequencies = 10000.0 ** (-2 * jnp.arange(d_position // 2) / d_position)
    half = d_position // 2
    rotate = jnp.zeros((d_position, d_position))  # p_t rotate = p_(t+1) in the row convention
    sines, cosines = jnp.arange(half), jnp.arange(half) + half
    rotate = rotate.at[sines, sines].set(jnp.cos(frequencies)).at[cosines, cosines].set(jnp.cos(frequencies))
    rotate = rotate.at[cosines, sines].set(jnp.sin(frequencies)).at[sines, cosines].set(-jnp.sin(frequencies))
    zeros = jnp.zeros((d_model, d_model))
    look_ahead = zeros.at[width:, width:].set(sharpness * rotate)
    copy_y = zeros.at[d:width, d:width].set(jnp.eye(n_out))
    read_x = zeros.at[:d, :d].set(jnp.eye(d))
    descend = zeros.at[d:width, d:width].set(-rate / n_context * jnp.eye(n_out))
    config = von_oswald(
        d_model, n_layers=2, attention=("softmax", "linear"), query_is_key=True, score_scale=1.0, d_head=d_model
    )
    qk, ov = jnp.stack([look_ahead, read_x])[:, None], jnp.stack([copy_y, descend])[:, None]
    return InContextLearner(Separate(d_position=d_position, own_slot=True), from_products(config, qk, ov))


def interpolated(trained: InContextLearner, construction: InContextLearner, share: float = 0.5) -> InContextLearner:
    """The mean of two sets of weights, taken of the products after fixing the gauge (share 0: the trained ones).

    Each A is divided, and its B multiplied, by the mean of A's diagonal over the x channels (von Oswald et al., 2022).
    """
    config = trained.network.config
    other = construction.network
    qk_a, ov_a = gauge_fixed(trained.network)
    qk_b, ov_b = gauge_fixed(other)
    require(qk_a.shape == qk_b.shape, "construction", qk_b.shape, f"of the trained network's shape {qk_a.shape}")
    network = from_products(config, (1 - share) * qk_a + share * qk_b, (1 - share) * ov_a + share * ov_b)
    return InContextLearner(trained.layout, network)


def gauge_fixed(
    network: Network, n_targets: int = 1
) -> tuple[Float[Array, "l heads d d"], Float[Array, "l heads d d"]]:
    """The products (A / m, B m) with m the mean of A's diagonal over all but the last `n_targets` channels."""
    qk, ov = network.qk(), network.ov()
    scale = jnp.diagonal(qk, axis1=-2, axis2=-1)[..., :-n_targets].mean(-1)[..., None, None]
    return qk / scale, ov * scale


def _gradient_step(
    w0: Float[Array, "o d"] | None, d: int, n_out: int, dtype: jnp.dtype
) -> tuple[Float[Array, "d_model d_model"], Float[Array, "o d"]]:
    """[[0, W0^T], [0, -I_o]], which writes W0 x_i - y_i into the y slots, and the W0 in use."""
    w0 = jnp.zeros((n_out, d), dtype) if w0 is None else jnp.asarray(w0)
    require(w0.shape == (n_out, d), "w0", w0.shape, f"of shape {(n_out, d)}")
    return jnp.zeros((d + n_out, d + n_out), dtype).at[:d, d:].set(w0.T).at[d:, d:].set(-jnp.eye(n_out)), w0


def _per_layer(values: Float[Array, "*k"]) -> Float[Array, "l 1 1"]:
    return values.reshape(-1, 1, 1)


def _regression_learner(
    rates: Array, write: Float[Array, "l d d"], d: int, n_out: int, n_steps: int, w0: Array
) -> InContextLearner:
    """The learner whose layers read x and write by `write`; one layer is looped, several are separate."""
    looped = rates.ndim == 0
    require(looped or rates.shape == (n_steps,), "rate", rates.shape, f"a number, or {n_steps} of them")
    config = von_oswald(d + n_out, n_layers=n_steps, looped=looped, d_head=d + n_out)
    read = jnp.zeros((d + n_out, d + n_out), write.dtype).at[:d, :d].set(jnp.eye(d))
    network = from_products(config, jnp.broadcast_to(read, write.shape)[:, None], write[:, None])
    return InContextLearner(Concatenated(w0=w0), network)
