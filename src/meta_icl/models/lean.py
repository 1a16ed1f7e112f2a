"""The lean form of linear attention: what training reads, and nothing else.

Three things make it cheaper than the full form, which names every intermediate: the products W_Q W_K^T and W_V W_O are
formed once per layer instead of once per prompt; the last layer is computed for the query only; and with a context much
longer than the width the sum G = sum_i c_i c_i^T is formed first, so a layer costs t d^2 instead of t^2 d.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

if TYPE_CHECKING:
    from meta_icl.models.transformer import Transformer, TransformerNetwork


def has_lean_form(c: "Transformer") -> bool:
    """Whether `lean_linear` covers this configuration: linear attention only, without mask, norm or inner MLP."""
    return set(c.kinds) == {"linear"} and not (c.causal or c.layer_norm or c.d_mlp)


def lean_linear(network: "TransformerNetwork", tokens: Float[Array, "b t d_in"]) -> Float[Array, "b 1 d_out"]:
    """The output of the last token of every prompt, equal to the full form in value and gradient."""
    c = network.config
    qk, ov = network.qk(), network.ov()
    writable = 1.0 if c.update == "all" else jnp.zeros((1, c.d_model)).at[:, -1].set(1)
    scale = c.dampening * (1.0 if c.score_scale is None else c.score_scale)

    def answer(tokens: Float[Array, "t d_in"]) -> Float[Array, "1 d_out"]:
        h = network.embedded(tokens)
        for index in range(c.n_layers):
            distinct = 0 if c.looped else index
            context = h if c.query_is_key else h[:-1]
            readers = h[-1:] if index == c.n_layers - 1 else h
            heads = [attend(readers, context, a, b) for a, b in zip(qk[distinct], ov[distinct], strict=True)]
            h = readers + scale * writable * sum(heads)
            if c.activation_clip is not None:
                h = jnp.clip(h, -c.activation_clip, c.activation_clip)
        return h if network.unembed is None else h @ network.unembed

    return jax.vmap(answer)(tokens)


def attend(
    readers: Float[Array, "t d"], context: Float[Array, "n d"], qk: Float[Array, "d d"], ov: Float[Array, "d d"]
) -> Float[Array, "t d"]:
    """readers QK C^T C OV, multiplied in the cheaper order."""
    t, (n, d) = readers.shape[0], context.shape
    if t > 1 and n > 2 * d:
        return readers @ (qk @ (context.T @ context) @ ov)
    return (readers @ qk @ context.T) @ context @ ov if t == 1 else (readers @ (qk @ context.T)) @ (context @ ov)
