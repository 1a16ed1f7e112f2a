"""Memories that correct themselves: DeltaNet, Gated DeltaNet, Longhorn and RWKV-7.

State S, "d_value d_key". The delta rule writes what is missing at a key, S_t = g S_{t-1} + b (v - g S_{t-1} k) k^T: one
gradient step of rate b on 1/2 |S k - v|^2 at the decayed memory. A sequence is run in chunks: the corrections n_t of a
chunk solve one unit lower triangular system (the UT transform, Yang et al., 2024), the rest are matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl.errors import require
from meta_icl.models.mixers.affine_scan import in_chunks, segment_products, shifted
from meta_icl.models.mixers.heads import HeadDescription, Memory, Tokens
from meta_icl.models.mixers.linear import RateDecay, decayed_products, linear_chunks, linear_step
from meta_icl.models.mixers.solves import unit_lower_inverse


def delta_step(
    state: Float[Array, "v k"],
    q: Float[Array, " k"],
    k: Float[Array, " k"],
    v: Float[Array, " v"],
    beta: Float[Array, ""],
    log_g: Float[Array, ""],
) -> tuple[Float[Array, "v k"], Float[Array, " v"]]:
    """S <- g S + beta (v - g S k) k^T, read S q."""
    state = jnp.exp(log_g) * state
    state = state + (beta * (v - state @ k))[:, None] * k[None]
    return state, state @ q


def delta_chunks(
    state: Float[Array, "v k"],
    q: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    beta: Float[Array, " t"],
    log_g: Float[Array, " t"],
    size: int,
) -> tuple[Float[Array, "v k"], Float[Array, "t v"]]:
    """`delta_step` over a sequence: n = (I + A)^{-1} diag(beta) (V - c K S^T), A = beta tril(K K^T * D, -1)."""

    def prepare(chunk: Sequence[Array]) -> tuple[Array, ...]:
        q, k, v, beta, log_g = chunk
        decay, since_start = segment_products(log_g), jnp.exp(jnp.cumsum(log_g))[:, None]
        system = jnp.tril(beta[:, None] * (k @ k.T) * decay, -1)
        right = jnp.concatenate([beta[:, None] * v, beta[:, None] * since_start * k], axis=1)
        solved = unit_lower_inverse(system) @ right
        value, erased = jnp.split(solved, [v.shape[1]], axis=1)
        return value, erased, since_start * q, (q @ k.T) * decay, decay[-1][:, None] * k, since_start[-1, 0]

    def body(state: Array, prepared: Sequence[Array]) -> tuple[Array, Array]:
        value, erased, q, scores, k, kept = prepared
        correction = value - erased @ state.T
        return kept * state + correction.T @ k, q @ state.T + scores @ correction

    return in_chunks(body, state, (q, k, v, beta, log_g), size, prepare)


def generalised_delta_step(
    state: Float[Array, "v k"],
    q: Float[Array, " k"],
    read: Float[Array, " k"],
    erase: Float[Array, " k"],
    k: Float[Array, " k"],
    v: Float[Array, " v"],
    log_w: Float[Array, " k"],
) -> tuple[Float[Array, "v k"], Float[Array, " v"]]:
    """S <- S (diag(w) - read erase^T) + v k^T, read S q: decay per channel, and a key that is read to be erased."""
    found = state @ read
    state = state * jnp.exp(log_w)[None] - found[:, None] * erase[None] + v[:, None] * k[None]
    return state, state @ q


def generalised_delta_chunks(
    state: Float[Array, "v k"],
    q: Float[Array, "t k"],
    read: Float[Array, "t k"],
    erase: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    log_w: Float[Array, "t k"],
    size: int,
) -> tuple[Float[Array, "v k"], Float[Array, "t v"]]:
    """`generalised_delta_step` over a sequence; what each token finds solves a unit lower triangular system."""

    def prepare(chunk: Sequence[Array]) -> tuple[Array, ...]:
        q, read, erase, k, v, log_w = chunk
        decay, since_start = segment_products(log_w), jnp.exp(jnp.cumsum(log_w, axis=0))
        before = shifted(decay, 0.0)  # products up to the token before
        system = decayed_products(read, erase, before)
        right = jnp.concatenate([decayed_products(read, k, before) @ v, shifted(since_start, 1.0) * read], axis=1)
        solved = unit_lower_inverse(system) @ right
        value, carried = jnp.split(solved, [v.shape[1]], axis=1)
        within = decayed_products(q, k, decay) @ v
        scores = decayed_products(q, erase, decay)
        return (
            value,
            carried,
            since_start * q,
            within,
            scores,
            v.T @ (decay[-1] * k),
            decay[-1] * erase,
            since_start[-1],
        )

    def body(state: Array, prepared: Sequence[Array]) -> tuple[Array, Array]:
        value, carried, q, within, scores, written, erase, kept = prepared
        found = value + carried @ state.T
        return state * kept[None] + written - found.T @ erase, q @ state.T + within - scores @ found

    return in_chunks(body, state, (q, read, erase, k, v, log_w), size, prepare)


class DeltaMemory(Memory):
    """The delta rule; beta = beta_max sigmoid(raw), or with `implicit` Longhorn's b / (1 + b |k|^2)."""

    decay: RateDecay | None
    beta_max: float = eqx.field(static=True)
    implicit: bool = eqx.field(static=True)
    d_key: int = eqx.field(static=True)
    d_value: int = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def start(self) -> Float[Array, "v k"]:
        return jnp.zeros((self.d_value, self.d_key))

    def step(self, state: Float[Array, "v k"], token: Tokens) -> tuple[Float[Array, "v k"], Float[Array, " v"]]:
        return delta_step(state, token.q, token.k, token.v, *self.gates(token))

    def scan(self, state: Float[Array, "v k"], tokens: Tokens) -> tuple[Float[Array, "v k"], Float[Array, "t v"]]:
        beta, log_g = jax.vmap(self.gates)(tokens)
        return delta_chunks(state, tokens.q, tokens.k, tokens.v, beta, log_g, self.chunk_size)

    def gates(self, token: Tokens) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The rate beta and the logarithm of the decay of one token."""
        beta = self.beta_max * jax.nn.sigmoid(token.raw[0])
        if self.implicit:
            beta = implicit_rate(beta, token.k)
        return beta, jnp.zeros(()) if self.decay is None else self.decay(token.raw[1:])[0]


def implicit_rate(b: Float[Array, ""], k: Float[Array, " k"]) -> Float[Array, ""]:
    """The rate at which a delta step is the minimiser of |S - S_prev|^2 + b |S k - v|^2: b / (1 + b k.k)."""
    return b / (1 + b * jnp.sum(k * k))


@dataclass(frozen=True)
class DeltaDescription(HeadDescription):
    """What describes all delta rules of rate beta = beta_max sigmoid(raw); beta_max 2 allows reflections."""

    beta_max: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.beta_max <= 2, "beta_max", self.beta_max, "in (0, 2]")


@dataclass(frozen=True)
class DeltaNet(DeltaDescription):
    """DeltaNet (Schlag et al., 2021; Yang et al., 2024), with unit keys."""

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 1

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> DeltaMemory:
        del key, head
        return DeltaMemory(None, self.beta_max, False, d_key, d_value, self.chunk_size)


@dataclass(frozen=True)
class GatedDeltaNet(DeltaDescription):
    """Gated DeltaNet (Yang et al., 2025): the delta rule on a decayed memory, with a gated output."""

    output_gate: bool = True

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 2

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> DeltaMemory:
        del head
        return DeltaMemory(RateDecay(key=key), self.beta_max, False, d_key, d_value, self.chunk_size)


@dataclass(frozen=True)
class Longhorn(HeadDescription):
    """Longhorn (Liu et al., 2024): the implicit step, exact with one rate per head, or by its published approximation.

    `diagonal` replaces k k^T in the erasing factor by its diagonal, S <- (1 - d k^2) * S + d v k^T.
    """

    unit_keys: ClassVar[bool] = False
    diagonal: bool = False

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 1

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> Memory:
        del key, head
        if self.diagonal:
            return DiagonalLonghorn(d_key, d_value, self.chunk_size)
        return DeltaMemory(None, 1.0, True, d_key, d_value, self.chunk_size)


class DiagonalLonghorn(Memory):
    """S <- (1 - d k^2) * S + d v k^T with d = b / (1 + b |k|^2): a linear memory with decay per key channel."""

    d_key: int = eqx.field(static=True)
    d_value: int = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def start(self) -> Float[Array, "v k"]:
        return jnp.zeros((self.d_value, self.d_key))

    def step(self, state: Float[Array, "v k"], token: Tokens) -> tuple[Float[Array, "v k"], Float[Array, " v"]]:
        rate, log_g = self.gates(token)
        return linear_step(state, token.q, token.k, rate * token.v, log_g)

    def scan(self, state: Float[Array, "v k"], tokens: Tokens) -> tuple[Float[Array, "v k"], Float[Array, "t v"]]:
        rate, log_g = jax.vmap(self.gates)(tokens)
        return linear_chunks(state, tokens.q, tokens.k, rate[:, None] * tokens.v, log_g, self.chunk_size)

    def gates(self, token: Tokens) -> tuple[Float[Array, ""], Float[Array, " k"]]:
        """The rate d and the logarithms of the decays; 1 - d k^2 is positive, since d |k|^2 < 1."""
        rate = implicit_rate(jax.nn.sigmoid(token.raw[0]), token.k)
        return rate, jnp.log1p(-rate * token.k * token.k)
