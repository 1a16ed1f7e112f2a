"""How a prompt becomes the rows that a network reads, and how its answer is read back.

Every layout states its read-out and sign convention. Networks map tokens "t d" to outputs "t d"; a layout never knows
which network it serves. All layouts hide the query's target: its slot is filled by a rule, never by the target.
"""

from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float


class Layout(eqx.Module):
    """A pair of maps: prompt -> tokens "t d", and network output "t d" -> prediction."""

    reads_last_token: ClassVar[bool] = True  # a network may then return the last row only
    rows_read: ClassVar[slice | None] = None  # where they are no others, the rows that `read_rows` needs
    tokens_per_pair: ClassVar[int] = 1  # of the context; the query has one
    takes_labels: ClassVar[bool] = False  # prompts with integer labels, not real targets

    def encode(self, prompt: Any) -> Float[Array, "t d"]:
        """The tokens of one prompt."""
        raise TypeError(f"{type(self).__name__} does not define encode")

    def read(self, output: Float[Array, "t d"], prompt: Any) -> Float[Array, "..."]:
        """The prediction in the network's output."""
        raise TypeError(f"{type(self).__name__} does not define read")

    def read_rows(self, rows: Float[Array, "q d"], prompt: Any) -> Float[Array, "..."]:
        """The prediction in the rows of the network's output that are read."""
        raise TypeError(f"{type(self).__name__} does not define read_rows")
