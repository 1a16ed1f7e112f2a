"""The networks of the papers, as functions of a few sizes: each says in a sentence what makes it that one."""

from meta_icl.models.published.classifiers import chan, minegishi, reddy, singh
from meta_icl.models.published.language import (
    gemma2,
    gemma3,
    gpt2,
    llama,
    mistral,
    neox,
    olmo2,
    olsson,
    qwen2,
    qwen3,
)
from meta_icl.models.published.regression import garg, kirsch, lstm, memories, mlp, raventos, von_oswald
from meta_icl.models.published.weight_updates import ARRANGEMENTS, contextual

NETWORKS = (
    *("chan", "contextual", "garg", "gemma2", "gemma3", "gpt2", "kirsch", "llama", "lstm", "memories", "minegishi"),
    *("mistral", "mlp", "neox", "olmo2", "olsson", "qwen2", "qwen3", "raventos", "reddy", "singh", "von_oswald"),
)

__all__ = [
    "ARRANGEMENTS",
    "NETWORKS",
    "chan",
    "contextual",
    "garg",
    "gemma2",
    "gemma3",
    "gpt2",
    "kirsch",
    "llama",
    "lstm",
    "memories",
    "minegishi",
    "mistral",
    "mlp",
    "neox",
    "olmo2",
    "olsson",
    "qwen2",
    "qwen3",
    "raventos",
    "reddy",
    "singh",
    "von_oswald",
]
