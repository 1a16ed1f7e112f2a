"""Reference learners that answer every position of a prompt: row k is predicted from the rows before k and x_k."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from scipy import integrate, stats

from meta_icl.algorithms._checks import real
from meta_icl.algorithms._square_root import observe
from meta_icl.conversions import number, numbers, require_entries
from meta_icl.errors import require
from meta_icl.prompt import Predictor, Prompt


class EveryPosition(eqx.Module):
    """A query predictor asked at every row; rows that it may not see yet are zero, inputs and targets alike.

    For learners that learn nothing from rows of zeros: least squares, ridge, `BayesLinear`, `BayesFinitePool`.
    """

    predictor: Predictor

    def __call__(self, prompt: Prompt) -> Float[Array, "n dy"]:
        prompt, rows = real(self.predictor, prompt), jnp.arange(prompt.n_context)

        def answer(k: Array) -> Array:
            seen = (rows < k)[:, None]
            x = jnp.concatenate([jnp.where(seen, prompt.x[:-1], 0), prompt.x[k][None]])
            y = jnp.concatenate([jnp.where(seen, prompt.y[:-1], 0), jnp.zeros_like(prompt.y[:1])])
            return self.predictor(Prompt(x, y))

        return jax.vmap(answer)(jnp.arange(prompt.n_context + 1))


class Averaging(eqx.Module):
    """w.x with w = (1/k) sum_i x_i y_i over the k rows before, or zero; on linear functions its error is (d+1)/k."""

    def __call__(self, prompt: Prompt) -> Float[Array, "n dy"]:
        sums = jnp.cumsum(prompt.x[:, :, None] * real(self, prompt).y[:, None, :], axis=0)
        before = jnp.concatenate([jnp.zeros_like(sums[:1]), sums[:-1]])
        k = jnp.maximum(jnp.arange(prompt.n_context + 1), 1)[:, None]
        return jnp.einsum("nd,ndo->no", prompt.x, before) / k


class NearestNeighbours(eqx.Module):
    """The mean target of the min(k, n_neighbours) nearest rows before, by Euclidean distance; zero without any."""

    n_neighbours: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        require(self.n_neighbours >= 1, "n_neighbours", self.n_neighbours, "a positive integer")

    def __call__(self, prompt: Prompt) -> Float[Array, "n dy"]:
        n = prompt.n_context + 1
        squares = jnp.sum(jnp.square(prompt.x[:, None] - prompt.x[None]), axis=-1)
        before = jnp.tril(jnp.ones((n, n), bool), -1)
        count = min(self.n_neighbours, n)
        found = lax.top_k(-jnp.where(before, squares, jnp.inf), count)[1]
        usable = jnp.take_along_axis(before, found, axis=1)[:, :, None]
        total = jnp.sum(jnp.where(usable, real(self, prompt).y[found], 0), axis=1)
        return total / jnp.maximum(usable.sum(1), 1)


class GaussianMixtureBayes(eqx.Module):
    """The posterior mean of w.x for w ~ N(means_c, diag(variances_c)), c uniform, and noise N(0, noise_variance).

    Every component is updated by conditioning on one row after the other, by a square root of its covariance, and
    weighed by its predictive densities. Of several outputs each has a w of its own, independent of the others.
    `noise_variance` is positive. The constructors below name the published cases.
    """

    means: Float[Array, "c d"] = eqx.field(converter=numbers)
    variances: Float[Array, "c d"] = eqx.field(converter=numbers)
    noise_variance: Float[Array, "*sweep"] = eqx.field(converter=number)

    def __check_init__(self):
        shape = self.means.shape
        require(len(shape) == 2 and self.variances.shape == shape, "means", shape, "(components, d), as variances")
        require_entries(lambda value: value >= 0, "variances", self.variances, "zero or positive")
        require_entries(lambda value: value > 0, "noise_variance", self.noise_variance, "positive")

    def posterior(self, prompt: Prompt) -> tuple[Float[Array, " n"], Float[Array, "n c"]]:
        """The predictions of every row for one output, and the probability of every component given the rows before."""
        require(prompt.y.shape[-1] == 1, "y", prompt.y.shape, "of one output for a posterior")
        return self._posterior(prompt.x, prompt.y[:, 0])

    def _posterior(self, x: Float[Array, "n d"], y: Float[Array, " n"]) -> tuple[Float[Array, " n"], Array]:
        n_components, d = self.means.shape
        roots = jnp.sqrt(self.variances)[:, :, None] * jnp.eye(d, dtype=self.variances.dtype)[None]
        start = (self.means, roots, jnp.zeros(n_components, self.means.dtype))

        def step(carry: tuple[Array, Array, Array], row: tuple[Array, Array]) -> tuple[tuple, tuple[Array, Array]]:
            (mean, root, evidence), (x, y) = carry, row
            predicted = mean @ x
            root, gain, spread = observe(root, x, self.noise_variance)
            weights = jax.nn.softmax(evidence)
            residual = y - predicted
            evidence = evidence - 0.5 * (jnp.square(residual) / spread + jnp.log(spread))
            return (mean + gain * residual[:, None], root, evidence), (weights @ predicted, weights)

        return lax.scan(step, start, (x, y))[1]

    def __call__(self, prompt: Prompt) -> Float[Array, "n dy"]:
        return jax.vmap(lambda y: self._posterior(prompt.x, y)[0], in_axes=1, out_axes=1)(real(self, prompt).y)


def bayes_over_bases(bases: ArrayLike, noise_variance: float) -> GaussianMixtureBayes:
    """Bayes for w ~ N(0, I) on one of the sets of coordinates given by rows of `bases`, "c d" (Han et al., 2024)."""
    masks = numbers(bases)
    return GaussianMixtureBayes(jnp.zeros_like(masks), masks, noise_variance)


def smoothed_dmmse(pool: ArrayLike, noise_variance: float, width: float) -> GaussianMixtureBayes:
    """Bayes for w in a finite pool "m d" blurred by N(0, width^2 I) (Raventos et al., 2023, Fig. 12).

    It keeps m d^2 numbers per prompt.
    """
    require(width > 0, "width", width, "positive; without width use DiscreteMmse")
    means = numbers(pool)
    return GaussianMixtureBayes(means, jnp.full_like(means, width**2), noise_variance)


class DiscreteMmse(eqx.Module):
    """dMMSE: the posterior mean of w.x when w is one of a finite pool "m d", at every position (Raventos et al., 2023).

    Row k weighs member m by exp(-sum_{i<k} (y_i - w_m.x_i)^2 / (2 noise_variance)); row 0 uses the pool's mean. Of
    several outputs each has a member of its own.
    """

    pool: Float[Array, "m d"] = eqx.field(converter=numbers)
    noise_variance: Float[Array, "*sweep"] = eqx.field(converter=number)

    def __check_init__(self):
        require(self.pool.ndim == 2, "pool", self.pool.shape, "of shape (m, d)")
        require_entries(lambda value: value > 0, "noise_variance", self.noise_variance, "positive")

    def __call__(self, prompt: Prompt) -> Float[Array, "n dy"]:
        predicted = prompt.x @ self.pool.T

        def output(y: Float[Array, " n"]) -> Float[Array, " n"]:
            squares = jnp.cumsum(jnp.square(y[:, None] - predicted), axis=0)
            before = jnp.concatenate([jnp.zeros_like(squares[:1]), squares[:-1]])
            weights = jax.nn.softmax(-before / (2 * self.noise_variance), axis=-1)
            return jnp.sum(weights * predicted, axis=-1)

        return jax.vmap(output, in_axes=1, out_axes=1)(real(self, prompt).y)


def best_training_vector_error(n_vectors: int, d: int) -> float:
    """E min_i |w_i - w|^2 / d over n_vectors training vectors w_i and a test vector w, all N(0, I).

    Given |w|^2 = r the distances are noncentral chi-square of d degrees and parameter r, and
    E min = integral of P(distance > t)^n dt; averaged over r ~ chi-square by Gauss-Legendre in its quantiles.
    """
    require(n_vectors >= 1, "n_vectors", n_vectors, "a positive integer")
    require(d >= 1, "d", d, "a positive integer")
    nodes, weights = np.polynomial.legendre.leggauss(64)
    radii = stats.chi2(d).ppf((nodes + 1) / 2)

    def expected_minimum(r: float) -> float:
        law = stats.ncx2(d, r)
        low, high = law.ppf(1e-3 / n_vectors), law.ppf(min(1 - 1e-12, 1 - 1e-12 ** (1 / n_vectors)))
        t = np.linspace(low, high, 2001)
        return low + float(integrate.simpson(np.exp(n_vectors * law.logsf(t)), x=t))

    return float(np.sum(weights / 2 * np.array([expected_minimum(r) for r in radii])) / d)
