"""The lean form of attention-only transformers: what training reads, and nothing else.

Three things make it cheaper than the full form, which names every intermediate: the products W_Q W_K^T and W_V W_O are
formed once per layer instead of once per prompt; the last layer is computed for the query only; and with linear
attention to a context much longer than the width the sum G = sum_i c_i c_i^T is formed first, so that a layer costs
t d^2 instead of t^2 d.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.models.attention import attention_pattern, score_scale, writable

if TYPE_CHECKING:
    from meta_icl.models.transformer import Transformer, TransformerNetwork


def has_lean_form(c: "Transformer") -> bool:
    """Whether `lean_form` covers this configuration: no causal mask, no norm and no MLP inside the layers."""
    return not (c.causal or c.layer_norm or c.d_mlp)


def lean_form(network: "TransformerNetwork", tokens: Float[Array, "b t d_in"]) -> Float[Array, "b 1 d_out"]:
    """The output of the last token of every prompt, equal to the full form in value and gradient."""
    c = network.config
    qk, ov, mix = network.qk(), network.ov(), network.layers.mix
    writes = writable(c, qk.dtype)

    def attend(
        readers: Float[Array, "t d"], context: Float[Array, "n d"], layer: int, head: int
    ) -> Float[Array, "t d"]:
        kind, distinct = c.kinds[layer], 0 if c.looped else layer
        a, b = qk[distinct, head] * score_scale(c, kind), ov[distinct, head]
        t, (n, d) = readers.shape[0], context.shape
        if kind == "linear" and t > 1 and n > 2 * d:
            return readers @ (a @ (context.T @ context) @ b)
        scores = readers @ a @ context.T if t == 1 else readers @ (a @ context.T)
        pattern = attention_pattern(c, kind, scores, None if mix is None else mix[distinct])
        return pattern @ context @ b if t == 1 else pattern @ (context @ b)

    def answer(tokens: Float[Array, "t d_in"]) -> Float[Array, "1 d_out"]:
        h = network.embedded(tokens)
        for layer in range(c.n_layers):
            context = h if c.query_is_key else h[:-1]
            readers = h[-1:] if layer == c.n_layers - 1 else h
            heads = [attend(readers, context, layer, head) for head in range(c.n_heads)]
            h = readers + c.dampening * writes * sum(heads)
            if c.activation_clip is not None:
                h = jnp.clip(h, -c.activation_clip, c.activation_clip)
        return h if network.unembed is None else h @ network.unembed

    return jax.vmap(answer)(tokens)
