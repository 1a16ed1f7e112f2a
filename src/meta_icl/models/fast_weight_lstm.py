"""An LSTM whose memory is a matrix per head, written by outer products: a large state from few weights.

Kirsch et al. (2022) use it to separate the size of the state from the number of weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.trace import Intervention, Tap, Trace, check_sites

SITES = ("hidden",)
GATES = 3  # input, candidate, forget: each an outer product


@dataclass(frozen=True)
class FastWeightLstm:
    """Describes an outer-product LSTM with a linear read-out; called with a key it draws the weights.

    One layer of `n_heads` memories C of d_head x d_head numbers, d_hidden = n_heads d_head. Per head, with vectors a, b
    of every gate that are tanh of affine maps of (x, h), and learned scales s:
    I = s_i a_i b_i^T, G = s_g a_g b_g^T, F = s_f a_f b_f^T + 1;  C <- sigma(F) C + sigma(I) G;
    h <- sigma(o) tanh(C q), with an affine query q and output gate o. Scales are softplus of one number per gate and
    head. Weights are uniform in +-1/sqrt(d_hidden).
    """

    d_in: int
    n_heads: int = 4
    d_head: int = 16
    d_out: int = 1

    def __post_init__(self):
        for field in ("d_in", "n_heads", "d_head", "d_out"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    @property
    def d_hidden(self) -> int:
        """Width of the hidden state."""
        return self.n_heads * self.d_head

    def state_size(self, n_tokens: int) -> int:
        """Numbers carried from token to token: the memories and the hidden state, however many tokens there are."""
        del n_tokens
        return self.n_heads * self.d_head**2 + self.d_hidden

    def __call__(self, *, key: Key[Array, ""]) -> "FastWeightLstmNetwork":
        return FastWeightLstmNetwork(self, key=key)


class FastWeightLstmNetwork(eqx.Module):
    """The weights of a `FastWeightLstm`: a map from tokens "t d_in" to outputs "t d_out" with its trace.

    The vectors come in the order a_i, b_i, a_g, b_g, a_f, b_f, q, o. The only site is `hidden`, "1 t d_hidden".
    """

    w_x: Float[Array, "d_in vectors"]
    w_h: Float[Array, "d_hidden vectors"]
    bias: Float[Array, " vectors"]
    log_scale: Float[Array, "gates heads"]
    w_out: Float[Array, "d_hidden d_out"]
    b_out: Float[Array, " d_out"]
    config: FastWeightLstm = eqx.field(static=True)

    def __init__(self, config: FastWeightLstm, *, key: Key[Array, ""]):
        c, bound = config, config.d_hidden**-0.5
        vectors = (2 * GATES + 2) * c.d_hidden

        def uniform(index: int, *shape: int) -> Array:
            return draws.uniform(jax.random.fold_in(key, index), shape, minval=-bound, maxval=bound)

        self.w_x = uniform(0, c.d_in, vectors)
        self.w_h = uniform(1, c.d_hidden, vectors)
        self.bias = uniform(2, vectors)
        self.log_scale = jnp.zeros((GATES, c.n_heads))
        self.w_out = uniform(3, c.d_hidden, c.d_out)
        self.b_out = uniform(4, c.d_out)
        self.config = config

    def __call__(
        self, tokens: Float[Array, "t d_in"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        check_sites(interventions, SITES)
        c = self.config
        scale = jax.nn.softplus(self.log_scale)[:, :, None, None]

        def step(carry: tuple[Array, Array], from_x: Array) -> tuple[tuple[Array, Array], Array]:
            h, memory = carry
            vectors = (from_x + h @ self.w_h).reshape(2 * GATES + 2, c.n_heads, c.d_head)
            pairs = jnp.tanh(vectors[: 2 * GATES]).reshape(GATES, 2, c.n_heads, c.d_head)
            write, candidate, keep = scale * pairs[:, 0, :, :, None] * pairs[:, 1, :, None, :]
            memory = jax.nn.sigmoid(keep + 1) * memory + jax.nn.sigmoid(write) * candidate
            read = jnp.einsum("hij,hj->hi", memory, vectors[-2])
            h = (jax.nn.sigmoid(vectors[-1]) * jnp.tanh(read)).reshape(-1)
            return (h, memory), h

        start = (jnp.zeros(c.d_hidden, tokens.dtype), jnp.zeros((c.n_heads, c.d_head, c.d_head), tokens.dtype))
        hidden = lax.scan(step, start, tokens @ self.w_x + self.bias[None])[1]
        tap = Tap(interventions, 0)
        hidden = tap("hidden", hidden)
        return hidden @ self.w_out + self.b_out[None], Trace({"hidden": hidden[None]})
