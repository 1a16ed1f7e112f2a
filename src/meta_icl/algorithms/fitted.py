"""Reference learners that are fitted to every context anew: scikit-learn's, and a small network by gradient descent."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl.algorithms._checks import real
from meta_icl.conversions import number
from meta_icl.errors import choose, require
from meta_icl.prompt import Prompt


class ScikitLearn(eqx.Module):
    """The query's prediction by an estimator of scikit-learn that `make()` returns, fitted to the context.

    Every output has an estimator of its own.

    `inputs="sign"` shows it the signs of the inputs only. Without context it answers zero. `jobs` threads share the
    prompts of a batch. It computes with numpy, outside compiled programs.
    """

    make: Callable[[], Any] = eqx.field(static=True)
    inputs: str = eqx.field(static=True, default="raw")
    jobs: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        choose("inputs", self.inputs, ("raw", "sign"))

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        return jnp.asarray(self._fit(np.asarray(prompt.x), np.asarray(real(self, prompt).y)))

    def batched(self, prompts: Prompt) -> Float[Array, "b dy"]:
        """The predictions of a batch of prompts, one fit each."""
        x, y = np.asarray(prompts.x), np.asarray(real(self, prompts).y)
        pairs = zip(x, y, strict=True)
        if self.jobs == 1:
            fitted = [self._fit(*pair) for pair in pairs]
        else:
            with ThreadPoolExecutor(self.jobs) as threads:  # the fits themselves release the interpreter's lock
                fitted = list(threads.map(lambda pair: self._fit(*pair), pairs))
        return jnp.asarray(np.stack(fitted))

    def _fit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if len(x) == 1:
            return np.zeros_like(y[-1])
        seen = np.sign(x) if self.inputs == "sign" else x
        answers = [self.make().fit(seen[:-1], targets).predict(seen[-1:])[0] for targets in y[:-1].T]
        return np.asarray(answers, y.dtype)


def lasso(alpha: float) -> ScikitLearn:
    """Lasso, (1/2k)|y - Xw|^2 + alpha |w|_1 without intercept, at most 100,000 iterations (Garg et al., 2022)."""

    def make() -> Any:
        from sklearn.linear_model import Lasso  # half a second to import

        return Lasso(alpha=alpha, fit_intercept=False, max_iter=100_000)

    return ScikitLearn(make)


def greedy_tree(max_depth: int, inputs: str = "raw") -> ScikitLearn:
    """A regression tree grown greedily; Garg et al. (2022) take depth 2 on raw inputs and 4 on their signs."""

    def make() -> Any:
        from sklearn.tree import DecisionTreeRegressor

        return DecisionTreeRegressor(max_depth=max_depth, random_state=0)

    return ScikitLearn(make, inputs)


def boosted_trees(inputs: str = "raw", n_trees: int = 50, max_depth: int = 4, rate: float = 0.1) -> ScikitLearn:
    """Gradient-boosted regression trees with the regularisation of XGBoost's defaults (lambda 1, leaves of one row)."""

    def make() -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            learning_rate=rate,
            max_iter=n_trees,
            max_depth=max_depth,
            max_leaf_nodes=None,
            min_samples_leaf=1,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=0,
        )

    return ScikitLearn(make, inputs)


class NetworkDescent(eqx.Module):
    """A two-layer ReLU network of its own for every prompt, trained on the context by Adam, then asked for the query.

    Weights and biases start uniform in +-1/sqrt(fan_in), the same for all prompts; a step takes `batch` rows, drawn
    without repetition, or all if there are fewer. Garg et al. (2022): width 100, 5000 steps, batch 10, rate 5e-3 on
    networks and 5e-2 on linear functions (the released code: batch 100 and 100 steps).
    """

    rate: Float[Array, "*sweep"] = eqx.field(default=5e-3, converter=number)
    width: int = eqx.field(static=True, default=100)
    steps: int = eqx.field(static=True, default=5000)
    batch: int = eqx.field(static=True, default=10)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        for field in ("width", "steps", "batch"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = real(self, prompt).context
        if x.shape[0] == 0:
            return jnp.zeros_like(prompt.y[-1])
        key = jax.random.key(self.seed)
        start = _draw(x.shape[1], self.width, y.shape[1], x.dtype, key=key)
        optimiser = optax.adam(self.rate)

        def loss(weights: Any, x: Array, y: Array) -> Array:
            return jnp.mean(jnp.sum(jnp.square(_network(weights, x) - y), axis=-1))

        def step(carry: tuple[Any, Any], key: Key[Array, ""]) -> tuple[tuple[Any, Any], None]:
            weights, state = carry
            rows = jnp.argsort(jax.random.uniform(key, (x.shape[0],)))[: self.batch]
            gradient = jax.grad(loss)(weights, x[rows], y[rows])
            updates, state = optimiser.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        keys = jax.random.split(jax.random.fold_in(key, 1), self.steps)
        (weights, _), _ = lax.scan(step, (start, optimiser.init(start)), keys)
        return _network(weights, prompt.query.x[None])[0]


def _draw(d: int, width: int, d_out: int, dtype: Any, *, key: Key[Array, ""]) -> dict[str, Array]:
    shapes = {"w": (d, width), "b": (width,), "v": (width, d_out), "c": (d_out,)}
    keys = jax.random.split(key, 4)
    bounds = {"w": d**-0.5, "b": d**-0.5, "v": width**-0.5, "c": width**-0.5}
    drawn = zip(shapes.items(), keys, strict=True)
    return {name: bounds[name] * jax.random.uniform(k, shape, dtype, minval=-1, maxval=1) for (name, shape), k in drawn}


def _network(weights: dict[str, Array], x: Float[Array, "k d"]) -> Float[Array, "k dy"]:
    hidden = jax.nn.relu(x @ weights["w"] + weights["b"][None])
    return hidden @ weights["v"] + weights["c"][None]
