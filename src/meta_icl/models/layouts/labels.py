"""Layouts of prompts with integer labels: tokens x_1, l_1, x_2, l_2, .., x_q for networks with a table of labels.

A layout places items and positions in vectors; the labels stay numbers, which the network looks up in a table of its
own (`LabelTokens`). Read-out: the logits of the last token or, with `every_item`, of every item, one row per position.
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from meta_icl.models.layouts.layout import Layout
from meta_icl.prompt import PlacedPrompt, Prompt


class LabelTokens(NamedTuple):
    """What a network of labels reads: vectors, and the label of every token that is one (-1 elsewhere).

    Vectors narrower than what reads them are zero in the channels that they leave out, which need no arithmetic.
    """

    vectors: Float[Array, "*batch t d"]
    labels: Int[Array, "*batch t"]


class LabelLayout(Layout):
    """Items alone, without any position: for networks with rotary ones. A label's vector is zero."""

    takes_labels: ClassVar[bool] = True
    tokens_per_pair: ClassVar[int] = 2
    every_item: bool = eqx.field(static=True, default=False)

    @property
    def reads_last_token(self) -> bool:  # pyrefly: ignore[bad-override]
        return not self.every_item

    @property
    def rows_read(self) -> slice | None:  # pyrefly: ignore[bad-override]
        return slice(None, None, 2) if self.every_item else None

    def encode(self, prompt: Prompt) -> LabelTokens:  # pyrefly: ignore[bad-override]
        return LabelTokens(self.vectors(prompt), interleaved_labels(prompt.y))

    def vectors(self, prompt: Prompt) -> Float[Array, "t d"]:
        """The vectors of all tokens."""
        return interleave(prompt.x, jnp.zeros_like(prompt.x))

    def read(self, output: Float[Array, "t classes"], prompt: Prompt) -> Float[Array, "..."]:
        return self.read_rows(output[::2], prompt) if self.every_item else output[-1]

    def read_rows(self, rows: Float[Array, "n classes"], prompt: Prompt) -> Float[Array, "n classes"]:
        del prompt
        return rows


class ItemIndex(LabelLayout):
    """Items (x, one-hot number of the item in `n_positions`); labels have no position (public code of Minegishi).

    Vectors end with the last number that is in use.
    """

    n_positions: int = eqx.field(static=True, default=65)

    def vectors(self, prompt: Prompt) -> Float[Array, "t d"]:
        n = prompt.x.shape[0]
        places = jnp.eye(n, min(n, self.n_positions), dtype=prompt.x.dtype)
        items = jnp.concatenate([prompt.x, places], axis=1)
        return interleave(items, jnp.zeros_like(items))


class Window(LabelLayout):
    """All tokens carry the one-hot number of their place, counted from the prompt's offset (0 if it has none).

    Items are (x, place), labels (0, place) before their vector is added (Reddy, 2023; Minegishi et al., 2025).
    """

    n_positions: int = eqx.field(static=True, default=65)

    def vectors(self, prompt: Prompt) -> Float[Array, "t d"]:
        first = prompt.offset if isinstance(prompt, PlacedPrompt) else 0
        contents = interleave(prompt.x, jnp.zeros_like(prompt.x))
        places = jax.nn.one_hot(first + jnp.arange(contents.shape[0]), self.n_positions, dtype=contents.dtype)
        return jnp.concatenate([contents, places], axis=1)


def interleave(items: Float[Array, "n d"], labels: Float[Array, "n d"]) -> Float[Array, "t d"]:
    """Rows x_1, l_1, .., x_n; the last label is left out."""
    n, d = items.shape
    return jnp.stack([items, labels], axis=1).reshape(2 * n, d)[:-1]


def interleaved_labels(y: Int[Array, " n"]) -> Int[Array, " t"]:
    """The label of every token, -1 at items; the query's is left out."""
    return jnp.stack([jnp.full_like(y, -1), y], axis=1).reshape(-1)[:-1]
