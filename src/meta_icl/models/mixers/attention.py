"""Softmax attention over all tokens or over a sliding window, with a cache, as a mixer."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.mixers.mixer import Mixer


@dataclass(frozen=True)
class Attention:
    """Describes causal softmax attention over the last `window` tokens; a window as long as the sequence is full.

    The window is also the size of the cache. Positions are rotary (Su et al., 2021) unless `rotary` is off.
    """

    n_heads: int = 2
    window: int = 1024
    rotary: bool = True

    def __post_init__(self):
        for field in ("n_heads", "window"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "AttentionLayer":
        require(d_model % (2 * self.n_heads) == 0, "n_heads", self.n_heads, f"a divisor of d_model / 2 = {d_model / 2}")
        return AttentionLayer(self, d_model, key=key)


class Cache(NamedTuple):
    """Keys and values "places heads d" of the last tokens in a ring, the prefix that is always visible, a counter."""

    keys: Float[Array, "w heads d"]
    values: Float[Array, "w heads d"]
    prefix: Float[Array, "p d_model"]
    position: Int[Array, ""]


class AttentionLayer(Mixer):
    """softmax(q.k / sqrt(d_head)) over the visible tokens; see `Attention`.

    A `prefix` of further tokens may be given that every token sees and that has no position.
    """

    w_qkv: Float[Array, "d 3*d"]
    w_out: Float[Array, "d d"]
    config: Attention = eqx.field(static=True)

    def __init__(self, config: Attention, d_model: int, *, key: Key[Array, ""]):
        in_key, out_key = jax.random.split(key)
        self.w_qkv = draws.normal(in_key, (d_model, 3 * d_model)) / math.sqrt(d_model)
        self.w_out = draws.normal(out_key, (d_model, d_model)) / math.sqrt(d_model)
        self.config = config

    def initial_state(self, prefix: Float[Array, "p d"] | None = None) -> Cache:
        d, h = self.w_out.shape[0], self.config.n_heads
        empty = jnp.zeros((self.config.window, h, d // h))
        return Cache(empty, empty, jnp.zeros((0, d)) if prefix is None else prefix, jnp.zeros((), jnp.int32))

    def step(self, state: Cache, x: Float[Array, " d"]) -> tuple[Cache, Float[Array, " d"]]:
        q, k, v = self.heads(x[None])
        place, w = state.position % self.config.window, self.config.window
        keys = state.keys.at[place].set(self.rotated(k, state.position[None])[0])
        values = state.values.at[place].set(v[0])
        age = (place - jnp.arange(w)) % w  # 0 for the newest
        y = self.attend(q, state.position[None], keys, values, (age <= state.position)[None], state.prefix)
        return Cache(keys, values, state.prefix, state.position + 1), y[0]

    def __call__(self, x: Float[Array, "t d"], prefix: Float[Array, "p d"] | None = None) -> Float[Array, "t d"]:
        q, k, v = self.heads(x)
        positions = jnp.arange(x.shape[0])
        distance = positions[:, None] - positions[None]
        visible = (distance >= 0) & (distance < self.config.window)
        prefix = jnp.zeros((0, x.shape[1]), x.dtype) if prefix is None else prefix
        return self.attend(q, positions, self.rotated(k, positions), v, visible, prefix)

    def heads(self, x: Float[Array, "t d"]) -> tuple[Float[Array, "t heads k"], ...]:
        """Queries, keys and values, without positions."""
        h = self.config.n_heads
        qkv = (x @ self.w_qkv).reshape(x.shape[0], 3, h, x.shape[1] // h)
        return qkv[:, 0], qkv[:, 1], qkv[:, 2]

    def rotated(self, x: Float[Array, "t heads k"], positions: Int[Array, " t"]) -> Float[Array, "t heads k"]:
        """Rotary positions; nothing when they are off."""
        return rotary(x, positions) if self.config.rotary else x

    def attend(
        self,
        q: Float[Array, "t heads k"],
        positions: Int[Array, " t"],
        keys: Float[Array, "s heads k"],
        values: Float[Array, "s heads k"],
        visible: Bool[Array, "t s"],
        prefix: Float[Array, "p d"],
    ) -> Float[Array, "t d"]:
        """The output for queries without positions, keys with them, and a prefix that has none."""
        _, prefix_keys, prefix_values = self.heads(prefix)
        scores = jnp.einsum("thk,shk->hts", self.rotated(q, positions), keys)
        scores = jnp.where(visible[None], scores, -jnp.inf)
        scores = jnp.concatenate([jnp.einsum("thk,phk->htp", q, prefix_keys), scores], axis=-1)
        pattern = jax.nn.softmax(scores / math.sqrt(q.shape[-1]), axis=-1)
        z = jnp.einsum("hts,shk->thk", pattern, jnp.concatenate([prefix_values, values]))
        return z.reshape(q.shape[0], -1) @ self.w_out


def rotary(x: Float[Array, "t heads k"], positions: Int[Array, " t"]) -> Float[Array, "t heads k"]:
    """Rotate the pair of channels (j, j + k/2) by position / 10000^(2j/k)."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-jnp.arange(half, dtype=x.dtype) / half)
    angles = (positions[:, None].astype(x.dtype) * rates[None])[:, None]
    first, second = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
