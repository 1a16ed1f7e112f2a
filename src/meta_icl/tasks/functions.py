"""Classes of functions to be learned in context, and the task that draws prompts from any of them.

A class is a distribution over functions of a vector: `draw` makes parameters, `evaluate` applies one function. Whatever
the class, `FunctionRegression` adds inputs, noise, a finite pool of functions and a curriculum.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key, PyTree

from meta_icl import draws
from meta_icl.conversions import number, require_count, require_entries
from meta_icl.errors import require
from meta_icl.prompt import BatchTask, Prompt
from meta_icl.tasks.curriculum import Curriculum
from meta_icl.tasks.laws import Law, Normal

AFTER_TRAINING = 2**30  # a step at which every curriculum has ended


class FunctionClass(eqx.Module):
    """A distribution over functions R^d -> R; constants below are for inputs x ~ N(0, I)."""

    d: eqx.AbstractVar[int]

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> PyTree:
        """The parameters of `n` functions, stacked on the leading axis of every array.

        With `d_active` the functions are meant for inputs whose coordinates from d_active on are zero.
        """
        raise TypeError(f"{type(self).__name__} does not define draw")

    def evaluate(self, parameters: PyTree, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """The values of ONE function at the rows of x."""
        raise TypeError(f"{type(self).__name__} does not define evaluate")

    @property
    def variance(self) -> float:
        """E f(x)^2: the error of the zero predictor, by which errors are normalised."""
        raise TypeError(f"{type(self).__name__} does not define variance")


class Weighted(FunctionClass):
    """A function of one weight vector w ~ N(0, I); parameters "n d", and E f^2 = d."""

    d: int = eqx.field(static=True)

    def __check_init__(self):
        require(self.d >= 1, "d", self.d, "a positive integer")

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> Float[Array, "n d"]:
        del d_active
        return draws.normal(key, (n, self.d))

    def evaluate(self, parameters: Float[Array, " d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return x @ parameters

    @property
    def variance(self) -> float:
        return float(self.d)


class Linear(Weighted):
    """f(x) = w.x with w ~ N(0, I)."""


class SparseLinear(Weighted):
    """f(x) = w.x where w ~ N(0, I) keeps `n_active` coordinates, chosen uniformly among the first d_active."""

    n_active: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        require(1 <= self.n_active <= self.d, "n_active", self.n_active, f"from 1 to d = {self.d}")

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> Float[Array, "n d"]:
        w_key, order_key = jax.random.split(key)
        limit = self.d if d_active is None else d_active
        order = draws.uniform(order_key, (n, self.d)) + 2.0 * (jnp.arange(self.d) >= limit)[None]
        rank = jnp.argsort(jnp.argsort(order, axis=1), axis=1)
        return jnp.where(rank < self.n_active, draws.normal(w_key, (n, self.d)), 0.0)

    @property
    def variance(self) -> float:
        return float(self.n_active)


class Quadratic(Weighted):
    """f(x) = sum_i w_i x_i^2 / sqrt(3) with w ~ N(0, I); E f^2 = d."""

    def evaluate(self, parameters: Float[Array, " d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return jnp.square(x) @ parameters / math.sqrt(3)


class LeakyUnit(Weighted):
    """f(x) = max(w.x, slope w.x) with w ~ N(0, I): a leaky ReLU of one linear function."""

    slope: float = eqx.field(static=True, default=0.01)

    def evaluate(self, parameters: Float[Array, " d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return jax.nn.leaky_relu(x @ parameters, self.slope)

    @property
    def variance(self) -> float:
        return self.d * (1 + self.slope**2) / 2


class LinearClassification(Weighted):
    """f(x) = sign(w.x), labels +-1, with w ~ N(0, I)."""

    def evaluate(self, parameters: Float[Array, " d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return jnp.where(x @ parameters >= 0, 1.0, -1.0)

    @property
    def variance(self) -> float:
        return 1.0


class NetworkWeights(NamedTuple):
    """Weights of two-layer networks."""

    hidden: Float[Array, "*n d width"]
    output: Float[Array, "*n width"]


class ReluNetwork(FunctionClass):
    """f(x) = sqrt(2 / width) sum_j a_j relu(w_j.x) with a_j ~ N(0, 1), w_j ~ N(0, I); E f^2 = d."""

    d: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        for field in ("d", "width"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> NetworkWeights:
        del d_active
        hidden_key, output_key = jax.random.split(key)
        hidden = draws.normal(hidden_key, (n, self.d, self.width))
        return NetworkWeights(hidden, draws.normal(output_key, (n, self.width)))

    def evaluate(self, parameters: NetworkWeights, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return math.sqrt(2 / self.width) * (jax.nn.relu(x @ parameters.hidden) @ parameters.output)

    @property
    def variance(self) -> float:
        return float(self.d)


class Tree(NamedTuple):
    """Full binary trees in array form: the children of node i are 2i + 1 (coordinate not positive) and 2i + 2."""

    coordinates: Int[Array, "*n inner"]
    leaves: Float[Array, "*n outer"]


class DecisionTree(FunctionClass):
    """A full binary tree: every inner node asks whether a uniformly drawn coordinate is positive; leaves are N(0, 1).

    While a curriculum hides coordinates, nodes ask the visible ones only (the released code of Garg et al. (2022) keeps
    asking hidden ones, which always answer no).
    """

    d: int = eqx.field(static=True)
    depth: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        for field in ("d", "depth"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> Tree:
        node_key, leaf_key = jax.random.split(key)
        limit = self.d if d_active is None else d_active
        coordinates = draws.randint(node_key, (n, 2**self.depth - 1), 0, limit)
        return Tree(coordinates, draws.normal(leaf_key, (n, 2**self.depth)))

    def evaluate(self, parameters: Tree, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        node = jnp.zeros(x.shape[0], int)
        for _ in range(self.depth):
            asked = parameters.coordinates[node]
            positive = jnp.take_along_axis(x, asked[:, None], axis=1)[:, 0] > 0
            node = 2 * node + 1 + positive
        return parameters.leaves[node - (2**self.depth - 1)]

    @property
    def variance(self) -> float:
        return 1.0


class FunctionSample(NamedTuple):
    """Prompts with the functions behind them and their noise-free targets, for oracles and evaluation."""

    prompts: Prompt
    clean: Float[Array, "b n 1"]
    functions: Any


class FunctionRegression(BatchTask):
    """Prompts of `n_context` pairs and a query with y = y_scale f(x) + noise, f drawn once per prompt.

    Inputs are `x_scale` times rows of `x_law`; y has shape "n 1". Noise of standard deviation `noise` is added to every
    label, the query's only with `noisy_query`. With a `pool` (made by `with_pool`) f is one of a finite set of
    functions, all equally likely and independent between prompts. A `curriculum` hides coordinates (they are zero)
    and discounts positions as a function of the training step; without a step the task stands at its end.
    """

    function: FunctionClass
    n_context: int = eqx.field(static=True)
    x_law: Law = eqx.field(default_factory=Normal)
    x_scale: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    y_scale: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    noise: Float[Array, "*sweep"] = eqx.field(default=0.0, converter=number)
    noisy_query: bool = eqx.field(static=True, default=False)
    pool: PyTree = None
    curriculum: Curriculum | None = None
    step: Int[Array, "*sweep"] = eqx.field(default=AFTER_TRAINING, converter=jnp.asarray)

    def __check_init__(self):
        require(self.n_context >= 0, "n_context", self.n_context, "zero or a positive integer")
        require_entries(lambda value: value >= 0, "noise", self.noise, "zero or positive")
        for field in ("x_scale", "y_scale"):
            require_entries(np.isfinite, field, getattr(self, field), "finite")
        if self.curriculum is not None:
            self.curriculum.check(self.function.d, self.n_context + 1)

    @property
    def d(self) -> int:
        """Width of the inputs."""
        return self.function.d

    @property
    def pool_size(self) -> int | None:
        """Number of functions in the pool; `None` if new ones are drawn."""
        return None if self.pool is None else jax.tree.leaves(self.pool)[0].shape[0]

    def with_pool(self, m: int, *, key: Key[Array, ""]) -> "FunctionRegression":
        """This task restricted to `m` functions, drawn once and for all: whole functions, masks and trees included."""
        require_count("m", m, each=self.d)
        pool = self.function.draw(m, key=key)
        return eqx.tree_at(lambda task: task.pool, self, pool, is_leaf=lambda leaf: leaf is None)

    def at_step(self, step: Int[Array, ""]) -> "FunctionRegression":
        """The task as its curriculum has it at a step of training."""
        return eqx.tree_at(lambda task: task.step, self, step) if self.curriculum is not None else self

    def position_weights(self, n: int) -> Float[Array, " n"]:
        """1 for the rows that the curriculum has reached, 0 for the others."""
        return jnp.ones(n) if self.curriculum is None else (jnp.arange(n) < self.curriculum.points(self.step)) * 1.0

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        """Draw `n` independent prompts at once."""
        return self.sample_with_functions(n, key=key).prompts

    def sample_with_functions(self, n: int, *, key: Key[Array, ""]) -> FunctionSample:
        """Draw `n` prompts together with their functions; the same key gives the same inputs whatever the noise."""
        x_key, function_key, noise_key = jax.random.split(key, 3)
        rows = self.n_context + 1
        x = self.x_scale * self.x_law.rows(rows, self.d, n, key=x_key)
        d_active = None
        if self.curriculum is not None:
            d_active = self.curriculum.dimensions(self.step)
            x = jnp.where(jnp.arange(self.d)[None, None] < d_active, x, 0.0)
        if self.pool_size is None:
            functions = self.function.draw(n, key=function_key, d_active=d_active)
        else:
            chosen = draws.randint(function_key, (n,), 0, self.pool_size)
            functions = jax.tree.map(lambda leaf: leaf[chosen], self.pool)
        clean = self.y_scale * jax.vmap(self.function.evaluate)(functions, x)[..., None]
        y = clean
        if isinstance(self.noise, Tracer) or np.any(np.asarray(self.noise) > 0):  # a known zero costs no draw
            noisy = rows if self.noisy_query else self.n_context
            y = y.at[:, :noisy].add(self.noise * draws.normal(noise_key, (n, noisy, 1), y.dtype))
        return FunctionSample(Prompt(x, y), clean, functions)
