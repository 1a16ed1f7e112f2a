"""The classifier of Chan et al. (2022): encoded items and embedded labels in turn, any causal network, logits.

Tokens are x_1, l_1, x_2, l_2, .., x_q, all as wide as the network in the middle, which is a transformer or recurrent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.decoder import Affine, Decoder, DecoderNetwork
from meta_icl.models.image_encoder import ImageEncoder, ImageEncoderNetwork
from meta_icl.models.label_layouts import LabelTokens
from meta_icl.models.layouts import positional_code
from meta_icl.models.lstm import Lstm, LstmNetwork
from meta_icl.models.trace import Intervention, Trace


@dataclass(frozen=True)
class AffineEncoder:
    """Describes an encoder x W + b of items of `d_in` numbers; weights are normal of variance 1/d_in, biases zero."""

    d_in: int
    d_out: int

    def __post_init__(self):
        for field in ("d_in", "d_out"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    def __call__(self, *, key: Key[Array, ""]) -> Affine:
        return Affine(draws.normal(key, (self.d_in, self.d_out)) / math.sqrt(self.d_in), jnp.zeros(self.d_out))


@dataclass(frozen=True)
class SequenceClassifier:
    """Describes the classifier; called with a key it draws the weights (`SequenceClassifierNetwork`).

    `encoder` makes a vector of every item, labels are rows of a table of deviation `label_std` (truncated at two
    deviations), and sinusoidal positions of base `position_base`, sines before cosines, are added to both. `body` is a
    `Decoder` of `embedded` rows or an `Lstm`; it reads out one logit per label.
    """

    encoder: ImageEncoder | AffineEncoder
    body: Decoder | Lstm
    label_std: float = 0.02
    position_base: float = 30.0

    def __post_init__(self):
        d, body = self.d_model, self.body
        require(self.encoder.d_out == d, "encoder", self.encoder, f"one with d_out = {d}, the width of the body")
        require(d % 2 == 0, "body", body, "of even width, for sines and cosines")
        ready = isinstance(body, Lstm) or body.embedded
        require(ready, "body", body, "a decoder of embedded rows")
        forward = not (isinstance(body, Lstm) and body.bidirectional)
        require(forward, "body", body, "one that reads forwards, so that the last state has read everything")
        require((body.d_out or 0) >= 2, "body", body, "one with at least 2 logits")
        require(self.label_std > 0, "label_std", self.label_std, "positive")
        require(self.position_base > 1, "position_base", self.position_base, "above 1")

    @property
    def d_model(self) -> int:
        """The width of all tokens."""
        return self.body.d_in if isinstance(self.body, Lstm) else self.body.d_model

    @property
    def n_labels(self) -> int:
        """Rows of the label table, and logits."""
        return self.body.d_out or 0

    def __call__(self, *, key: Key[Array, ""]) -> "SequenceClassifierNetwork":
        return SequenceClassifierNetwork(self, key=key)


class SequenceClassifierNetwork(eqx.Module):
    """The weights of a `SequenceClassifier`: a map from `LabelTokens` to logits "t labels", with the body's trace."""

    encoder: ImageEncoderNetwork | Affine
    labels: Float[Array, "labels d"]
    body: DecoderNetwork | LstmNetwork
    config: SequenceClassifier = eqx.field(static=True)

    def __init__(self, config: SequenceClassifier, *, key: Key[Array, ""]):
        encoder_key, label_key, body_key = jax.random.split(key, 3)
        self.encoder = config.encoder(key=encoder_key)
        shape = (config.n_labels, config.d_model)
        self.labels = config.label_std * draws.truncated_normal(label_key, -2, 2, shape)
        self.body = config.body(key=body_key)
        self.config = config

    def __call__(
        self, tokens: LabelTokens, interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t labels"], Trace]:
        return self.body(self.embedded(tokens), interventions)

    def embedded(self, tokens: LabelTokens) -> Float[Array, "*batch t d"]:
        """The rows that the body reads; all images of a batch are encoded at once."""
        items = tokens.vectors[..., ::2, :]
        *batch, n, _ = items.shape
        encoded = self.encoder(items.reshape(-1, items.shape[-1])).reshape(*batch, n, -1)
        rows = self.labels[tokens.labels[..., 1::2]]
        # The query has no label; the row that stands for it is cut off.
        rows = jnp.concatenate([rows, jnp.zeros_like(encoded[..., :1, :])], axis=-2)
        both = jnp.stack([encoded, rows], axis=-2).reshape(*batch, 2 * n, -1)[..., :-1, :]
        code = positional_code(2 * n - 1, both.shape[-1], self.config.position_base).astype(both.dtype)
        return both + jnp.expand_dims(code, tuple(range(len(batch))))

    @property
    def lean(self) -> Callable[[LabelTokens], Float[Array, "b 1 labels"]]:
        """The form for training: logits of the last token of a batch of tokens."""

        def logits(tokens: LabelTokens) -> Float[Array, "b 1 labels"]:
            return jax.vmap(self.body.last)(self.embedded(tokens))[:, None]

        return logits
