"""Where a token stands: learned and sinusoidal vectors that are added, rotary positions that turn queries and keys."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from meta_icl.errors import choose, require
from meta_icl.models.initialisation import Init

PAIRS = ("halves", "neighbours")
SCALINGS = ("none", "linear", "llama3")


@dataclass(frozen=True)
class Learned:
    """Describes one trained vector per place, for prompts of at most `n_positions` tokens."""

    n_positions: int
    init: Init = Init(std=0.02)

    def __post_init__(self):
        require(self.n_positions >= 1, "n_positions", self.n_positions, "a positive integer")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "LearnedPositions":
        return LearnedPositions(self.init((self.n_positions, d_model), d_model, key=key))


class LearnedPositions(eqx.Module):
    """The vectors of a `Learned`."""

    table: Float[Array, "p d"]

    def __call__(self, t: int) -> Float[Array, "t d"]:
        """The vectors of the first t places; `BadInput` where there are fewer."""
        n = self.table.shape[0]
        require(t <= n, "tokens", t, f"at most n_positions = {n} of them")
        return self.table[:t]

    def at(self, position: Int[Array, ""]) -> Float[Array, " d"]:
        """The vector of one place."""
        return self.table[position]


@dataclass(frozen=True)
class Sinusoidal:
    """Describes sines, then cosines, of p / base^(2j / d) (Vaswani et al., 2017); nothing is trained."""

    base: float = 10000.0

    def __post_init__(self):
        require(self.base > 1, "base", self.base, "above 1")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "SinusoidalPositions":
        del key
        require(d_model % 2 == 0, "d_model", d_model, "even, for sines and cosines")
        return SinusoidalPositions(self.base, d_model)


class SinusoidalPositions(eqx.Module):
    """The vectors of a `Sinusoidal`."""

    base: float = eqx.field(static=True)
    d_model: int = eqx.field(static=True)

    def __call__(self, t: int) -> Float[Array, "t d"]:
        """The vectors of the first t places."""
        return sinusoidal_code(t, self.d_model, self.base)

    def at(self, position: Int[Array, ""]) -> Float[Array, " d"]:
        """The vector of one place."""
        angles = position / jnp.asarray(self.base ** (2 * np.arange(self.d_model // 2) / self.d_model))
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def sinusoidal_code(n_tokens: int, width: int, base: float = 10000.0) -> Float[Array, "t width"]:
    """Sinusoidal positions: sin(p / base^(2j/width)) for j < width/2, then the cosines (Vaswani et al., 2017)."""
    angles = np.arange(n_tokens)[:, None] / base ** (2 * np.arange(width // 2) / width)
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), jnp.result_type(float))


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (Su et al., 2021): pair j of channels of row p is turned by the angle p base^(-2j/r).

    r = `fraction` of the channels are turned, the others stay. `pairs`: "halves" joins channels (j, j + r/2), as Llama
    does; "neighbours" joins (2j, 2j + 1). `scaling` "linear" divides all angles by `factor`; "llama3" only those of
    wavelengths above `original_length` / `low_frequency`, in part down to `original_length` / `high_frequency`.
    """

    base: float = 10000.0
    fraction: float = 1.0
    pairs: str = "halves"
    scaling: str = "none"
    factor: float = 1.0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_length: int = 8192

    def __post_init__(self):
        choose("pairs", self.pairs, PAIRS)
        choose("scaling", self.scaling, SCALINGS)
        require(self.base > 1, "base", self.base, "above 1")
        require(0 < self.fraction <= 1, "fraction", self.fraction, "above 0 and at most 1")

    def turned_channels(self, width: int) -> int:
        """r of `width` channels."""
        return int(width * self.fraction)

    def rates(self, width: int) -> Float[np.ndarray, " half"]:
        """The angle per place of every pair of channels."""
        r = self.turned_channels(width)
        rates = self.base ** (-2 * np.arange(r // 2) / r)
        if self.scaling == "linear":
            return rates / self.factor
        if self.scaling == "llama3":
            turns = self.original_length * rates / (2 * math.pi)
            share = np.clip((turns - self.low_frequency) / (self.high_frequency - self.low_frequency), 0, 1)
            return rates * (share + (1 - share) / self.factor)
        return rates

    def __call__(self, x: Float[Array, "h t k"], positions: Int[Array, " t"]) -> Float[Array, "h t k"]:
        """The rows of every head, turned by their places."""
        r = self.turned_channels(x.shape[-1])
        angles = turned_by(positions, self.rates(x.shape[-1]), x.dtype)[None]
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        if self.pairs == "halves":
            a, b = x[..., : r // 2], x[..., r // 2 : r]
            turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        else:
            a, b = x[..., :r:2], x[..., 1:r:2]
            turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(*x.shape[:-1], r)
        return turned if r == x.shape[-1] else jnp.concatenate([turned, x[..., r:]], axis=-1)


def turned_by(positions: Int[Array, " t"], rates: Float[np.ndarray, " half"], dtype: Any) -> Float[Array, "t half"]:
    """The angles p rate less whole turns, from -pi to pi, whose product of floats would be off by 2^-24 of itself.

    Whole turns drop out of a product of integers modulo 2^32; what a rate leaves beside them is added as floats.
    """
    turns = rates / (2 * math.pi)
    whole = np.round(turns * 2**32)
    rest = (turns * 2**32 - whole).astype(dtype)
    fixed = positions[:, None].astype(jnp.uint32) * jnp.asarray((whole % 2**32).astype(np.uint32))[None]
    parts = lax.bitcast_convert_type(fixed, jnp.int32).astype(dtype)
    return (parts + positions[:, None].astype(dtype) * jnp.asarray(rest)[None]) * (2 * math.pi / 2**32)
