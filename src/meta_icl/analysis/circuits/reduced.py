"""Circuits reduced to a handful of numbers, whose gradient descent shows the plateau and the sudden drop."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl.errors import require


def rank_one_descent(
    *,
    key: Key[Array, ""],
    clamped: Sequence[str] = (),
    d: int = 20,
    steps: int = 1000,
    rate: float = 1.0,
) -> Float[Array, " steps"]:
    """Losses of gradient descent on a rank-one tensor: three vectors that are useful only together.

    L = 1/2 mean (a* x b* x c* - a x b x c)^2 with all entries of targets and starts standard normal; `clamped` vectors
    stand at their target from the beginning (Singh et al., 2024: the three subcircuits of an induction head).
    """
    for name in clamped:
        require(name in "abc" and len(name) == 1, "clamped", name, "among a, b, c")
    keys = jax.random.split(key, 6)
    target = {name: jax.random.normal(k, (d,)) for name, k in zip("abc", keys[:3], strict=True)}
    start = {name: jax.random.normal(k, (d,)) for name, k in zip("abc", keys[3:], strict=True)}
    start |= {name: target[name] for name in clamped}

    def loss(parameters: dict[str, Array]) -> Array:
        return rank_one_loss(parameters, target)

    def step(parameters: dict[str, Array], _: None) -> tuple[dict[str, Array], Array]:
        value, gradient = jax.value_and_grad(loss)(parameters)
        moved = {n: p if n in clamped else p - rate * gradient[n] for n, p in parameters.items()}
        return moved, value

    return lax.scan(step, start, length=steps)[1]


def rank_one_loss(parameters: dict[str, Float[Array, " d"]], target: dict[str, Float[Array, " d"]]) -> Float[Array, ""]:
    """1/2 mean of the squared difference of two rank-one tensors, without forming them.

    |a x b x c|^2 = |a|^2 |b|^2 |c|^2, and the inner product of two such tensors is the product of those of the factors.
    """

    def inner(u: dict[str, Array], v: dict[str, Array]) -> Array:
        return (u["a"] @ v["a"]) * (u["b"] @ v["b"]) * (u["c"] @ v["c"])

    size = target["a"].size * target["b"].size * target["c"].size
    squares = inner(target, target) - 2 * inner(target, parameters) + inner(parameters, parameters)
    return 0.5 * squares / size


def three_parameter_loss(
    parameters: Float[Array, " 3"], *, n_context: int, n_labels: int, n_before: float | None = None
) -> Float[Array, ""]:
    """The loss of an induction head with three numbers: two attention strengths and the overlap xi of the read-out.

    Derived here after the description of Reddy (2023), not that paper's equation. With (b, a, xi): a label token keeps
    its item with weight s1 = e^b / (e^b + c), c the number of other tokens it sees (`n_before`, by default the mean
    over labels, N); the query attends to the matching label with weight s2 = e^{a s1} / (e^{a s1} + N - 1); the logit
    of the target is xi s2, that of other labels of the context xi (1 - s2) / (N - 1), of all others 0. With L = N
    labels and a = b = 0 all logits are equal whatever xi: the gradient vanishes; with L > N it does not.
    """
    require(2 <= n_context <= n_labels, "n_context", n_context, f"from 2 to n_labels = {n_labels}")
    b, a, xi = parameters
    others = float(n_context) if n_before is None else n_before
    keeps = jax.nn.sigmoid(b - jnp.log(others))
    matches = jax.nn.sigmoid(a * keeps - jnp.log(n_context - 1.0))
    target, rest = xi * matches, xi * (1 - matches) / (n_context - 1)
    outside = math.log(n_labels - n_context) if n_labels > n_context else -math.inf
    logits = jnp.stack([target, rest + jnp.log(n_context - 1.0), jnp.asarray(outside, target.dtype)])
    return jax.nn.logsumexp(logits) - target


def three_parameter_descent(
    start: Float[Array, " 3"], *, n_context: int, n_labels: int, steps: int, rate: float
) -> tuple[Float[Array, " steps"], Float[Array, "steps 3"]]:
    """Losses and parameters of gradient descent on `three_parameter_loss`."""

    def step(parameters: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        value, gradient = jax.value_and_grad(three_parameter_loss)(parameters, n_context=n_context, n_labels=n_labels)
        return parameters - rate * gradient, (value, parameters)

    return lax.scan(step, start, length=steps)[1]
