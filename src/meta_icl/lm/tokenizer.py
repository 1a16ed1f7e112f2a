"""Texts as tokens of a language model, by `tokenizer.json` in its folder or the vocabulary in its `.gguf` file.

Needs the library `tokenizers` (extra `lm`), which is imported only when a text is read. Nothing is ever downloaded.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from meta_icl.errors import BadInput, first_line, require
from meta_icl.lm.gguf import open_gguf
from meta_icl.lm.packages import located

# What opens a document in training, by which attention that has nowhere else to go finds a place.
OPENINGS = ("<|endoftext|>", "<|begin_of_text|>", "<bos>", "<s>")


class Tokens(NamedTuple):
    """A text as tokens, in order."""

    numbers: Int[np.ndarray, " t"]
    starts: Int[np.ndarray, " t"]  # the character with which each token starts; -1 for those put before the text
    texts: tuple[str, ...]  # of each token


class Tokenizer:
    """A tokenizer that never pads or truncates; `notes` says what of its file was switched off for that."""

    def __init__(self, library: Any, source: str):
        self.library, self.source = library, source
        self.notes: list[str] = []
        for name, off in (("padding", library.no_padding), ("truncation", library.no_truncation)):
            if getattr(library, name) is not None:
                self.notes.append(f"{name} is switched on in {source}: it is switched off here")
                off()

    @property
    def n_tokens(self) -> int:
        """One more than the largest token number."""
        return max(self.library.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def opening(self) -> int | None:
        """The token with which documents begin in training, if the vocabulary has one of the usual ones."""
        return next((n for n in map(self.library.token_to_id, OPENINGS) if n is not None), None)

    def numbers(self, text: str) -> list[int]:
        """The tokens of a text alone, without any that the tokenizer puts around it."""
        return self._encode(text, special=False).ids

    def spans(self, text: str) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
        """The tokens of a text alone, with the characters at which each starts and before which it ends."""
        found = self._encode(text, special=False)
        starts, ends = np.array(found.offsets, int).reshape(-1, 2).T
        return np.array(found.ids, int), starts, ends

    def encode(self, text: str) -> Tokens:
        """The tokens of a text with those that the tokenizer puts before it, where a language model starts.

        Those that it puts behind are left out, since a model continues a text. Raises `BadInput` for a text without
        tokens, or one with half of a surrogate pair.
        """
        found = self._encode(text, special=True)
        added = np.asarray(found.special_tokens_mask, bool)
        own = np.flatnonzero(~added)
        if not len(own):
            raise BadInput(f"text must give at least one token, got {text!r}")
        n = int(own[-1]) + 1
        starts = np.array([-1 if put else start for put, (start, _) in zip(added, found.offsets, strict=True)])
        return Tokens(np.array(found.ids[:n]), starts[:n], tuple(map(self.text, found.ids[:n])))

    def opened(self, text: str) -> Tokens:
        """The tokens of a text as `encode` gives them, behind the opening token where nothing else stands first."""
        found = self.encode(text)
        if found.starts[0] < 0 or self.opening is None:
            return found
        first = self.opening
        return Tokens(np.append(first, found.numbers), np.append(-1, found.starts), (self.text(first), *found.texts))

    def text(self, number: int | np.integer) -> str:
        """The text of one token, of special ones too; a part of a character is shown as U+FFFD."""
        return self.library.decode([int(number)], skip_special_tokens=False)

    def decode(self, numbers: Iterable[int | np.integer]) -> str:
        """The text of tokens, of special ones too."""
        return self.library.decode([int(n) for n in numbers], skip_special_tokens=False)

    def _encode(self, text: str, *, special: bool) -> Any:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"text has half of a surrogate pair at character {error.start}, which is no text") from None
        return self.library.encode(text, add_special_tokens=special)


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint: of a folder, a `.gguf` file, or a fetched model's name.

    Raises `BadInput` for a place without a tokenizer, a damaged one, and where the library is missing.
    """
    path = located(path)
    try:
        from tokenizers import Tokenizer as Library
    except ImportError:
        raise BadInput("texts need the library tokenizers (extra lm): pip install tokenizers") from None
    if path.is_file() and path.suffix == ".gguf":
        from meta_icl.lm.vocabularies import vocabulary

        with _panics_as_bad_input(path):
            return Tokenizer(vocabulary(open_gguf(path).metadata, path.name), path.name)
    file = path / "tokenizer.json"
    if not file.is_file():
        raise BadInput(f"{path} has no tokenizer.json: give the prompt as token numbers")
    try:
        text = file.read_text(encoding="utf-8-sig")
        described = json.loads(text)
    except (ValueError, OSError, RecursionError) as error:
        raise BadInput(f"{file} cannot be read ({first_line(error)})") from None
    require(isinstance(described, dict), str(file), type(described).__name__, "a JSON object")
    with _panics_as_bad_input(file):
        found = Tokenizer(Library.from_str(text), file.name)
        found.library.encode("a")  # some damage shows only here
    return found


def tokenized(path: str | Path, text: str) -> Tokens:
    """The tokens of a text, as the tokenizer of a checkpoint gives them; see `Tokenizer.encode`."""
    return read_tokenizer(path).encode(text)


@contextlib.contextmanager
def _panics_as_bad_input(path: Path) -> Iterator[None]:
    """Errors of the library as one line. A panic of its Rust code, a BaseException, prints, which is kept quiet."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    except BadInput:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BadInput(f"{path} cannot be read as a tokenizer ({first_line(error)})") from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
