"""Normalisation over channels: LayerNorm (Ba et al., 2016) and RMSNorm (Zhang & Sennrich, 2019)."""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from meta_icl.errors import choose, require

NORMS = ("layer", "rms")


@dataclass(frozen=True)
class Norm:
    """Describes a norm: "layer" with a scale and a bias, or "rms" with a scale alone."""

    kind: str = "layer"
    eps: float = 1e-5

    def __post_init__(self):
        choose("norm", self.kind, NORMS)
        require(self.eps > 0, "eps", self.eps, "positive")

    def __call__(self, d: int) -> "NormLayer":
        return NormLayer(jnp.ones(d), jnp.zeros(d) if self.kind == "layer" else None, self.kind, self.eps)


class NormLayer(eqx.Module):
    """x / sqrt(mean x^2 + eps), centred first for "layer", then a scale and, for "layer", a bias."""

    scale: Float[Array, "*stack d"]
    bias: Float[Array, "*stack d"] | None
    kind: str = eqx.field(static=True, default="layer")
    eps: float = eqx.field(static=True, default=1e-5)

    def normalised(self, x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
        """x before scale and bias."""
        return rms(x - jnp.mean(x, axis=-1, keepdims=True) if self.kind == "layer" else x, self.eps)

    def __call__(self, x: Float[Array, "*rows d"], scale_change: Array | float = 0.0) -> Float[Array, "*rows d"]:
        scaled = self.normalised(x) * along(self.scale + scale_change, x)
        return scaled if self.bias is None else scaled + along(self.bias, x)


def rms(x: Float[Array, "*rows d"], eps: float = 1e-6) -> Float[Array, "*rows d"]:
    """x over its root mean square."""
    return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


def along(vector: Float[Array, " d"], x: Float[Array, "*rows d"]) -> Float[Array, "... d"]:
    """A vector of channels, shaped so that it meets all rows of x."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
