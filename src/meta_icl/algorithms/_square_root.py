"""Conditioning on one linear observation by a square root of the covariance, which keeps float32 precise.

With P = L L^T, noise r and f = L^T x, the root after observing x.w + noise is, column by column (Carlson, 1973),
    L'_j = (b_{j-1} / b_j) L_j - f_j / (b_j b_{j-1}) sum_{i<j} f_i L_i,   b_j^2 = r + sum_{i<=j} f_i^2.
Unlike P - P x x^T P / s nothing cancels that is large beside the result, and P spans the square of what L spans. The
noise is positive.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def observe(
    root: Float[Array, "*c d d"], x: Float[Array, " d"], noise_variance: Float[Array, ""]
) -> tuple[Float[Array, "*c d d"], Float[Array, "*c d"], Float[Array, "*c"]]:
    """The root L' after one observation, the gain P x / s, and the variance s = x^T P x + r of what was observed."""
    f = jnp.einsum("...dj,d->...j", root, x)
    # In units of the largest entry no square overflows or vanishes, whatever the prior.
    size = jnp.maximum(jnp.max(jnp.abs(f), axis=-1), jnp.sqrt(noise_variance))[..., None]
    f, noise = f / size, jnp.sqrt(noise_variance) / size
    after = jnp.maximum(jnp.sqrt(jnp.square(noise) + jnp.cumsum(jnp.square(f), axis=-1)), noise)
    before = jnp.concatenate([noise, after[..., :-1]], axis=-1)
    sums = jnp.cumsum(root * f[..., None, :], axis=-1)
    earlier = jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    updated = (before / after)[..., None, :] * root - (f / after / before)[..., None, :] * earlier
    spread = after[..., -1:]
    return updated, sums[..., -1] / jnp.square(spread) / size, jnp.square(spread * size)[..., 0]
