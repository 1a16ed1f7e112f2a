"""Memories written by outer products and forgotten by decay: linear attention, RetNet, gated linear attention, Mamba-2.

State S, "d_value d_key": S_t = S_{t-1} diag(g_t) + v_t k_t^T, read S_t q_t. The decay g_t is one (linear attention), a
constant (RetNet), a number per token (Mamba-2, by discretisation of a decay rate) or a number per key channel (GLA).
As an online learner each write is a gradient step of rate 1 on -<S k, v>, after the decay.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose
from meta_icl.models.mixers.affine_scan import in_chunks, segment_products
from meta_icl.models.mixers.heads import HeadDescription, Memory, Tokens

DECAYS = ("none", "constant", "scalar", "channel")


def linear_step(
    state: Float[Array, "v k"],
    q: Float[Array, " k"],
    k: Float[Array, " k"],
    v: Float[Array, " v"],
    log_g: Float[Array, " c"],
) -> tuple[Float[Array, "v k"], Float[Array, " v"]]:
    """S <- S diag(g) + v k^T, read S q; `log_g` has one entry for all key channels, or one for each."""
    state = state * jnp.exp(log_g)[None] + v[:, None] * k[None]
    return state, state @ q


def linear_chunks(
    state: Float[Array, "v k"],
    q: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    log_g: Float[Array, "t c"],
    size: int,
) -> tuple[Float[Array, "v k"], Float[Array, "t v"]]:
    """`linear_step` over a sequence by matrix products: quadratic inside a chunk, by the state between chunks."""

    def prepare(chunk: Sequence[Array]) -> tuple[Array, ...]:
        q, k, v, log_g = chunk
        decay = segment_products(log_g)
        since_start = jnp.exp(jnp.cumsum(log_g, axis=0))
        within = decayed_products(q, k, decay) @ v
        return since_start * q, within, v.T @ (decay[-1] * k), since_start[-1]

    def body(state: Array, prepared: Sequence[Array]) -> tuple[Array, Array]:
        q, within, written, kept = prepared
        return state * kept[None] + written, q @ state.T + within

    return in_chunks(body, state, (q, k, v, log_g), size, prepare)


def decayed_products(
    q: Float[Array, "t k"], k: Float[Array, "i k"], decay: Float[Array, "t i c"]
) -> Float[Array, "t i"]:
    """sum_c q_tc k_ic decay_tic; a single decay channel serves all."""
    if decay.shape[-1] == 1:
        return (q @ k.T) * decay[..., 0]
    return jnp.einsum("tc,ic,tic->ti", q, k, decay)


class Decay(eqx.Module):
    """The forgetting of one head: log g from raw numbers of a token."""

    def __call__(self, raw: Float[Array, " g"]) -> Float[Array, " c"]:
        raise TypeError(f"{type(self).__name__} is not a decay")


class ConstantDecay(Decay):
    """The same g for every token, not trained: 1 for linear attention, 1 - 2^(-5 - head) for RetNet."""

    log_g: Float[Array, " 1"]

    def untrained_leaves(self) -> list[Any]:
        """What no optimiser moves, not by weight decay either."""
        return [self.log_g]

    def __call__(self, raw: Float[Array, " g"]) -> Float[Array, " 1"]:
        del raw
        return jax.lax.stop_gradient(self.log_g)


class SigmoidDecay(Decay):
    """g = sigmoid(raw + bias)^(1/16), one per token or one per key channel (Yang et al., 2024)."""

    bias: Float[Array, " c"]

    def __call__(self, raw: Float[Array, " c"]) -> Float[Array, " c"]:
        return jax.nn.log_sigmoid(raw + self.bias) / 16


class RateDecay(Decay):
    """g = exp(-exp(log_rate) dt) with dt = softplus(raw + dt_bias), the discretisation of Mamba-2 and Gated DeltaNet.

    Drawn with rates uniform in [1, 16] and dt log-uniform in [0.001, 0.1].
    """

    log_rate: Float[Array, " 1"]
    dt_bias: Float[Array, " 1"]

    def __init__(self, *, key: Key[Array, ""]):
        rate_key, dt_key = jax.random.split(key)
        self.log_rate = jnp.log(draws.uniform(rate_key, (1,), minval=1.0, maxval=16.0))
        dt = jnp.exp(draws.uniform(dt_key, (1,), minval=math.log(1e-3), maxval=math.log(0.1)))
        self.dt_bias = dt + jnp.log(-jnp.expm1(-dt))  # the inverse of softplus

    def dt(self, raw: Float[Array, " 1"]) -> Float[Array, " 1"]:
        """The time step of one token."""
        return jax.nn.softplus(raw + self.dt_bias)

    def __call__(self, raw: Float[Array, " 1"]) -> Float[Array, " 1"]:
        return -jnp.exp(self.log_rate) * self.dt(raw)


class LinearMemory(Memory):
    """S <- S diag(g) + v k^T. With `skip` values are scaled by dt and D v is added to the read, as in Mamba-2."""

    decay: Decay
    skip: Float[Array, ""] | None
    d_key: int = eqx.field(static=True)
    d_value: int = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def start(self) -> Float[Array, "v k"]:
        return jnp.zeros((self.d_value, self.d_key))

    def step(self, state: Float[Array, "v k"], token: Tokens) -> tuple[Float[Array, "v k"], Float[Array, " v"]]:
        state, read = linear_step(state, token.q, token.k, self.written(token), self.decay(token.raw))
        return state, self.with_skip(read, token.v)

    def scan(self, state: Float[Array, "v k"], tokens: Tokens) -> tuple[Float[Array, "v k"], Float[Array, "t v"]]:
        log_g, v = jax.vmap(self.decay)(tokens.raw), jax.vmap(self.written)(tokens)
        state, read = linear_chunks(state, tokens.q, tokens.k, v, log_g, self.chunk_size)
        return state, self.with_skip(read, tokens.v)

    def written(self, token: Tokens) -> Float[Array, " v"]:
        """The value as it is written."""
        return token.v * self.decay.dt(token.raw) if isinstance(self.decay, RateDecay) else token.v

    def with_skip(self, read: Float[Array, "*t v"], v: Float[Array, "*t v"]) -> Float[Array, "*t v"]:
        """The read with its skip connection."""
        return read if self.skip is None else read + self.skip * v


@dataclass(frozen=True)
class LinearAttention(HeadDescription):
    """Linear attention (Katharopoulos et al., 2020), and with a `decay` RetNet ("constant") or GLA ("channel").

    A "scalar" decay is one number per token and head.
    """

    unit_keys: ClassVar[bool] = False
    conv: int = 0
    feature: str = "identity"
    decay: str = "none"

    def __post_init__(self):
        super().__post_init__()
        choose("decay", self.decay, DECAYS)

    def n_gates(self, d_key: int) -> int:
        return {"none": 0, "constant": 0, "scalar": 1, "channel": d_key}[self.decay]

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> LinearMemory:
        del key
        n, constant = self.n_gates(d_key), -(2.0 ** (-5 - head)) if self.decay == "constant" else 0.0
        decay = SigmoidDecay(jnp.zeros(n)) if n else ConstantDecay(jnp.full(1, math.log1p(constant)))
        return LinearMemory(decay, None, d_key, d_value, self.chunk_size)


@dataclass(frozen=True)
class Mamba2(HeadDescription):
    """Mamba-2 (Dao & Gu, 2024): scalar decay, values scaled by their time step, keys and queries shared by all heads.

    The published block has an inner width of twice the model's (`d_value` = 2 d_model / n_heads), gates its output and
    has no MLP beside it.
    """

    unit_keys: ClassVar[bool] = False
    shared_keys: ClassVar[bool] = True
    output_gate: bool = True

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 1

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> LinearMemory:
        del head
        return LinearMemory(RateDecay(key=key), jnp.ones(()), d_key, d_value, self.chunk_size)
