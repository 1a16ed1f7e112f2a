"""GPT-2's checkpoint names for the weights of a `Decoder`, one to one in both directions.

Names are those of the Hugging Face library: `h.0.attn.c_attn.weight` and so on behind `prefix`, which is "transformer."
in a language model's checkpoint. Maps of vectors in and out have the names of Garg et al.'s released code (2022),
`_read_in.weight` and `_read_out.weight`, outside the prefix, which is `_backbone.` there; their matrices are "out in".
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.errors import BadInput, require
from meta_icl.models.decoder import Affine, Decoder, DecoderNetwork

# Checkpoint name -> field of DecoderBlock, and the row of that field for a norm's scale and bias.
BLOCK_NAMES = {
    "ln_1.weight": ("ln_1", 0),
    "ln_1.bias": ("ln_1", 1),
    "attn.c_attn.weight": ("w_qkv", None),
    "attn.c_attn.bias": ("b_qkv", None),
    "attn.c_proj.weight": ("w_o", None),
    "attn.c_proj.bias": ("b_o", None),
    "ln_2.weight": ("ln_2", 0),
    "ln_2.bias": ("ln_2", 1),
    "mlp.c_fc.weight": ("w_in", None),
    "mlp.c_fc.bias": ("b_in", None),
    "mlp.c_proj.weight": ("w_out", None),
    "mlp.c_proj.bias": ("b_out", None),
}


def to_names(network: DecoderNetwork, prefix: str = "transformer.") -> dict[str, np.ndarray]:
    """The weights by checkpoint name; rows that are embedded elsewhere have none in GPT-2 and raise `BadInput`."""
    require(network.positions is not None, "embedded", True, "False for a GPT-2, which embeds its tokens itself")
    assert network.positions is not None
    named = {
        f"{prefix}wpe.weight": network.positions,
        f"{prefix}ln_f.weight": network.ln_f[0],
        f"{prefix}ln_f.bias": network.ln_f[1],
    }
    for layer in range(network.config.n_layers):
        for name, (field, row) in BLOCK_NAMES.items():
            leaf = getattr(network.blocks, field)[layer]
            named[f"{prefix}h.{layer}.{name}"] = leaf if row is None else leaf[row]
    if network.embed is not None:
        named[f"{prefix}wte.weight"] = network.embed
    for name, affine in (("_read_in", network.read_in), (_read_out_name(network.config), network.read_out)):
        if affine is not None:
            named[f"{name}.weight"] = affine.weight.T
            if affine.bias is not None:
                named[f"{name}.bias"] = affine.bias
    return {name: np.array(leaf) for name, leaf in named.items()}


def from_names(config: Decoder, arrays: Mapping[str, np.ndarray], prefix: str = "transformer.") -> DecoderNetwork:
    """The network of a description with the weights of a checkpoint; further arrays in it are ignored.

    Raises `BadInput` if an array is missing or has another shape than the description says.
    """
    require(not config.embedded, "embedded", True, "False for a GPT-2, which embeds its tokens itself")
    like = eqx.filter_eval_shape(DecoderNetwork, config, key=jax.random.key(0))

    def array(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in arrays:
            raise BadInput(f"the checkpoint has no array {name!r}")
        if arrays[name].shape != shape:
            raise BadInput(f"array {name!r} must be of shape {shape}, got {arrays[name].shape}")
        return np.asarray(arrays[name])

    def blocks(field: str) -> np.ndarray:
        rows = {name: row for name, (owner, row) in BLOCK_NAMES.items() if owner == field}
        n, *shape = getattr(like.blocks, field).shape
        shape = tuple(shape if None in rows.values() else shape[1:])
        each = [[array(f"{prefix}h.{layer}.{name}", shape) for name in rows] for layer in range(n)]
        return np.array(each)[:, 0] if None in rows.values() else np.array(each)

    def affine(name: str, shaped: Affine | None) -> Affine | None:
        if shaped is None:
            return None
        weight = array(f"{name}.weight", shaped.weight.shape[::-1]).T
        bias = None if shaped.bias is None else array(f"{name}.bias", shaped.bias.shape)
        return Affine(_leaf(weight), None if bias is None else _leaf(bias))

    d = (config.d_model,)
    norm = np.stack([array(f"{prefix}ln_f.{part}", d) for part in ("weight", "bias")])
    fields = {field for field, _ in BLOCK_NAMES.values()}
    loaded = {
        "embed": None if like.embed is None else _leaf(array(f"{prefix}wte.weight", like.embed.shape)),
        "read_in": affine("_read_in", like.read_in),
        "read_out": affine(_read_out_name(config), like.read_out),
        "positions": _leaf(array(f"{prefix}wpe.weight", like.positions.shape)),
        "ln_f": _leaf(norm),
        "blocks": type(like.blocks)(**{field: _leaf(blocks(field)) for field in fields}),
    }
    return eqx.tree_at(
        lambda net: [getattr(net, name) for name in loaded], like, list(loaded.values()), is_leaf=lambda x: x is None
    )


def _read_out_name(config: Decoder) -> str:
    """A read-out of tokens to logits is the language model's head."""
    return "_read_out" if config.n_tokens is None else "lm_head"


def _leaf(values: np.ndarray) -> jax.Array:
    return jnp.asarray(values, jnp.result_type(float))
