"""Checkpoints as networks of the house: the description of an architecture, filled with a checkpoint's weights."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import ml_dtypes
import numpy as np

from meta_icl.errors import BadInput, choose, require
from meta_icl.lm.configurations import FAMILIES, shape_of
from meta_icl.lm.exports import config_of, write_checkpoint
from meta_icl.lm.files import Checkpoint, read_checkpoint
from meta_icl.lm.names import from_checkpoint, our_names, to_checkpoint
from meta_icl.lm.shapes import Rotary as StoredRotary
from meta_icl.lm.shapes import Shape
from meta_icl.lm.tokenizer import Tokenizer
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

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
MATRICES = {"table", "weight", "w_q", "w_k", "w_v", "w_o", "w_in", "w_out", "w_gate", "w_up"}
ALIGNMENT = 64  # bytes

# Our names of a checkpoint's parts (`lm.names`) -> the path in a block, or in the network.
IN_BLOCK = {"norm_feedforward": "norm_feed_forward", "post_norm_feedforward": "post_norm_feed_forward"}
IN_NETWORK = {
    "embedding.tokens": ("embedding", "table"),
    "embedding.positions": ("positions", "table"),
    "readout.weight": ("readout", "map", "weight"),
}


def load_language_model(path: str | Path, *, dtype: str = "float32") -> InContextLearner:
    """The language model of a folder in Hugging Face's format, a `.gguf` file or a fetched model's name.

    A predictor of `TokenPrompt`s: logits "t v" of the tokens up to and with each. `dtype` is that of `network_of`.
    Raises `BadInput` for what is no model of a family that is read here, is damaged, or would be computed otherwise
    than it was made.
    """
    return InContextLearner(TokenLayout(), network_of(read_checkpoint(path), dtype=dtype))


def network_of(checkpoint: Checkpoint, *, dtype: str = "float32") -> Network:
    """The network of a checkpoint, whose matrices are kept as float32 or, in half of the memory, as bfloat16.

    It is computed in float32 either way, a layer at a time: bfloat16 rounds each entry by up to 2^-9 of itself (or not,
    where the checkpoint has it so), and no sum. Raises `BadInput` for another `dtype`.
    """
    kept = DTYPES[choose("dtype", dtype, DTYPES)]
    shape = checkpoint.shape
    description = architecture_of(shape)
    network = eqx.filter_eval_shape(description, key=jax.random.key(0))
    stacks: dict[tuple[str, ...], np.ndarray] = {}
    for name, array in from_checkpoint(checkpoint.tensors, shape):
        path, row = _place(name, network, shape)
        like = _leaf(network, path)
        if path not in stacks:
            stacks[path] = _aligned(like.shape, kept if path[-1] in MATRICES else np.float32)
        stacks[path][row] = array.reshape(like.shape[1:] if row != () else like.shape)
    paths = list(stacks)
    # On a CPU the arrays become the network's own, without a copy; what is copied to a device is dropped at once.
    leaves = [jax.device_put(stacks.pop(path), may_alias=True).block_until_ready() for path in paths]
    return eqx.tree_at(lambda net: [_leaf(net, path) for path in paths], network, leaves)


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of numpy that starts where XLA wants its own to start."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def save_language_model(
    model: InContextLearner, folder: str | Path, *, tokenizer: Tokenizer | None = None, n_positions: int | None = None
) -> None:
    """Write a language model as a folder in Hugging Face's format, which its libraries load too.

    `n_positions` is the length that a model without learned positions is said to be for (default: 2048). Raises
    `BadInput` for a network that no family describes, and a folder that holds a model or cannot be written.
    """
    config, tensors = exported(model.network, n_positions=n_positions)
    write_checkpoint(folder, config, tensors, tokenizer)


def exported(network: Network, *, n_positions: int | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The configuration of a network in its family, and its tensors under the family's names."""
    shape = shape_of_network(network, n_positions=n_positions)
    arrays = {}
    for name in our_names(shape):
        path, row = _place(name, network, shape)
        array = np.asarray(_leaf(network, path)[row])
        over_heads = shape.qk_norm == "width" and name.endswith(("q_norm.scale", "k_norm.scale"))
        arrays[name] = array.reshape(-1, shape.d_head) if over_heads else array
    return dict(config_of(shape)), dict(to_checkpoint(arrays, shape))


def shape_of_network(network: Network, *, n_positions: int | None = None) -> Shape:
    """The shape, of the first family that has one, whose network this is; `BadInput` where none has.

    Initial values do not count. `architecture_of` and the family's own configuration must both give it back.
    """
    own = network.config
    refused = BadInput("the network is not one that a family of language models describes, so no folder can hold it")
    layers = [own.blocks[i % len(own.blocks)] for i in range(own.n_layers)]
    alike = all(isinstance(b.mixer, Attention) and isinstance(b.feed_forward, Dense | Gated) for b in layers)
    if not (alike and layers) or own.looped or not isinstance(own.embedding, Tokens) or own.final_norm is None:
        raise refused
    own = _expanded(own)
    for family in FAMILIES:
        try:
            shape = _shape(own, family, n_positions)
            same = _computed(_expanded(architecture_of(shape))) == _computed(own)
            if same and shape_of(config_of(shape))[0] == shape:
                return shape
        except (BadInput, StopIteration):  # the family has no such norm, activation, window, ..
            continue
    raise refused


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


def _expanded(own: Architecture) -> Architecture:
    """The same architecture with a block for every layer, and what attention leaves to defaults."""

    def explicit(block: Block) -> Block:
        attention = block.mixer
        d_head = attention.d_head or own.d_model // attention.n_heads
        scale = d_head**-0.5 if attention.scale is None else attention.scale
        groups = attention.n_groups or attention.n_heads
        return replace(block, mixer=replace(attention, d_head=d_head, n_groups=groups, scale=scale))

    each = [explicit(block) for block in own.blocks]
    return replace(own, block=tuple(each[i % len(each)] for i in range(own.n_layers)))


def _shape(own: Architecture, family: str, n_positions: int | None) -> Shape:
    """What a network would be in a family."""
    first, half, norm = own.blocks[0].mixer, own.blocks[0].feed_forward, own.final_norm
    learned = isinstance(own.positions, Learned)
    assert norm is not None
    rotary = [block.mixer.rotary for block in own.blocks]
    return Shape(
        family=family,
        n_layers=own.n_layers,
        d_model=own.d_model,
        n_heads=first.n_heads,
        n_groups=first.n_groups,
        d_head=first.d_head,
        d_ff=half.d_ff,
        n_tokens=own.embedding.n_tokens,
        n_positions=own.positions.n_positions if learned else n_positions or 2048,
        norm=norm.kind,
        norm_eps=norm.eps,
        placement=own.blocks[0].norm_at,
        parallel=own.blocks[0].skip == "parallel",
        gated=isinstance(half, Gated),
        activation=half.activation,
        qkv_bias=first.biases,
        o_bias=first.bias_out,
        feedforward_bias=isinstance(half, Dense) and half.biases,
        qk_norm="none" if first.qk_norm is None else "width" if first.qk_norm_whole else "head",
        tied=isinstance(own.readout, Tied),
        embedding_scale=own.embedding.scale or 1.0,
        score_scale=first.scale,
        score_softcap=first.softcap,
        logit_softcap=getattr(own.readout, "softcap", None),
        learned_positions=learned,
        rotary=tuple(None if r is None else _stored_rotary(r) for r in rotary),
        windows=tuple(block.mixer.window for block in own.blocks),
    )


def _stored_rotary(rotary: Rotary) -> StoredRotary:
    scaling = "default" if rotary.scaling == "none" else rotary.scaling
    return StoredRotary(
        rotary.base, rotary.fraction, scaling, rotary.factor, rotary.low_frequency, rotary.high_frequency,
        rotary.original_length,
    )  # fmt: skip


def _computed(description: Any) -> Any:
    """A description as nested tuples, without how weights are drawn."""
    if isinstance(description, tuple):
        return tuple(map(_computed, description))
    if not is_dataclass(description):
        return description
    kept = [f.name for f in fields(description) if not f.name.startswith("init") and f.name != "bias_init"]
    return (type(description), *(_computed(getattr(description, name)) for name in kept))


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
