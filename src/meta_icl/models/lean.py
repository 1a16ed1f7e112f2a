"""The lean form of attention-only transformers: what training reads, and nothing else.

Four things make it cheaper than the full form, which names every intermediate: the products W_Q W_K^T and W_V W_O are
formed once per layer instead of once per prompt; the last layer is computed for the query only; with linear attention
to a context much longer than the width the sum G = sum_i c_i c_i^T is formed first, so that a layer costs t d^2 instead
of t^2 d; and an embedded stream is kept as h = u F while its rank is below its width: u starts as the tokens and gains
what every head attends to, F starts as the embedding and gains what that head writes, and only u differs by prompt.
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
        readers: Float[Array, "t r"],
        context: Float[Array, "n r"],
        basis: Float[Array, "r d"] | None,
        layer: int,
        head: int,
    ) -> Float[Array, "t r"]:
        kind, distinct = c.kinds[layer], 0 if c.looped else layer
        a = qk[distinct, head] * score_scale(c, kind)
        if basis is not None:
            a = basis @ a @ basis.T

        def written(rows: Float[Array, "k r"]) -> Float[Array, "k r"]:
            return rows @ ov[distinct, head] if basis is None else rows

        t, (n, d) = readers.shape[0], context.shape
        if kind == "linear" and t > 1 and n > 2 * d:
            return readers @ written(a @ (context.T @ context))
        scores = readers @ a @ context.T if t == 1 else readers @ (a @ context.T)
        pattern = attention_pattern(c, kind, scores, None if mix is None else mix[distinct])
        return written(pattern @ context) if t == 1 else pattern @ written(context)

    def answer(tokens: Float[Array, "t d_in"]) -> Float[Array, "1 d_out"]:
        linear = c.input_mlp is None and c.activation_clip is None and c.update == "all"
        h, basis = (tokens, network.embed) if linear else (network.embedded(tokens), None)
        for layer in range(c.n_layers):
            if basis is not None and h.shape[1] >= c.d_model:
                h, basis = h @ basis, None
            context = h if c.query_is_key else h[:-1]
            readers = h[-1:] if layer == c.n_layers - 1 else h
            heads = [attend(readers, context, basis, layer, head) for head in range(c.n_heads)]
            if basis is None:
                h = readers + c.dampening * writes * sum(heads)
            else:
                ways = [c.dampening * basis @ ov[0 if c.looped else layer, head] for head in range(c.n_heads)]
                h, basis = jnp.concatenate([readers, *heads], axis=1), jnp.concatenate([basis, *ways])
            if c.activation_clip is not None:
                h = jnp.clip(h, -c.activation_clip, c.activation_clip)
        h = h if basis is None else h @ basis
        return h if network.unembed is None else h @ network.unembed

    return jax.vmap(answer)(tokens)
