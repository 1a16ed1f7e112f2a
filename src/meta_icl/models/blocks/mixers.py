"""Contextual layers: what mixes tokens in a block. Attention, linear attention and recurrence share one interface.

A mixer is called as `mixer(tokens "t d", visible "t", tap) -> "t d"`: the output at every row, for which rows that are
not `visible` do not exist (their own outputs are arbitrary but finite). Any module with this signature, drawn by a
description called as `description(d_model, n_blocks, key=key)`, can join. So can any recurrence with a step form, such
as a fast-weight memory, through `Memory`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require

Tapping = Callable[[str, Array], Array]


@runtime_checkable
class Mixer(Protocol):
    """A contextual layer."""

    def __call__(
        self, tokens: Float[Array, "t d"], visible: Bool[Array, " t"], tap: Tapping
    ) -> Float[Array, "t d"]: ...


class ContextualLayer:
    """A description of a contextual layer that can be named on the command line."""


@dataclass(frozen=True)
class Attention(ContextualLayer):
    """Describes attention of `kind` "softmax" (scale 1/sqrt(d_head)) or "linear" (no softmax, scale 1).

    `n_groups` heads of keys and values are shared by the query heads (default: one each). `rope` is the base of rotary
    positions (Su et al., 2021), `None` for none. `query_is_key=False` keeps the last row out of the keys. Weights are
    normal of variance 1 / fan_in.
    """

    kind: str = "softmax"
    n_heads: int = 1
    d_head: int | None = None
    n_groups: int | None = None
    causal: bool = True
    biases: bool = False
    query_is_key: bool = True
    rope: float | None = None

    def __post_init__(self):
        choose("attention", self.kind, ("softmax", "linear"))
        for field in ("n_heads", "d_head", "n_groups"):
            value = getattr(self, field)
            require(value is None or value >= 1, field, value, "a positive integer or nothing")
        require(self.n_heads % (self.n_groups or 1) == 0, "n_groups", self.n_groups, f"a divisor of {self.n_heads}")

    def __call__(self, d_model: int, n_blocks: int, *, key: Key[Array, ""]) -> "AttentionMixer":
        heads, groups = self.n_heads, self.n_groups or self.n_heads
        require(self.d_head is not None or d_model % heads == 0, "n_heads", heads, f"a divisor of d_model = {d_model}")
        width = self.d_head or d_model // heads
        require(self.rope is None or width % 2 == 0, "d_head", width, "even with rotary positions")
        keys = jax.random.split(key, 4)

        def draw(index: int, *shape: int, fan_in: int) -> Array:
            return draws.normal(keys[index], (n_blocks, *shape)) / math.sqrt(fan_in)

        def bias(*shape: int) -> Array | None:
            return jnp.zeros((n_blocks, *shape)) if self.biases else None

        return AttentionMixer(
            w_q=draw(0, heads, d_model, width, fan_in=d_model),
            w_k=draw(1, groups, d_model, width, fan_in=d_model),
            w_v=draw(2, groups, d_model, width, fan_in=d_model),
            w_o=draw(3, heads, width, d_model, fan_in=heads * width),
            b_q=bias(heads, width),
            b_k=bias(groups, width),
            b_v=bias(groups, width),
            b_o=bias(d_model),
            config=self,
        )


class AttentionMixer(eqx.Module):
    """The weights of an `Attention`; names `q`, `k`, `v`, `scores`, `pattern` and `z` "heads ..." for the trace."""

    w_q: Float[Array, "*stack heads d k"]
    w_k: Float[Array, "*stack groups d k"]
    w_v: Float[Array, "*stack groups d k"]
    w_o: Float[Array, "*stack heads k d"]
    b_q: Float[Array, "*stack heads k"] | None
    b_k: Float[Array, "*stack groups k"] | None
    b_v: Float[Array, "*stack groups k"] | None
    b_o: Float[Array, "*stack d"] | None
    config: Attention = eqx.field(static=True)

    def __call__(self, tokens: Float[Array, "t d"], visible: Bool[Array, " t"], tap: Tapping) -> Float[Array, "t d"]:
        c, t = self.config, tokens.shape[0]
        shared = self.w_q.shape[0] // self.w_k.shape[0]
        q, k = _project(tokens, self.w_q, self.b_q), _project(tokens, self.w_k, self.b_k)
        if c.rope is not None:
            q, k = rotated(q, c.rope), rotated(k, c.rope)
        q = tap("q", q)
        k = tap("k", jnp.repeat(k, shared, axis=0))
        v = tap("v", jnp.repeat(_project(tokens, self.w_v, self.b_v), shared, axis=0))
        is_key = visible if c.query_is_key else visible.at[-1].set(False)
        seen = jnp.broadcast_to(is_key[None, :], (t, t))
        if c.causal:
            seen = jnp.tril(seen)
        scale = 1.0 if c.kind == "linear" else 1 / math.sqrt(self.w_q.shape[-1])
        scores = tap("scores", jnp.einsum("hqk,hsk->hqs", q, k) * scale)
        seen = jnp.broadcast_to(seen[None], scores.shape)
        pattern = jnp.where(seen, scores, 0) if c.kind == "linear" else masked_softmax(scores, seen)
        z = tap("z", jnp.einsum("hqs,hsk->hqk", tap("pattern", pattern), v))
        out = jnp.einsum("hqk,hkd->qd", z, self.w_o)
        return out if self.b_o is None else out + self.b_o[None]


@dataclass(frozen=True)
class Recurrence(ContextualLayer):
    """Describes a forward LSTM of `d_hidden` units with a linear map to the block's width, as contextual layer.

    Weights are uniform in +-1/sqrt(d_hidden).
    """

    d_hidden: int | None = None

    def __post_init__(self):
        require(self.d_hidden is None or self.d_hidden >= 1, "d_hidden", self.d_hidden, "a positive integer or nothing")

    def __call__(self, d_model: int, n_blocks: int, *, key: Key[Array, ""]) -> "LstmMixer":
        width = self.d_hidden or d_model
        keys = jax.random.split(key, 4)

        def draw(index: int, *shape: int) -> Array:
            bound = 1 / math.sqrt(width)
            return draws.uniform(keys[index], (n_blocks, *shape), minval=-bound, maxval=bound)

        return LstmMixer(
            draw(0, d_model, 4 * width), draw(1, width, 4 * width), draw(2, 4 * width), draw(3, width, d_model)
        )


class LstmMixer(eqx.Module):
    """The weights of a `Recurrence`; gates: input, forget, candidate, output. Names `hidden` "t d_hidden"."""

    w_x: Float[Array, "*stack d gates"]
    w_h: Float[Array, "*stack h gates"]
    bias: Float[Array, "*stack gates"]
    w_o: Float[Array, "*stack h d"]

    def __call__(self, tokens: Float[Array, "t d"], visible: Bool[Array, " t"], tap: Tapping) -> Float[Array, "t d"]:
        """c <- sigma(f) c + sigma(i) tanh(g);  h <- sigma(o) tanh(c); a row that is not visible changes nothing."""
        zero = jnp.zeros(self.w_h.shape[0], tokens.dtype)

        def step(state: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            (h, c), (gates, there) = state, row
            i, f, g, o = jnp.split(gates + h @ self.w_h, 4)
            c = jnp.where(there, jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g), c)
            h = jnp.where(there, jax.nn.sigmoid(o) * jnp.tanh(c), h)
            return (h, c), h

        gates = tokens @ self.w_x + self.bias[None]
        return tap("hidden", lax.scan(step, (zero, zero), (gates, visible))[1]) @ self.w_o


@runtime_checkable
class Stepwise(Protocol):
    """A recurrence over tokens in its step form, for one sequence. A state is any pytree of arrays of fixed shapes."""

    def initial_state(self) -> Any: ...

    def step(self, state: Any, x: Float[Array, " d"]) -> tuple[Any, Float[Array, " d"]]: ...


@dataclass(frozen=True)
class Memory(ContextualLayer):
    """Describes a recurrence with a step form as contextual layer; every block draws one of its own.

    `mixer` describes it: `mixer(d_model, key=key)` draws a `Stepwise` module that keeps the width. Raises `BadInput`
    where the drawn module has no step form.
    """

    mixer: Callable[..., Any]

    def __call__(self, d_model: int, n_blocks: int, *, key: Key[Array, ""]) -> "MemoryMixer":
        cells = eqx.filter_vmap(lambda key: self.mixer(d_model, key=key))(jax.random.split(key, n_blocks))
        require(
            isinstance(cells, Stepwise), "mixer", type(cells).__name__, "one with initial_state() and step(state, x)"
        )
        return MemoryMixer(cells)


class MemoryMixer(eqx.Module):
    """The weights of a `Memory`; names what is read of it, `memory_out` "t d", for the trace."""

    cell: Any  # a Stepwise module, with a leading axis on every leaf where blocks are stacked

    def __call__(self, tokens: Float[Array, "t d"], visible: Bool[Array, " t"], tap: Tapping) -> Float[Array, "t d"]:
        """(S, y) <- step(S, x) row by row; a row that is not visible leaves the state untouched."""

        def step(state: Any, row: tuple[Array, Array]) -> tuple[Any, Array]:
            x, there = row
            after, y = self.cell.step(state, x)
            return jax.tree.map(lambda new, old: jnp.where(there, new, old), after, state), y

        return tap("memory_out", lax.scan(step, self.cell.initial_state(), (tokens, visible))[1])


def masked_softmax(scores: Float[Array, "h q s"], seen: Bool[Array, "h q s"]) -> Float[Array, "h q s"]:
    """Softmax over the entries that are seen; zero everywhere for a row that sees nothing."""
    largest = jnp.max(jnp.where(seen, scores, -jnp.inf), axis=-1, keepdims=True)
    shifted = scores - lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))
    weights = jnp.where(seen, jnp.exp(jnp.where(seen, shifted, 0)), 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def rotated(x: Float[Array, "h t k"], base: float) -> Float[Array, "h t k"]:
    """Rotary positions: channels (j, j + k/2) of row p are turned by the angle p base^(-2j/k) (Su et al., 2021)."""
    half = x.shape[-1] // 2
    rates = base ** (-jnp.arange(half, dtype=x.dtype) / half)
    angles = jnp.outer(jnp.arange(x.shape[1], dtype=x.dtype), rates)[None]
    a, b = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _project(
    tokens: Float[Array, "t d"], w: Float[Array, "h d k"], bias: Float[Array, "h k"] | None
) -> Float[Array, "h t k"]:
    projected = jnp.einsum("td,hdk->htk", tokens, w)
    return projected if bias is None else projected + bias[:, None]
