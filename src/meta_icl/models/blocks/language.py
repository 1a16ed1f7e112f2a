"""A language model made of contextual blocks: token embedding, blocks, final norm, read-out to the vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.blocks.feedforward import NORMS, Norm, draw_norm
from meta_icl.models.blocks.patch import Patch
from meta_icl.models.blocks.stack import BlockNetwork, Blocks
from meta_icl.models.trace import Intervention, Trace


@dataclass(frozen=True)
class Language:
    """Describes a language model over `n_tokens` tokens; called with a key it draws the weights (`LanguageModel`).

    `n_positions` learned positions are added to the embeddings (`None`: no such positions, as with rotary attention).
    Embeddings are normal of variance 1, positions of variance 0.01, the read-out of variance 1 / d_model.
    """

    n_tokens: int
    blocks: Blocks
    n_positions: int | None = None
    final_norm: str | None = None

    def __post_init__(self):
        require(self.n_tokens >= 2, "n_tokens", self.n_tokens, "at least 2")
        require(
            self.n_positions is None or self.n_positions >= 1, "n_positions", self.n_positions, "positive or nothing"
        )
        require(self.blocks.d_in is None and self.blocks.d_out is None, "blocks", "d_in or d_out", "without them")
        if self.final_norm is not None:
            choose("norm", self.final_norm, NORMS)

    def __call__(self, *, key: Key[Array, ""]) -> "LanguageModel":
        return LanguageModel.drawn(self, key=key)


class LanguageModel(eqx.Module):
    """The weights of a `Language`: a map from token numbers "t" to logits "t v" with its trace."""

    embed: Float[Array, "v d"]
    positions: Float[Array, "p d"] | None
    network: BlockNetwork
    final_norm: Norm | None
    unembed: Float[Array, "d v"]

    @classmethod
    def drawn(cls, config: Language, *, key: Key[Array, ""]) -> "LanguageModel":
        """Draw the weights that a description describes."""
        c, d = config, config.blocks.d_model
        embed, positions, blocks, unembed = jax.random.split(key, 4)
        norm = draw_norm(c.final_norm, d, 1, eps=c.blocks.norm_eps) if c.final_norm else None
        return cls(
            embed=draws.normal(embed, (c.n_tokens, d)),
            positions=0.1 * draws.normal(positions, (c.n_positions, d)) if c.n_positions else None,
            network=c.blocks(key=blocks),
            final_norm=jax.tree.map(lambda leaf: leaf[0], norm),
            unembed=draws.normal(unembed, (d, c.n_tokens)) / d**0.5,
        )

    def __call__(
        self,
        tokens: Int[Array, " t"],
        interventions: Sequence[Intervention] = (),
        *,
        visible: Bool[Array, " t"] | None = None,
        patch: Patch | None = None,
    ) -> tuple[Float[Array, "t v"], Trace]:
        """The logits of every position and the trace; only `visible` rows exist, and `patch` changes the weights."""
        hidden, trace = self.network.hidden(self.embedded(tokens), interventions, visible=visible, patch=patch)
        return self.logits(hidden), trace

    def embedded(self, tokens: Int[Array, " t"]) -> Float[Array, "t d"]:
        """The residual stream before the first block: embeddings plus positions."""
        t = tokens.shape[0]
        if self.positions is None:
            return self.embed[tokens]
        require(t <= self.positions.shape[0], "tokens", t, f"at most {self.positions.shape[0]} of them")
        return self.embed[tokens] + self.positions[:t]

    def logits(self, hidden: Float[Array, "t d"]) -> Float[Array, "t v"]:
        """The logits from the residual stream after the last block."""
        return (hidden if self.final_norm is None else jax.vmap(self.final_norm)(hidden)) @ self.unembed


def next_token_loss(model: LanguageModel, tokens: Int[Array, " t"], scored: Bool[Array, " t"]) -> Float[Array, ""]:
    """Mean cross-entropy, in nats, of the successors of the `scored` positions (the last position has none)."""
    log_p = jax.nn.log_softmax(model(tokens)[0][:-1])
    losses = -jnp.take_along_axis(log_p, tokens[1:, None], axis=-1)[:, 0]
    weights = scored[:-1].astype(losses.dtype)
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1)
