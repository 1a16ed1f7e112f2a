"""Training without samples: exact population losses as objectives, and gradient flow on them.

The flow is tau dW/dt = -1/2 dL/dW (Zhang et al., 2025). Gradient descent with rate r on L is its Euler method with
tau = 1/2 and t = r * steps; on L/2, with tau = 1.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from meta_icl.conversions import require_entries
from meta_icl.errors import BadInput, require
from meta_icl.prompt import Task
from meta_icl.tasks.regression import LinearRegression
from meta_icl.training.objectives import Objective

T = TypeVar("T")


def population_objective(loss: Callable[[Float[Array, "d d"]], Float[Array, ""]]) -> Objective:
    """The objective L(U) of a predictor with an `effective_map()` U: nothing is drawn, so nothing is noisy."""

    def objective(predictor: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
        del task, batch, key
        return loss(predictor.effective_map())

    return objective


class FiniteSet(Task):
    """A fixed set of prompts, kept as the loss on all of them: what full-batch gradient descent trains on.

    `loss` is a module such as `meta_icl.algorithms.sample_map_loss(prompts)`. Given to `train` as a function of a key,
    `lambda *, key: FiniteSet(..)`, every seed has a set of its own.
    """

    loss: Callable[[Float[Array, "..."]], Float[Array, ""]]


def finite_set_loss(predictor: Any, task: Any, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The objective of a `FiniteSet`: the loss on the whole set in every step."""
    del batch, key
    return task.loss(predictor.effective_map())


def context_averaged_mse(task: Task) -> Objective:
    """The full mean squared error of noise-free prompts, averaged exactly over w and the query given each context.

    For a predictor with `residual_maps(second moments)` T the error is w^T T x_q, so its mean square given a context is
    tr(T Lambda T^T S) with the second moments Lambda = E x x^T and S = E w w^T of the laws (their covariances where the
    mean is zero). Only contexts are drawn: per prompt the estimate has a fraction of the variance of one that draws w
    and x_q too, and costs less. Raises `BadInput` for a task with several outputs, noise, replaced labels, a pool, or a
    law whose second moment has no closed form.
    """
    _check_averages(task)

    def objective(predictor: Any, task: Any, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
        known = hasattr(predictor, "residual_maps")
        require(known, "model", type(predictor).__name__, "one with residual_maps, such as SparseLinearTransformer")
        x = task.x_scale * task.x_law.rows(task.n_context, task.d, batch, key=key)
        t = predictor.residual_maps(jnp.einsum("bnd,bne->deb", x, x) / task.n_context)
        loss = residual_loss(t, *_second_moments(task))
        return jnp.where(task.noise == 0, loss, jnp.nan)  # a sweep can make noise that was 0 when it was checked

    return objective


def _check_averages(task: Any) -> None:
    """Raise `BadInput` for a task whose error has no exact average over w and the query given the context's inputs."""
    require(isinstance(task, LinearRegression), "task", type(task).__name__, "LinearRegression for an average over w")
    require(task.n_out == 1, "n_out", task.n_out, "1 for an average over w")
    require_entries(lambda value: value == 0, "noise", task.noise, "0 for an average over w: labels are noise-free")
    require(task.n_replaced == 0, "n_replaced", task.n_replaced, "0 for an average over w: labels are noise-free")
    require(task.pool is None, "pool", "a finite pool", "left out for an average over w_law")
    for field in ("x_law", "w_law"):
        law = getattr(task, field)
        require(hasattr(law, "second_moment"), field, type(law).__name__, "a law with a second_moment, such as Normal")


def _second_moments(task: Any) -> tuple[Float[Array, "d d"], Float[Array, "d d"]]:
    """E x x^T of the inputs and E w w^T of the weights."""
    return (
        task.x_scale**2 * task.x_law.second_moment(task.d),
        task.w_scale**2 * task.w_law.second_moment(task.d),
    )


def residual_loss(
    t: Float[Array, "d d b"], x_moment: Float[Array, "d d"], w_moment: Float[Array, "d d"]
) -> Float[Array, ""]:
    """The mean over b of tr(T Lambda T^T S), with the second moments Lambda of x and S of w."""
    left, right = jnp.einsum("ik,kjb->ijb", w_moment, t), jnp.einsum("ikb,kj->ijb", t, x_moment)
    return jnp.mean(jnp.sum(left * right, axis=(0, 1)))


class ContextSet(eqx.Module):
    """Given contexts without their labels: all that noise-free regression, averaged over w and the query, depends on.

    `moments` "d d b" holds (1/n) sum_i x_i x_i^T of every context, `x_moment` and `w_moment` E x x^T and E w w^T.
    """

    moments: Float[Array | np.ndarray, "d d b"]
    x_moment: Float[Array | np.ndarray, "d d"]
    w_moment: Float[Array | np.ndarray, "d d"]

    def loss(self, predictor: Any) -> float:
        """`context_set_loss` in float64, whatever the precision in use."""
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (predictor, self))
            return float(_context_set_loss(*wide))


def context_set(task: LinearRegression, n: int, *, key: Key[Array, ""]) -> ContextSet:
    """`n` contexts of a task that `context_averaged_mse` accepts, in float64."""
    _check_averages(task)
    x = np.asarray(task.x_scale * task.x_law.rows(task.n_context, task.d, n, key=key), np.float64)
    moments = np.moveaxis(np.swapaxes(x, 1, 2) @ x, 0, -1) / task.n_context
    return ContextSet(moments, *(np.asarray(moment, np.float64) for moment in _second_moments(task)))


def context_set_loss(predictor: Any, contexts: ContextSet) -> Float[Array, ""]:
    """The full mean squared error over given contexts, averaged exactly over w and the query, of `residual_maps`."""
    t = predictor.residual_maps(jnp.asarray(contexts.moments))
    return residual_loss(t, jnp.asarray(contexts.x_moment), jnp.asarray(contexts.w_moment))


_context_set_loss = eqx.filter_jit(context_set_loss)


class Flow(NamedTuple):
    """A path of gradient flow: times "t", the loss "t", every weight stacked over times, and the probes "t ...".

    All numpy arrays in float64; `at(i)` is the predictor at one of the times.
    """

    times: Float[np.ndarray, " t"]
    loss: Float[np.ndarray, " t"]
    predictors: Any
    probes: dict[str, np.ndarray]
    n_steps: int

    def at(self, index: int) -> Any:
        """The predictor at the time of this index."""
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array_like(leaf) else leaf, self.predictors)


def gradient_flow(
    start: T,
    loss: Callable[[T], Float[Array, ""]],
    times: Sequence[float] | Float[np.ndarray, " t"],
    *,
    tau: float = 1.0,
    probes: dict[str, Callable[[T], Array]] | None = None,
    stop_below: float | None = None,
    rtol: float = 1e-11,
    atol: float = 1e-14,
    max_steps: int = 1_000_000,
) -> Flow:
    """Solve tau dW/dt = -1/2 dL/dW from the weights `start` in float64, whatever the precision in use.

    `start` is any predictor or tree of arrays and `loss` a function of it, such as `OnMap(map_loss(..))`; the state is
    saved at the given ascending times, the first of which is that of the start. Once the loss is below `stop_below` the
    flow rests: later times repeat the last saved state. Adaptive Runge-Kutta method of order 8(7) (Prince & Dormand,
    1981). Raises `BadInput` if the loss is NaN or infinite at the start, or `max_steps` do not reach the end.
    """
    grid = np.asarray(times, np.float64)
    ascending = grid.ndim == 1 and grid.size >= 2 and bool((np.diff(grid) > 0).all())
    require(ascending, "times", grid.tolist() if grid.size < 5 else "an array", "at least two ascending numbers")
    require(tau > 0, "tau", tau, "positive")
    with jax.enable_x64(True):
        arrays, static = eqx.partition(start, eqx.is_array_like)
        arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), arrays)
        # Numbers go in as arrays, so that flows of one structure share a program whatever their values.
        numbers = (jnp.asarray(0.5 / tau), None if stop_below is None else jnp.asarray(float(stop_below)))
        begun = float(_loss_at(arrays, static, loss))
        require(bool(np.isfinite(begun)), "loss at the start of the flow", begun, "finite")
        path, losses, measured, n_steps, reached = _solve(
            arrays, static, loss, jnp.asarray(grid), *numbers, (rtol, atol), max_steps, probes or {}
        )
        if not bool(reached):
            raise BadInput(f"gradient flow did not reach t = {grid[-1]:g} in max_steps = {max_steps} steps; allow more")
        path = jax.tree.map(np.asarray, path)
        kept = {name: np.asarray(values) for name, values in measured.items()}
        return Flow(grid, np.asarray(losses), eqx.combine(path, static), kept, int(n_steps))


class OnMap(eqx.Module):
    """A loss of U as a loss of a predictor with an `effective_map()`."""

    loss: Callable[[Float[Array, "d d"]], Float[Array, ""]]

    def __call__(self, predictor: Any) -> Float[Array, ""]:
        return self.loss(predictor.effective_map())


@eqx.filter_jit
def _loss_at(arrays: PyTree, static: PyTree, loss: Callable[[Any], Array]) -> Array:
    return loss(eqx.combine(arrays, static))


@eqx.filter_jit
def _solve(
    arrays: PyTree,
    static: PyTree,
    loss: Callable[[Any], Array],
    times: Float[Array, " t"],
    speed: Float[Array, ""],
    stop_below: Float[Array, ""] | None,
    tolerances: tuple[float, float],
    max_steps: int,
    probes: dict[str, Callable[[Any], Array]],
) -> tuple[PyTree, Array, dict[str, Array], Array, Array]:
    import diffrax  # here, because importing it takes half a second that sampled training need not wait for

    def of(weights: PyTree) -> Array:
        return loss(eqx.combine(weights, static))

    def velocity(t: Any, weights: PyTree, args: None) -> PyTree:
        del t, args
        return jax.tree.map(lambda gradient: -speed * gradient, jax.grad(of)(weights))

    def settled(t: Any, weights: PyTree, args: None, **kwargs: Any) -> Array:
        del t, args, kwargs
        return of(weights) < jnp.asarray(stop_below)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Dopri8(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=arrays,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=tolerances[0], atol=tolerances[1]),
        event=None if stop_below is None else diffrax.Event(settled),
        max_steps=max_steps,
        throw=False,
    )
    stopped = solution.result == diffrax.RESULTS.event_occurred
    reached = (solution.result == diffrax.RESULTS.successful) | stopped
    # Times after an event are not reached, and their states are infinite: the last state that was stands for them.
    last = jnp.sum(jnp.isfinite(jnp.asarray(solution.ts))) - 1
    path = jax.tree.map(lambda leaf: leaf[jnp.minimum(jnp.arange(len(times)), last)], solution.ys)
    measured = {name: jax.lax.map(lambda w, p=p: p(eqx.combine(w, static)), path) for name, p in probes.items()}
    return path, jax.lax.map(of, path), measured, solution.stats["num_steps"], reached
