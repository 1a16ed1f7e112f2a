"""What is computed without training: the losses of gradient descent, and the gradient at the structured point."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

from meta_icl import tasks
from meta_icl.algorithms import spectral
from meta_icl.analysis import distance_to_scaled_identity
from meta_icl.models import SparseLinearPredictor
from meta_icl.runs import Run
from meta_icl.training import ContextSet, context_set, context_set_loss

D, N, KEY = 5, 20, 2023
SKEWED = (1.0, 1.0, 0.25, 0.0625, 1.0)
ISOTROPIC = (1.0,) * D


def references(part: Run, *, lengths: list[int], depths: list[int], contexts: int) -> dict[str, np.ndarray]:
    """Gradient descent and preconditioned gradient descent with one best shared rate, and the best scalars per layer.

    Losses on held-out contexts: `plain_L_n` in the given skewed coordinates, `whitened_L_n` in whitened ones,
    `per_step_L` and `plus_L` with rates (and gammas) per layer, n = 20.
    """
    out: dict[str, np.ndarray] = {}
    for n in lengths:
        sets = {
            name: [context_set(regression(s, "inverse", n), contexts, key=jax.random.key(KEY + k)) for k in (3, 4)]
            for name, s in (("plain", SKEWED), ("whitened", ISOTROPIC))
        }
        for layers in sorted({*depths, 3}) if n == N else [3]:
            for name, (fit, test) in sets.items():

                def on(rate: float, data: ContextSet, layers: int = layers) -> float:
                    return data.loss(SparseLinearPredictor(-rate * jnp.broadcast_to(jnp.eye(D), (layers, D, D)), None))

                best: Any = minimize_scalar(
                    on, bounds=(1e-3, 3.0), args=(fit,), method="bounded", options={"xatol": 1e-4}
                )
                out[f"{name}_{layers}_{n}"] = np.array([on(float(best.x), test), best.x])
            if n == N and layers > 1:
                moments = [np.moveaxis(np.asarray(data.moments), -1, 0) for data in sets["whitened"]]
                eigenvalues = [np.linalg.eigvalsh(each) * n for each in moments]
                for name, with_gammas in (("per_step", False), ("plus", True)):
                    fit = spectral.fit(
                        jnp.asarray(eigenvalues[0]),
                        n_context=n,
                        steps=layers,
                        x_variance=1.0,
                        with_gammas=with_gammas,
                        restarts=8 if with_gammas else 1,
                        key=jax.random.key(KEY),
                    )
                    loss = 2 * float(
                        spectral.multi_step_loss(
                            list(fit.rates), list(fit.gammas), jnp.asarray(eigenvalues[1]), n_context=n, x_variance=1.0
                        )
                    )
                    out[f"{name}_{layers}"] = np.array([loss, *fit.rates, *fit.gammas])
    return out


def gradient_structure(part: Run, *, layers: int, contexts: int, batches: int) -> dict[str, np.ndarray]:
    """The gradient at A_l = -a_l Sigma^-1, B_l = b_l I, in whitened coordinates: its part that is no multiple of I.

    `z` holds mean over standard error, over batches of contexts, of every entry of that part.
    """
    root = rotation() * np.sqrt(SKEWED)
    task = regression(SKEWED, "inverse")
    a = -np.linspace(0.4, 1.0, layers)[:, None, None] * np.linalg.inv(root @ root.T)
    b = np.linspace(0.7, 0.3, layers)[:, None, None] * np.eye(D)
    found = []
    with jax.enable_x64(True):
        derivative = eqx.filter_jit(jax.grad(lambda w, drawn: context_set_loss(SparseLinearPredictor(*w), drawn)))
        for index in range(batches):
            drawn = context_set(task, contexts // batches, key=jax.random.fold_in(jax.random.key(KEY + 5), index))
            g_a, g_b = derivative((jnp.asarray(a), jnp.asarray(b)), drawn)
            back = np.linalg.inv(root)  # A = back^T A' back and B = root B' back, so gradients go the other way
            found.append([back @ np.asarray(g_a) @ back.T, root.T @ np.asarray(g_b) @ back.T])
    g = np.stack(found).reshape(batches, -1, D, D)
    g = g[:, np.abs(g).max((0, 2, 3)) > 0]  # B of the last layer has no gradient
    off = g - np.trace(g, axis1=2, axis2=3)[..., None, None] / D * np.eye(D)
    error = off.std(0, ddof=1) / np.sqrt(batches)
    return {"z": off.mean(0) / error, "distance": distance_to_scaled_identity(g.mean(0)), "mean": g.mean(0)}


def regression(spectrum: Any, prior: str, n_context: int = N) -> tasks.LinearRegression:
    """The task of a spectrum in the fixed basis of `rotation`."""
    return tasks.gaussian_regression(tasks.covariance_from(spectrum, rotation()), n_context, prior=prior)


def rotation() -> np.ndarray:
    """The basis U of the skewed covariance: singular vectors of a uniform matrix, as in the code."""
    return tasks.singular_rotation(D, key=jax.random.key(KEY))
