"""Layers that mix tokens, as a step, as a parallel form, and as what they are: learners at test time."""

from meta_icl.models.mixers.affine_scan import affine_scan, affine_step, segment_products
from meta_icl.models.mixers.attention import Attention, AttentionLayer
from meta_icl.models.mixers.delta import DeltaNet, GatedDeltaNet, Longhorn
from meta_icl.models.mixers.fast_weight_lstm import FastWeightLstm
from meta_icl.models.mixers.heads import HeadDescription, HeadMixer, Memory, Tokens
from meta_icl.models.mixers.linear import LinearAttention, Mamba2
from meta_icl.models.mixers.lstm import Lstm
from meta_icl.models.mixers.mamba import Mamba
from meta_icl.models.mixers.mesa import Mesa
from meta_icl.models.mixers.mixer import (
    Mixer,
    MixerDescription,
    by_steps,
    initial_state,
    inner_flops,
    mix,
    operations,
    state_size,
)
from meta_icl.models.mixers.mlstm import Mlstm
from meta_icl.models.mixers.rwkv import Rwkv7
from meta_icl.models.mixers.titans import Titans
from meta_icl.models.mixers.titans_blocks import Persistent, TitansBlock
from meta_icl.models.mixers.ttt import Ttt

# The layers that can be named where text describes a model.
DESCRIPTIONS = (
    *("Attention", "DeltaNet", "FastWeightLstm", "GatedDeltaNet", "LinearAttention", "Longhorn", "Lstm", "Mamba"),
    *("Mamba2", "Mesa", "Mlstm", "Persistent", "Rwkv7", "Titans", "TitansBlock", "Ttt"),
)

__all__ = [
    "DESCRIPTIONS",
    "Attention",
    "AttentionLayer",
    "DeltaNet",
    "FastWeightLstm",
    "GatedDeltaNet",
    "HeadDescription",
    "HeadMixer",
    "LinearAttention",
    "Longhorn",
    "Lstm",
    "Mamba",
    "Mamba2",
    "Memory",
    "Mesa",
    "Mixer",
    "MixerDescription",
    "Mlstm",
    "Persistent",
    "Rwkv7",
    "Titans",
    "TitansBlock",
    "Tokens",
    "Ttt",
    "affine_scan",
    "affine_step",
    "by_steps",
    "initial_state",
    "inner_flops",
    "mix",
    "operations",
    "segment_products",
    "state_size",
]
