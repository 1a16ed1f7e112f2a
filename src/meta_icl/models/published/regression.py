"""Networks for in-context regression and for general-purpose learners of vectors."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from meta_icl.errors import require
from meta_icl.models.block import Block
from meta_icl.models.embeddings import Tokens, Vectors
from meta_icl.models.feedforward import Dense
from meta_icl.models.initialisation import LECUN, TORCH, Init
from meta_icl.models.mixers.attention import Attention
from meta_icl.models.mixers.fast_weight_lstm import FastWeightLstm
from meta_icl.models.mixers.lstm import Lstm
from meta_icl.models.mixers.mixer import MixerDescription
from meta_icl.models.network import Architecture
from meta_icl.models.norms import Norm
from meta_icl.models.positions import Learned
from meta_icl.models.readouts import Classifier, Linear

__all__ = ["garg", "kirsch", "lstm", "memories", "mlp", "raventos", "von_oswald"]


def von_oswald(
    d_model: int,
    n_layers: int = 1,
    n_heads: int = 1,
    d_head: int | None = None,
    attention: str | tuple[str, ...] | list[str] = "linear",
    score_scale: float | None = None,
    causal: bool = False,
    query_is_key: bool = False,
    looped: bool = False,
    dampening: float = 1.0,
    update: str = "all",
    activation_clip: float | None = None,
    layer_norm: bool = False,
    d_mlp: int | None = None,
    input_mlp: int | None = None,
    d_in: int | None = None,
    d_out: int | None = None,
    init_scale: float = 0.002,
) -> Architecture:
    """Attention whose keys leave out the query, as wide as the stream, drawn tiny (von Oswald et al., 2022).

    `attention` is one kind for all layers or one per layer ("linear", "softmax" or "mixed"). `looped` applies one layer
    `n_layers` times; `update="y"` lets it write the last channel only; `activation_clip` clamps the stream after every
    layer. `d_in` adds an embedding without bias, `d_out` a read-out, `d_mlp` an MLP in every layer, `input_mlp` a
    residual MLP before the first. Weights: truncated normal of variance `init_scale` / (n_layers fan_in) inside the
    layers and 1 / fan_in outside.
    """
    require(d_model >= 1, "d_model", d_model, "a positive integer")
    kinds = (attention,) if isinstance(attention, str) else tuple(attention)
    require(len(kinds) in (1, n_layers), "attention", attention, f"one kind, or {n_layers} kinds")
    require(init_scale > 0, "init_scale", init_scale, "positive")
    inside, outside = Init("truncated_normal", gain=init_scale / max(n_layers, 1)), Init("truncated_normal")

    def block(kind: str) -> Block:
        return Block(
            Attention(
                n_heads,
                d_head or d_model,
                kind=kind,
                scale=score_scale,
                causal=causal,
                query_is_key=query_is_key,
                init=inside,
            ),
            Dense(d_mlp, init=inside) if d_mlp else None,
            Norm() if layer_norm else None,
            dampening=dampening,
            writes={"all": "all", "y": "last"}.get(update, update),
            clip=activation_clip,
        )

    return Architecture(
        d_model,
        n_layers,
        block(kinds[0]) if len(set(kinds)) == 1 else tuple(block(kind) for kind in kinds),
        Vectors(d_in, init=outside, mlp=Dense(input_mlp, init=outside) if input_mlp else None),
        readout=Linear(d_out, init=outside) if d_out else None,
        looped=looped,
    )


def garg(
    d_in: int,
    d_model: int = 256,
    n_layers: int = 12,
    n_heads: int = 8,
    n_positions: int = 101,
    d_out: int = 1,
    read_bias: bool = True,
    read_init: str = "gpt2",
    init_std: float = 0.02,
    attention: str = "softmax",
) -> Architecture:
    """GPT-2 on vectors, read out at every position (Garg et al., 2022; 12 layers of width 256 and 8 heads).

    Blocks are pre-norm with a GELU MLP four times as wide; weights are normal of deviation `init_std`, those that write
    to the stream divided by sqrt(2 n_layers), biases zero. `read_init="torch"` draws the maps in and out uniform in
    +-1/sqrt(fan_in), biases too, as the released code does. `attention="elu"` is Katharopoulos et al.'s (2020).
    """
    read = TORCH if read_init == "torch" else Init(std=init_std)
    biases = TORCH if read_init == "torch" else None
    return Architecture(
        d_model,
        n_layers,
        gpt2_block(d_model, n_layers, n_heads, init_std, attention),
        Vectors(d_in, bias=read_bias, init=read, bias_init=biases),
        Learned(n_positions, Init(std=init_std)),
        Norm(),
        Linear(d_out, bias=read_bias, init=read, bias_init=biases),
    )


def raventos(
    d_in: int,
    d_model: int = 64,
    n_layers: int = 8,
    n_heads: int = 2,
    n_positions: int = 64,
    init_std: float = 0.02,
    d_out: int = 1,
) -> Architecture:
    """The network of `garg` whose maps in and out have no bias (Raventos et al., 2023)."""
    return garg(d_in, d_model, n_layers, n_heads, n_positions, d_out, read_bias=False, init_std=init_std)


def kirsch(
    d_in: int,
    d_out: int,
    d_model: int = 256,
    n_layers: int = 4,
    n_heads: int = 8,
    n_positions: int = 100,
    init_std: float = 0.02,
    attention: str = "softmax",
) -> Architecture:
    """The network of `garg` on inputs with the label before, with logits at every position (Kirsch et al., 2022)."""
    return garg(d_in, d_model, n_layers, n_heads, n_positions, d_out, True, "torch", init_std, attention)


def gpt2_block(
    d_model: int,
    n_layers: int,
    n_heads: int,
    init_std: float = 0.02,
    attention: str = "softmax",
    d_ff: int | None = None,
) -> Block:
    """A pre-norm block with biases, whose maps into the stream are drawn 1/sqrt(2 n_layers) as large (GPT-2)."""
    init, into = Init(std=init_std), Init(std=init_std / math.sqrt(2 * max(n_layers, 1)))
    return Block(
        # The kernel has no scale of its own; with phi, one that divides numerator and denominator would cancel.
        Attention(n_heads, kind=attention, biases=True, bias_out=True, init=init, init_out=into),
        Dense(d_ff or 4 * d_model, init=init, init_out=into),
        Norm(),
    )


def lstm(
    d_in: int,
    d_hidden: int = 64,
    n_layers: int = 1,
    bidirectional: bool = False,
    d_out: int = 1,
    fast_weights: int | None = None,
) -> Architecture:
    """An LSTM of several layers with a linear read-out, all uniform in +-1/sqrt(d_hidden).

    `fast_weights` is the number of matrix memories of an outer-product LSTM instead (Kirsch et al., 2022).
    """
    require(d_hidden >= 1, "d_hidden", d_hidden, "a positive integer")
    both = not bidirectional or fast_weights is None
    require(both, "bidirectional", True, "False with fast_weights, whose memories are written forwards")
    directions = 2 if bidirectional else 1
    mixer = Lstm(bidirectional=bidirectional) if fast_weights is None else FastWeightLstm(fast_weights)
    read = Init("uniform", std=(3 * d_hidden) ** -0.5)
    return Architecture(
        directions * d_hidden,
        n_layers,
        Block(mixer, skip="none"),
        readout=Linear(d_out, bias=True, init=read, bias_init=read),
        d_in=d_in,
    )


def mlp(d_in: int, d_hidden: int = 64, n_layers: int = 2, d_out: int = 1) -> Architecture:
    """ReLU layers on one token at a time: it can memorise tasks, but not learn from a context (Kirsch et al., 2022)."""
    return Architecture(d_in, 0, readout=Classifier(d_out, n_layers, d_hidden, init="he"))


def memories(
    d_model: int,
    mixers: Sequence[MixerDescription | Callable[..., Any]] = (Attention(2),),
    n_layers: int = 2,
    d_in: int | None = None,
    n_tokens: int | None = None,
    d_out: int = 1,
    mlp: int = 4,
) -> Architecture:
    """Any mixers in turn between RMS norms, with a GELU MLP `mlp` times as wide (0: none), of variance 1 / fan_in.

    The frame in which the memories of the fast-weight family and Titans are compared; exactly one of `d_in` (vectors)
    and `n_tokens` (integer tokens) is given.
    """
    require((d_in is None) != (n_tokens is None), "d_in", d_in, "given for vectors, or n_tokens for tokens, not both")
    require(len(mixers) >= 1, "mixers", mixers, "at least one")
    require(mlp >= 0, "mlp", mlp, "zero or more")
    norm, into = Norm("rms", 1e-6), Init(gain=1 / max(n_layers, 1))
    half = Dense(mlp * d_model, biases=False, init_out=into) if mlp else None
    return Architecture(
        d_model,
        n_layers,
        tuple(Block(mixer, half, norm) for mixer in mixers),
        Vectors(d_in) if n_tokens is None else Tokens(n_tokens, Init(std=1.0)),
        final_norm=norm,
        readout=Linear(d_out, init=LECUN),
    )
