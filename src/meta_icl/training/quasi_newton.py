"""Quasi-Newton training on a loss without noise: an exact one, or one over a fixed set of prompts."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from meta_icl.errors import BadInput, require

T = TypeVar("T")


class Minimum(NamedTuple):
    """Where a minimisation ended: the predictor with float64 numpy leaves, its loss, and the loss per iteration."""

    predictor: Any
    loss: float
    history: Float[np.ndarray, " iterations"]


def minimise(
    start: T, loss: Callable[[T, Any], Float[Array, ""]], data: Any = None, *, iterations: int = 1_000, memory: int = 50
) -> Minimum:
    """Minimise `loss(predictor, data)` over all weights of `start` by L-BFGS (Liu & Nocedal, 1989) in float64.

    `data` is any tree of arrays, converted to float64 and passed on; the loss must be a top-level function, which is
    compiled once for all starts of one structure. Raises `BadInput` if the loss ends as NaN or infinite.
    """
    from scipy.optimize import minimize  # here, since every worker would wait half a second for it

    require(iterations >= 1, "iterations", iterations, "a positive integer")
    with jax.enable_x64(True):
        arrays, static = eqx.partition(start, eqx.is_array_like)
        arrays, data = (jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree) for tree in (arrays, data))
        flat, unravel = ravel_pytree(arrays)

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = _value_and_gradient(unravel(jnp.asarray(x)), static, loss, data)
            return float(value), np.asarray(ravel_pytree(gradient)[0], np.float64)

        history: list[float] = []
        result = minimize(
            evaluate,
            np.asarray(flat, np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=lambda intermediate_result: history.append(float(intermediate_result.fun)),
            options={"maxiter": iterations, "maxcor": memory, "maxfun": 4 * iterations, "ftol": 0.0, "gtol": 1e-10},
        )
        if not np.isfinite(result.fun):
            raise BadInput(f"the loss is {result.fun:g} after {result.nit} iterations: it must be finite at the start")
        best = jax.tree.map(np.asarray, unravel(jnp.asarray(result.x)))
    return Minimum(eqx.combine(best, static), float(result.fun), np.array(history))


@eqx.filter_jit
def _value_and_gradient(
    arrays: Any, static: Any, loss: Callable[[Any, Any], Array], data: Any
) -> tuple[Float[Array, ""], Any]:
    return jax.value_and_grad(lambda weights: loss(eqx.combine(weights, static), data))(arrays)
