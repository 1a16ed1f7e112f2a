"""How a prompt becomes the rows that a network reads, and how its answer is read back.

Every layout states its read-out and sign convention. Networks map tokens "t d" to outputs "t d"; a layout never knows
which network it serves. All layouts hide the query's target: its slot is filled by a rule, never by the target.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.errors import choose, require
from meta_icl.prompt import Prompt


class Layout(eqx.Module):
    """A pair of maps: prompt -> tokens "t d", and network output "t d" -> prediction."""

    reads_last_token: ClassVar[bool] = True  # a network may then return the last row only
    tokens_per_pair: ClassVar[int] = 1  # of the context; the query has one
    takes_labels: ClassVar[bool] = False  # prompts with integer labels, not real targets

    def encode(self, prompt: Prompt) -> Float[Array, "t d"]:
        """The tokens of one prompt."""
        raise TypeError(f"{type(self).__name__} does not define encode")

    def read(self, output: Float[Array, "t d"], prompt: Prompt) -> Float[Array, "..."]:
        """The prediction in the network's output."""
        raise TypeError(f"{type(self).__name__} does not define read")


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
        code = positional_code(2 * n - 1, self.d_position).astype(tokens.dtype)
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
        return self.sign * output[::2, : prompt.y.shape[-1]]


def positional_code(n_tokens: int, width: int, base: float = 10000.0) -> Float[Array, "t width"]:
    """Sinusoidal positions: sin(p / base^(2j/width)) for j < width/2, then the cosines (Vaswani et al., 2017)."""
    angles = np.arange(n_tokens)[:, None] / base ** (2 * np.arange(width // 2) / width)
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), jnp.result_type(float))
