"""The ladder of memory rules, untrained: what each way of writing to a memory knows after t examples.

A rule is a predictor: it reads its memory at x_k, then writes the pair (x_k, y_k). On noise-free linear regression with
x and w standard normal the error E |w_hat - w|^2 / d after t examples is known in closed form for sums of outer
products (`hebbian_error`), the normalised delta rule (`kaczmarz_error`) and least squares (`least_squares_error`); none
can be below that of Bayes. `recall_accuracy` asks the same rules for stored values.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from meta_icl import draws
from meta_icl.algorithms._checks import real
from meta_icl.algorithms._square_root import observe
from meta_icl.conversions import number, require_entries
from meta_icl.errors import require
from meta_icl.prompt import Prompt


class MemoryRule(eqx.Module):
    """A memory of pairs: `start`, `write`, `read`; called on a prompt it answers every position."""

    def start(self, dx: int, dy: int) -> PyTree:
        """The empty memory."""
        return jnp.zeros((dy, dx))

    def write(self, memory: PyTree, x: Float[Array, " dx"], y: Float[Array, " dy"]) -> PyTree:
        """The memory after one more pair."""
        raise TypeError(f"{type(self).__name__} does not define write")

    def read(self, memory: PyTree, x: Float[Array, " dx"], t: Int[Array, ""]) -> Float[Array, " dy"]:
        """The answer at x after t pairs."""
        del t
        return memory @ x

    def __call__(self, prompt: Prompt) -> Float[Array, "n dy"]:
        def body(memory: PyTree, row: Any) -> tuple[PyTree, Array]:
            x, y, t = row
            return self.write(memory, x, y), self.read(memory, x, t)

        rows = (prompt.x, real(self, prompt).y, jnp.arange(prompt.x.shape[0]))
        return lax.scan(body, self.start(prompt.x.shape[1], prompt.y.shape[1]), rows)[1]


class Hebbian(MemoryRule):
    """Linear attention: S <- g S + y x^T, read S x / (t + d + 1), the best scale for normal inputs, unless `raw`."""

    decay: float = 1.0
    raw: bool = eqx.field(static=True, default=False)

    def write(self, memory: Float[Array, "dy dx"], x: Float[Array, " dx"], y: Float[Array, " dy"]) -> Array:
        return self.decay * memory + y[:, None] * x[None]

    def read(self, memory: Float[Array, "dy dx"], x: Float[Array, " dx"], t: Int[Array, ""]) -> Float[Array, " dy"]:
        return memory @ x if self.raw else memory @ x / (t + x.shape[0] + 1)


class Delta(MemoryRule):
    """The delta rule on unit keys, S <- g S + rate (y - g S x) x^T x and y over |x|: Kaczmarz's method at rate 1."""

    rate: float = 1.0
    decay: float = 1.0

    def write(self, memory: Float[Array, "dy dx"], x: Float[Array, " dx"], y: Float[Array, " dy"]) -> Array:
        memory = self.decay * memory
        return memory + self.rate * (y - memory @ x)[:, None] * x[None] / _square(x)


class Implicit(MemoryRule):
    """Longhorn's step, the minimiser of |S - S_prev|^2 + b |S x - y|^2."""

    b: float = 1.0

    def write(self, memory: Float[Array, "dy dx"], x: Float[Array, " dx"], y: Float[Array, " dy"]) -> Array:
        return memory + self.b / (1 + self.b * jnp.sum(x * x)) * (y - memory @ x)[:, None] * x[None]


class Surprise(MemoryRule):
    """Titans's linear memory on unit keys: U <- eta U - 2 theta (S x - y) x^T, S <- (1 - alpha) S + U."""

    theta: float = 0.25
    eta: float = 0.3
    alpha: float = 0.0

    def start(self, dx: int, dy: int) -> tuple[Array, Array]:
        return jnp.zeros((dy, dx)), jnp.zeros((dy, dx))

    def write(self, memory: tuple[Array, Array], x: Float[Array, " dx"], y: Float[Array, " dy"]) -> tuple[Array, Array]:
        s, u = memory
        u = self.eta * u - 2 * self.theta * (s @ x - y)[:, None] * x[None] / _square(x)
        return (1 - self.alpha) * s + u, u

    def read(self, memory: tuple[Array, Array], x: Float[Array, " dx"], t: Int[Array, ""]) -> Float[Array, " dy"]:
        del t
        return memory[0] @ x


class RecursiveRidge(MemoryRule):
    """Mesa's memory: the ridge solution of all pairs, by recursive least squares on a root of (X^T X + penalty)^-1."""

    penalty: Float[Array, "*sweep"] = eqx.field(default=1e-6, converter=number)

    def __check_init__(self):
        require_entries(lambda value: value > 0, "penalty", self.penalty, "positive")

    def start(self, dx: int, dy: int) -> tuple[Array, Array]:
        return jnp.zeros((dy, dx)), jnp.eye(dx) / jnp.sqrt(self.penalty)

    def write(self, memory: tuple[Array, Array], x: Float[Array, " dx"], y: Float[Array, " dy"]) -> tuple[Array, Array]:
        s, root = memory
        root, gain, _ = observe(root, x, jnp.ones((), x.dtype))
        return s + (y - s @ x)[:, None] * gain[None], root

    def read(self, memory: tuple[Array, Array], x: Float[Array, " dx"], t: Int[Array, ""]) -> Float[Array, " dy"]:
        del t
        return memory[0] @ x


def _square(x: Float[Array, " dx"]) -> Float[Array, ""]:
    """|x|^2, or one for a key of zeros, which writes nothing."""
    square = jnp.sum(x * x)
    return jnp.where(square > 0, square, 1)


def hebbian_error(t: Float[Array, "*n"], d: int) -> Float[Array, "*n"]:
    """Linear attention at its best scale 1 / (t + d + 1): (d + 1) / (t + d + 1)."""
    return (d + 1) / (t + d + 1)


def scaled_hebbian_error(t: Float[Array, "*n"], d: int, scale: float) -> Float[Array, "*n"]:
    """Linear attention at one scale c for all t: 1 - 2 c t + c^2 (t^2 + t (d + 1))."""
    return 1 - 2 * scale * t + scale**2 * (t * t + t * (d + 1))


def kaczmarz_error(t: Float[Array, "*n"], d: int, rate: float = 1.0) -> Float[Array, "*n"]:
    """The normalised delta rule: (1 - rate (2 - rate) / d)^t."""
    return (1 - rate * (2 - rate) / d) ** t


def least_squares_error(t: Float[Array, "*n"], d: int) -> Float[Array, "*n"]:
    """Least squares of minimal norm, which here is Bayes: max(0, 1 - t / d)."""
    return jnp.maximum(0.0, 1 - t / d)


def recall_accuracy(rule: Any, n_pairs: int, d: int, n_prompts: int, *, key: Key[Array, ""]) -> Float[Array, ""]:
    """How often the value nearest to the answer at a stored key is that key's own.

    `n_pairs` random unit keys and as many random unit values in R^d; every key is asked once all are stored. `rule` is
    a `MemoryRule`, or a function of (keys, values, queries).
    """
    require(n_pairs >= 1, "n_pairs", n_pairs, "a positive integer")
    raw = draws.normal(key, (n_prompts, 2, n_pairs, d))
    unit = raw / jnp.linalg.norm(raw, axis=-1, keepdims=True)

    def correct(pair: Float[Array, "2 n d"]) -> Bool[Array, " n"]:
        keys, values = pair
        if isinstance(rule, MemoryRule):
            memory = lax.scan(lambda m, row: (rule.write(m, *row), None), rule.start(d, d), (keys, values))[0]
            answers = jax.vmap(lambda x: rule.read(memory, x, jnp.asarray(n_pairs)))(keys)
        else:
            answers = rule(keys, values, keys)
        return jnp.argmax(answers @ values.T, axis=1) == jnp.arange(n_pairs)  # the nearest, as values are units

    return jnp.mean(lax.map(correct, unit), dtype=float)


def softmax_recall(
    keys: Float[Array, "n d"], values: Float[Array, "n d"], queries: Float[Array, "m d"], scale: float = 20.0
) -> Float[Array, "m d"]:
    """Softmax attention as a memory of pairs."""
    return jax.nn.softmax(scale * queries @ keys.T, axis=-1) @ values
