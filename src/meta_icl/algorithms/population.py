"""Exact population losses of one step of gradient descent from zero on random linear regression.

All losses are HALF mean squared errors per output, 1/2 E (prediction - y_q)^2, as in the code of von Oswald et al.
(2022). Setting: entries of x independent with mean zero, variance sigma^2 and kurtosis kappa; entries of w independent
with mean zero and variance s_w^2; labels y = w.x + noise; the query follows the same law. A rate eta means
w <- w - (eta / N) sum_i (w.x_i - y_i) x_i.
"""

from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from meta_icl.algorithms.gradient_descent import GradientDescent
from meta_icl.errors import require
from meta_icl.prompt import Prompt, answer_batch


@runtime_checkable
class RegressionTask(Protocol):
    """What the closed forms read of a task; `meta_icl.tasks.LinearRegression` has it, `RegressionMoments` is it."""

    @property
    def d(self) -> int: ...
    @property
    def n_context(self) -> int: ...
    @property
    def x_variance(self) -> ArrayLike: ...
    @property
    def x_kurtosis(self) -> ArrayLike: ...
    @property
    def w_variance(self) -> ArrayLike: ...
    @property
    def noise(self) -> ArrayLike: ...
    @property
    def noisy_query(self) -> bool: ...
    @property
    def n_replaced(self) -> int: ...


@dataclass(frozen=True)
class RegressionMoments:
    """The numbers that fix the population loss of a regression task, for use without a task.

    `noise` is the standard deviation added to the context labels (with `noisy_query` to the query's target too);
    `n_replaced` of the context labels are replaced by N(0, 1) draws.
    """

    d: int
    n_context: int
    x_variance: ArrayLike
    x_kurtosis: ArrayLike
    w_variance: ArrayLike = 1.0
    noise: ArrayLike = 0.0
    noisy_query: bool = False
    n_replaced: int = 0

    def __post_init__(self):
        for field in ("d", "n_context"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        allowed = f"an integer from 0 to n_context = {self.n_context}"
        require(0 <= self.n_replaced <= self.n_context, "n_replaced", self.n_replaced, allowed)


def zero_loss(task: RegressionTask) -> Float[Array, "*sweep"]:
    """Half-MSE of the zero predictor, d sigma^2 s_w^2 / 2 (plus half the noise variance on a noisy query)."""
    return jnp.asarray(0.5 * task.d * task.x_variance * task.w_variance + _target_noise(task))


def gd_loss(rate: ArrayLike, task: RegressionTask) -> Float[Array, "*sweep"]:
    """Half-MSE of one gradient step of the given rate.

    With h = rate / N, k replaced labels, M = N - k and label noise nu:
    sigma^2/2 [d s_w^2 (1 - 2 h M sigma^2 + h^2 sigma^4 M (M + d - 2 + kappa)) + h^2 d sigma^2 (k + M nu^2)].
    Out of distribution at a frozen rate: evaluate on the shifted task (`x_scale`, `w_scale`, `n_replaced`).
    """
    linear, quadratic = _coefficients(task)
    return zero_loss(task) - linear * jnp.asarray(rate) + quadratic * jnp.asarray(rate) ** 2


def best_rate(task: RegressionTask, n_context: int | None = None) -> Float[Array, "*sweep"]:
    """The rate with the smallest population loss; N / (sigma^2 (N + d - 2 + kappa)) without noise.

    `n_context` asks for prompts of that length N in place of the task's own.
    """
    linear, quadratic = _coefficients(task, n_context)
    return linear / (2 * quadratic)


def best_gd_loss(task: RegressionTask) -> Float[Array, "*sweep"]:
    """Half-MSE at the best rate; L0 (1 - N / (N + d - 2 + kappa)) without noise."""
    return gd_loss(best_rate(task), task)


def best_rate_for(d: int, n: int, variance: ArrayLike, kurtosis: ArrayLike) -> Float[Array, "*sweep"]:
    """`best_rate` from dimension, context length, and variance and kurtosis of the inputs' entries; no noise."""
    return best_rate(RegressionMoments(d, n, variance, kurtosis))


def linear_map_loss(matrix: Float[Array, "d d"], task: RegressionTask) -> Float[Array, ""]:
    """Half-MSE of the predictor (1/N) sum_i y_i x_i^T A x_q, which is a preconditioned gradient step.

    s_w^2 sigma^2 / 2 [d - 2 M/N sigma^2 tr A + sigma^4 M (M + d - 2 + kappa) |A|_F^2 / N^2] plus
    sigma^4 |A|_F^2 (k + M nu^2) / (2 N^2); A = rate I is `gd_loss`, and the best A is a multiple of the identity. One
    layer of linear attention is such a predictor when its key-query product reads only inputs and its value only y.
    """
    linear, quadratic = _coefficients(task)
    return zero_loss(task) - linear / task.d * jnp.trace(matrix) + quadratic / task.d * jnp.square(matrix).sum()


def sample_best_rate(prompts: Prompt, w0: Float[Array, "dy dx"] | None = None) -> Float[Array, ""]:
    """The rate that is best for one step from `w0` on given prompts (batched), by the exact formula.

    eta* = N sum_n (y_q - w0 x_q).g_n / sum_n |g_n|^2 with g_n = sum_i (y_i - w0 x_i) x_i.x_q, sums over prompts n and
    context pairs i (Rossi et al., 2024; their printed sum over i starts at 1, it must cover the whole context).
    """
    y = prompts.y if w0 is None else prompts.y - jnp.einsum("bnd,od->bno", prompts.x, w0)
    overlap = jnp.einsum("bnd,bd->bn", prompts.x[:, :-1], prompts.x[:, -1])
    g = jnp.einsum("bno,bn->bo", y[:, :-1], overlap)
    return (prompts.x.shape[1] - 1) * (y[:, -1] * g).sum() / jnp.square(g).sum()


def line_search(
    prompts: Prompt, rates: Float[Array, " r"], steps: int = 1, w0: Float[Array, "dy dx"] | None = None
) -> tuple[Float[Array, ""], Float[Array, " r"]]:
    """The best of the given rates, shared by all `steps`, and the half-MSE of each on the given prompts (batched)."""
    losses = _losses_of_rates(prompts, jnp.asarray(rates), steps, w0)
    return jnp.asarray(rates)[jnp.nanargmin(losses)], losses


@partial(eqx.filter_jit)
def _losses_of_rates(prompts: Prompt, rates: Array, steps: int, w0: Array | None) -> Float[Array, " r"]:
    def loss(rate: Array) -> Array:
        answers = answer_batch(GradientDescent(rate, steps, w0), prompts)
        return 0.5 * jnp.square(answers - prompts.y[:, -1]).mean()

    return lax.map(loss, rates)


def _coefficients(
    task: RegressionTask, n_context: int | None = None
) -> tuple[Float[Array, "*sweep"], Float[Array, "*sweep"]]:
    """a and b of loss(rate) = loss(0) - a rate + b rate^2."""
    n, d, variance = n_context or task.n_context, task.d, task.x_variance
    smallest = max(1, task.n_replaced)
    require(isinstance(n, int) and n >= smallest, "n_context", n, f"an integer of at least {smallest}")
    intact = n - task.n_replaced
    signal = task.w_variance * intact * (intact + d - 2 + task.x_kurtosis)
    other = task.n_replaced + intact * task.noise**2
    linear = d * task.w_variance * variance**2 * intact / n
    quadratic = 0.5 * d * variance**2 * (variance * signal + other) / n**2
    return jnp.asarray(linear), jnp.asarray(quadratic)


def _target_noise(task: RegressionTask) -> ArrayLike:
    return 0.5 * task.noise**2 if task.noisy_query else 0.0
