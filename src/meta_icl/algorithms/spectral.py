"""The spectral oracle: exact losses of many-step gradient descent and GD++ without running them on any labels.

Let S = sum_i x_i x_i^T over a context of N pairs, with eigenvalues s, and start from w = 0. GD and GD++ act on every
eigenvalue by itself: with r = c = 1 at the start, a step of rate eta and curvature correction gamma is
    r <- r (1 - (eta / N) c^2 s),    c <- c (1 - gamma c^2 s)    (both with the old c),
and the prediction of noise-free labels is w (I - r_K(S)) x_q. Averaged over w (variance s_w^2 per entry) and a query of
covariance sigma^2 I, for THE GIVEN contexts, the half-MSE is 1/2 sigma^2 s_w^2 mean_b sum_j r_K(s_bj)^2 exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key
from scipy.optimize import minimize

from meta_icl.algorithms._checks import per_step, step_count
from meta_icl.errors import require


def spectrum(x: Float[Array, "*b n d"]) -> Float[Array, "*b d"]:
    """Eigenvalues of S = sum_i x_i x_i^T, ascending, for context inputs `x` (the query's row left out)."""
    eigenvalues = jnp.linalg.eigvalsh(jnp.einsum("...nd,...ne->...de", x, x))
    return jnp.maximum(eigenvalues, 0)  # rounding can make a zero eigenvalue negative


def residual(
    rates: ArrayLike | Sequence[float],
    gammas: ArrayLike | Sequence[float] | None,
    eigenvalues: Float[Array | np.ndarray, "*b d"],
    *,
    n_context: int,
    steps: int | None = None,
) -> Float[Array, "*b d"]:
    """The share r_K(s) of w that K steps leave unlearned along each eigenvector of S.

    `rates` (eta, not eta / N) and `gammas` are one number or one per step; `gammas=None` is plain gradient descent.
    """
    rates = per_step(rates)
    gammas = jnp.zeros(()) if gammas is None else per_step(gammas)
    steps = step_count(steps, rates=rates, gammas=gammas)
    scalars = zip(jnp.broadcast_to(rates, (steps,)), jnp.broadcast_to(gammas, (steps,)), strict=True)
    eigenvalues = jnp.asarray(eigenvalues)
    r = c = jnp.ones_like(eigenvalues)
    for rate, gamma in scalars:
        curvature = jnp.square(c) * eigenvalues
        r, c = r * (1 - rate / n_context * curvature), c * (1 - gamma * curvature)
    return r


def multi_step_loss(
    rates: ArrayLike | Sequence[float],
    gammas: ArrayLike | Sequence[float] | None,
    eigenvalues: Float[Array | np.ndarray, "*b d"],
    *,
    n_context: int,
    x_variance: ArrayLike,
    w_variance: ArrayLike = 1.0,
    steps: int | None = None,
) -> Float[Array, ""]:
    """Half-MSE per output on the given contexts, averaged exactly over w and the query; see the module docstring."""
    r = residual(rates, gammas, eigenvalues, n_context=n_context, steps=steps)
    return 0.5 * jnp.asarray(x_variance) * jnp.asarray(w_variance) * jnp.square(r).sum(-1).mean()


def gd_stability_threshold(eigenvalues: Float[Array | np.ndarray, "*b d"], n_context: int) -> Float[Array, "*b"]:
    """The rate 2 N / s_max above which repeated gradient steps diverge, for every context.

    Of a batch the smallest threshold counts: dampening lambda keeps a rate stable while lambda rate stays below it.
    """
    return 2 * n_context / jnp.asarray(eigenvalues).max(-1)


@dataclass(frozen=True)
class Fit:
    """The best scalars that `fit` found: rates and gammas (zeros for plain descent), and their loss on its spectra."""

    rates: np.ndarray
    gammas: np.ndarray
    loss: float
    restart_losses: np.ndarray


def fit(
    eigenvalues: Float[Array | np.ndarray, "b d"],
    *,
    n_context: int,
    steps: int,
    x_variance: float,
    w_variance: float = 1.0,
    shared: bool = False,
    with_gammas: bool = False,
    restarts: int = 1,
    key: Key[Array, ""] | None = None,
) -> Fit:
    """The rates (and gammas, for GD++) with the smallest loss over sampled spectra.

    L-BFGS in float64 on the logarithms of the scalars, which are all positive; `shared` uses one pair for all steps.
    The first start is deterministic, the other `restarts - 1` perturb it at random, and the best result is returned:
    with gammas per step there are several local minima. Report the loss on OTHER spectra (`multi_step_loss`): rare
    contexts with large eigenvalues dominate, so fit on 40 000 or more.
    """
    require(steps >= 1, "steps", steps, "a positive integer")
    require(restarts >= 1, "restarts", restarts, "a positive integer")
    n_rates = 1 if shared else steps
    n_gammas = min(n_rates, steps - 1) if with_gammas else 0  # the last has no effect
    noise = np.zeros((restarts, n_rates + n_gammas))
    require(restarts == 1 or key is not None, "key", key, "given when there are random restarts")
    if key is not None:
        noise[1:] = np.asarray(jax.random.normal(key, noise[1:].shape), np.float64)
    with jax.enable_x64(True):
        s = jnp.asarray(np.asarray(eigenvalues, np.float64))
        value_and_grad = partial(_value_and_grad, s=s, n_context=n_context, steps=steps, n_rates=n_rates)
        start = _start(np.asarray(s), n_context, n_rates, n_gammas)
        results = []
        for perturbation in noise:
            results.append(
                minimize(
                    lambda z: tuple(np.asarray(part, np.float64) for part in value_and_grad(jnp.asarray(z))),
                    start + perturbation,
                    jac=True,
                    method="L-BFGS-B",
                    options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8},
                )
            )
        logs = np.array([result.fun for result in results])
        losses = 0.5 * x_variance * w_variance * np.exp(np.where(np.isfinite(logs), logs, np.inf))
        best = int(losses.argmin())
        rates, gammas = _scalars(jnp.exp(jnp.asarray(results[best].x)), n_rates, steps)
        return Fit(np.asarray(rates), np.asarray(gammas), float(losses[best]), losses)


def _scalars(positive: Float[Array, " p"], n_rates: int, steps: int) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Rates and gammas from the fitted numbers: shared ones repeated, missing gammas zero."""
    rates, gammas = positive[:n_rates], positive[n_rates:]
    if n_rates == 1:
        rates = jnp.broadcast_to(rates, (steps,))
        gammas = jnp.broadcast_to(gammas, (steps,)) if gammas.size else gammas
    return rates, jnp.concatenate([gammas, jnp.zeros(steps - gammas.size)])


def _start(s: np.ndarray, n_context: int, n_rates: int, n_gammas: int) -> np.ndarray:
    """Logarithms of the best one-step rate, growing with depth, and of a gamma that keeps every c positive."""
    rate = n_context * s.sum() / np.square(s).sum()
    rates = np.full(n_rates, np.log(rate))
    if n_rates > 1:
        rates += np.linspace(-0.4, 1.6 if n_gammas else 0.6, n_rates)
    gamma = 0.3 / s.max(-1).mean()
    return np.concatenate([rates, np.full(n_gammas, np.log(gamma))])


@partial(jax.jit, static_argnames=("n_context", "steps", "n_rates"))
def _value_and_grad(z: Array, *, s: Array, n_context: int, steps: int, n_rates: int) -> tuple[Array, Array]:
    """The logarithm of mean_b sum_j r_K^2, which is better scaled than the loss, and its gradient."""

    def objective(z: Array) -> Array:
        rates, gammas = _scalars(jnp.exp(z), n_rates, steps)
        return jnp.log(jnp.square(residual(rates, gammas, s, n_context=n_context)).sum(-1).mean())

    return jax.value_and_grad(objective)(z)
