"""Classifiers of items and labels in turn, in which circuits of in-context learning are studied."""

import math

from meta_icl.errors import require
from meta_icl.models.block import Block
from meta_icl.models.embeddings import Items, Vectors
from meta_icl.models.feedforward import Dense
from meta_icl.models.image_encoder import ImageEncoder
from meta_icl.models.initialisation import Init
from meta_icl.models.mixers.attention import Attention
from meta_icl.models.mixers.lstm import Lstm
from meta_icl.models.network import Architecture
from meta_icl.models.norms import Norm
from meta_icl.models.positions import Rotary, Sinusoidal
from meta_icl.models.published.regression import gpt2_block
from meta_icl.models.readouts import Classifier, Linear

__all__ = ["chan", "minegishi", "reddy", "singh"]

NORMS = ("none", "pre", "post")


def attention_block(
    d_model: int,
    n_heads: int = 1,
    project: bool = False,
    scaled: bool = False,
    norm: str = "none",
    d_mlp: int | None = None,
    rotary: bool = False,
    smeared: bool = False,
    init_std: float | None = None,
) -> Block:
    """Causal attention in the arrangements in which induction circuits are studied.

    `project`: heads are mapped back by W_O; without it, head i adds to its own channels. `scaled`: scores are divided
    by sqrt(d_head). `norm`: "none"; "pre"; or "post", LN(h + A(h)) without a norm around the MLP (public code of
    Minegishi et al.). `d_mlp` adds h + ReLU MLP. Weights are normal of deviation `init_std` (default 1/sqrt(d_model)).
    """
    require(norm in NORMS, "norm", norm, f"one of {', '.join(NORMS)}")
    return Block(
        Attention(
            n_heads,
            scale=None if scaled else 1.0,
            project=project,
            rotary=Rotary(pairs="neighbours") if rotary else None,
            smeared=smeared,
            init=Init(std=init_std or 1 / math.sqrt(d_model)),
        ),
        Dense(d_mlp, "relu") if d_mlp else None,
        None if norm == "none" else Norm(),
        norm_at="pre" if norm == "none" else norm,
        norm_feed_forward=False,
    )


def minegishi(
    n_labels: int,
    d_model: int = 128,
    n_layers: int = 2,
    n_heads: int = 1,
    project: bool = False,
    scaled: bool = False,
    norm: str = "none",
    d_mlp: int | None = None,
    n_hidden: int = 2,
    d_label: int | None = None,
    fixed_labels: bool = False,
    rotary: bool = False,
    smeared: bool = False,
    init_std: float | None = None,
) -> Architecture:
    """Attention alone without scale or norm, then ReLU layers drawn as torch does (Minegishi et al., 2025).

    Labels have `d_label` channels of deviation 1/sqrt(d_label); for all else see `attention_block`.
    """
    return Architecture(
        d_model,
        n_layers,
        attention_block(d_model, n_heads, project, scaled, norm, d_mlp, rotary, smeared, init_std),
        Items(n_labels, d_label=d_label, fixed_labels=fixed_labels),
        final_norm=Norm() if norm == "pre" else None,
        readout=Classifier(n_labels, n_hidden),
    )


def reddy(n_labels: int, d_model: int = 128, n_hidden: int = 3) -> Architecture:
    """The network of `minegishi` with labels that are not trained, one scalar bias per hidden layer (Reddy, 2023)."""
    return Architecture(
        d_model,
        2,
        attention_block(d_model, init_std=63**-0.5),
        Items(n_labels, d_label=63, fixed_labels=True),
        readout=Classifier(n_labels, n_hidden, init="reddy"),
    )


def singh(
    n_labels: int, d_in: int = 512, d_model: int = 64, n_layers: int = 2, n_heads: int = 8, label_std: float = 0.02
) -> Architecture:
    """Pre-norm rotary attention alone with W_O, on items that are mapped affinely (Singh et al., 2024)."""
    return Architecture(
        d_model,
        n_layers,
        attention_block(d_model, n_heads, project=True, scaled=True, norm="pre", rotary=True),
        Items(n_labels, Vectors(d_in, bias=True), label_std=label_std),
        final_norm=Norm(),
        readout=Classifier(n_labels, 0, init="lecun"),
    )


def chan(
    n_labels: int,
    encoder: Vectors | ImageEncoder,
    d_model: int = 64,
    n_layers: int = 12,
    n_heads: int = 8,
    body: str = "transformer",
    label_std: float = 0.02,
    init_std: float | None = None,
) -> Architecture:
    """Encoded items and labels with sinusoidal places of base 30 before a GPT-2 or an LSTM (Chan et al., 2022).

    `encoder` describes what makes a vector of an item (`ImageEncoder`, or `Vectors(d_in, bias=True)`); `body` is
    "transformer" or "lstm". `init_std` is by default that of the public code, sqrt(2 / (n_layers d_model)).
    """
    require(body in ("transformer", "lstm"), "body", body, "'transformer' or 'lstm'")
    std = init_std or math.sqrt(2 / (n_layers * d_model))
    recurrent = body == "lstm"
    read = Init("uniform", std=(3 * d_model) ** -0.5) if recurrent else Init(std=std)
    return Architecture(
        d_model,
        n_layers,
        Block(Lstm(), skip="none") if recurrent else gpt2_block(d_model, n_layers, n_heads, std),
        Items(n_labels, encoder, label_std=label_std, truncated=True),
        Sinusoidal(30.0),
        None if recurrent else Norm(),
        Linear(n_labels, bias=True, init=read, bias_init=read if recurrent else None),
    )
