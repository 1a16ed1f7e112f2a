"""How what a layout gives becomes the residual stream: maps of vectors, tables of tokens, items with labels."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.feedforward import Dense, DenseLayer
from meta_icl.models.initialisation import LECUN, Init, widened
from meta_icl.models.layouts.labels import LabelTokens
from meta_icl.models.readouts import LinearLayer, linear

FEW = 64  # labels up to which the product with their table is as fast as looking its rows up, and adding to them


@dataclass(frozen=True)
class Vectors:
    """Describes a linear map of vectors of `d_in` channels, or, without `d_in`, the rows as they are.

    `mlp` adds h + MLP(h) before the first block. The bias starts at zero or, where `bias_init` is given, by that law.
    """

    d_in: int | None = None
    bias: bool = False
    init: Init = LECUN
    bias_init: Init | None = None
    mlp: Dense | None = None

    def __post_init__(self):
        require(self.d_in is None or self.d_in >= 1, "d_in", self.d_in, "a positive integer or nothing")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "VectorEmbedding":
        map_key, mlp_key = jax.random.split(key)
        maps = None
        if self.d_in is not None:
            maps = linear(self.d_in, d_model, bias=self.bias, init=self.init, bias_init=self.bias_init, key=map_key)
        return VectorEmbedding(maps, None if self.mlp is None else self.mlp(d_model, key=mlp_key))


class VectorEmbedding(eqx.Module):
    """The weights of a `Vectors`."""

    map: LinearLayer | None
    mlp: DenseLayer | None

    def __call__(self, tokens: Float[Array, "t d_in"]) -> Float[Array, "t d"]:
        h = tokens if self.map is None else self.map(tokens)
        return h if self.mlp is None else h + jax.vmap(self.mlp)(h)

    @property
    def d_in(self) -> int | None:
        """Channels of a row, where a map says so."""
        return None if self.map is None else self.map.weight.shape[0]


@dataclass(frozen=True)
class Tokens:
    """Describes a table of `n_tokens` vectors; `scale` multiplies what is looked up (sqrt(d_model) in Gemma)."""

    n_tokens: int
    init: Init = Init(std=0.02)
    scale: float | None = None

    def __post_init__(self):
        require(self.n_tokens >= 2, "n_tokens", self.n_tokens, "at least 2")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "TokenEmbedding":
        return TokenEmbedding(self.init((self.n_tokens, d_model), d_model, key=key), self.scale)


class TokenEmbedding(eqx.Module):
    """The table of a `Tokens`."""

    table: Float[Array, "v d"]
    scale: float | None = eqx.field(static=True, default=None)

    def __call__(self, tokens: Int[Array, " t"]) -> Float[Array, "t d"]:
        rows = widened(self.table[tokens])
        return rows if self.scale is None else rows * jnp.asarray(self.scale, rows.dtype)


@dataclass(frozen=True)
class Items:
    """Describes items and labels in turn (`LabelTokens`): items are encoded, labels are rows of a table.

    `encoder` makes a stream's vector of every item (an `ImageEncoder`, or `Vectors` with a map); without one items have
    the stream's width already. Labels have `d_label` channels (default: all), of deviation `label_std` (default
    1/sqrt(d_label); cut off at two deviations if `truncated`), added to the first channels of their token; with
    `fixed_labels` the table is not trained.
    """

    n_labels: int
    encoder: Any = None
    d_label: int | None = None
    label_std: float | None = None
    truncated: bool = False
    fixed_labels: bool = False

    def __post_init__(self):
        require(self.n_labels >= 2, "n_labels", self.n_labels, "at least 2")
        require(self.d_label is None or self.d_label >= 1, "d_label", self.d_label, "a positive integer or nothing")
        require(self.label_std is None or self.label_std > 0, "label_std", self.label_std, "positive, or nothing")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "ItemEmbedding":
        label_key, encoder_key = jax.random.split(key)
        width = self.d_label or d_model
        require(width <= d_model, "d_label", self.d_label, f"at most d_model = {d_model}")
        std, shape = self.label_std or 1 / math.sqrt(width), (self.n_labels, width)
        drawn = draws.truncated_normal(label_key, -2, 2, shape) if self.truncated else draws.normal(label_key, shape)
        encoder = None if self.encoder is None else self.encoder(d_model, key=encoder_key)
        return ItemEmbedding(std * drawn, encoder, d_model, self.fixed_labels)


class ItemEmbedding(eqx.Module):
    """The weights of an `Items`."""

    labels: Float[Array, "labels d_label"]
    encoder: Any
    d_model: int = eqx.field(static=True)
    fixed_labels: bool = eqx.field(static=True, default=False)

    def __call__(self, tokens: LabelTokens) -> Float[Array, "t d"]:
        """The rows of x_1, l_1, .., x_q: items stand at even places, where alone the encoder is asked."""
        rows, vectors = self.label_rows(tokens.labels), self.filled(tokens.vectors)
        if self.encoder is None:
            return vectors + rows
        encoded = self.encoder(vectors[::2])
        between = jnp.zeros_like(encoded)
        items = jnp.stack([encoded, between], axis=1).reshape(-1, encoded.shape[1])[: rows.shape[0]]
        return items + rows

    def one(self, token: LabelTokens) -> Float[Array, " d"]:
        """The row of a single token, an item or a label."""
        row, vector = self.label_rows(token.labels[None])[0], self.filled(token.vectors)
        if self.encoder is None:
            return vector + row
        return jnp.where(token.labels < 0, self.encoder(vector[None])[0], row)

    def untrained_leaves(self) -> list[Any]:
        """What no optimiser moves, not by weight decay either."""
        return [self.labels] if self.fixed_labels else []

    @property
    def table(self) -> Float[Array, "labels d"]:
        """The rows of the labels in the stream, zero in the channels that they do not reach."""
        table = jax.lax.stop_gradient(self.labels) if self.fixed_labels else self.labels
        return jnp.pad(table, ((0, 0), (0, self.d_model - table.shape[1])))

    def filled(self, vectors: Float[Array, "*t w"]) -> Float[Array, "*t d_in"]:
        """Vectors as wide as what reads them, an encoder of vectors or the stream."""
        d_in = self.d_model if self.encoder is None else getattr(self.encoder, "d_in", None) or vectors.shape[-1]
        return jnp.pad(vectors, [(0, 0)] * (vectors.ndim - 1) + [(0, d_in - vectors.shape[-1])])

    def label_rows(self, labels: Int[Array, "*b t"]) -> Float[Array, "*b t d"]:
        """The rows of the table, zero where a token is no label."""
        n, table = self.labels.shape[0], self.table
        if n <= FEW:
            return (self.one_hot(labels).reshape(-1, n) @ table).reshape(*labels.shape, -1)
        there = (labels >= 0) & (labels < n)
        return jnp.where(there[..., None], table[jnp.where(there, labels, 0)], 0)

    def one_hot(self, labels: Int[Array, "*b t"]) -> Float[Array, "*b t labels"]:
        """Which row of the table a token has, nothing where it is no label."""
        return jax.nn.one_hot(labels, self.labels.shape[0], dtype=self.labels.dtype)
