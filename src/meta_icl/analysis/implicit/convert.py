"""Other networks of the laboratory as stacks of contextual blocks, for the probes of this package."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from meta_icl.errors import require
from meta_icl.models.blocks import Attention, AttentionMixer, Block, BlockNetwork, DenseMlp, Norm
from meta_icl.models.transformer import TransformerNetwork

T = TypeVar("T")


def in_float64(tree: T) -> T:
    """The same module or arrays with every real number in double precision (inside `jax.enable_x64`)."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree)


def blocks_of(network: Any) -> BlockNetwork:
    """The same network as a stack of contextual blocks; the blocks of a looped one are repeated.

    Raises `BadInput` for other networks, and for a transformer that is not made of equal blocks with MLPs: without an
    MLP there is no matrix that could take the prompt's place.
    """
    if isinstance(network, BlockNetwork):
        return network
    kind = type(network).__name__
    require(isinstance(network, TransformerNetwork), "network", kind, "a transformer or a stack of blocks")
    c, layers = network.config, network.layers
    require(layers.mlp is not None, "d_mlp", None, "a width: the update changes the weights of an MLP")
    require(
        len(set(c.kinds)) == 1 and c.kinds[0] != "mixed", "attention", c.attention, "'linear' or 'softmax' throughout"
    )
    for field, needed in (("dampening", 1.0), ("update", "all"), ("activation_clip", None), ("input_mlp", None)):
        require(getattr(c, field) == needed, field, getattr(c, field), repr(needed))
    if c.looped:
        layers = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (c.n_layers, *leaf.shape[1:])), layers)
    scale = 1.0 if c.score_scale is None else c.score_scale * (1.0 if c.kinds[0] == "linear" else c.head_width**0.5)
    attention = Attention(c.kinds[0], c.n_heads, c.head_width, causal=c.causal, query_is_key=c.query_is_key)
    mixer = AttentionMixer(layers.w_q * scale, layers.w_k, layers.w_v, layers.w_o, None, None, None, None, attention)
    mlp = DenseMlp(layers.mlp.w_in, layers.mlp.b_in, layers.mlp.w_out, layers.mlp.b_out)  # pyright: ignore[reportOptionalMemberAccess]
    block = Block(mixer, mlp, _norm(layers.norm_attention), _norm(layers.norm_mlp), None, None, "residual")
    return BlockNetwork(block, network.embed, network.unembed)


def _norm(weights: Array | None) -> Norm | None:
    """A LayerNorm from its scales and biases "layers 2 d"."""
    return None if weights is None else Norm(weights[:, 0], weights[:, 1])
