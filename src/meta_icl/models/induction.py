"""The small attention-only classifiers in which induction circuits form: Reddy (2023), Singh (2024), Minegishi (2025).

Items and labels stand in turn; label tokens come from a table; attention layers; then a classifier on the last token.
Every published variant is a field of one description.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.attention_stack import AttentionLayers, AttentionStack
from meta_icl.models.induction_lean import has_lean_form, lean_form
from meta_icl.models.label_layouts import LabelTokens
from meta_icl.models.trace import Intervention, Trace

CLASSIFIERS = ("torch", "he", "lecun")


@dataclass(frozen=True)
class Induction:
    """Describes a classifier of label sequences; called with a key it draws the weights (`InductionNetwork`).

    Labels are rows of a table of width `d_label` (default the width of the stack) and deviation `label_std` (default
    1/sqrt(d_label)), added to the first channels of their token; with `fixed_labels` the table is not trained. `d_in`
    maps items affinely (else they have the stack's width already). `n_hidden` ReLU layers stand before the logits,
    drawn as "torch" (uniform in +-1/sqrt(width), biases too) or "he" (normal of variance 2/width with ONE scalar bias
    per layer and a read-out without bias, Reddy's code) or "lecun" (normal of variance 1/width, biases zero).
    """

    n_labels: int
    stack: AttentionStack = field(default_factory=AttentionStack)
    n_hidden: int = 2
    classifier: str = "torch"
    d_label: int | None = None
    label_std: float | None = None
    fixed_labels: bool = False
    d_in: int | None = None

    def __post_init__(self):
        require(self.n_labels >= 2, "n_labels", self.n_labels, "at least 2")
        require(self.n_hidden >= 0, "n_hidden", self.n_hidden, "zero or more")
        choose("classifier", self.classifier, CLASSIFIERS)
        d = self.stack.d_model
        width_ok = self.d_label is None or 1 <= self.d_label <= d
        require(width_ok, "d_label", self.d_label, f"from 1 to d_model = {d}, or nothing")
        require(self.d_in is None or self.d_in >= 1, "d_in", self.d_in, "a positive integer or nothing")

    def __call__(self, *, key: Key[Array, ""]) -> "InductionNetwork":
        return InductionNetwork(self, key=key)


class Dense(eqx.Module):
    """x W + b, with one bias per channel, one for all, or none."""

    weight: Float[Array, "d_in d_out"]
    bias: Float[Array, " biases"] | None

    def __call__(self, x: Float[Array, "n d_in"]) -> Float[Array, "n d_out"]:
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias[None]


class InductionNetwork(eqx.Module):
    """The weights of an `Induction`: a map from `LabelTokens` to logits "t labels", with its trace."""

    labels: Float[Array, "labels d_label"]
    read_in: Dense | None
    stack: AttentionLayers
    classifier: tuple[Dense, ...]
    config: Induction = eqx.field(static=True)

    def __init__(self, config: Induction, *, key: Key[Array, ""]):
        c, d = config, config.stack.d_model
        label_key, in_key, stack_key, out_key = jax.random.split(key, 4)
        width = c.d_label or d
        self.labels = (c.label_std or 1 / math.sqrt(width)) * draws.normal(label_key, (c.n_labels, width))
        lecun = None if c.d_in is None else draws.normal(in_key, (c.d_in, d)) / math.sqrt(c.d_in)
        self.read_in = None if lecun is None else Dense(lecun, jnp.zeros(d))
        self.stack = c.stack(key=stack_key)
        sizes = [d] * (c.n_hidden + 1) + [c.n_labels]
        keys = jax.random.split(out_key, c.n_hidden + 1)
        draw = {"torch": _torch, "he": _he, "lecun": _lecun}[c.classifier]
        pairs = zip(sizes, sizes[1:], strict=False)
        self.classifier = tuple(draw(*pair, i == c.n_hidden, keys[i]) for i, pair in enumerate(pairs))
        self.config = config

    def __call__(
        self, tokens: LabelTokens, interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t labels"], Trace]:
        """Logits of every token, and every site of the layers stacked over layers."""
        h, sites = self.stack(self.embedded(tokens), interventions)
        return self.classify(h), Trace(sites)

    def embedded(self, tokens: LabelTokens) -> Float[Array, "*batch t d"]:
        """The residual stream before the first layer."""
        vectors = tokens.vectors
        if self.read_in is not None:
            is_item = (tokens.labels < 0)[..., None].astype(vectors.dtype)
            mapped = self.read_in(vectors.reshape(-1, vectors.shape[-1]))
            vectors = mapped.reshape(*vectors.shape[:-1], -1) * is_item
        return vectors + self.label_vectors(tokens)

    def label_vectors(self, tokens: LabelTokens) -> Float[Array, "*batch t d"]:
        """The rows of the table, zero where a token is no label, padded to the width of the stack."""
        table = jax.lax.stop_gradient(self.labels) if self.config.fixed_labels else self.labels
        rows = jax.nn.one_hot(tokens.labels, self.config.n_labels, dtype=table.dtype) @ table
        missing = self.config.stack.d_model - table.shape[1]
        return jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)])

    def classify(self, h: Float[Array, "n d"]) -> Float[Array, "n labels"]:
        """The logits that the classifier reads off rows of the residual stream."""
        for layer in self.classifier[:-1]:
            h = jax.nn.relu(layer(h))
        return self.classifier[-1](h)

    @property
    def lean(self) -> Callable[..., Float[Array, "b 1 labels"]] | None:
        """The form for training where there is one: logits of the last token, "b 1 labels", of a batch of tokens."""
        return partial(lean_form, self) if has_lean_form(self.config.stack) else None


def _torch(fan_in: int, width: int, last: bool, key: Key[Array, ""]) -> Dense:
    del last
    weight_key, bias_key = jax.random.split(key)
    bound = 1 / math.sqrt(fan_in)
    weight = draws.uniform(weight_key, (fan_in, width), minval=-bound, maxval=bound)
    return Dense(weight, draws.uniform(bias_key, (width,), minval=-bound, maxval=bound))


def _he(fan_in: int, width: int, last: bool, key: Key[Array, ""]) -> Dense:
    weight = draws.normal(key, (fan_in, width)) * math.sqrt((1 if last else 2) / fan_in)
    return Dense(weight, None if last else jnp.zeros(1))


def _lecun(fan_in: int, width: int, last: bool, key: Key[Array, ""]) -> Dense:
    del last
    return Dense(draws.normal(key, (fan_in, width)) / math.sqrt(fan_in), jnp.zeros(width))
