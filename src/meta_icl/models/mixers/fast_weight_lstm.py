"""An LSTM whose memory is a matrix per head, written by outer products: a large state from few weights.

Kirsch et al. (2022) use it to separate the size of the state from the number of weights.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl.errors import require
from meta_icl.models.initialisation import Init
from meta_icl.models.mixers.mixer import Mixer, MixerDescription
from meta_icl.models.trace import Tap

GATES = 3  # input, candidate, forget: each an outer product


@dataclass(frozen=True)
class FastWeightLstm(MixerDescription):
    """Describes a layer of an outer-product LSTM; called with a width and a key it draws the weights.

    `n_heads` memories C of d_head x d_head numbers, d_model = n_heads d_head. Per head, with vectors a, b of every gate
    that are tanh of affine maps of (x, h), and learned scales s:
    I = s_i a_i b_i^T, G = s_g a_g b_g^T, F = s_f a_f b_f^T + 1;  C <- sigma(F) C + sigma(I) G;
    h <- sigma(o) tanh(C q), with an affine query q and output gate o. Scales are softplus of one number per gate and
    head. Weights are uniform in +-1/sqrt(d_model).
    """

    n_heads: int = 4

    def __post_init__(self):
        require(self.n_heads >= 1, "n_heads", self.n_heads, "a positive integer")

    def __call__(self, d_model: int, *, key: Key[Array, ""], d_in: int | None = None) -> "FastWeightLstmLayer":
        require(d_model % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of d_model = {d_model}")
        vectors, init = (2 * GATES + 2) * d_model, Init("uniform", gain=1 / 3)
        x_key, h_key, bias_key = jax.random.split(key, 3)
        return FastWeightLstmLayer(
            init((d_in or d_model, vectors), d_model, key=x_key),
            init((d_model, vectors), d_model, key=h_key),
            init((vectors,), d_model, key=bias_key),
            jnp.zeros((GATES, self.n_heads)),
        )


class FastWeightState(NamedTuple):
    """Output and memories."""

    h: Float[Array, " d"]
    memory: Float[Array, "heads k k"]


class FastWeightLstmLayer(Mixer):
    """The weights of a `FastWeightLstm`; the site `hidden` is its output "t d".

    The vectors come in the order a_i, b_i, a_g, b_g, a_f, b_f, q, o.
    """

    w_x: Float[Array, "*stack d_in vectors"]
    w_h: Float[Array, "*stack d vectors"]
    bias: Float[Array, "*stack vectors"]
    log_scale: Float[Array, "*stack gates heads"]

    def initial_state(self) -> FastWeightState:
        d, heads = self.w_h.shape[0], self.log_scale.shape[1]
        return FastWeightState(jnp.zeros(d), jnp.zeros((heads, d // heads, d // heads)))

    def step(self, state: FastWeightState, x: Float[Array, " d_in"]) -> tuple[FastWeightState, Float[Array, " d"]]:
        after = self._advance(state, x @ self.w_x + self.bias)
        return after, after.h

    def outputs(self, x: Float[Array, "t d_in"], tap: Tap) -> Float[Array, "t d"]:
        driven = x @ self.w_x + self.bias[None]
        start = jax.tree.map(lambda leaf: leaf.astype(driven.dtype), self.initial_state())

        def body(state: FastWeightState, row: Array) -> tuple[FastWeightState, Array]:
            after = self._advance(state, row)
            return after, after.h

        return tap("hidden", lax.scan(body, start, driven)[1])

    def _advance(self, state: FastWeightState, driven: Float[Array, " vectors"]) -> FastWeightState:
        heads = self.log_scale.shape[1]
        scale = jax.nn.softplus(self.log_scale)[:, :, None, None]
        vectors = (driven + state.h @ self.w_h).reshape(2 * GATES + 2, heads, -1)
        pairs = jnp.tanh(vectors[: 2 * GATES]).reshape(GATES, 2, heads, -1)
        write, candidate, keep = scale * pairs[:, 0, :, :, None] * pairs[:, 1, :, None, :]
        memory = jax.nn.sigmoid(keep + 1) * state.memory + jax.nn.sigmoid(write) * candidate
        read = jnp.einsum("hij,hj->hi", memory, vectors[-2])
        return FastWeightState((jax.nn.sigmoid(vectors[-1]) * jnp.tanh(read)).reshape(-1), memory)
