"""Pretrained language models from local files, their texts, tasks and scores. The names below load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meta_icl.lm.files import Checkpoint, read_checkpoint
    from meta_icl.lm.networks import load_language_model, save_language_model
    from meta_icl.lm.tokenizer import Tokenizer, Tokens, read_tokenizer, tokenized

__all__ = [
    "Checkpoint",
    "Tokenizer",
    "Tokens",
    "load_language_model",
    "read_checkpoint",
    "read_tokenizer",
    "save_language_model",
    "tokenized",
]

_HOMES = {
    "files": ("Checkpoint", "read_checkpoint"),
    "networks": ("load_language_model", "save_language_model"),
    "tokenizer": ("Tokenizer", "Tokens", "read_tokenizer", "tokenized"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562): files and texts need no JAX."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
