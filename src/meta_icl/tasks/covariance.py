"""Regression with any covariance: spectra, rotations, priors of w, and masks that make several tasks of one prompt.

Covariances are built in float64 with numpy, so that exact formulas about them lose nothing; a task converts them to the
precision in use.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from meta_icl.conversions import require_entries
from meta_icl.errors import choose, require
from meta_icl.prompt import Prompt
from meta_icl.tasks.laws import Law, Normal
from meta_icl.tasks.regression import LinearRegression

Numbers = ArrayLike | Sequence[Any]  # a number, an array, or nested sequences of numbers


def linear_spectrum(d: int, trace: float = 1.0) -> Float[np.ndarray, " d"]:
    """Eigenvalues proportional to d, d-1, .., 1 with a given sum (Zhang et al., 2025)."""
    require(d >= 1, "d", d, "a positive integer")
    require(trace > 0, "trace", trace, "positive")
    return np.arange(d, 0, -1) * (trace / (d * (d + 1) / 2))


def power_spectrum(d: int, exponent: float, trace: float = 1.0) -> Float[np.ndarray, " d"]:
    """Eigenvalues proportional to k^(-exponent), k = 1..d, with a given sum; exponent 0 is white."""
    require(d >= 1, "d", d, "a positive integer")
    require(trace > 0, "trace", trace, "positive")
    raw = np.arange(1, d + 1) ** -float(exponent)
    return raw * (trace / raw.sum())


def random_rotation(d: int, *, key: Key[Array, ""]) -> Float[np.ndarray, "d d"]:
    """An orthogonal matrix from the Haar measure: Q of a normal matrix, with the signs of R's diagonal."""
    q, r = np.linalg.qr(np.asarray(jax.random.normal(key, (d, d)), np.float64))
    return q * np.sign(np.diag(r))


def singular_rotation(d: int, *, key: Key[Array, ""]) -> Float[np.ndarray, "d d"]:
    """Left singular vectors of a matrix of U(-1, 1) entries, as in the code of Ahn et al. (2023); not Haar."""
    return np.linalg.svd(np.asarray(jax.random.uniform(key, (d, d), minval=-1, maxval=1), np.float64))[0]


def covariance_from(eigenvalues: Numbers, rotation: Float[np.ndarray, "d d"] | None = None) -> Float[np.ndarray, "d d"]:
    """U diag(eigenvalues) U^T; U is the identity unless a rotation is given."""
    values = np.asarray(eigenvalues, np.float64)
    require(values.ndim == 1 and values.size >= 1, "eigenvalues", values.shape, "a sequence of numbers")
    require(bool((values >= 0).all()), "eigenvalues", values.tolist(), "zero or positive")
    if rotation is None:
        return np.diag(values)
    require(rotation.shape == (values.size,) * 2, "rotation", rotation.shape, f"of shape {(values.size,) * 2}")
    matrix = (rotation * values) @ rotation.T
    return (matrix + matrix.T) / 2


def ar1_covariance(d: int, rho: float) -> Float[np.ndarray, "d d"]:
    """Covariance rho^|i-j| of a stationary autoregressive process of order one with unit variance."""
    require(d >= 1, "d", d, "a positive integer")
    require(-1 < rho < 1, "rho", rho, "between -1 and 1")
    index = np.arange(d)
    return float(rho) ** np.abs(index[:, None] - index[None, :])


PRIORS = ("identity", "inverse")


def prior_covariance(covariance: Float[np.ndarray, "d d"], prior: str | Numbers) -> Float[np.ndarray, "d d"]:
    """Covariance of w: "identity", "inverse" (that of the inputs inverted, so that w.x is white), or a matrix."""
    d = covariance.shape[0]
    if isinstance(prior, str):
        if choose("prior", prior, PRIORS) == "identity":
            return np.eye(d)
        smallest = float(np.linalg.eigvalsh(covariance).min())
        require(smallest > 0, "prior", prior, "'identity' or a matrix, because the covariance is singular")
        inverse = np.linalg.inv(covariance)
        return (inverse + inverse.T) / 2
    matrix = np.asarray(prior, np.float64)
    require(matrix.shape == (d, d), "prior", matrix.shape, f"'identity', 'inverse' or of shape {(d, d)}")
    return matrix


def gaussian_regression(
    covariance: Numbers,
    n_context: int,
    *,
    prior: str | Numbers = "identity",
    noise: float = 0.0,
    noisy_query: bool = False,
) -> LinearRegression:
    """Linear regression with x ~ N(0, covariance) and w ~ N(0, prior); `noise` is a standard deviation.

    `prior="inverse"` is the matched prior of Ahn et al. (2023), which makes the problem invariant under linear maps of
    the inputs; "identity" is the mismatched one of Zhang et al. (2025). A prior N(0, I/d) is given as a matrix.
    """
    matrix = np.asarray(covariance, np.float64)
    require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "covariance", matrix.shape, "a square matrix")
    weights = Normal(covariance=prior_covariance(matrix, prior))
    d = matrix.shape[0]
    inputs = Normal(covariance=matrix)
    return LinearRegression(d, n_context, x_law=inputs, w_law=weights, noise=noise, noisy_query=noisy_query)


def whitened_prompts(task: LinearRegression, n: int, *, key: Key[Array, ""]) -> Prompt:
    """A finite set of `n` noise-free prompts with one output whose first moments are exactly those of the law.

    Inputs are centred over prompts, and the weights have exactly mean zero and covariance I, as in the code of Zhang et
    al. (2025).
    """
    require(task.n_out == 1, "n_out", task.n_out, "1")
    require_entries(lambda value: value == 0, "noise", task.noise, "0")
    require(n > task.d, "n", n, f"more than d = {task.d}")
    prompts, drawn = task.sample_with_weights(n, key=key)
    x, w = np.asarray(prompts.x, np.float64), np.asarray(drawn, np.float64)[:, :, 0]
    x, w = x - x.mean(0), w - w.mean(0)
    values, vectors = np.linalg.eigh(np.cov(w.T, bias=True).reshape(task.d, task.d))
    y = np.einsum("bnd,bd->bn", x, w @ (vectors / np.sqrt(values)) @ vectors.T)
    return Prompt(jnp.asarray(x), jnp.asarray(y)[..., None])


class Masked(Law):
    """Vectors of `law` with entries set to zero: row k of a group is multiplied by row k of `mask`, "n d".

    As the law of w in a `LinearRegression` with n outputs it makes n tasks of one prompt, each reading its own inputs.
    """

    law: Law
    mask: Float[Array, "n d"] = eqx.field(converter=lambda value: jnp.asarray(value, jnp.result_type(float)))

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        require(self.mask.shape == (n, d), "mask", self.mask.shape, f"of shape {(n, d)}")
        return self.mask[None] * self.law.rows(n, d, batch, key=key)


def several_tasks(
    d: int, supports: Sequence[Sequence[int]], n_context: int, *, noise: float = 0.0, noisy_query: bool = False
) -> LinearRegression:
    """One prompt, several regressions: output k is w_k.x + noise with w_k ~ N(0, I) on the coordinates `supports[k]`.

    He et al. (2025) use d = 6 with supports (0, 1, 2, 3) and (2, 3, 4, 5).
    """
    for support in supports:
        inside = len(support) > 0 and all(0 <= index < d for index in support)
        require(inside, "supports", [list(s) for s in supports], f"non-empty sets of coordinates 0 to {d - 1}")
    mask = np.zeros((len(supports), d))
    for row, support in enumerate(supports):
        mask[row, list(support)] = 1.0
    weights = Masked(Normal(), jnp.asarray(mask))
    return LinearRegression(
        d, n_context, n_out=len(supports), x_law=Normal(), w_law=weights, noise=noise, noisy_query=noisy_query
    )
