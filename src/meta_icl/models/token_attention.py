"""Attention-only language models: the smallest in which induction heads form (Olsson et al., 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.attention_stack import AttentionLayers, AttentionStack
from meta_icl.models.trace import Intervention, Trace
from meta_icl.prompt import TokenPrompt


@dataclass(frozen=True)
class TokenAttention:
    """Describes a next-token predictor of attention layers alone; called with a key it draws the weights.

    Embedding and read-out are separate and normal of deviation `embed_std` and 1/sqrt(d_model), without biases.
    Positions are learned and added, unless the stack is rotary.
    """

    n_tokens: int
    n_positions: int
    stack: AttentionStack = field(default_factory=AttentionStack)
    embed_std: float = 0.1

    def __post_init__(self):
        require(self.n_tokens >= 2, "n_tokens", self.n_tokens, "at least 2")
        require(self.n_positions >= 1, "n_positions", self.n_positions, "a positive integer")
        require(self.embed_std > 0, "embed_std", self.embed_std, "positive")

    def __call__(self, *, key: Key[Array, ""]) -> "TokenAttentionNetwork":
        return TokenAttentionNetwork(self, key=key)


class TokenAttentionNetwork(eqx.Module):
    """A predictor of tokens: logits "t v" of a `TokenPrompt`, row i having seen the tokens up to and with i."""

    embed: Float[Array, "v d"]
    positions: Float[Array, "p d"] | None
    stack: AttentionLayers
    unembed: Float[Array, "d v"]
    config: TokenAttention = eqx.field(static=True)

    def __init__(self, config: TokenAttention, *, key: Key[Array, ""]):
        c, d = config, config.stack.d_model
        embed_key, position_key, stack_key, out_key = jax.random.split(key, 4)
        self.embed = c.embed_std * draws.normal(embed_key, (c.n_tokens, d))
        self.positions = None if c.stack.rotary else c.embed_std * draws.normal(position_key, (c.n_positions, d))
        self.stack = c.stack(key=stack_key)
        self.unembed = draws.normal(out_key, (d, c.n_tokens)) / jnp.sqrt(float(d))
        self.config = config

    def __call__(self, prompt: TokenPrompt) -> Float[Array, "t v"]:
        return self.trace(prompt)[0]

    def trace(
        self, prompt: TokenPrompt, interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t v"], Trace]:
        """The logits, with every site of the layers stacked over layers, after the interventions."""
        h, sites = self.stack(self.embedded(prompt.tokens), interventions)
        return h @ self.unembed, Trace(sites)

    def embedded(self, tokens: Int[Array, " t"]) -> Float[Array, "t d"]:
        """The residual stream before the first layer."""
        t = tokens.shape[0]
        require(t <= self.config.n_positions, "tokens", t, f"at most n_positions = {self.config.n_positions} of them")
        rows = self.embed[tokens]
        return rows if self.positions is None else rows + self.positions[:t]
