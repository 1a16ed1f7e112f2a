"""The recurrence x_t = a_t x_{t-1} + b_t in all its forms: the primitive under every memory that forgets.

Three forms give the same numbers: `affine_step` token by token, `affine_scan` over a sequence (sequential or
associative), and, where only weighted sums of the b_i are needed, the matrix of `segment_products`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from meta_icl.errors import choose, require

FORMS = ("scan", "associative")
State = TypeVar("State")


def affine_step(state: PyTree, a: Float[Array, "..."], b: PyTree) -> PyTree:
    """a x + b on every leaf; `a` has the leading axes of the leaves, or none."""
    return jax.tree.map(lambda x, c: _align(a, x) * x + c, state, b)


def affine_scan(a: Float[Array, "t ..."], b: PyTree, start: PyTree, form: str = "scan") -> PyTree:
    """All states x_1..x_t of x_t = a_t x_{t-1} + b_t, stacked on the leading axis of every leaf of `b`.

    `a` holds one number per token, or more where it has the shape of the leaves. The form "scan" is sequential;
    "associative" takes log2(t) parallel steps by (a, b) then (c, d) = (ac, cb + d) (Blelloch, 1990).
    """
    choose("form", form, FORMS)
    if form == "scan":

        def body(state: PyTree, row: Any) -> tuple[PyTree, PyTree]:
            state = affine_step(state, *row)
            return state, state

        return lax.scan(body, start, (a, b))[1]

    def leaf(b: Array, x: Array) -> Array:
        def combine(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
            return first[0] * second[0], second[0] * first[1] + second[1]

        products, sums = lax.associative_scan(combine, (jnp.broadcast_to(_align(a, b), b.shape), b))
        return products * x[None] + sums

    return jax.tree.map(leaf, b, start)


def safe_log(a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log a, where zero counts as the smallest normal number: its products vanish and its gradient is zero."""
    return jnp.log(jnp.maximum(a, jnp.finfo(a.dtype).tiny))


def segment_products(log_a: Float[Array, "t ..."]) -> Float[Array, "t t ..."]:
    """prod_{l = i+1..t} a_l at [t, i], from logarithms: one on the diagonal, zero above it.

    Quotients of cumulative products overflow (0.25^64 is below float32), differences of cumulative sums cancel; here
    every segment is summed by itself, and masked before the exponential so that gradients are finite.
    """
    n = log_a.shape[0]
    inside = (
        np.arange(n)[:, None] > np.arange(n)[None, :]
    )  # of row l and column i: l belongs to segments that start at i
    factors = jnp.where(_align(inside, log_a[:, None]), log_a[:, None], 0.0)
    sums = jnp.einsum("tl,li...->ti...", jnp.asarray(np.tri(n), log_a.dtype), factors)
    visible = _align(np.tri(n, dtype=bool), sums)
    return jnp.where(visible, jnp.exp(jnp.where(visible, sums, 0.0)), 0.0)


def shifted(rows: Array, first: float) -> Array:
    """Rows one place later, behind a first row of one number: what holds before a token is written."""
    return jnp.concatenate([jnp.full_like(rows[:1], first), rows[:-1]])


def in_chunks(
    body: Callable[[State, Any], tuple[State, Array]],
    state: State,
    inputs: Any,
    size: int,
    prepare: Callable[[Any], Any] = lambda chunk: chunk,
) -> tuple[State, Array]:
    """Run `body(state, prepare(chunk)) -> (state, outputs)` over a sequence in chunks of `size`, a shorter one last.

    What does not need the state belongs into `prepare`, which runs for all whole chunks at once.
    """
    require(size >= 1, "chunk_size", size, "a positive integer")
    t = jax.tree.leaves(inputs)[0].shape[0]
    n, rest = divmod(t, size)
    outputs = []
    if n == 1:
        state, output = body(state, prepare(jax.tree.map(lambda leaf: leaf[:size], inputs)))
        outputs.append(output)
    elif n:
        chunks = jax.tree.map(lambda leaf: leaf[: n * size].reshape(n, size, *leaf.shape[1:]), inputs)
        state, output = lax.scan(body, state, jax.vmap(prepare)(chunks))
        outputs.append(output.reshape(n * size, *output.shape[2:]))
    if rest:
        state, output = body(state, prepare(jax.tree.map(lambda leaf: leaf[n * size :], inputs)))
        outputs.append(output)
    return state, outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs)


def _align(a: Any, like: Array) -> Any:
    """`a` with trailing axes of length one, up to the rank of `like`."""
    return a.reshape(*a.shape, *(1,) * (like.ndim - a.ndim)) if a.ndim < like.ndim else a
