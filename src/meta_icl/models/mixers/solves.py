"""Linear systems inside mixers, by products alone.

LAPACK is not called: on CPU, jax spreads a batch of LAPACK calls over the threads that run the program and waits for
them; two such batches at once block each other for ever where there are few threads (jaxlib 0.10).
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def unit_lower_inverse(lower: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """(I + A)^{-1} for the strictly lower part A of a matrix, by diagonal blocks of size 1, 2, 4, .. up to all of it.

    A block of twice the size has the inverses of its halves on the diagonal and -D^{-1} C B^{-1} below it.
    """
    n = lower.shape[0]
    block = np.arange(n)
    inverse, size = jnp.eye(n, dtype=lower.dtype), 1
    while size < n:
        left_of = (block[:, None] % 2 == 1) & (block[None, :] == block[:, None] - 1)
        corners = jnp.where(left_of, lower, 0)
        inverse = inverse - (corners if size == 1 else inverse @ corners @ inverse)
        block, size = block // 2, 2 * size
    return inverse


def solve_positive(matrix: Float[Array, "*t n n"], b: Float[Array, "*t n"]) -> Float[Array, "*t n"]:
    """The solutions of symmetric positive definite systems, with their derivatives by the same inverses."""
    inverse = lax.stop_gradient(positive_inverse(lax.stop_gradient(matrix)))

    def times(m: Array, x: Array) -> Array:
        return jnp.einsum("...ij,...j->...i", m, x)

    return lax.custom_linear_solve(
        lambda x: times(matrix, x), b, lambda _, right: times(inverse, right), symmetric=True
    )


def positive_inverse(matrix: Float[Array, "*t n n"]) -> Float[Array, "*t n n"]:
    """The inverses of symmetric positive definite matrices by Gauss-Jordan elimination, which needs no pivots for them.

    The matrices stand on the innermost axis: five times faster than one after the other.
    """
    m = jnp.moveaxis(matrix, (-2, -1), (0, 1))
    shape, n = m.shape, m.shape[0]

    def eliminate(i: Array, m: Array) -> Array:
        here = (jnp.arange(n) == i)[:, None]
        row, column = (lax.dynamic_index_in_dim(m, i, axis, keepdims=False) for axis in (0, 1))
        row = jnp.where(here, 1, row) / lax.dynamic_index_in_dim(row, i, 0)
        others = jnp.where(here[None], 0, m) - column[:, None] * row[None]
        return jnp.where(here[:, None], row[None], others)

    m = lax.fori_loop(0, n, eliminate, m.reshape(n, n, -1))
    return jnp.moveaxis(m.reshape(shape), (0, 1), (-2, -1))
