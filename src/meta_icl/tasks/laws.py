"""Laws of vectors: how the inputs of a prompt, or the weights of a task, are distributed.

A law draws the rows of a whole batch of prompts at once. Its numbers are array leaves, so that they can be swept.
Scales are exact: a uniform law is given by its half-range, never by a "range".
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.conversions import number, optional_numbers, require_entries
from meta_icl.errors import require


class Law(eqx.Module):
    """A distribution of vectors of any width. Scalar leaves have shape "", or "*sweep" in front of a `vmap`."""

    # Whether entries are independent with mean zero: then `variance` and `kurtosis` say all that closed forms need.
    independent_zero_mean: ClassVar[bool] = False

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        """Draw `batch` groups of `n` vectors of width `d`; in a prompt the last of the n rows is the query."""
        raise TypeError(f"{type(self).__name__} does not define rows")


class IndependentLaw(Law):
    """A law whose entries are independent and identically distributed."""

    @property
    def variance(self) -> Float[Array, "*sweep"]:
        """Variance of an entry, sigma^2."""
        raise TypeError(f"{type(self).__name__} does not define variance")

    @property
    def mean(self) -> Float[Array, "*sweep"]:
        """Mean of an entry."""
        return jnp.zeros(())

    @property
    def kurtosis(self) -> float:
        """Fourth central moment of an entry over sigma^4: 3 for a normal law."""
        raise TypeError(f"{type(self).__name__} does not define kurtosis")

    def covariance_matrix(self, d: int) -> Float[Array, "d d"]:
        """Covariance of a vector of width d, sigma^2 I (central: the mean does not enter)."""
        return self.variance * jnp.eye(d)

    def second_moment(self, d: int) -> Float[Array, "d d"]:
        """E x x^T of a vector of width d, the covariance plus the mean's outer product."""
        return self.covariance_matrix(d) + self.mean**2


class Uniform(IndependentLaw):
    """Independent entries, uniform on [-half_range, half_range): variance half_range^2 / 3, kurtosis 9/5."""

    half_range: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    independent_zero_mean: ClassVar[bool] = True

    def __check_init__(self):
        require_entries(lambda value: value > 0, "half_range", self.half_range, "positive")

    @property
    def variance(self) -> Float[Array, "*sweep"]:
        return self.half_range**2 / 3

    @property
    def kurtosis(self) -> float:
        return 9 / 5

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        unit = draws.uniform(key, (batch, n, d), minval=-1, maxval=1)
        return self.half_range * unit


class Normal(Law):
    """Normal vectors of mean zero and covariance std^2 C, where C is the identity unless `covariance` is given.

    `covariance`, "d d", is symmetric and positive semi-definite; its width fixes the width of the vectors.
    """

    std: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    covariance: Float[Array, "*sweep d d"] | None = eqx.field(default=None, converter=optional_numbers)

    def __check_init__(self):
        require_entries(lambda value: value > 0, "std", self.std, "positive")
        if self.covariance is not None and not isinstance(self.covariance, Tracer):
            matrix = np.asarray(self.covariance)
            square = matrix.ndim >= 2 and matrix.shape[-1] == matrix.shape[-2]
            require(square, "covariance", matrix.shape, "a square matrix")
            rounding = 1e-5 * max(np.abs(matrix).max(), 1e-30)
            symmetric = bool(np.abs(matrix - matrix.swapaxes(-1, -2)).max() <= rounding)
            fair = symmetric and bool(np.linalg.eigvalsh(matrix).min() >= -rounding)
            require(fair, "covariance", matrix.tolist(), "symmetric and positive semi-definite")

    @property
    def independent_zero_mean(self) -> bool:  # pyrefly: ignore[bad-override]
        """True without `covariance`."""
        return self.covariance is None

    @property
    def variance(self) -> Float[Array, "*sweep"]:
        """Variance of an entry where all have the same, std^2."""
        require(self.covariance is None, "covariance", "a matrix", "left out: entries differ, see covariance_matrix")
        return self.std**2

    @property
    def kurtosis(self) -> float:
        """Fourth moment of an entry over the square of its variance."""
        return 3.0

    def covariance_matrix(self, d: int) -> Float[Array, "d d"]:
        """Covariance of a vector of width d."""
        return self.std**2 * (jnp.eye(d) if self.covariance is None else self.covariance)

    def second_moment(self, d: int) -> Float[Array, "d d"]:
        """E x x^T of a vector of width d: the covariance, because the mean is zero."""
        return self.covariance_matrix(d)

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        unit = self.std * draws.normal(key, (batch, n, d))
        if self.covariance is None:
            return unit
        require(self.covariance.shape == (d, d), "covariance", self.covariance.shape, f"of shape {(d, d)}")
        eigenvalues, vectors = jnp.linalg.eigh(self.covariance)  # unlike Cholesky's, this root allows eigenvalue 0
        root = vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0))[None, :]
        return unit @ root.T


class Laplace(IndependentLaw):
    """Independent Laplace entries, density exp(-|x| / scale) / (2 scale): variance 2 scale^2, kurtosis 6."""

    scale: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    independent_zero_mean: ClassVar[bool] = True

    def __check_init__(self):
        require_entries(lambda value: value > 0, "scale", self.scale, "positive")

    @property
    def variance(self) -> Float[Array, "*sweep"]:
        return 2 * self.scale**2

    @property
    def kurtosis(self) -> float:
        return 6.0

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        return self.scale * draws.laplace(key, (batch, n, d))


class Exponential(IndependentLaw):
    """Independent exponential entries: positive, mean scale (not centred), variance scale^2, kurtosis 9."""

    scale: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)

    def __check_init__(self):
        require_entries(lambda value: value > 0, "scale", self.scale, "positive")

    @property
    def mean(self) -> Float[Array, "*sweep"]:
        return self.scale

    @property
    def variance(self) -> Float[Array, "*sweep"]:
        return self.scale**2

    @property
    def kurtosis(self) -> float:
        return 9.0

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        return self.scale * draws.exponential(key, (batch, n, d))


class NormalisedMixture(Law):
    """The out-of-distribution inputs of von Oswald et al. (2022): another family, at a controlled size.

    Every prompt picks the exponential, normal or Laplace law (all of unit scale) with probability 1/3. All its rows,
    query included, are multiplied by scale / ||X||_F, where X holds the context rows only: the context has Frobenius
    norm `scale`, the query on average scale / sqrt(n - 1).
    """

    scale: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)

    def __check_init__(self):
        require_entries(lambda value: value > 0, "scale", self.scale, "positive")

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        require(n >= 2, "n", n, "at least 2: a context to normalise by, and a query")
        families = (Exponential(), Normal(), Laplace())
        key, choice_key = jax.random.split(key)
        drawn = [family.rows(n, d, batch, key=k) for family, k in zip(families, jax.random.split(key, 3), strict=True)]
        choice = draws.randint(choice_key, (batch, 1, 1), 0, 3)
        x = jnp.where(choice == 0, drawn[0], jnp.where(choice == 1, drawn[1], drawn[2]))
        return x * (self.scale / jnp.linalg.norm(x[:, :-1], axis=(1, 2), keepdims=True))
