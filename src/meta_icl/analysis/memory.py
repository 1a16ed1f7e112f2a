"""Probes of layers that learn while they read: whose learning rule is it, what is stored, what surprises.

All are functions of arrays, or of what a mixer's memory was given (`heard`), never of a training.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.models.mixers.heads import HeadMixer, Tokens
from meta_icl.models.mixers.titans import OnlineState, Rule, answer, surprise_loss


def heard(mixer: HeadMixer, x: Float[Array, "t d"]) -> Tokens:
    """The queries, keys, values and raw gates, "heads t ..", that the memories of a mixer get from a sequence."""
    kernel = max(mixer.config.conv - 1, 0)
    return mixer.tokens(jnp.pad(x @ mixer.w_in, ((kernel, 0), (0, 0))), x)


def memory_states(mixer: HeadMixer, tokens: Tokens) -> Any:
    """The states of all memories after each token, "t heads ..", by the step form."""

    def body(states: Any, token: Tokens) -> tuple[Any, Any]:
        states, _ = eqx.filter_vmap(lambda m, s, row: m.step(s, row))(mixer.memory, states, token)
        return states, states

    rows = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tokens)
    return jax.lax.scan(body, mixer.initial_state().memory, rows)[1]


def read_back(state: Float[Array, "v k"], keys: Float[Array, "n k"], values: Float[Array, "n v"]) -> Float[Array, " n"]:
    """What of each stored pair a matrix memory gives back: 1 - |S k - v|^2 / |v|^2, one when it is all there."""
    left = jnp.sum(jnp.square(keys @ state.T - values), axis=1)
    return 1 - left / jnp.sum(values * values, axis=1)


def alignment_with_rule(
    before: Float[Array, "t v k"],
    after: Float[Array, "t v k"],
    keys: Float[Array, "t k"],
    values: Float[Array, "t v"],
    gradient: Callable[[Array, Array, Array], Array],
) -> Float[Array, " t"]:
    """Cosine between each update of a matrix memory and the descent step -gradient(S, k, v) at the memory before it."""
    updates, steps = after - before, -jax.vmap(gradient)(before, keys, values)
    dot = jnp.sum(updates * steps, axis=(1, 2))
    lengths = jnp.sum(updates**2, axis=(1, 2)) * jnp.sum(steps**2, axis=(1, 2))
    return dot * jax.lax.rsqrt(jnp.maximum(lengths, jnp.finfo(lengths.dtype).tiny))


def delta_gradient(state: Float[Array, "v k"], k: Float[Array, " k"], v: Float[Array, " v"]) -> Float[Array, "v k"]:
    """Of 1/2 |S k - v|^2."""
    return (state @ k - v)[:, None] * k[None]


def hebbian_gradient(state: Float[Array, "v k"], k: Float[Array, " k"], v: Float[Array, " v"]) -> Float[Array, "v k"]:
    """Of -<S k, v>."""
    del state
    return -v[:, None] * k[None]


def explained_by_descent(
    answers: Float[Array, "b n"], x: Float[Array, "b n d"], y: Float[Array, "b n"]
) -> Float[Array, " n"]:
    """How much of a predictor's answers, at each position, is c sum_i y_i x_i . x: R^2 of the best scale c.

    One is one gradient step from zero on the context, whatever its rate; the first position has no context.
    """
    steps = jnp.cumsum(jnp.einsum("bn,bnd->bnd", y, x), axis=1)
    steps = jnp.concatenate([jnp.zeros_like(steps[:, :1]), steps[:, :-1]], axis=1)
    guess = jnp.einsum("bnd,bnd->bn", steps, x)
    c = jnp.sum(guess * answers, axis=0) / jnp.maximum(jnp.sum(guess**2, axis=0), 1e-12)
    return 1 - jnp.sum((answers - c[None] * guess) ** 2, axis=0) / jnp.maximum(jnp.sum(answers**2, axis=0), 1e-12)


def ridge_distance(
    answers: Float[Array, "b n"], x: Float[Array, "b n d"], y: Float[Array, "b n"], penalty: float
) -> Float[Array, " n"]:
    """Mean squared difference to ridge regression on the rows before, over the mean square of ridge, by position."""

    def one(x: Array, y: Array) -> Array:
        outer = jnp.cumsum(x[:, :, None] * x[:, None], axis=0) - x[:, :, None] * x[:, None]
        linear = jnp.cumsum(x * y[:, None], axis=0) - x * y[:, None]
        weights = jnp.linalg.solve(outer + penalty * jnp.eye(x.shape[1])[None], linear[..., None])[..., 0]
        return jnp.sum(weights * x, axis=1)

    ridge = jax.vmap(one)(x, y)
    return jnp.sum((answers - ridge) ** 2, axis=0) / jnp.maximum(jnp.sum(ridge**2, axis=0), 1e-12)


def surprise(mixer: HeadMixer, x: Float[Array, "t d"]) -> Float[Array, "heads t"]:
    """The loss |M(k) - v|^2 of every token at the memory before it: how much a Titans layer is surprised."""
    tokens = heard(mixer, x)
    states: OnlineState = memory_states(mixer, tokens)
    first = mixer.initial_state().memory.now.weights
    before = tuple(jnp.concatenate([w[None], all_w[:-1]]) for w, all_w in zip(first, states.now.weights, strict=True))
    over_heads = jax.vmap(lambda w, k, v: surprise_loss(w, k, v, Rule()))
    return jax.vmap(over_heads, (0, 1, 1))(before, tokens.k, tokens.v).T


def recalled(state: OnlineState, keys: Float[Array, "heads n k"]) -> Float[Array, "heads n v"]:
    """What the Titans memories of all heads answer at some keys."""
    return jax.vmap(answer)(state.now.weights, keys)
