"""The causal decoder of GPT-2, exact to the weight, over tokens or over vectors, with an answer at every position.

Row convention: h has shape "t d". A block is h <- h + A(LN_1(h)), then h <- h + M(LN_2(h)), with causal softmax
attention A of scale 1/sqrt(d_head), a four times wider MLP M with the tanh form of GELU, biases everywhere; a last
layer norm stands before the read-out (Radford et al., 2019). The weights keep GPT-2's own arrays (queries, keys and
values in one matrix), so that `decoder_names` maps them one to one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, Shaped

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.mixers.heads import elu_plus_one
from meta_icl.models.trace import Intervention, Tap, Trace, check_sites
from meta_icl.models.transformer import SITES, layer_norm

# Layers from which on one compiled block is scanned, to save compilation. Its backward pass computes a block again:
# on CPU, copying what it would need into stacked arrays takes twice the time of a step (3 layers of width 64, 64 x 21
# tokens: 98 ms without, 44 ms with recomputation, 42 to 52 ms written out).
SCAN_FROM = 6
INITS = ("gpt2", "torch")
ATTENTIONS = ("softmax", "linear")


@dataclass(frozen=True)
class Decoder:
    """Describes a GPT-2 decoder; called with a key it draws the weights (`DecoderNetwork`).

    Exactly one of `n_tokens` (integer tokens, embedded), `d_in` (vectors, mapped affinely) and `embedded` (rows that
    are the residual stream already, with positions of their own) is given. The read-out maps to `d_out` channels or,
    with `d_out=None`, is the transposed token embedding. `read_bias` gives the maps of vectors in and out a bias.
    Weights are normal of deviation `init_std`, those that write to the residual stream divided by sqrt(2 n_layers),
    biases zero; `read_init="torch"` draws the maps in and out uniform in +-1/sqrt(fan_in) instead, as the code of Garg
    et al. (2022) does. `attention="linear"` weighs values by phi(q).phi(k), phi = elu + 1, over their sum, so that the
    past is kept in sums (Katharopoulos et al., 2020).
    """

    d_model: int
    n_layers: int
    n_heads: int
    n_positions: int
    d_in: int | None = None
    n_tokens: int | None = None
    d_out: int | None = 1
    read_bias: bool = True
    read_init: str = "gpt2"
    init_std: float = 0.02
    attention: str = "softmax"
    embedded: bool = False

    def __post_init__(self):
        for field in ("d_model", "n_layers", "n_heads", "n_positions"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        for field in ("d_in", "n_tokens", "d_out"):
            value = getattr(self, field)
            require(value is None or value >= 1, field, value, "a positive integer or nothing")
        require(self.d_model % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of d_model = {self.d_model}")
        given = (self.d_in is not None) + (self.n_tokens is not None) + self.embedded
        require(given == 1, "d_in", self.d_in, "given for vectors, or n_tokens for tokens, or embedded, and one alone")
        tied = self.d_out is None and self.n_tokens is None
        require(not tied, "d_out", None, "given, because only a token embedding can also read out")
        choose("read_init", self.read_init, INITS)
        choose("attention", self.attention, ATTENTIONS)
        require(self.init_std > 0, "init_std", self.init_std, "positive")

    @property
    def d_head(self) -> int:
        """Channels per head."""
        return self.d_model // self.n_heads

    def state_size(self, n_tokens: int) -> int:
        """Numbers carried from the past to the next token: keys and values; sums of their products if linear."""
        if self.attention == "linear":
            return self.n_layers * self.n_heads * self.d_head * (self.d_head + 1)
        return 2 * self.d_model * self.n_layers * n_tokens

    def __call__(self, *, key: Key[Array, ""]) -> "DecoderNetwork":
        return DecoderNetwork(self, key=key)


class DecoderBlock(eqx.Module):
    """The weights of a block, all blocks stacked on the leading axis; matrices are "in out", as in GPT-2."""

    ln_1: Float[Array, "*l 2 d"]  # scale, bias
    w_qkv: Float[Array, "*l d 3*d"]  # queries, keys, values; inside each, head after head
    b_qkv: Float[Array, "*l 3*d"]
    w_o: Float[Array, "*l d d"]
    b_o: Float[Array, "*l d"]
    ln_2: Float[Array, "*l 2 d"]
    w_in: Float[Array, "*l d m"]
    b_in: Float[Array, "*l m"]
    w_out: Float[Array, "*l m d"]
    b_out: Float[Array, "*l d"]


class Affine(eqx.Module):
    """x W + b; `bias` may be absent."""

    weight: Float[Array, "d_in d_out"]
    bias: Float[Array, " d_out"] | None

    def __call__(self, x: Float[Array, "t d_in"]) -> Float[Array, "t d_out"]:
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias[None]


class DecoderNetwork(eqx.Module):
    """The weights of a `Decoder`: a map from tokens "t" or vectors "t d_in" to outputs "t d_out", with its trace."""

    embed: Float[Array, "v d"] | None
    read_in: Affine | None
    positions: Float[Array, "p d"] | None
    blocks: DecoderBlock
    ln_f: Float[Array, "2 d"]
    read_out: Affine | None
    config: Decoder = eqx.field(static=True)

    def __init__(self, config: Decoder, *, key: Key[Array, ""]):
        c, n, d = config, config.n_layers, config.d_model
        keys = iter(jax.random.split(key, 9))

        def normal(*shape: int, divisor: float = 1.0) -> Array:
            return (c.init_std / divisor) * draws.normal(next(keys), shape)

        def affine(fan_in: int, width: int) -> Affine:
            weight_key, bias_key = jax.random.split(next(keys))
            if c.read_init == "gpt2":
                weight, bias = c.init_std * draws.normal(weight_key, (fan_in, width)), jnp.zeros(width)
            else:
                bound = 1 / math.sqrt(fan_in)
                weight = draws.uniform(weight_key, (fan_in, width), minval=-bound, maxval=bound)
                bias = draws.uniform(bias_key, (width,), minval=-bound, maxval=bound)
            return Affine(weight, bias if c.read_bias else None)

        def norm(*stack: int) -> Array:
            return jnp.stack([jnp.ones((*stack, d)), jnp.zeros((*stack, d))], axis=-2)

        writes = math.sqrt(2 * n)
        self.blocks = DecoderBlock(
            ln_1=norm(n),
            w_qkv=normal(n, d, 3 * d),
            b_qkv=jnp.zeros((n, 3 * d)),
            w_o=normal(n, d, d, divisor=writes),
            b_o=jnp.zeros((n, d)),
            ln_2=norm(n),
            w_in=normal(n, d, 4 * d),
            b_in=jnp.zeros((n, 4 * d)),
            w_out=normal(n, 4 * d, d, divisor=writes),
            b_out=jnp.zeros((n, d)),
        )
        self.positions = None if c.embedded else normal(c.n_positions, d)
        self.embed = normal(c.n_tokens, d) if c.n_tokens else None
        self.read_in = affine(c.d_in, d) if c.d_in else None
        self.read_out = affine(d, c.d_out) if c.d_out else None
        self.ln_f = norm()
        self.config = config

    def __call__(
        self, tokens: Shaped[Array, "t ..."], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        """Run all blocks; returns the output of every position and the trace, stacked over layers."""
        check_sites(interventions, SITES)
        h, sites = self.through(self.embedded(tokens), interventions, self.blocks)
        return self.read(h), Trace(sites)

    def last(self, tokens: Shaped[Array, "t ..."]) -> Float[Array, " d_out"]:
        """The output of the last token alone: the last block computes what its row reads and nothing else."""
        before, final = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], self.blocks) for rows in (slice(-1), -1))
        h = self.through(self.embedded(tokens), (), before)[0]
        return self.read(block(self.config, final, h, Tap((), 0), last=True))[0]

    def through(
        self, h: Float[Array, "t d"], interventions: Sequence[Intervention], blocks: DecoderBlock
    ) -> tuple[Float[Array, "t d"], dict[str, Array]]:
        """The residual stream after stacked blocks, and their sites stacked."""
        n_layers = blocks.w_o.shape[0]

        def body(h: Array, item: tuple[Any, DecoderBlock]) -> tuple[Array, dict[str, Array]]:
            index, weights = item
            tap = Tap(interventions, index)
            return block(self.config, weights, h, tap), tap.sites

        if n_layers >= SCAN_FROM:
            return lax.scan(jax.checkpoint(body), h, (jnp.arange(n_layers), blocks))
        each = []
        for index in range(n_layers):
            h, sites = body(h, (index, jax.tree.map(lambda leaf, i=index: leaf[i], blocks)))
            each.append(sites)
        return h, jax.tree.map(lambda *per_layer: jnp.stack(per_layer), *each) if each else {}

    def embedded(self, tokens: Shaped[Array, "t ..."]) -> Float[Array, "t d"]:
        """The residual stream before the first block: the embedded tokens plus the learned positions, if any."""
        t = tokens.shape[0]
        require(t <= self.config.n_positions, "tokens", t, f"at most n_positions = {self.config.n_positions} of them")
        if self.positions is None:
            return tokens
        if self.embed is not None:
            return _rows(self.embed, tokens) + self.positions[:t]
        assert self.read_in is not None
        return self.read_in(tokens) + self.positions[:t]

    def read(self, h: Float[Array, "t d"]) -> Float[Array, "t d_out"]:
        """The output from the residual stream after the last block."""
        normed = layer_norm(h, self.ln_f)
        if self.read_out is not None:
            return self.read_out(normed)
        assert self.embed is not None
        return normed @ self.embed.T


def _rows(embed: Float[Array, "v d"], tokens: Int[Array, " t"]) -> Float[Array, "t d"]:
    return embed[tokens]


def block(
    c: Decoder, weights: DecoderBlock, h: Float[Array, "t d"], tap: Tap, *, last: bool = False
) -> Float[Array, "q d"]:
    """One block; every intermediate is named, so it can be captured and clamped. Heads come first: "heads t d_head".

    With `last` only the last row is computed.
    """
    t = h.shape[0]
    h = tap("resid_pre", h)
    qkv = layer_norm(h, weights.ln_1) @ weights.w_qkv + weights.b_qkv[None]
    heads = qkv.reshape(t, 3, c.n_heads, c.d_head)
    q, k, v = (tap(name, jnp.swapaxes(heads[:, i], 0, 1)) for i, name in enumerate("qkv"))
    visible = jnp.tril(jnp.ones((t, t), bool))[None]
    if last:
        q, visible, h = q[:, -1:], visible[:, -1:], h[-1:]
    if c.attention == "linear":
        products = jnp.einsum("hqd,hsd->hqs", elu_plus_one(q), elu_plus_one(k))
        scores = tap("scores", jnp.where(visible, products, 0))
        total = jnp.sum(scores, axis=-1, keepdims=True)  # of features that all underflow nothing is left
        pattern = tap("pattern", scores / jnp.maximum(total, jnp.finfo(total.dtype).tiny))
    else:
        products = jnp.einsum("hqd,hsd->hqs", q, k) / math.sqrt(c.d_head)
        scores = tap("scores", jnp.where(visible, products, -jnp.inf))
        pattern = tap("pattern", jax.nn.softmax(scores, axis=-1))
    z = tap("z", jnp.einsum("hqs,hsd->hqd", pattern, v))
    attn_out = jnp.swapaxes(z, 0, 1).reshape(h.shape) @ weights.w_o + weights.b_o[None]
    h = tap("resid_mid", h + tap("attn_out", attn_out))
    mlp_in = tap("mlp_in", layer_norm(h, weights.ln_2))
    hidden = gelu(mlp_in @ weights.w_in + weights.b_in[None])
    return tap("resid_post", h + tap("mlp_out", hidden @ weights.w_out + weights.b_out[None]))


def gelu(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The tanh form of GELU, u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))), written as u sigmoid(2 ..)."""
    return u * jax.nn.sigmoid(2 * math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u))
