"""Contextual blocks of every published kind: a layer that mixes tokens, followed by an MLP on each token.

    A = mixer(norm_mixer(x));  carry, source = by `skip`;  out = carry + post_norm(mlp(norm_mlp(source)))

| skip | carry | source of the MLP |
|---|---|---|
| "none" | 0 | A |
| "around" | x + A | A (the skip passes around the MLP; Dherin et al., 2025, first version) |
| "residual" | x + A | x + A |
| "parallel" | x + A | x |

Row convention; a network is a stack of equal blocks between an optional linear embedding and read-out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.blocks.feedforward import ACTIVATIONS, MLPS, NORMS, Mlp, Norm, draw_mlp, draw_norm
from meta_icl.models.blocks.mixers import Attention, ContextualLayer
from meta_icl.models.blocks.patch import Patch, vector_change
from meta_icl.models.trace import Intervention, Tap, Trace

SKIPS = ("none", "around", "residual", "parallel")

KINDS: dict[str, dict[str, Any]] = {
    "no skip": {"skip": "none"},
    "skip around": {"skip": "around"},
    "residual": {},
    "pre-LN": {"norm": "layer"},
    "RMSNorm": {"norm": "rms"},
    "Llama": {"norm": "rms", "mlp": "gated", "activation": "silu"},
    "Gemma": {"norm": "rms", "post_norm": True, "mlp": "gated"},
    "parallel": {"norm": "layer", "skip": "parallel"},
    "experts": {"norm": "rms", "mlp": "experts", "activation": "silu"},
}


@dataclass(frozen=True)
class Blocks:
    """Describes a stack of `n_blocks` equal blocks; called with a key it draws the weights (`BlockNetwork`).

    `mixer` describes the contextual layer (`Attention`, `Recurrence`, `Memory`, or a description of yours). `norm`
    "layer" or "rms" stands before the mixer and before the MLP; `post_norm` adds one after each (Gemma's sandwich).
    `mlp` is "dense", "gated" or "experts" (`n_experts`, of which `top_k` answer). `d_in` and `d_out` add a linear
    embedding and read-out without bias. All weights are normal of variance 1 / fan_in, times `init_scale` inside the
    blocks.
    """

    d_model: int
    d_mlp: int
    n_blocks: int = 1
    mixer: ContextualLayer | Callable[..., Any] = field(default_factory=Attention)
    skip: str = "residual"
    norm: str | None = None
    post_norm: bool = False
    mlp: str = "dense"
    activation: str = "gelu"
    biases: bool = True
    n_experts: int = 4
    top_k: int = 2
    d_in: int | None = None
    d_out: int | None = None
    norm_eps: float = 1e-5
    init_scale: float = 1.0

    def __post_init__(self):
        for name in ("d_model", "d_mlp", "n_blocks", "n_experts", "top_k"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        for name in ("d_in", "d_out"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "a positive integer or nothing")
        choose("skip", self.skip, SKIPS)
        choose("mlp", self.mlp, MLPS)
        choose("activation", self.activation, ACTIVATIONS)
        if self.norm is not None:
            choose("norm", self.norm, NORMS)
        require(self.norm is not None or not self.post_norm, "post_norm", True, "combined with a norm")
        require(self.top_k <= self.n_experts, "top_k", self.top_k, f"at most n_experts = {self.n_experts}")
        require(self.init_scale > 0, "init_scale", self.init_scale, "positive")

    @classmethod
    def of_kind(cls, kind: str, d_model: int, d_mlp: int, **fields: Any) -> "Blocks":
        """Blocks of a kind named in `KINDS`, such as "pre-LN", "Llama" or "Gemma"."""
        return cls(d_model, d_mlp, **{**KINDS[choose("kind of block", kind, KINDS)], **fields})

    def __call__(self, *, key: Key[Array, ""]) -> "BlockNetwork":
        return BlockNetwork.drawn(self, key=key)


class Reading(NamedTuple):
    """What the MLP half of a block gets of a token: it reads `source`, and its answer is added to `carry`."""

    carry: Float[Array, "... d"]
    source: Float[Array, "... d"]


class Block(eqx.Module):
    """The weights of one block, or, with a leading axis on every leaf, of several."""

    mixer: Any
    mlp: Mlp
    norm_mixer: Norm | None
    norm_mlp: Norm | None
    post_norm_mixer: Norm | None
    post_norm_mlp: Norm | None
    skip: str = eqx.field(static=True)

    def contextual(self, tokens: Float[Array, "t d"], visible: Bool[Array, " t"], tap: Tap) -> Reading:
        """The contextual half, for every row; rows that are not visible do not exist for the others."""
        x = tap("resid_pre", tokens)
        mixed = self.mixer(x if self.norm_mixer is None else jax.vmap(self.norm_mixer)(x), visible, tap)
        mixed = tap("attn_out", mixed if self.post_norm_mixer is None else jax.vmap(self.post_norm_mixer)(mixed))
        carry = tap("resid_mid", jnp.zeros_like(x) if self.skip == "none" else x + mixed)
        source = {"none": mixed, "around": mixed, "residual": carry, "parallel": x}[self.skip]
        return Reading(carry, source)

    def mlp_in(self, source: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        """What the MLP's matrices read of one token: the normalised source."""
        if self.norm_mlp is None:
            return source
        return self.norm_mlp(source, vector_change(patch, "norm_scale"))

    def mlp_out(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        """The MLP's answer for one token, after the norm that may follow it."""
        out = self.mlp(n, patch)
        return out if self.post_norm_mlp is None else self.post_norm_mlp(out, vector_change(patch, "post_norm_scale"))

    def feed_forward(self, reading: Reading, tap: Tap, patch: Patch | None = None) -> Float[Array, "t d"]:
        """The token-wise half, for every row, with the weights changed by `patch`."""
        n = tap("mlp_in", jax.vmap(lambda source: self.mlp_in(source, patch))(reading.source))
        out = tap("mlp_out", jax.vmap(lambda row: self.mlp_out(row, patch))(n))
        return tap("resid_post", reading.carry + out)

    def __call__(
        self, tokens: Float[Array, "t d"], visible: Bool[Array, " t"], tap: Tap, patch: Patch | None = None
    ) -> Float[Array, "t d"]:
        return self.feed_forward(self.contextual(tokens, visible, tap), tap, patch)


class BlockNetwork(eqx.Module):
    """The weights of a stack of blocks: a map from tokens "t d_in" to outputs "t d_out" with its trace.

    `blocks` has a leading layer axis on every leaf. Sites: `resid_pre`, those of the mixer, `attn_out`, `resid_mid`
    (the carry), `mlp_in`, `mlp_out`, `resid_post`, all stacked over layers.
    """

    blocks: Block
    embed: Float[Array, "d_in d_model"] | None = None
    unembed: Float[Array, "d_model d_out"] | None = None

    @classmethod
    def drawn(cls, config: Blocks, *, key: Key[Array, ""]) -> "BlockNetwork":
        """Draw the weights that a description describes."""
        c = config
        mixer_key, mlp_key, embed_key, unembed_key = jax.random.split(key, 4)

        def norm(present: bool) -> Norm | None:
            return draw_norm(c.norm, c.d_model, c.n_blocks, eps=c.norm_eps) if c.norm and present else None

        def dense(key: Key[Array, ""], d_in: int | None, d_out: int | None) -> Array | None:
            return draws.normal(key, (d_in, d_out)) / math.sqrt(d_in) if d_in and d_out else None

        mlp = draw_mlp(
            c.mlp, c.d_model, c.d_mlp, c.n_blocks, activation=c.activation, biases=c.biases,
            experts=(c.n_experts, c.top_k), key=mlp_key,
        )  # fmt: skip
        mixer: Any = c.mixer(c.d_model, c.n_blocks, key=mixer_key)  # pyright: ignore[reportCallIssue]
        shrink = math.sqrt(c.init_scale)
        mixer, mlp = jax.tree.map(lambda leaf: leaf * shrink if eqx.is_inexact_array(leaf) else leaf, (mixer, mlp))
        blocks = Block(mixer, mlp, norm(True), norm(True), norm(c.post_norm), norm(c.post_norm), c.skip)
        embed = dense(embed_key, c.d_in, c.d_model)
        return cls(blocks, embed, dense(unembed_key, c.d_model, c.d_out))

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self.blocks.mlp.w_out.shape[0]

    @property
    def d_in(self) -> int:
        """Width of the input tokens."""
        return self.blocks.mlp.w_out.shape[-1] if self.embed is None else self.embed.shape[0]

    def block(self, index: int) -> Block:
        """The weights of one block."""
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.blocks)

    def __call__(
        self,
        tokens: Float[Array, "t d_in"],
        interventions: Sequence[Intervention] = (),
        *,
        visible: Bool[Array, " t"] | None = None,
        patch: Patch | None = None,
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        """The output of every token and the trace; only `visible` rows exist, and `patch` changes the weights.

        Every leaf of the patch has a leading layer axis. Rows that are not visible have arbitrary outputs.
        """
        hidden, trace = self.hidden(self.embedded(tokens), interventions, visible=visible, patch=patch)
        return self.read_out(hidden), trace

    def hidden(
        self,
        h: Float[Array, "t d_model"],
        interventions: Sequence[Intervention] = (),
        *,
        visible: Bool[Array, " t"] | None = None,
        patch: Patch | None = None,
    ) -> tuple[Float[Array, "t d_model"], Trace]:
        """The blocks alone: from the residual stream before the first to that after the last."""
        seen = jnp.ones(h.shape[0], bool) if visible is None else visible
        arrays, static = eqx.partition(self.blocks, eqx.is_array)

        def body(h: Array, item: tuple[Array, Any, Patch | None]) -> tuple[Array, dict[str, Array]]:
            index, layer, change = item
            tap = Tap(interventions, index)
            return eqx.combine(layer, static)(h, seen, tap, change), tap.sites

        h, sites = lax.scan(body, h, (jnp.arange(self.n_blocks), arrays, patch))
        for intervention in interventions:
            choose("intervention site", intervention.site, sites)
        return h, Trace(sites)

    def embedded(self, tokens: Float[Array, "t d_in"]) -> Float[Array, "t d_model"]:
        """The residual stream before the first block."""
        return tokens if self.embed is None else tokens @ self.embed

    def read_out(self, hidden: Float[Array, "t d_model"]) -> Float[Array, "t d_out"]:
        """The output from the residual stream after the last block."""
        return hidden if self.unembed is None else hidden @ self.unembed


def random_network(config: Blocks, seed: int) -> BlockNetwork:
    """A network in which every number is random, also biases and norm scales, which a fresh network has at 0 and 1.

    For checking identities that hold for any weights. Drawn by numpy, so that nothing is compiled.
    """
    rng = np.random.default_rng(seed)
    shapes = eqx.filter_eval_shape(config, key=jax.random.key(0))

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        is_matrix = leaf.ndim >= 3 or leaf.shape[0] != config.n_blocks
        values = rng.normal(size=leaf.shape) * (leaf.shape[-2] ** -0.5 if is_matrix else 0.3)
        return jnp.asarray(values, leaf.dtype)

    network = jax.tree.map(fill, shapes)
    return jax.tree.map(
        lambda leaf: eqx.tree_at(lambda norm: norm.scale, leaf, leaf.scale + 1) if isinstance(leaf, Norm) else leaf,
        network,
        is_leaf=lambda leaf: isinstance(leaf, Norm),
    )


def random_networks(config: Blocks, n: int, first_seed: int = 0) -> BlockNetwork:
    """`n` networks of `random_network`, stacked on a leading axis of every array."""
    networks = [random_network(config, first_seed + i) for i in range(n)]
    arrays = [eqx.filter(network, eqx.is_array) for network in networks]
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), networks[0])
