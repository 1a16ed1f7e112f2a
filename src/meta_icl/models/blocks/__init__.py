"""Contextual blocks of every published kind, which can be run with a change of their weights, and stacks of them."""

from meta_icl.models.blocks.feedforward import ACTIVATIONS, DenseMlp, Experts, GatedMlp, Mlp, Norm
from meta_icl.models.blocks.language import Language, LanguageModel, next_token_loss
from meta_icl.models.blocks.mixers import (
    Attention,
    AttentionMixer,
    ContextualLayer,
    LstmMixer,
    Memory,
    MemoryMixer,
    Mixer,
    Recurrence,
    Stepwise,
)
from meta_icl.models.blocks.patch import LowRank, Patch, weight_norm
from meta_icl.models.blocks.stack import (
    KINDS,
    SKIPS,
    Block,
    BlockNetwork,
    Blocks,
    Reading,
    random_network,
    random_networks,
)

__all__ = [
    "ACTIVATIONS",
    "KINDS",
    "SKIPS",
    "Attention",
    "AttentionMixer",
    "Block",
    "BlockNetwork",
    "Blocks",
    "ContextualLayer",
    "DenseMlp",
    "Experts",
    "GatedMlp",
    "Language",
    "LanguageModel",
    "LowRank",
    "LstmMixer",
    "Memory",
    "MemoryMixer",
    "Mixer",
    "Mlp",
    "Norm",
    "Patch",
    "Reading",
    "Recurrence",
    "Stepwise",
    "next_token_loss",
    "random_network",
    "random_networks",
    "weight_norm",
]
