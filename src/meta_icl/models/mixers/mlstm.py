"""mLSTM, the memory of xLSTM whose gates do not see its state, so that it runs in parallel (Beck et al., 2024)."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl.models.mixers.heads import HeadDescription, Memory, Tokens
from meta_icl.models.mixers.linear import linear_chunks, linear_step

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
