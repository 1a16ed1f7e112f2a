"""RWKV-7's time mixing (Peng et al., 2025): a delta rule with a decay and a rate for every key channel."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.mixers.delta import generalised_delta_chunks, generalised_delta_step
from meta_icl.models.mixers.heads import unit
from meta_icl.models.mixers.mixer import Mixer, MixerDescription
from meta_icl.models.trace import Tap

MAX_DECAY = math.exp(-0.5)  # w = exp(-exp(-1/2) sigmoid(.)) lies in (0.545, 1)


@dataclass(frozen=True)
class Rwkv7(MixerDescription):
    """Describes RWKV-7's layer: heads, and the rank of the maps that make decays, rates and the output gate.

    The published layer also mixes the values of the first layer into those of later ones, which a layer by itself
    cannot.
    """

    n_heads: int = 2
    rank: int = 16
    chunk_size: int = 16

    def __post_init__(self):
        for field in ("n_heads", "rank", "chunk_size"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "Rwkv7Layer":
        require(d_model % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of d_model = {d_model}")
        return Rwkv7Layer(self, d_model, key=key)


class RwkvState(NamedTuple):
    """The last token, which the next one is mixed with, and the memory of every head."""

    last: Float[Array, " d"]
    memory: Float[Array, "heads v k"]


class LowRank(eqx.Module):
    """bias + f(x A) B."""

    down: Float[Array, "d rank"]
    up: Float[Array, "rank d"]
    bias: Float[Array, " d"]

    def __init__(self, d: int, rank: int, bias: Array, *, key: Key[Array, ""]):
        self.down = draws.normal(key, (d, rank)) / math.sqrt(d)
        self.up, self.bias = jnp.zeros((rank, d)), bias


class Rwkv7Layer(Mixer):
    """S <- S (diag(w) - kappa (a kappa)^T) + v kt^T with kappa = unit(k key_scale), kt = k (1 + (a - 1) rate_mix).

    Read S r plus a bonus (r . bonus . kt) v, group norm, gate, output map. Six learned mixes of each token with the one
    before it feed r, w, k, v, a and the gate.
    """

    mixes: Float[Array, "6 d"]
    w_r: Float[Array, "d d"]
    w_k: Float[Array, "d d"]
    w_v: Float[Array, "d d"]
    decay: LowRank
    rate: LowRank
    gate: LowRank
    key_scale: Float[Array, " d"]
    rate_mix: Float[Array, " d"]
    bonus: Float[Array, " d"]
    norm: Float[Array, "2 d"]
    w_out: Float[Array, "d d"]
    config: Rwkv7 = eqx.field(static=True)

    def __init__(self, config: Rwkv7, d_model: int, *, key: Key[Array, ""]):
        d, keys = d_model, iter(jax.random.split(key, 8))
        self.mixes = jnp.full((6, d), 0.5)
        self.w_r, self.w_k, self.w_v = (draws.normal(next(keys), (d, d)) / math.sqrt(d) for _ in range(3))
        self.decay = LowRank(d, config.rank, jnp.linspace(-6.0, -1.0, d), key=next(keys))
        self.rate = LowRank(d, config.rank, jnp.zeros(d), key=next(keys))
        self.gate = LowRank(d, config.rank, jnp.ones(d), key=next(keys))
        self.key_scale, self.rate_mix = jnp.full(d, 0.85), jnp.ones(d)
        self.bonus = jnp.zeros(d)
        self.norm = jnp.stack([jnp.ones(d), jnp.zeros(d)])
        self.w_out = draws.normal(next(keys), (d, d)) / math.sqrt(d)
        self.config = config

    def initial_state(self) -> RwkvState:
        d, h = self.w_r.shape[0], self.config.n_heads
        return RwkvState(jnp.zeros(d), jnp.zeros((h, d // h, d // h)))

    def step(self, state: RwkvState, x: Float[Array, " d"]) -> tuple[RwkvState, Float[Array, " d"]]:
        tokens, gate, bonus = self._tokens(jnp.stack([state.last, x]))
        memory, read = jax.vmap(generalised_delta_step)(state.memory, *(a[:, 0] for a in tokens))
        return RwkvState(x, memory), self._finish(read[:, None], gate, bonus)[0]

    def outputs(self, x: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        del tap
        tokens, gate, bonus = self._tokens(jnp.pad(x, ((1, 0), (0, 0))))
        size = self.config.chunk_size
        chunks = jax.vmap(lambda state, rows: generalised_delta_chunks(state, *rows, size=size)[1])
        return self._finish(chunks(self.initial_state().memory, tokens), gate, bonus)

    def _tokens(self, rows: Float[Array, "t_and_one d"]) -> tuple[tuple[Array, ...], Array, Array]:
        """(q, read, erase, k, v, log_w) per head, the gate and the bonus; `rows` starts one token earlier."""
        x, before = rows[1:], rows[:-1]
        mixed = [x + (before - x) * mix[None] for mix in self.mixes]
        r, k, v = mixed[0] @ self.w_r, mixed[2] @ self.w_k, mixed[3] @ self.w_v
        log_w = -MAX_DECAY * jax.nn.sigmoid(_low_rank(self.decay, mixed[1], jnp.tanh))
        a = jax.nn.sigmoid(_low_rank(self.rate, mixed[4], lambda u: u))
        gate = _low_rank(self.gate, mixed[5], jax.nn.sigmoid)
        kappa = unit(self._heads(k * self.key_scale[None]))
        kt = k * (1 + (a - 1) * self.rate_mix[None])
        strength = jnp.sum(self._heads(r * self.bonus[None] * kt), axis=-1, keepdims=True)
        tokens = (self._heads(r), kappa, self._heads(a) * kappa, self._heads(kt), self._heads(v), self._heads(log_w))
        return tokens, gate, strength * self._heads(v)

    def _heads(self, x: Float[Array, "t d"]) -> Float[Array, "heads t k"]:
        return jnp.swapaxes(x.reshape(x.shape[0], self.config.n_heads, -1), 0, 1)

    def _finish(
        self, read: Float[Array, "heads t v"], gate: Float[Array, "t d"], bonus: Float[Array, "heads t v"]
    ) -> Float[Array, "t d"]:
        centred = read - jnp.mean(read, axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 64e-5)
        flat, extra = (jnp.swapaxes(a, 0, 1).reshape(gate.shape) for a in (normal, bonus))
        return ((flat * self.norm[0][None] + self.norm[1][None] + extra) * gate) @ self.w_out


def _low_rank(weights: LowRank, x: Float[Array, "t d"], activation) -> Float[Array, "t d"]:
    return weights.bias[None] + activation(x @ weights.down) @ weights.up
