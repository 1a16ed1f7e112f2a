"""How weights are drawn at first: a law and its size, as a value that every part has in its field `init`."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Key

from meta_icl import draws
from meta_icl.errors import choose, require

LAWS = ("normal", "truncated_normal", "uniform")
# The deviation of a standard normal cut off at +-2; weights are divided by it, so that theirs is the stated one.
_CUT = 0.87962566103423978


@dataclass(frozen=True)
class Init:
    """Describes centred weights of variance `gain` / fan_in or, where `std` is given, of that deviation.

    "truncated_normal" is cut off at two deviations.
    """

    law: str = "normal"
    gain: float = 1.0
    std: float | None = None

    def __post_init__(self):
        choose("law", self.law, LAWS)
        require(self.gain > 0, "gain", self.gain, "positive")
        require(self.std is None or self.std > 0, "std", self.std, "positive, or nothing")

    def __call__(self, shape: tuple[int, ...], fan_in: int, *, key: Key[Array, ""]) -> Array:
        """Weights of a shape whose outputs sum `fan_in` products."""
        std = math.sqrt(self.gain / fan_in) if self.std is None else self.std
        if self.law == "normal":
            return std * draws.normal(key, shape)
        if self.law == "truncated_normal":
            return (std / _CUT) * draws.truncated_normal(key, -2, 2, shape)
        bound = std * math.sqrt(3)
        return draws.uniform(key, shape, minval=-bound, maxval=bound)


LECUN = Init()  # LeCun et al. (1998): variance 1 / fan_in
HE = Init(gain=2.0)  # He et al. (2015), for ReLU
TORCH = Init("uniform", gain=1 / 3)  # uniform in +-1/sqrt(fan_in), what torch.nn.Linear draws
GPT2 = Init(std=0.02)


def widened(weights: Array) -> Array:
    """Weights in at least 32 bits: they may be kept in 16, but nothing is summed so."""
    return weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
