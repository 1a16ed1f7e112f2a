"""Exact expected losses of linear attention on Gaussian regression with any covariances.

Setting: x ~ N(0, Lambda), w ~ N(0, S), labels y = w.x + noise of variance nu, N context pairs, a query of the same law.
The answer is beta^T U x_q with beta = (1/N) sum_i y_i x_i, which is what one layer of linear attention and one step of
(preconditioned) gradient descent compute. All losses are FULL mean squared errors, E (yhat - y_q)^2.

Everything is numpy in float64 and exact for finite N; only calling a loss on a traced U uses JAX.
"""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.algorithms._checks import Numbers, real
from meta_icl.errors import BadInput, require
from meta_icl.prompt import Prompt


@runtime_checkable
class GaussianTask(Protocol):
    """What `map_loss_of` reads of a task; `meta_icl.tasks.LinearRegression` with normal laws has it."""

    d: int
    n_context: int
    x_law: Any
    w_law: Any
    x_scale: Any
    w_scale: Any
    noise: Any
    noisy_query: bool
    n_replaced: int
    pool: Any


class MapLoss(eqx.Module):
    """L(U) = power - 2 tr(cross^T U) + tr(gram U Lambda U^T), the expected squared error of beta^T U x_q.

    gram = E beta beta^T, cross = E[beta w^T] Lambda, power = E y_q^2. In the coordinates M = gram^(1/2) U Lambda^(1/2)
    the loss is power - |T|^2 + |M - T|^2 with T = gram^(-1/2) cross Lambda^(-1/2); hence the critical points of every
    factorised U: M is the sum of any subset of the singular components of T, and the loss there is power minus the sum
    of their squared singular values. When Lambda and S commute, the components are their common eigenvectors.
    """

    gram: Float[np.ndarray, "d d"]
    cross: Float[np.ndarray, "d d"]
    covariance: Float[np.ndarray, "d d"]
    power: Float[np.ndarray, ""]

    def __call__(self, u: Float[Array | np.ndarray, "d d"]) -> Float[Array, ""]:
        """The loss of a matrix, differentiable."""
        return jnp.asarray(self.power - 2 * jnp.sum(self.cross * u) + jnp.sum((self.gram @ u) * (u @ self.covariance)))

    def gradient(self, u: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
        """dL/dU = -2 cross + 2 gram U Lambda."""
        return -2 * self.cross + 2 * self.gram @ u @ self.covariance

    def minimiser(self) -> Float[np.ndarray, "d d"]:
        """The best U, gram^-1 cross Lambda^-1 (of smallest norm where Lambda is singular)."""
        return self.fixed_point(range(self.covariance.shape[0]))

    def components(self) -> Float[np.ndarray, " d"]:
        """By how much each singular component lowers the loss, in falling order."""
        return self._target()[1] ** 2

    def directions(self) -> Float[np.ndarray, "d d"]:
        """Unit vectors (rows) that the components of `components` add to U on the side of x_q."""
        right = self._target()[2] @ _root(self.covariance, -0.5)
        return right / np.linalg.norm(right, axis=1, keepdims=True)

    def level(self, subset: Iterable[int]) -> float:
        """The loss at the fixed point at which the components of `subset` (indices, 0 the strongest) are learned."""
        return float(self.power - self.components()[self._indices(subset)].sum())

    def levels(self) -> Float[np.ndarray, " levels"]:
        """The losses with none, the first, the first two, .. components learned: the plateaus of training."""
        return self.power - np.concatenate([[0.0], np.cumsum(self.components())])

    def fixed_point(self, subset: Iterable[int]) -> Float[np.ndarray, "d d"]:
        """U at the fixed point of a subset of components."""
        left, strength, right = self._target()
        index = self._indices(subset)
        m = (left[:, index] * strength[index]) @ right[index]
        return _root(self.gram, -0.5) @ m @ _root(self.covariance, -0.5)

    def best_scale(self, u: Float[np.ndarray, "d d"]) -> float:
        """The factor eta with the smallest loss of eta U: the best rate when U is a preconditioner."""
        return float(np.sum(self.cross * u) / np.sum((self.gram @ u) * (u @ self.covariance)))

    def _target(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.linalg.svd(_root(self.gram, -0.5) @ self.cross @ _root(self.covariance, -0.5))

    def _indices(self, subset: Iterable[int]) -> list[int]:
        index, d = sorted(set(subset)), self.covariance.shape[0]
        require(all(0 <= i < d for i in index), "subset", index, f"component numbers from 0 to {d - 1}")
        return index


def map_loss(
    covariance: Numbers,
    n_context: int,
    *,
    prior: Numbers | None = None,
    noise_variance: float = 0.0,
    noisy_query: bool = False,
    debiased: bool = False,
) -> MapLoss:
    """The loss of beta^T U x_q from the moments of Wishart matrices; w ~ N(0, prior), by default N(0, I).

    gram = (1 + 1/N) Lambda S Lambda + tr(S Lambda) Lambda / N + nu Lambda / N, cross = Lambda S Lambda, and
    power = tr(S Lambda), plus nu if the query's target is noisy. `debiased` is for beta = (1/N) sum_i y_i (x_i - xbar),
    the debiased gradient step of He et al. (2025): in the first two terms of gram N - 1 replaces N and they are
    multiplied by ((N-1)/N)^2, the third and cross by (N-1)/N.
    """
    lam = np.asarray(covariance, np.float64)
    require(lam.ndim == 2 and lam.shape[0] == lam.shape[1], "covariance", lam.shape, "a square matrix")
    s = np.eye(lam.shape[0]) if prior is None else np.asarray(prior, np.float64)
    require(s.shape == lam.shape, "prior", s.shape, f"of shape {lam.shape}")
    require(n_context >= 1 + debiased, "n_context", n_context, f"at least {1 + debiased}")
    require(noise_variance >= 0, "noise_variance", noise_variance, "zero or positive")
    dof = n_context - debiased
    keep = dof / n_context
    signal = lam @ s @ lam
    power = np.trace(s @ lam)
    gram = keep**2 * ((1 + 1 / dof) * signal + power * lam / dof) + keep * noise_variance * lam / n_context
    return MapLoss(gram, keep * signal, lam, np.asarray(power + noise_variance * noisy_query))


def map_loss_of(task: GaussianTask, *, debiased: bool = False) -> MapLoss:
    """`map_loss` of a `LinearRegression` task whose laws of x and w are normal."""
    for field in ("x_law", "w_law"):
        law = getattr(task, field)
        known = hasattr(law, "covariance_matrix") and float(law.kurtosis) == 3.0
        require(known, field, type(law).__name__, "Normal: the exact loss needs Gaussian moments")
    require(task.pool is None, "pool", "a finite pool", "left out for a closed form, which averages over w_law")
    require(task.n_replaced == 0, "n_replaced", task.n_replaced, "0 for a closed form")
    x_scale, w_scale, noise = (float(value) for value in (task.x_scale, task.w_scale, task.noise))
    return map_loss(
        x_scale**2 * np.asarray(task.x_law.covariance_matrix(task.d), np.float64),
        task.n_context,
        prior=w_scale**2 * np.asarray(task.w_law.covariance_matrix(task.d), np.float64),
        noise_variance=noise**2,
        noisy_query=task.noisy_query,
        debiased=debiased,
    )


class SampleMapLoss(eqx.Module):
    """The mean squared error of sum(U * features) on given prompts, a quadratic form in a tensor U of any shape.

    Training on the whole of a finite set costs nothing per prompt this way. `moment` is the mean of f f^T over the
    flattened features f, `cross` that of features times target.
    """

    moment: Float[np.ndarray, "f f"]
    cross: Float[np.ndarray, "*u"]
    power: Float[np.ndarray, ""]

    def __call__(self, u: Float[Array | np.ndarray, "*u"]) -> Float[Array, ""]:
        """The loss of a tensor, differentiable."""
        flat = u.reshape(-1)
        return jnp.asarray(self.power - 2 * jnp.sum(self.cross * u) + flat @ (self.moment @ flat))

    def along(self, path: Float[np.ndarray, "t ..."]) -> Float[np.ndarray, " t"]:
        """The losses of recorded tensors, in float64 whatever the precision in use."""
        flat = path.reshape(len(path), -1).astype(np.float64)
        moment, cross = np.asarray(self.moment, np.float64), np.asarray(self.cross, np.float64).ravel()
        return self.power - 2 * flat @ cross + np.sum((flat @ moment) * flat, axis=1)


def sample_map_loss(prompts: Prompt) -> SampleMapLoss:
    """The loss of beta^T U x_q on a batch of prompts with one output, exact in float64; features beta x_q^T, "d d"."""
    x, y = _one_output(prompts)
    beta = np.einsum("bn,bnd->bd", y[:, :-1, 0], x[:, :-1]) / (x.shape[1] - 1)
    return _quadratic(np.einsum("bd,be->bde", beta, x[:, -1]), y[:, -1, 0])


def sample_token_loss(prompts: Prompt) -> SampleMapLoss:
    """The loss of one layer of linear attention with all its blocks on a batch of prompts with one output.

    The layer answers sum_abc U_abc M_ab x_qc with U_abc = sum_heads v_a W_bc and M = (1/N) sum_i z_i z_i^T over the
    tokens z_i = (x_i, y_i) and the query (x_q, 0); the features are M_ab x_qc, "d+1 d+1 d".
    """
    x, y = _one_output(prompts)
    y_seen = np.concatenate([y[:, :-1], np.zeros_like(y[:, -1:])], axis=1)
    z = np.concatenate([x, y_seen], axis=2)
    moments = np.einsum("bna,bnc->bac", z, z) / (x.shape[1] - 1)
    return _quadratic(np.einsum("bac,be->bace", moments, x[:, -1]), y[:, -1, 0])


def _one_output(prompts: Prompt) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(prompts.x, np.float64), np.asarray(prompts.y, np.float64)
    if y.ndim != 3 or y.shape[2] != 1:
        raise BadInput(f"prompts must have one output, y of shape (b, n, 1), got {y.shape}")
    return x, y


def _quadratic(features: np.ndarray, target: np.ndarray) -> SampleMapLoss:
    n, flat = len(target), features.reshape(len(target), -1)
    cross = (target @ flat / n).reshape(features.shape[1:])
    return SampleMapLoss(flat.T @ flat / n, cross, np.asarray(np.mean(target**2)))


class LinearMap(eqx.Module):
    """The predictor beta^T U x_q: one step of gradient descent from zero with preconditioner U (eta I is a plain step).

    `debiased` centres the context's inputs first, beta = (1/N) sum_i y_i (x_i - xbar) (He et al., 2025).
    """

    matrix: Float[Array, "d d"] = eqx.field(converter=lambda value: jnp.asarray(value, jnp.result_type(float)))
    debiased: bool = eqx.field(static=True, default=False)

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = real(self, prompt).context
        centred = x - x.sum(0, keepdims=True) / max(x.shape[0], 1) if self.debiased else x
        return (y.T @ centred / max(x.shape[0], 1)) @ self.matrix @ prompt.query.x


class PreconditionedDescent(eqx.Module):
    """K steps w <- w - P_k (1/N) sum_i (w.x_i - y_i) x_i from w = 0, each with its own preconditioner "k d d"."""

    preconditioners: Float[Array, "k d d"] = eqx.field(
        converter=lambda value: jnp.asarray(value, jnp.result_type(float))
    )

    def __check_init__(self):
        shape = self.preconditioners.shape
        require(len(shape) == 3 and shape[1] == shape[2], "preconditioners", shape, "of shape (steps, d, d)")

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = real(self, prompt).context
        w = jnp.zeros((x.shape[1], y.shape[1]), x.dtype)
        for k in range(self.preconditioners.shape[0]):
            w = w - self.preconditioners[k] @ (x.T @ (x @ w - y)) / max(x.shape[0], 1)
        return prompt.query.x @ w


def _root(matrix: Float[np.ndarray, "d d"], power: float) -> Float[np.ndarray, "d d"]:
    """A power of a symmetric positive semi-definite matrix; its null space stays null for negative powers too."""
    values, vectors = np.linalg.eigh(matrix)
    positive = values > max(values.max(), 0) * len(values) * np.finfo(np.float64).eps
    raised = np.where(positive, np.where(positive, values, 1.0) ** power, 0.0)
    return (vectors * raised) @ vectors.T
