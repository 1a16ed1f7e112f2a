"""Blocks of a layer that mixes tokens before an MLP, in the arrangements whose implicit weight updates are studied."""

from collections.abc import Callable
from typing import Any

from meta_icl.errors import choose
from meta_icl.models.block import Block
from meta_icl.models.embeddings import Tokens, Vectors
from meta_icl.models.feedforward import Dense, Experts, Gated
from meta_icl.models.initialisation import Init
from meta_icl.models.mixers.attention import Attention
from meta_icl.models.mixers.mixer import MixerDescription
from meta_icl.models.network import Architecture
from meta_icl.models.norms import Norm
from meta_icl.models.positions import Learned
from meta_icl.models.readouts import Linear

__all__ = ["ARRANGEMENTS", "contextual"]

ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "no skip": {"skip": "none"},
    "skip around": {"skip": "around"},
    "residual": {},
    "pre-LN": {"norm": Norm()},
    "RMSNorm": {"norm": Norm("rms")},
    "Llama": {"norm": Norm("rms"), "mlp": "gated"},
    "Gemma": {"norm": Norm("rms"), "norm_at": "sandwich", "mlp": "gated", "activation": "gelu"},
    "parallel": {"norm": Norm(), "skip": "parallel"},
    "experts": {"norm": Norm("rms"), "mlp": "experts"},
}


def contextual(
    d_model: int,
    d_mlp: int,
    n_blocks: int = 1,
    arrangement: str = "residual",
    mixer: MixerDescription | Callable[..., Any] = Attention(),
    d_in: int | None = None,
    d_out: int | None = None,
    n_tokens: int | None = None,
    n_positions: int | None = None,
    norm: Norm | None = None,
    activation: str | None = None,
    biases: bool = True,
    init_scale: float = 1.0,
) -> Architecture:
    """Equal blocks of a named `arrangement`, drawn at variance `init_scale` / fan_in (Dherin et al., 2025).

    `d_in` and `d_out` add a linear embedding and read-out without bias; with `n_tokens` it is a language model with
    embeddings of variance 1 and a read-out of its own, `n_positions` learned positions of variance 0.01.
    """
    fields = dict(ARRANGEMENTS[choose("arrangement", arrangement, ARRANGEMENTS)])
    kind, acts = fields.pop("mlp", "dense"), activation or fields.pop("activation", None)
    fields.pop("activation", None)
    if norm is not None:
        fields["norm"] = norm
    init = Init(gain=init_scale)
    named: dict[str, Any] = {} if acts is None else {"activation": acts}
    half = {
        "dense": lambda: Dense(d_mlp, biases=biases, init=init, **named),
        "gated": lambda: Gated(d_mlp, init=init, **named),
        "experts": lambda: Experts(d_mlp, init=init, **named),
    }[kind]()
    final = fields.get("norm") if n_tokens else None
    return Architecture(
        d_model,
        n_blocks,
        Block(mixer, half, **fields),
        Tokens(n_tokens, Init(std=1.0)) if n_tokens else Vectors(d_in),
        Learned(n_positions, Init(std=0.1)) if n_positions else None,
        final,
        Linear(n_tokens or d_out or 1) if n_tokens or d_out else None,
    )
