"""A residual stream kept in factors: h = sum_i u_i F_i, where only the rows u_i differ from prompt to prompt.

An embedded stream starts as the tokens u with the embedding F, and a head adds what it attends to, in the coordinates
of u, with F times what it writes: as long as the factors are narrower than the stream, no row of it is ever formed
(kept rank). Read by a single row, a stream in factors is cheaper than a formed one even where they are wider: the
first layer is then shared by all that the last one reads (first-layer sharing).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Factor(NamedTuple):
    """Rows and the map that takes them into the stream; no map where they are rows of the stream.

    The first `own` channels of the rows are the first ones of the stream, of which the map does not speak.
    """

    rows: Float[Array, "b *t w"]
    map: Float[Array, "m d"] | None
    own: int = 0

    @property
    def width(self) -> int:
        """Channels of the rows."""
        return self.rows.shape[-1]

    def formed(self) -> Float[Array, "b *t d"]:
        """The rows in the stream."""
        if self.map is None:
            return self.rows
        mapped = times(self.rows[..., self.own :], self.map)
        return mapped if self.own == 0 else mapped + _filled(self.rows[..., : self.own], mapped.shape[-1])

    def whole(self) -> "Factor":
        """The same with a map of all channels."""
        if self.map is None or self.own == 0:
            return self
        return Factor(
            self.rows, jnp.concatenate([jnp.eye(self.own, self.map.shape[1], dtype=self.map.dtype), self.map])
        )

    def coordinates(self, reads: Float[Array, "b h d"]) -> Float[Array, "b h w"]:
        """Vectors that are multiplied with rows of the stream, as they are multiplied with the factor's rows."""
        if self.map is None:
            return reads
        mapped = times(reads, self.map.T)
        return mapped if self.own == 0 else jnp.concatenate([reads[..., : self.own], mapped], axis=-1)

    def through(self, matrix: Float[Array, "d e"]) -> Float[Array, "w e"]:
        """The map of the factor's rows by a matrix behind the stream."""
        if self.map is None:
            return matrix
        mapped = self.map @ matrix
        return mapped if self.own == 0 else jnp.concatenate([matrix[: self.own], mapped])


Stream = tuple[Factor, ...]


def times(rows: Float[Array, "*b w"], matrix: Float[Array, "w e"]) -> Float[Array, "*b e"]:
    """The product of all rows with a matrix as one of two matrices.

    The gradient of the matrix is then one too; where the sum is over two axes, XLA first copies what it sums over.
    """
    return (rows.reshape(-1, rows.shape[-1]) @ matrix).reshape(*rows.shape[:-1], matrix.shape[-1])


def formed(stream: Stream) -> Float[Array, "b *t d"]:
    """The rows of the stream."""
    return sum((factor.formed() for factor in stream[1:]), stream[0].formed())


def rows_of(stream: Stream, rows: slice | int) -> Stream:
    """Some rows of every prompt's stream, or one row."""
    return tuple(factor._replace(rows=factor.rows[:, rows]) for factor in stream)


def width(stream: Stream) -> int:
    """Channels of all factors together."""
    return sum(factor.width for factor in stream)


def joined(stream: Stream) -> Stream:
    """The factors that have maps of all their channels side by side as one."""
    mapped = [factor for factor in stream if factor.map is not None and factor.own == 0]
    if len(mapped) < 2:
        return stream
    one = Factor(
        jnp.concatenate([factor.rows for factor in mapped], axis=-1),
        jnp.concatenate([factor.map for factor in mapped if factor.map is not None]),
    )
    return (*(factor for factor in stream if factor.map is None or factor.own > 0), one)


def merged(stream: Stream) -> Stream:
    """The factors that have maps side by side as one, their own channels too; a single factor stays as it is."""
    return stream if len(stream) < 2 else joined(tuple(factor.whole() for factor in stream))


def _filled(rows: Float[Array, "*b w"], width: int) -> Float[Array, "*b d"]:
    """Rows with zeros behind them."""
    return jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, width - rows.shape[-1])])
