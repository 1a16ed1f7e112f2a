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


def solve_positive(matrix: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """The solution of a symmetric positive definite system, with its derivative by the same inverse."""
    inverse = lax.stop_gradient(positive_inverse(lax.stop_gradient(matrix)))
    return lax.custom_linear_solve(lambda x: matrix @ x, b, lambda _, right: inverse @ right, symmetric=True)


def positive_inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a symmetric positive definite matrix by Gauss-Jordan elimination, which needs no pivots for it."""

    def eliminate(i: Array, m: Array) -> Array:
        column, pivot = m[:, i], m[i, i]
        row = (m[i] / pivot).at[i].set(1 / pivot)
        column = column.at[i].set(0)
        cleared = m.at[:, i].set(0) - column[:, None] * row[None]
        return cleared.at[i].set(row)

    return lax.fori_loop(0, matrix.shape[0], eliminate, matrix)
