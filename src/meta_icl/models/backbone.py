"""One network around any sequence mixer, for vectors or tokens: an output at every position, and a cached step form.

A block is h <- h + mixer(norm(h)), then h <- h + mlp(norm(h)); norms are RMS norms with a gain, the MLP is four times
as wide, with GELU. The mixers of the description are used in turn, so hybrids are lists of two.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree, Shaped

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.mixers.heads import rms_norm
from meta_icl.models.mixers.mixer import MixerDescription, mix, state_size
from meta_icl.models.trace import Intervention, Tap, Trace, check_sites
from meta_icl.prompt import TokenPrompt

SITES = ("resid_pre", "mixer_in", "mixer_out", "resid_mid", "mlp_out", "resid_post")


@dataclass(frozen=True)
class Backbone:
    """Describes a stack of `n_layers` blocks of width `d_model`; called with a key it draws the weights.

    Exactly one of `d_in` (vectors) and `n_tokens` (integer tokens) is given; `d_out` channels are read out. `mlp` is
    the MLP's width as a multiple of `d_model`, 0 for none.
    """

    d_model: int
    mixers: tuple[MixerDescription, ...]
    n_layers: int = 2
    d_in: int | None = None
    n_tokens: int | None = None
    d_out: int = 1
    mlp: int = 4

    def __post_init__(self):
        for field in ("d_model", "n_layers", "d_out"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        require(len(self.mixers) >= 1, "mixers", self.mixers, "at least one")
        require(self.mlp >= 0, "mlp", self.mlp, "zero or more")
        one = (self.d_in is None) != (self.n_tokens is None)
        require(one, "d_in", self.d_in, "given for vectors, or n_tokens for tokens, not both")

    def __call__(self, *, key: Key[Array, ""]) -> "BackboneNetwork":
        return BackboneNetwork(self, key=key)


class MixerBlock(eqx.Module):
    """The weights of one block."""

    mixer: Any
    gains: Float[Array, "2 d"]
    w_up: Float[Array, "d m"]
    w_down: Float[Array, "m d"]

    def after_mixer(self, h: Float[Array, "t d"], mixed: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        """The rest of the block, given what the mixer answers."""
        h = tap("resid_mid", h + tap("mixer_out", mixed))
        if self.w_up.shape[1]:
            hidden = jax.nn.gelu(normed(h, self.gains[1]) @ self.w_up)
            h = h + tap("mlp_out", hidden @ self.w_down)
        return tap("resid_post", h)


class BackboneNetwork(eqx.Module):
    """The weights of a `Backbone`: a map from tokens "t" or vectors "t d_in" to outputs "t d_out", with its trace.

    `initial_state` and `step` are its cached form: `decode` gives the outputs of the full pass one token at a time.
    """

    read_in: Float[Array, "n d"]
    blocks: tuple[MixerBlock, ...]
    gain: Float[Array, " d"]
    read_out: Float[Array, "d d_out"]
    config: Backbone = eqx.field(static=True)

    def __init__(self, config: Backbone, *, key: Key[Array, ""]):
        c, d, m = config, config.d_model, config.mlp * config.d_model
        in_key, out_key, *keys = jax.random.split(key, 2 + c.n_layers)

        def block(index: int, key: Key[Array, ""]) -> MixerBlock:
            mixer_key, up_key, down_key = jax.random.split(key, 3)
            mixer = c.mixers[index % len(c.mixers)](d, key=mixer_key)
            up = draws.normal(up_key, (d, m)) / math.sqrt(d)
            down = draws.normal(down_key, (m, d)) / math.sqrt(max(m, 1) * c.n_layers)
            return MixerBlock(mixer, jnp.ones((2, d)), up, down)

        fan_in = c.d_in if c.d_in is not None else 1
        self.read_in = draws.normal(in_key, (c.d_in or c.n_tokens or 0, d)) / math.sqrt(fan_in)
        self.blocks = tuple(block(i, k) for i, k in enumerate(keys))
        self.gain = jnp.ones(d)
        self.read_out = draws.normal(out_key, (d, c.d_out)) / math.sqrt(d)
        self.config = c

    def __call__(
        self, tokens: Shaped[Array, "t ..."], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        """Run all blocks; returns the output of every position and the trace, stacked over layers."""
        check_sites(interventions, SITES)
        h, each = self.embedded(tokens), []
        for index, block in enumerate(self.blocks):
            tap = Tap(interventions, index)
            h = tap("resid_pre", h)
            h = block.after_mixer(h, mix(block.mixer, tap("mixer_in", normed(h, block.gains[0]))), tap)
            each.append(tap.sites)
        return self.read(h), Trace(jax.tree.map(lambda *layers: jnp.stack(layers), *each))

    def initial_state(self) -> PyTree:
        """The states of all mixers before the first token."""
        return tuple(block.mixer.initial_state() for block in self.blocks)

    def step(self, state: PyTree, token: Shaped[Array, "..."]) -> tuple[PyTree, Float[Array, " d_out"]]:
        """Take in one token (or vector "d_in"); returns the next state and the output at it."""
        h, after = self.embedded(token[None]), []
        for block, before in zip(self.blocks, state, strict=True):
            now, mixed = block.mixer.step(before, normed(h, block.gains[0])[0])
            h = block.after_mixer(h, mixed[None], Tap((), 0))
            after.append(now)
        return tuple(after), self.read(h)[0]

    def decode(self, tokens: Shaped[Array, "t ..."]) -> Float[Array, "t d_out"]:
        """The outputs of the full pass, by steps."""
        return lax.scan(lambda state, token: self.step(state, token), self.initial_state(), tokens)[1]  # noqa: PLW0108

    def embedded(self, tokens: Shaped[Array, "t ..."]) -> Float[Array, "t d"]:
        """The residual stream before the first block."""
        return self.read_in[tokens] if self.config.n_tokens is not None else tokens @ self.read_in

    def read(self, h: Float[Array, "t d"]) -> Float[Array, "t d_out"]:
        """The output from the residual stream after the last block."""
        return normed(h, self.gain) @ self.read_out

    @property
    def state_size(self) -> int:
        """Real numbers carried from token to token."""
        return sum(state_size(block.mixer) for block in self.blocks)


def normed(h: Float[Array, "t d"], gain: Float[Array, " d"]) -> Float[Array, "t d"]:
    """RMS norm with a gain."""
    return rms_norm(h) * gain[None]


class TokenPredictor(eqx.Module):
    """A predictor of token prompts: the logits "t vocabulary" of a network of tokens."""

    network: Any

    def __call__(self, prompt: TokenPrompt) -> Float[Array, "t v"]:
        return self.network(prompt.tokens)[0]


@dataclass(frozen=True)
class TokenLearner:
    """Describes a `TokenPredictor`: called with a key it draws the network's weights."""

    network: Callable[..., Any]

    def __call__(self, *, key: Key[Array, ""]) -> TokenPredictor:
        return TokenPredictor(self.network(key=key))
