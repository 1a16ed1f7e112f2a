"""Checkpoints as networks of the house: the description of an architecture, filled with a checkpoint's weights."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.errors import BadInput, require
from meta_icl.lm.files import Checkpoint, read_checkpoint
from meta_icl.lm.names import from_checkpoint
from meta_icl.lm.shapes import Rotary as StoredRotary
from meta_icl.lm.shapes import Shape
from meta_icl.models import (
    Architecture,
    Attention,
    Block,
    Dense,
    Gated,
    InContextLearner,
    Learned,
    Linear,
    Network,
    Norm,
    Rotary,
    Tied,
    TokenLayout,
    Tokens,
)

# Our names of a checkpoint's parts (`lm.names`) -> the path in a block, or in the network.
IN_BLOCK = {"norm_feedforward": "norm_feed_forward", "post_norm_feedforward": "post_norm_feed_forward"}
IN_NETWORK = {
    "embedding.tokens": ("embedding", "table"),
    "embedding.positions": ("positions", "table"),
    "readout.weight": ("readout", "map", "weight"),
}


def load_language_model(path: str | Path) -> InContextLearner:
    """The language model of a folder in Hugging Face's format, a `.gguf` file or a fetched model's name.

    A predictor of `TokenPrompt`s: logits "t v" of the tokens up to and with each. Raises `BadInput` for what is no
    model of a family that is read here, is damaged, or would be computed otherwise than it was made.
    """
    return InContextLearner(TokenLayout(), network_of(read_checkpoint(path)))


def network_of(checkpoint: Checkpoint) -> Network:
    """The network of a checkpoint, with its weights as float32."""
    shape = checkpoint.shape
    description = architecture_of(shape)
    network = eqx.filter_eval_shape(description, key=jax.random.key(0))
    stacks: dict[tuple[str, ...], np.ndarray] = {}
    for name, array in from_checkpoint(checkpoint.tensors, shape):
        path, row = _place(name, network, shape)
        like = _leaf(network, path)
        if path not in stacks:
            stacks[path] = np.empty(like.shape, np.float32)
        stacks[path][row] = np.asarray(array, np.float32).reshape(like.shape[1:] if row != () else like.shape)
    paths = list(stacks)
    return eqx.tree_at(
        lambda net: [_leaf(net, path) for path in paths], network, [jnp.asarray(stacks.pop(path)) for path in paths]
    )


def architecture_of(shape: Shape) -> Architecture:
    """The description of the network that a shape describes; the shortest round of blocks that gives its layers."""
    require(not (shape.gated and shape.feedforward_bias), "mlp_bias", True, "False: gated MLPs here have no biases")
    norm = Norm(shape.norm, shape.norm_eps)

    def block(index: int) -> Block:
        attention = Attention(
            shape.n_heads,
            shape.d_head,
            shape.n_groups,
            scale=shape.score_scale,
            window=shape.windows[index],
            biases=shape.qkv_bias,
            bias_out=shape.o_bias,
            rotary=_rotary(shape.rotary[index]),
            qk_norm=None if shape.qk_norm == "none" else norm,
            qk_norm_whole=shape.qk_norm == "width",
            softcap=shape.score_softcap,
        )
        half: Any = Gated(shape.d_ff, shape.activation)
        if not shape.gated:
            half = Dense(shape.d_ff, shape.activation, shape.feedforward_bias)
        return Block(attention, half, norm, shape.placement, skip="parallel" if shape.parallel else "residual")

    blocks, n = [block(i) for i in range(shape.n_layers)], shape.n_layers
    period = next(p for p in range(1, n + 1) if all(blocks[i] == blocks[i % p] for i in range(n)))
    return Architecture(
        shape.d_model,
        n,
        tuple(blocks[:period]),
        Tokens(shape.n_tokens, scale=None if shape.embedding_scale == 1 else shape.embedding_scale),
        Learned(shape.n_positions) if shape.learned_positions else None,
        norm,
        Tied(shape.logit_softcap) if shape.tied else Linear(shape.n_tokens, softcap=shape.logit_softcap),
    )


def _rotary(stored: StoredRotary | None) -> Rotary | None:
    if stored is None:
        return None
    scaling = "none" if stored.scaling == "default" else stored.scaling
    return Rotary(
        stored.base, stored.fraction, "halves", scaling, stored.factor, stored.low_factor, stored.high_factor,
        stored.original,
    )  # fmt: skip


def _place(name: str, network: Network, shape: Shape) -> tuple[tuple[str, ...], Any]:
    """Where an array of `lm.names` stands in the network, and its row there."""
    if not name.startswith("blocks."):
        return IN_NETWORK.get(name) or tuple(name.split(".")), ()
    _, index, part, *rest = name.split(".")
    place, row = network.position_of(int(index))
    if shape.placement == "branch":  # the only norm of a half stands behind it
        part = part.removeprefix("post_")
    part = {"feedforward": "feed_forward"}.get(part, IN_BLOCK.get(part, part))
    return ("blocks", str(place), part, *rest), row


def _leaf(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[int(part)] if part.isdecimal() else getattr(tree, part)
    if tree is None:
        raise BadInput(f"the network has no {'.'.join(path)}, which the checkpoint has")
    return tree
