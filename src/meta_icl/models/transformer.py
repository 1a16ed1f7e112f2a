"""Transformers whose every published variant for in-context regression is a field of one configuration.

Row convention: h has shape "t d". A layer is h <- h + dampening * attention(h), with Q = h W_Q, K = c W_K, V = c W_V,
where c is h without its last (query) row unless `query_is_key`; scores A = Q K^T * score_scale.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.attention import attention_pattern, score_scale, writable
from meta_icl.models.lean import has_lean_form, lean_form
from meta_icl.models.trace import Intervention, Tap, Trace, check_sites

KINDS = ("linear", "softmax", "mixed")
SCAN_FROM = 4  # layers: from here on one compiled layer is scanned instead of being written out

SITES = (
    *("resid_pre", "q", "k", "v", "scores", "pattern", "z", "attn_out"),
    *("resid_mid", "mlp_in", "mlp_out", "resid_post"),
)


@dataclass(frozen=True)
class Transformer:
    """Describes a transformer; called with a key it draws the weights (`TransformerNetwork`).

    `attention` is one kind for all layers or one per layer: "linear" (no softmax, scale 1), "softmax"
    (scale 1/sqrt(d_head)) or "mixed", sigma(10 u) softmax + (1 - sigma(10 u)) linear with a learned scalar u.
    `looped` applies one set of weights `n_layers` times. `update="y"` lets a layer write the last channel only (for
    roll-outs of a one-layer model). `d_in` adds a linear embedding (no bias); `d_out` a linear read-out; `d_mlp` an MLP
    after attention in every layer, `input_mlp` a residual MLP before the first layer. `activation_clip` clamps the
    residual stream after every layer. Weights: truncated normal of variance `init_scale` / (n_layers fan_in) inside the
    layers and 1 / fan_in outside (embedding, read-out, `input_mlp`).
    """

    d_model: int
    n_layers: int = 1
    n_heads: int = 1
    d_head: int | None = None
    attention: str | tuple[str, ...] = "linear"
    score_scale: float | None = None
    causal: bool = False
    query_is_key: bool = False
    looped: bool = False
    dampening: float = 1.0
    update: str = "all"
    activation_clip: float | None = None
    layer_norm: bool = False
    d_mlp: int | None = None
    input_mlp: int | None = None
    d_in: int | None = None
    d_out: int | None = None
    init_scale: float = 0.002

    def __post_init__(self):
        for field in ("d_model", "n_layers", "n_heads"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        for field in ("d_head", "d_mlp", "input_mlp", "d_in", "d_out"):
            value = getattr(self, field)
            require(value is None or value >= 1, field, value, "a positive integer or nothing")
        if isinstance(self.attention, list):  # as it comes out of a configuration file
            object.__setattr__(self, "attention", tuple(self.attention))
        for kind in self.kinds:
            choose("attention", kind, KINDS)
        require(len(self.kinds) == self.n_layers, "attention", self.attention, f"one kind, or {self.n_layers} kinds")
        choose("update", self.update, ("all", "y"))
        require(self.init_scale > 0, "init_scale", self.init_scale, "positive")
        clip = self.activation_clip
        require(clip is None or clip > 0, "activation_clip", clip, "positive, or nothing")
        require(not (self.causal and not self.query_is_key), "causal", True, "combined with query_is_key=True")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of attention of every layer."""
        return (self.attention,) * self.n_layers if isinstance(self.attention, str) else self.attention

    @property
    def head_width(self) -> int:
        """Channels per head; `d_head` or the residual width."""
        return self.d_head or self.d_model

    @property
    def n_distinct(self) -> int:
        """Number of different sets of layer weights: 1 when looped."""
        return 1 if self.looped else self.n_layers

    def __call__(self, *, key: Key[Array, ""]) -> "TransformerNetwork":
        return TransformerNetwork(self, key=key)


class Layer(eqx.Module):
    """The weights of one layer, stacked over layers; `None` where the configuration has no such part."""

    w_q: Float[Array, "l heads d_model d_head"]
    w_k: Float[Array, "l heads d_model d_head"]
    w_v: Float[Array, "l heads d_model d_head"]
    w_o: Float[Array, "l heads d_head d_model"]
    mix: Float[Array, " l"] | None
    norm_attention: Float[Array, "l 2 d_model"] | None  # scale, bias
    norm_mlp: Float[Array, "l 2 d_model"] | None
    mlp: "Mlp | None"


class Mlp(eqx.Module):
    """Two dense layers with biases around a GELU, stacked on any leading axes."""

    w_in: Float[Array, "... d_model d_mlp"]
    b_in: Float[Array, "... d_mlp"]
    w_out: Float[Array, "... d_mlp d_model"]
    b_out: Float[Array, "... d_model"]

    def __call__(self, h: Float[Array, "t d_model"]) -> Float[Array, "t d_model"]:
        return jax.nn.gelu(h @ self.w_in + self.b_in[None]) @ self.w_out + self.b_out[None]


class TransformerNetwork(eqx.Module):
    """The weights of a `Transformer`: a map from tokens "t d_in" to outputs "t d_out" with its trace."""

    layers: Layer
    embed: Float[Array, "d_in d_model"] | None
    unembed: Float[Array, "d_model d_out"] | None
    input_mlp: Mlp | None
    config: Transformer = eqx.field(static=True)

    def __init__(self, config: Transformer, *, key: Key[Array, ""]):
        c, n = config, config.n_distinct
        keys = iter(jax.random.split(key, 12))
        scale = c.init_scale / c.n_layers

        def dense(*shape: int, fan_in: int, scale: float = scale) -> Array:
            return variance_scaled(shape, fan_in, scale, key=next(keys))

        def mlp(width: int, *stack: int, scale: float) -> Mlp:
            return Mlp(
                w_in=dense(*stack, c.d_model, width, fan_in=c.d_model, scale=scale),
                b_in=jnp.zeros((*stack, width)),
                w_out=dense(*stack, width, c.d_model, fan_in=width, scale=scale),
                b_out=jnp.zeros((*stack, c.d_model)),
            )

        def norm() -> Array:
            return jnp.stack([jnp.ones((n, c.d_model)), jnp.zeros((n, c.d_model))], axis=1)

        project = (n, c.n_heads, c.d_model, c.head_width)
        self.layers = Layer(
            w_q=dense(*project, fan_in=c.d_model),
            w_k=dense(*project, fan_in=c.d_model),
            w_v=dense(*project, fan_in=c.d_model),
            w_o=dense(n, c.n_heads, c.head_width, c.d_model, fan_in=c.n_heads * c.head_width),
            mix=jnp.zeros(n) if "mixed" in c.kinds else None,
            norm_attention=norm() if c.layer_norm else None,
            norm_mlp=norm() if c.layer_norm and c.d_mlp else None,
            mlp=mlp(c.d_mlp, n, scale=scale) if c.d_mlp else None,
        )
        self.embed = dense(c.d_in, c.d_model, fan_in=c.d_in, scale=1.0) if c.d_in else None
        self.unembed = dense(c.d_model, c.d_out, fan_in=c.d_model, scale=1.0) if c.d_out else None
        self.input_mlp = mlp(c.input_mlp, scale=1.0) if c.input_mlp else None
        self.config = config

    def __call__(
        self, tokens: Float[Array, "t d_in"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        """Run all layers; returns the output of every token and the trace, stacked over layers."""
        check_sites(interventions, SITES)
        c = self.config
        h = self.embedded(tokens)
        if c.n_layers >= SCAN_FROM and len(set(c.kinds)) == 1:
            layers = None if c.looped else self.layers

            def body(h: Array, item: tuple) -> tuple[Array, dict[str, Array]]:
                index, layer = item
                layer = self.layer(0) if layer is None else layer
                tap = Tap(interventions, index)
                return block(c, c.kinds[0], layer, h, tap), tap.sites

            h, sites = lax.scan(body, h, (jnp.arange(c.n_layers), layers))
        else:
            taps = [Tap(interventions, index) for index in range(c.n_layers)]
            for index, tap in enumerate(taps):
                h = block(c, c.kinds[index], self.layer(index), h, tap)
            sites = jax.tree.map(lambda *per_layer: jnp.stack(per_layer), *[tap.sites for tap in taps])
        return (h if self.unembed is None else h @ self.unembed), Trace(sites)

    def with_config(self, **changes: Any) -> "TransformerNetwork":
        """The same weights under a changed configuration, such as more loops or another dampening."""
        config = replace(self.config, **changes)
        fresh = eqx.filter_eval_shape(TransformerNetwork, config, key=jax.random.key(0))
        shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (self, fresh)]
        require(shapes[0] == shapes[1], "changed configuration", changes, "one that keeps the weights' shapes")
        return jax.tree.unflatten(jax.tree.structure(fresh), jax.tree.leaves(self))

    @property
    def lean(self) -> Callable[[Float[Array, "b t d_in"]], Float[Array, "b 1 d_out"]] | None:
        """The batched form for training, which returns the last token only; `None` where there is none."""
        return partial(lean_form, self) if has_lean_form(self.config) else None

    def embedded(self, tokens: Float[Array, "t d_in"]) -> Float[Array, "t d_model"]:
        """The residual stream before the first layer."""
        h = tokens if self.embed is None else tokens @ self.embed
        return h if self.input_mlp is None else h + self.input_mlp(h)

    def layer(self, index: int) -> Layer:
        """The weights that layer `index` uses."""
        return jax.tree.map(lambda leaf: leaf[0 if self.config.looped else index], self.layers)

    def qk(self) -> Float[Array, "l heads d_model d_model"]:
        """The product W_Q W_K^T of every layer and head: what attends to what (row convention, h_q A h_k^T)."""
        return jnp.einsum("lhdk,lhek->lhde", self.layers.w_q, self.layers.w_k)

    def ov(self) -> Float[Array, "l heads d_model d_model"]:
        """The product W_V W_O of every layer and head: what is written when attended to (row convention, h_k B)."""
        return jnp.einsum("lhdk,lhke->lhde", self.layers.w_v, self.layers.w_o)


def block(c: Transformer, kind: str, layer: Layer, h: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
    """One layer in its full form: every intermediate is named, so it can be captured and clamped."""
    h = tap("resid_pre", h)
    x = h if layer.norm_attention is None else layer_norm(h, layer.norm_attention)
    keys_from = x if c.query_is_key else x[:-1]
    q = tap("q", jnp.einsum("td,hdk->htk", x, layer.w_q))
    k = tap("k", jnp.einsum("td,hdk->htk", keys_from, layer.w_k))
    v = tap("v", jnp.einsum("td,hdk->htk", keys_from, layer.w_v))
    scores = tap("scores", jnp.einsum("hqk,hsk->hqs", q, k) * score_scale(c, kind))
    pattern = tap("pattern", attention_pattern(c, kind, scores, layer.mix))
    z = tap("z", jnp.einsum("hqs,hsk->hqk", pattern, v))
    attn_out = tap("attn_out", jnp.einsum("hqk,hkd->qd", z, layer.w_o))
    h = tap("resid_mid", h + c.dampening * attn_out * writable(c, h.dtype))
    if layer.mlp is not None:
        mlp_in = tap("mlp_in", h if layer.norm_mlp is None else layer_norm(h, layer.norm_mlp))
        h = h + c.dampening * tap("mlp_out", layer.mlp(mlp_in)) * writable(c, h.dtype)
    if c.activation_clip is not None:
        h = jnp.clip(h, -c.activation_clip, c.activation_clip)
    return tap("resid_post", h)


def layer_norm(h: Float[Array, "t d"], weights: Float[Array, "2 d"]) -> Float[Array, "t d"]:
    """Zero mean and unit variance over channels, then a learned scale and bias (epsilon 1e-5)."""
    centred = h - h.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5) * weights[:1] + weights[1:]


def variance_scaled(shape: tuple[int, ...], fan_in: int, scale: float, *, key: Key[Array, ""]) -> Array:
    """Truncated normal weights (at two deviations) of variance scale / fan_in."""
    # The draw is divided by the deviation of a normal truncated at +-2, so that the stated variance is the real one.
    return draws.truncated_normal(key, -2, 2, shape) * math.sqrt(scale / fan_in) / 0.87962566103423978
