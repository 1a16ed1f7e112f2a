"""Layouts of prompts with real targets: concatenated, separate and interleaved tokens, read back with a stated sign."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.errors import choose, require
from meta_icl.models.layouts.layout import Layout
from meta_icl.models.positions import sinusoidal_code
from meta_icl.prompt import Prompt


class Concatenated(Layout):
    """One token (x_i, y_i) per pair; the query token is (x_q, -W0 x_q), so its y slot is 0 for the default W0 = 0.

    Read-out: `sign` times the last dy channels of the last token. The sign is -1 by the convention of von Oswald et
    al. (2022): the construction leaves -(W0 + dW) x_q in the slot.
    """

    sign: float = eqx.field(static=True, default=-1.0)
    w0: Float[Array, "dy dx"] | None = None

    def encode(self, prompt: Prompt) -> Float[Array, "n d"]:
        slot = jnp.zeros_like(prompt.y[-1]) if self.w0 is None else -self.w0 @ prompt.query.x
        return jnp.concatenate([prompt.x, prompt.y.at[-1].set(slot)], axis=-1)

    def read(self, output: Float[Array, "n d"], prompt: Prompt) -> Float[Array, " dy"]:
        return self.sign * output[-1, -prompt.y.shape[-1] :]


class Separate(Layout):
    """Tokens x_1, y_1, x_2, .., x_q, each with a sinusoidal positional code concatenated.

    Token (x, code), then (0, .., 0, y, code) of the same width dx + `d_position` (von Oswald et al., 2022); with
    `own_slot` the targets have channels of their own, (x, 0, code) and (0, y, code). The code has base 10000, sines
    then cosines. Read-out: `sign` times the y channels of the last token (`channel="y"`), or, as the released code does
    by accident, the very last channel, which belongs to the positional code (`channel="last"`).
    """

    tokens_per_pair: ClassVar[int] = 2
    d_position: int = eqx.field(static=True, default=10)
    sign: float = eqx.field(static=True, default=-1.0)
    channel: str = eqx.field(static=True, default="y")
    own_slot: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require(self.d_position >= 2 and self.d_position % 2 == 0, "d_position", self.d_position, "even and at least 2")
        choose("channel", self.channel, ("y", "last"))

    def encode(self, prompt: Prompt) -> Float[Array, "t d"]:
        n, dx = prompt.x.shape
        dy = prompt.y.shape[-1]
        width = self._width(prompt)
        require(dy <= width, "dy", dy, f"at most dx = {dx} unless own_slot is set")
        x_tokens = jnp.pad(prompt.x, ((0, 0), (0, width - dx)))
        y_tokens = jnp.pad(prompt.y, ((0, 0), (width - dy, 0)))
        tokens = jnp.stack([x_tokens, y_tokens], axis=1).reshape(2 * n, width)[:-1]
        code = sinusoidal_code(2 * n - 1, self.d_position).astype(tokens.dtype)
        return jnp.concatenate([tokens, code], axis=-1)

    def read(self, output: Float[Array, "t d"], prompt: Prompt) -> Float[Array, " dy"]:
        width, dy = self._width(prompt), prompt.y.shape[-1]
        return self.sign * (output[-1, -dy:] if self.channel == "last" else output[-1, width - dy : width])

    def _width(self, prompt: Prompt) -> int:
        """Channels of a token before its positional code."""
        return prompt.x.shape[-1] + (prompt.y.shape[-1] if self.own_slot else 0)


class Interleaved(Layout):
    """Tokens x_1, y_1, x_2, y_2, .., x_q, each padded with zeros to width max(dx, dy) (Garg et al., 2022).

    With `own_slot` the targets have channels of their own, in front: (0, x) and (y, 0) (Raventos et al., 2023).
    Read-out: `sign` times the first dy channels at every x token, one prediction per position; with a causal network
    row k has seen the pairs before k and x_k only.
    """

    reads_last_token: ClassVar[bool] = False
    rows_read: ClassVar[slice | None] = slice(None, None, 2)
    tokens_per_pair: ClassVar[int] = 2
    sign: float = eqx.field(static=True, default=1.0)
    own_slot: bool = eqx.field(static=True, default=False)

    def encode(self, prompt: Prompt) -> Float[Array, "t d"]:
        n, dx = prompt.x.shape
        dy = prompt.y.shape[-1]
        width = dx + dy if self.own_slot else max(dx, dy)
        x = jnp.pad(prompt.x, ((0, 0), (width - dx, 0) if self.own_slot else (0, width - dx)))
        y = jnp.pad(prompt.y, ((0, 0), (0, width - dy)))
        return jnp.stack([x, y], axis=1).reshape(2 * n, width)[:-1]

    def read(self, output: Float[Array, "t d"], prompt: Prompt) -> Float[Array, "n dy"]:
        return self.read_rows(output[self.rows_read], prompt)

    def read_rows(self, rows: Float[Array, "n d"], prompt: Prompt) -> Float[Array, "n dy"]:
        return self.sign * rows[:, : prompt.y.shape[-1]]
