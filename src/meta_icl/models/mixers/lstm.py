"""LSTM, whose gates see its own state, and mLSTM, whose do not and which therefore runs in parallel."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.models.mixers.heads import HeadDescription, Memory, Tokens
from meta_icl.models.mixers.linear import linear_chunks, linear_step
from meta_icl.models.mixers.mixer import Mixer

CAP = 15.0  # of the logarithm of mLSTM's input gate, as in xLSTM-7B: the exponential stays finite without a stabiliser


class MlstmMemory(Memory):
    """S <- f S + i v k^T, z <- f z + i k, read S q / max(1, |z.q|) (Beck et al., 2024).

    f = sigmoid(raw + bias), i = exp(raw), the raw one softly capped. z is kept as a last row of S.
    """

    bias: Float[Array, " 2"]  # of the forget and of the input gate
    d_key: int = eqx.field(static=True)
    d_value: int = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def start(self) -> Float[Array, "v_and_one k"]:
        return jnp.zeros((self.d_value + 1, self.d_key))

    def step(self, state: Float[Array, "v1 k"], token: Tokens) -> tuple[Float[Array, "v1 k"], Float[Array, " v"]]:
        log_f, written = self.gates(token)
        state, read = linear_step(state, token.q, token.k, written, log_f)
        return state, read[:-1] / jnp.maximum(1.0, jnp.abs(read[-1]))

    def scan(self, state: Float[Array, "v1 k"], tokens: Tokens) -> tuple[Float[Array, "v1 k"], Float[Array, "t v"]]:
        log_f, written = jax.vmap(self.gates)(tokens)
        state, read = linear_chunks(state, tokens.q, tokens.k, written, log_f, self.chunk_size)
        return state, read[:, :-1] / jnp.maximum(1.0, jnp.abs(read[:, -1:]))

    def answer(self, weights: Float[Array, "v1 k"], q: Float[Array, "*t k"]) -> Float[Array, "*t v"]:
        read = q @ weights.T
        return read[..., :-1] / jnp.maximum(1.0, jnp.abs(read[..., -1:]))

    def gates(self, token: Tokens) -> tuple[Float[Array, " 1"], Float[Array, " v1"]]:
        """The logarithm of the forget gate, and the value with a one behind it times the input gate."""
        raw = token.raw + self.bias
        i = jnp.exp(CAP * jnp.tanh(raw[1] / CAP))
        return jax.nn.log_sigmoid(raw[:1]), i * jnp.concatenate([token.v, jnp.ones_like(token.v[:1])])


@dataclass(frozen=True)
class Mlstm(HeadDescription):
    """mLSTM of xLSTM (Beck et al., 2024)."""

    unit_keys: ClassVar[bool] = False
    output_gate: bool = True

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 2

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> MlstmMemory:
        del key, head
        return MlstmMemory(jnp.array([3.0, 0.0]), d_key, d_value, self.chunk_size)


@dataclass(frozen=True)
class LstmMixer:
    """A layer of a plain LSTM as a mixer (Hochreiter & Schmidhuber, 1997), with as many units as channels."""

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "LstmLayer":
        return LstmLayer(d_model, key=key)


class LstmState(NamedTuple):
    """Output and cell."""

    h: Float[Array, " d"]
    c: Float[Array, " d"]


class LstmLayer(Mixer):
    """i, f, o = sigmoid(W x + U h + b), c <- f c + i tanh(g), h = o tanh(c); gates in the order i, f, g, o."""

    w_x: Float[Array, "d gates"]
    w_h: Float[Array, "d gates"]
    bias: Float[Array, " gates"]

    def __init__(self, d_model: int, *, key: Key[Array, ""]):
        x_key, h_key = jax.random.split(key)
        scale = 1 / math.sqrt(d_model)
        self.w_x = scale * draws.normal(x_key, (d_model, 4 * d_model))
        self.w_h = scale * draws.normal(h_key, (d_model, 4 * d_model))
        self.bias = jnp.zeros(4 * d_model).at[d_model : 2 * d_model].set(1.0)  # remember at first

    def initial_state(self) -> LstmState:
        zero = jnp.zeros(self.w_x.shape[0])
        return LstmState(zero, zero)

    def step(self, state: LstmState, x: Float[Array, " d"]) -> tuple[LstmState, Float[Array, " d"]]:
        return self._advance(state, x @ self.w_x + self.bias)

    def __call__(self, x: Float[Array, "t d"]) -> Float[Array, "t d"]:
        driven = x @ self.w_x + self.bias[None]

        def body(state: LstmState, row: Array) -> tuple[LstmState, Array]:
            return self._advance(state, row)

        return jax.lax.scan(body, self.initial_state(), driven)[1]

    def _advance(self, state: LstmState, driven: Float[Array, " gates"]) -> tuple[LstmState, Float[Array, " d"]]:
        i, f, g, o = jnp.split(driven + state.h @ self.w_h, 4)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return LstmState(h, c), h
