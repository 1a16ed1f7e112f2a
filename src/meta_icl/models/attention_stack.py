"""Causal attention layers in the arrangements in which induction circuits are studied, with everything named.

Row convention: h has shape "t d". A layer is h <- h + A(h); what varies between publications is a field of one
description: output projection or none, scale, norms, rotary positions, smeared keys, an MLP.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.trace import Intervention, Tap, check_sites

SITES = (
    *("resid_pre", "q_input", "k_input", "v_input", "q", "k", "v", "scores", "pattern", "z"),
    *("attn_out", "resid_mid", "mlp_out", "resid_post"),
)
NORMS = ("none", "pre", "post")


@dataclass(frozen=True)
class AttentionStack:
    """Describes causal softmax attention layers; called with a key it draws the weights (`AttentionLayers`).

    `project`: heads are mapped back by W_O; without it, head i adds to its own d_model / n_heads channels. `scaled`:
    scores are divided by sqrt(d_head). `norm`: "none"; "pre", h + A(LN(h)) and a last LN; or "post",
    LN(h + A(h)) without a norm around the MLP (public code of Minegishi et al.). `d_mlp` adds h + ReLU MLP. `rotary`
    turns queries and keys by their place (pairs of neighbouring channels, base 10000). `smeared`: keys are
    s k_j + (1 - s) k_{j-1} with a learned sigmoid per head (Olsson et al., 2022). Weights are normal of deviation
    `init_std`, by default 1/sqrt(d_model).
    """

    d_model: int = 128
    n_layers: int = 2
    n_heads: int = 1
    project: bool = False
    scaled: bool = False
    norm: str = "none"
    d_mlp: int | None = None
    rotary: bool = False
    smeared: bool = False
    init_std: float | None = None

    def __post_init__(self):
        for field in ("d_model", "n_layers", "n_heads"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        require(self.d_model % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of d_model = {self.d_model}")
        require(self.d_mlp is None or self.d_mlp >= 1, "d_mlp", self.d_mlp, "a positive integer or nothing")
        choose("norm", self.norm, NORMS)
        even = not self.rotary or self.d_head % 2 == 0
        require(even, "n_heads", self.n_heads, "such that d_model / n_heads is even, for rotary positions")

    @property
    def d_head(self) -> int:
        """Channels per head."""
        return self.d_model // self.n_heads

    @property
    def scale(self) -> float:
        """The factor on q.k."""
        return 1 / math.sqrt(self.d_head) if self.scaled else 1.0

    def __call__(self, *, key: Key[Array, ""]) -> "AttentionLayers":
        return AttentionLayers(self, key=key)


class AttentionLayers(eqx.Module):
    """The weights of an `AttentionStack`, stacked over layers: a map from rows "t d" to rows "t d"."""

    w_q: Float[Array, "l heads d k"]
    w_k: Float[Array, "l heads d k"]
    w_v: Float[Array, "l heads d k"]
    w_o: Float[Array, "l heads k d"] | None
    smear: Float[Array, "l heads"] | None
    norm: Float[Array, "l 2 d"] | None  # scale, bias
    norm_final: Float[Array, "2 d"] | None
    w_in: Float[Array, "l d m"] | None
    b_in: Float[Array, "l m"] | None
    w_out: Float[Array, "l m d"] | None
    b_out: Float[Array, "l d"] | None
    config: AttentionStack = eqx.field(static=True)

    def __init__(self, config: AttentionStack, *, key: Key[Array, ""]):
        c, n = config, config.n_layers
        keys = iter(jax.random.split(key, 6))
        std = c.init_std or 1 / math.sqrt(c.d_model)

        def normal(*shape: int, deviation: float = std) -> Array:
            return deviation * draws.normal(next(keys), shape)

        def norm(*stack: int) -> Array:
            return jnp.stack([jnp.ones((*stack, c.d_model)), jnp.zeros((*stack, c.d_model))], axis=-2)

        self.w_q, self.w_k, self.w_v = (normal(n, c.n_heads, c.d_model, c.d_head) for _ in range(3))
        self.w_o = normal(n, c.n_heads, c.d_head, c.d_model) if c.project else None
        self.smear = jnp.zeros((n, c.n_heads)) if c.smeared else None
        self.norm = None if c.norm == "none" else norm(n)
        self.norm_final = norm() if c.norm == "pre" else None
        self.w_in = self.b_in = self.w_out = self.b_out = None
        if c.d_mlp is not None:
            self.w_in = normal(n, c.d_model, c.d_mlp, deviation=1 / math.sqrt(c.d_model))
            self.w_out = normal(n, c.d_mlp, c.d_model, deviation=1 / math.sqrt(c.d_mlp))
            self.b_in, self.b_out = jnp.zeros((n, c.d_mlp)), jnp.zeros((n, c.d_model))
        self.config = config

    def __call__(
        self, h: Float[Array, "t d"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d"], dict[str, Array]]:
        """The rows after the last layer (and its norm), and every site stacked over layers."""
        check_sites(interventions, SITES)
        each = []
        for index in range(self.config.n_layers):
            tap = Tap(interventions, index)
            h = self.layer(jax.tree.map(lambda leaf, i=index: leaf[i], self.layers_only()), h, tap)
            each.append(tap.sites)
        if self.norm_final is not None:
            h = normalised(h, self.norm_final)
        return h, jax.tree.map(lambda *per_layer: jnp.stack(per_layer), *each)

    def layers_only(self) -> "AttentionLayers":
        """The leaves that have a layer axis."""
        return eqx.tree_at(lambda s: s.norm_final, self, None, is_leaf=lambda leaf: leaf is None)

    def layer(self, weights: "AttentionLayers", h: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        """One layer in full; `weights` are those of the layer alone."""
        c, w, t = self.config, weights, h.shape[0]
        h = tap("resid_pre", h)
        x = normalised(h, w.norm) if c.norm == "pre" and w.norm is not None else h
        q, k, v = (
            tap(name, jnp.einsum("td,hdk->htk", tap(f"{name}_input", x), matrix))
            for name, matrix in (("q", w.w_q), ("k", w.w_k), ("v", w.w_v))
        )
        if c.rotary:
            q, k = turned(q), turned(k)
        if w.smear is not None:
            k = smeared_keys(k, w.smear)
        visible = jnp.tril(jnp.ones((t, t), bool))[None]
        scores = tap("scores", jnp.where(visible, jnp.einsum("hqk,hsk->hqs", q, k) * c.scale, -jnp.inf))
        pattern = tap("pattern", jax.nn.softmax(scores, axis=-1))
        z = tap("z", jnp.einsum("hqs,hsk->hqk", pattern, v))
        written = jnp.swapaxes(z, 0, 1).reshape(t, -1) if w.w_o is None else jnp.einsum("hqk,hkd->qd", z, w.w_o)
        h = h + tap("attn_out", written)
        h = tap("resid_mid", normalised(h, w.norm) if c.norm == "post" and w.norm is not None else h)
        if w.w_in is not None and w.w_out is not None and w.b_in is not None and w.b_out is not None:
            h = h + tap("mlp_out", jax.nn.relu(h @ w.w_in + w.b_in[None]) @ w.w_out + w.b_out[None])
        return tap("resid_post", h)

    def ov(self) -> Float[Array, "l heads d d"]:
        """The product W_V W_O of every head (row convention); without a projection, W_V into the head's channels."""
        return jnp.einsum("lhdk,lhke->lhde", self.w_v, self.writes())

    def qk(self) -> Float[Array, "l heads d d"]:
        """The product W_Q W_K^T of every head, scaled: scores are h_q A h_k^T, before rotation and smearing."""
        return jnp.einsum("lhdk,lhek->lhde", self.w_q, self.w_k) * self.config.scale

    def writes(self) -> Float[Array, "l heads k d"]:
        """W_O, or the map of every head into its own channels."""
        c = self.config
        if self.w_o is not None:
            return self.w_o
        own = jnp.eye(c.d_model, dtype=self.w_v.dtype).reshape(1, c.n_heads, c.d_head, c.d_model)
        return jnp.broadcast_to(own, (c.n_layers, *own.shape[1:]))


def normalised(h: Float[Array, "t d"], weights: Float[Array, "2 d"]) -> Float[Array, "t d"]:
    """Zero mean and unit variance over channels, then scale and bias (epsilon 1e-5)."""
    centred = h - h.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5) * weights[:1] + weights[1:]


def turned(x: Float[Array, "h t k"], base: float = 10000.0) -> Float[Array, "h t k"]:
    """Rotary positions: channels (2j, 2j + 1) of row p turned by the angle p / base^(2j / k)."""
    _, t, k = x.shape
    angles = np.arange(t)[:, None] / base ** (2 * np.arange(k // 2) / k)
    cos, sin = (jnp.asarray(f(angles), x.dtype)[None] for f in (np.cos, np.sin))
    even, odd = x[..., ::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def smeared_keys(k: Float[Array, "h t k"], logit: Float[Array, " h"]) -> Float[Array, "h t k"]:
    """s k_j + (1 - s) k_{j-1} with s = sigmoid(logit); the first key stays."""
    before = jnp.concatenate([k[:, :1], k[:, :-1]], axis=1)
    share = jax.nn.sigmoid(logit)[:, None, None]
    return share * k + (1 - share) * before
