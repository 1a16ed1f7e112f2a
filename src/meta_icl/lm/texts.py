"""Texts as tokens of a language model, by the `tokenizer.json` in its folder. Nothing is ever downloaded.

Needs the library `tokenizers` (extra `lm`), which is imported only when a text is read.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from meta_icl.errors import BadInput


class Tokens(NamedTuple):
    """A text as tokens, in order."""

    numbers: Int[np.ndarray, " t"]
    starts: Int[np.ndarray, " t"]  # the character with which each token starts; -1 for those put before the text
    texts: tuple[str, ...]  # of each token


def tokenized(folder: str | Path, text: str) -> Tokens:
    """The tokens of a text, as the tokenizer of a language model's folder gives them.

    Tokens that it puts before the text are kept; those that it puts behind it are not, since a model continues a text.
    Raises `BadInput` for a folder without a tokenizer, a damaged file, or where the library is missing.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise BadInput(f"{folder} has no tokenizer.json: give the prompt as token numbers")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise BadInput("texts need the library tokenizers: pip install 'meta-icl[lm]'") from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise BadInput(f"{path} cannot be read ({error})") from None
    found = tokenizer.encode(text)
    added = np.asarray(found.special_tokens_mask, bool)
    if added.all():
        raise BadInput(f"text must give at least one token, got {text!r}")
    n = int(np.flatnonzero(~added)[-1]) + 1
    starts = np.array([-1 if special else start for special, (start, _) in zip(added, found.offsets, strict=True)])
    return Tokens(np.array(found.ids[:n]), starts[:n], tuple(tokenizer.decode([i]) for i in found.ids[:n]))
