"""Softmax heads reduced to two numbers each, and their losses: approximate, and exact for finite prompts.

A head with KQ = omega I on the inputs and OV = mu on the label is a kernel smoother; several of them answer
yhat = sum_h mu_h sum_l softmax_l(omega_h x_l.x_q) y_l (He et al., 2025). Setting: x ~ N(0, I_d), w ~ N(0, I_d/d), label
noise of variance s2 in the context and on the query's target, L context pairs. Losses are FULL mean squared errors.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from meta_icl.algorithms._checks import Numbers, real
from meta_icl.errors import require
from meta_icl.prompt import Prompt


class KernelHeads(eqx.Module):
    """The predictor sum_h mu_h sum_l softmax_l(omega_h x_l.x_q) y_l; one head is a kernel smoother."""

    omega: Float[Array, " h"] = eqx.field(converter=lambda value: jnp.atleast_1d(jnp.asarray(value, float)))
    mu: Float[Array, " h"] = eqx.field(converter=lambda value: jnp.atleast_1d(jnp.asarray(value, float)))

    def __check_init__(self):
        same = self.omega.ndim == 1 and self.omega.shape == self.mu.shape
        require(same, "omega and mu", (self.omega.shape, self.mu.shape), "one number per head each")

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = real(self, prompt).context
        pattern = jax.nn.softmax(jnp.outer(self.omega, x @ prompt.query.x), axis=-1)
        return (self.mu @ pattern) @ y


class HeadOptimum(NamedTuple):
    """The optimum of the approximate loss: omega and mu of a head, and the loss (with the query's noise)."""

    omega: float
    mu: float
    loss: float


def approximate_heads_loss(
    omega: Float[Array, " h"], mu: Float[Array, " h"], *, d: int, n_context: int, noise_variance: float
) -> Float[Array, ""]:
    """1 + s2 - 2 mu.omega + mu^T (omega omega^T + (1 + s2)/L exp(d omega omega^T)) mu, exp entrywise.

    The paper's population loss, valid for large L and small omega. Its label noise term (1 + s2) d / L misses 1/L and
    counts s2 fully, so that its optima lie below the true ones: compare `exact_heads_loss`.
    """
    product = jnp.outer(omega, omega)
    matrix = product + (1 + noise_variance) / n_context * jnp.exp(d * product)
    return 1 + noise_variance - 2 * mu @ omega + mu @ matrix @ mu


def best_mu(omega: Numbers, *, d: int, n_context: int, noise_variance: float) -> Float[np.ndarray, " h"]:
    """The mu that minimises the approximate loss at given omega."""
    w = np.asarray(omega, np.float64)
    product = np.outer(w, w)
    return np.linalg.solve(product + (1 + noise_variance) / n_context * np.exp(d * product), w)


def approximate_pair_loss(omega: float, *, d: int, n_context: int, noise_variance: float) -> float:
    """The approximate loss of heads omega, -omega with weights mu, -mu at the best mu.

    1 + s2 - (2 omega)^2 / ((2 omega)^2 + 4 (1 + s2)/L sinh(d omega^2)); falls as omega goes to zero.
    """
    require(omega != 0, "omega", omega, "not zero: `pair_limit` is what the loss tends to")
    power = (2 * omega) ** 2
    spread = 4 * (1 + noise_variance) / n_context * math.sinh(d * omega**2)
    return 1 + noise_variance - power / (power + spread)


def single_head_optimum(*, d: int, n_context: int, noise_variance: float) -> HeadOptimum:
    """One head: omega = 1/sqrt(d), mu = sqrt(d) / (1 + (1 + s2) e d / L)."""
    shrink = 1 / (1 + (1 + noise_variance) * math.e * d / n_context)
    return HeadOptimum(1 / math.sqrt(d), math.sqrt(d) * shrink, 1 + noise_variance - shrink)


def pair_limit(*, d: int, n_context: int, noise_variance: float) -> HeadOptimum:
    """Two opposite heads as omega goes to 0: `mu` holds the rate eta = 2 omega mu = 1 / (1 + (1 + s2) d / L).

    The approximate loss has no minimum at finite omega; the pair tends to one debiased gradient step of this rate.
    """
    eta = 1 / (1 + (1 + noise_variance) * d / n_context)
    return HeadOptimum(0.0, eta, 1 + noise_variance - eta)


def descent_loss(rate: Numbers, *, d: int, n_context: int, noise_variance: float, debiased: bool = False) -> np.ndarray:
    """Exact loss of one gradient step (eta/L) sum_l y_l x_l.x_q, or of the debiased one with x_l - xbar.

    1 + s2 - 2 eta + eta^2 (1 + (d+1)/L + s2 d/L), and debiased
    1 + s2 - 2 eta (L-1)/L + eta^2 ((L-1)(L+d)/L^2 + s2 d (L-1)/L^2).
    """
    eta, n, s2 = np.asarray(rate, np.float64), n_context, noise_variance
    keep = (n - 1) / n if debiased else 1.0
    square = (n - 1) * (n + d) / n**2 if debiased else 1 + (d + 1) / n
    return np.asarray(1 + s2 - 2 * eta * keep + eta**2 * (square + keep * s2 * d / n))


def best_descent_rate(*, d: int, n_context: int, noise_variance: float, debiased: bool = False) -> float:
    """The rate that minimises `descent_loss`."""
    n, s2 = n_context, noise_variance
    if debiased:
        return n / (n + d + s2 * d)
    return 1 / (1 + (d + 1) / n + s2 * d / n)


def ridge_limit(aspect: float, noise_variance: float) -> float:
    """Loss of optimal ridge regression for d / L = aspect with d and L large, the noise of the query's target included.

    1/2 [s2 + (xi - 1)/xi + sqrt(4 s2 + (s2 + (1 - xi)/xi)^2)]. The optimal penalty, which is Bayes, is s2 d for squared
    errors summed over the context.
    """
    xi, s2 = aspect, noise_variance
    require(xi > 0, "aspect", xi, "positive")
    require(s2 > 0, "noise_variance", s2, "positive")
    return 0.5 * (s2 + (xi - 1) / xi + math.sqrt(4 * s2 + (s2 + (1 - xi) / xi) ** 2))


def ridge_loss(*, d: int, n_context: int, noise_variance: float, draws: int = 4_000, seed: int = 0) -> float:
    """Loss of ridge regression at the Bayes penalty s2 d, which is Bayes: s2 (1 + E tr (X^T X + s2 d I)^-1).

    The mean over `draws` contexts, exact given each: its standard error is far below that of sampled squared errors.
    """
    require(noise_variance > 0, "noise_variance", noise_variance, "positive")
    x = np.random.default_rng(seed).normal(size=(draws, n_context, d))
    gram = x.swapaxes(1, 2) @ x + noise_variance * d * np.eye(d)
    return noise_variance * (1 + float(np.trace(np.linalg.inv(gram), axis1=1, axis2=2).mean()))


class HeadMoments(NamedTuple):
    """The exact loss of heads at fixed omega as a quadratic form in mu: power - 2 linear.mu + mu^T quadratic mu."""

    power: float
    linear: Float[np.ndarray, " h"]
    quadratic: Float[np.ndarray, "h h"]

    def loss(self, mu: Numbers) -> float:
        """The loss at given mu."""
        m = np.asarray(mu, np.float64)
        return float(self.power - 2 * self.linear @ m + m @ self.quadratic @ m)

    def best_mu(self) -> Float[np.ndarray, " h"]:
        """The mu with the smallest loss (of smallest norm where heads coincide)."""
        return np.linalg.lstsq(self.quadratic, self.linear, rcond=1e-12)[0]


def exact_heads_loss(omega: Numbers, mu: Numbers, *, d: int, n_context: int, noise_variance: float) -> float:
    """The loss of softmax heads for finite L and any omega, to about ten digits: no approximation, no sampling."""
    return exact_head_moments(omega, d=d, n_context=n_context, noise_variance=noise_variance).loss(mu)


def exact_head_moments(omega: Numbers, *, d: int, n_context: int, noise_variance: float) -> HeadMoments:
    """The exact loss at given omega, by integrals over three variables.

    Along the query, of length r ~ chi_d, the context has normal coordinates z_l; patterns p_h = softmax(omega_h r z)
    depend on nothing else. So E yhat_h y = mu_h E[r p_h.z] / d, and E yhat_h yhat_g needs E[(p_h.z)(p_g.z)] and
    E[p_h.p_g], because the other d - 1 coordinates are independent of the patterns. Writing 1/(S_h S_g) for the two
    normalisers as the double integral of exp(-s S_h - t S_g) makes the expectation over z a power of one-dimensional
    integrals.
    """
    w = np.atleast_1d(np.asarray(omega, np.float64))
    require(w.ndim == 1, "omega", w.shape, "one number per head")
    require(n_context >= 2, "n_context", n_context, "at least 2")
    lengths, weights = _length_nodes(d)
    linear, overlap, spread = np.zeros(len(w)), np.zeros((len(w),) * 2), np.zeros((len(w),) * 2)
    for r, weight in zip(lengths, weights, strict=True):
        for h in range(len(w)):
            for g in range(h, len(w)):
                first, dot, product = _pattern_moments(w[h] * r, w[g] * r, n_context)
                overlap[h, g] += weight * dot
                spread[h, g] += weight * product
                if g == h:
                    linear[h] += weight * r * first / d
    quadratic = (spread + (d - 1) * overlap) / d + noise_variance * overlap
    quadratic = np.triu(quadratic) + np.triu(quadratic, 1).T
    return HeadMoments(1 + noise_variance, linear, quadratic)


def _length_nodes(d: int, n: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes of the length of N(0, I_d), by generalised Laguerre polynomials in r^2 / 2."""
    nodes, weights = special.roots_genlaguerre(n, d / 2 - 1)
    keep = weights > 1e-16 * weights.sum()
    return np.sqrt(2 * nodes[keep]), weights[keep] / weights.sum()


def _pattern_moments(a: float, b: float, n: int) -> tuple[float, float, float]:
    """E[p.z], E[p.q] and E[(p.z)(q.z)] for p = softmax(a z), q = softmax(b z), z of n standard normal entries."""
    z = np.arange(-9.5, 9.5, min(0.12, 0.25 / max(abs(a), abs(b), 1e-9)))
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    (ds, kernel_a), (dt, kernel_b) = (_laplace_nodes(c, n, z) for c in (a, b))

    def average(f: np.ndarray) -> np.ndarray:
        return (kernel_a * (density * f)) @ kernel_b.T

    e_a, e_b = np.exp(a * z), np.exp(b * z)
    m, area = average(np.ones_like(z)), np.outer(ds, dt)
    with np.errstate(under="ignore"):
        rest = m ** (n - 2)
        dot = n * np.sum(area * average(e_a * e_b) * rest * m)
        same = n * np.sum(area * average(z**2 * e_a * e_b) * rest * m)
        other = n * (n - 1) * np.sum(area * average(z * e_a) * average(z * e_b) * rest)
        single = kernel_a @ density
        first = n * np.sum(ds * (kernel_a @ (density * z * e_a)) * single ** (n - 1))
    return float(first), float(dot), float(same + other)


def _laplace_nodes(a: float, n: int, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights ds of the nodes s of a logarithmic grid, and exp(-s exp(a z)) there, "s z"."""
    start, stop = -math.log(n) - a**2 / 2 - 32, 9.5 * abs(a) + 4
    log_s = np.linspace(start, stop, math.ceil((stop - start) / 0.3))
    s = np.exp(log_s)
    return s * (log_s[1] - log_s[0]), np.exp(-np.outer(s, np.exp(a * z)))
