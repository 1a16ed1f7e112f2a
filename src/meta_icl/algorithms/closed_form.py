"""Reference learners with a closed-form solution: least squares, ridge, Bayes, and the zero predictor."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.algorithms._checks import real
from meta_icl.conversions import number, numbers, optional_numbers, require_entries
from meta_icl.errors import require
from meta_icl.prompt import Prompt


class ZeroPredictor(eqx.Module):
    """Answers zero, the best constant for targets of mean zero."""

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        return jnp.zeros_like(real(self, prompt).y[-1])


class LeastSquares(eqx.Module):
    """The least-squares solution of smallest norm on the context; it interpolates when there are too few pairs."""

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        return prompt.query.x @ shrunken_solution(*real(self, prompt).context, penalty=jnp.zeros((), prompt.x.dtype))


class Ridge(eqx.Module):
    """Minimises sum_i |w x_i - y_i|^2 + penalty |w|^2 (a sum over the context, not a mean; no intercept)."""

    penalty: Float[Array, "*sweep"] = eqx.field(converter=number)

    def __check_init__(self):
        require_entries(lambda value: value >= 0, "penalty", self.penalty, "zero or positive")

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        return prompt.query.x @ shrunken_solution(*real(self, prompt).context, penalty=self.penalty)


class BayesLinear(eqx.Module):
    """The posterior mean of w x_q when every output's w ~ N(0, prior) and labels carry N(0, noise_variance).

    The prior covariance is `prior_covariance`, "dx dx" and positive semi-definite, or `prior_variance` times the
    identity. With zero noise it is the limit of vanishing noise: the interpolant that the prior finds most likely.
    """

    noise_variance: Float[Array, "*sweep"] = eqx.field(converter=number)
    prior_variance: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    prior_covariance: Float[Array, "*sweep dx dx"] | None = eqx.field(default=None, converter=optional_numbers)

    def __check_init__(self):
        require_entries(lambda value: value >= 0, "noise_variance", self.noise_variance, "zero or positive")
        require_entries(lambda value: value > 0, "prior_variance", self.prior_variance, "positive")
        if self.prior_covariance is not None:
            shape = self.prior_covariance.shape
            require(len(shape) >= 2 and shape[-1] == shape[-2], "prior_covariance", shape, "a square matrix")
            only_one = "left out (1) when prior_covariance is given"
            require_entries(lambda value: value == 1, "prior_variance", self.prior_variance, only_one)

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = real(self, prompt).context
        if self.prior_covariance is None:
            penalty = self.noise_variance / self.prior_variance
            return prompt.query.x @ shrunken_solution(x, y, penalty=penalty)
        eigenvalues, vectors = jnp.linalg.eigh(self.prior_covariance)
        root = vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0))[None, :]  # w = root u with u ~ N(0, I)
        return (prompt.query.x @ root) @ shrunken_solution(x @ root, y, penalty=self.noise_variance)


class BayesFinitePool(eqx.Module):
    """The posterior mean of x_q w when w is one of a finite pool "m dx dy", all equally likely a priori.

    Weights are proportional to exp(-|Y - X w_m|^2 / (2 noise_variance)). With zero noise it is the limit of vanishing
    noise: the members with the smallest squared error, equal up to rounding, share the weight equally.
    """

    pool: Float[Array, "m dx dy"] = eqx.field(converter=numbers)
    noise_variance: Float[Array, "*sweep"] = eqx.field(converter=number)

    def __check_init__(self):
        require(self.pool.ndim >= 3, "pool", self.pool.shape, "of shape (m, dx, dy)")
        require_entries(lambda value: value >= 0, "noise_variance", self.noise_variance, "zero or positive")

    def weights(self, prompt: Prompt) -> Float[Array, " m"]:
        """The posterior probability of every member of the pool."""
        x, y = real(self, prompt).context
        errors = jnp.square(y[None] - jnp.einsum("nd,mdo->mno", x, self.pool)).sum((1, 2))
        excess = errors - errors.min()
        # Rounding of a residual is at most about dx eps |x_i| |w|, so of a sum of squares:
        eps = jnp.finfo(errors.dtype).eps
        rounding = jnp.square(x.shape[1] * eps) * jnp.square(x).sum() * jnp.square(self.pool).sum((1, 2)).max()
        no_noise = self.noise_variance == 0
        safe = jnp.where(no_noise, 1.0, self.noise_variance)
        likelihood = jnp.where(no_noise, (excess <= rounding).astype(errors.dtype), jnp.exp(-excess / (2 * safe)))
        return likelihood / likelihood.sum()

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        return jnp.einsum("m,mdo,d->o", self.weights(prompt), self.pool, prompt.query.x)


def shrunken_solution(
    x: Float[Array, "n dx"], y: Float[Array, "n dy"], *, penalty: Float[Array, ""]
) -> Float[Array, "dx dy"]:
    """The minimiser of |Y - X W|^2 + penalty |W|^2, of smallest norm when the penalty is zero.

    W = V diag(s / (s^2 + penalty)) U^T Y by singular values, which keeps the precision that X^T X would lose; singular
    values below max(n, dx) eps times the largest count as zero.
    """
    if x.shape[0] == 0:
        return jnp.zeros((x.shape[1], y.shape[1]), jnp.result_type(x, y))
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    known = s > max(x.shape) * jnp.finfo(s.dtype).eps * s[0]
    gain = jnp.where(known, s / jnp.where(known, jnp.square(s) + penalty, 1.0), 0.0)
    return vt.T @ (gain[:, None] * (u.T @ y))
