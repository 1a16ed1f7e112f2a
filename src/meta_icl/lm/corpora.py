"""Text to train a small language model on: sources of Python's library, or a folder of the user's, as tokens.

Tokens are byte pairs learned from the text itself. Tokenizer and tokens are kept in the cache folder by the hash of the
text; the tokens are mapped into memory, so that a text larger than memory can be drawn from.
"""

import hashlib
import io
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from meta_icl.data.cache import cache_folder, write_bytes
from meta_icl.errors import BadInput, require
from meta_icl.lm.tokenizer import OPENINGS, Tokenizer, read_tokenizer
from meta_icl.prompt import TokenPrompt, TokenTask

KINDS = (".txt", ".md", ".rst", ".py")
# Of Python's library; `encodings` and `pydoc_data` are tables.
LEFT_OUT = ("test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages", "__pycache__")
MOST_BYTES = 4_000_000  # of text that is read, unless said otherwise
HELD_OUT = 0.05  # the share at the end that is never trained on


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens of documents one after another, each behind the opening token, and their tokenizer."""

    tokens: Integer[np.ndarray, " n"]
    tokenizer: Tokenizer
    name: str
    digest: str  # of the texts and the number of tokens

    @property
    def training(self) -> Integer[np.ndarray, " n"]:
        """What is trained on."""
        return self.tokens[: -max(1, int(len(self.tokens) * HELD_OUT))]

    def held_out(self, length: int, most: int) -> Int[np.ndarray, "windows t"]:
        """Up to so many windows spread over what is not trained on, each of `length` tokens with the opening one."""
        rest = self.tokens[-max(1, int(len(self.tokens) * HELD_OUT)) :]
        there = len(rest) // (length - 1)
        enough = f"at least {int(2 * length / HELD_OUT)} tokens"
        require(there >= 2, "text", f"one of {len(self.tokens)} tokens", enough)
        rows = np.asarray(rest[: there * (length - 1)], int).reshape(there, length - 1)
        rows = rows[np.linspace(0, there - 1, min(most, there)).astype(int)]
        return np.concatenate([np.full((len(rows), 1), self.tokenizer.opening), rows], axis=1)


class TextWindows(TokenTask):
    """Windows of a text at random places, the opening token in place of the first; all successors are scored."""

    tokens: Integer[Array, " n"]
    opening: int = eqx.field(static=True)
    length: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        allowed = f"from 2 to the {self.tokens.shape[-1]} tokens of the text"
        require(2 <= self.length <= self.tokens.shape[-1], "length", self.length, allowed)

    def sample(self, *, key: Key[Array, ""]) -> TokenPrompt:
        start = jax.random.randint(key, (), 0, self.tokens.shape[0] - self.length + 1)
        row = jax.lax.dynamic_slice(self.tokens, (start,), (self.length,)).astype(int).at[0].set(self.opening)
        return TokenPrompt(row, jnp.ones(self.length, bool))


def documents(folder: str | Path | None, most_bytes: int = MOST_BYTES) -> Iterator[str]:
    """The texts of a folder's files (.txt, .md, .rst, .py), or of Python's library, always in the same order.

    The order is that of hashes of their names, so that what is read first, and what is held out at the end, is of all
    kinds. Files that are no text are left out. Raises `BadInput` for a place that is no folder.
    """
    place = Path(folder or sysconfig.get_paths()["stdlib"])
    require(place.is_dir(), "text", str(place), "a folder with files .txt, .md, .rst or .py")
    total = 0

    def shuffled(path: Path) -> bytes:
        return hashlib.sha256(path.relative_to(place).as_posix().encode()).digest()

    for path in sorted(place.rglob("*"), key=shuffled):
        inside = path.relative_to(place).parts[:-1]
        kinds = KINDS if folder else (".py",)
        if path.suffix not in kinds or not path.is_file() or (not folder and set(inside) & set(LEFT_OUT)):
            continue
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        left, total = most_bytes - total, total + len(text.encode())
        text = text.encode()[:left].decode(errors="ignore") if total > most_bytes else text
        if text.strip():
            yield text
        if total >= most_bytes:
            return


def corpus(folder: str | Path | None = None, *, n_tokens: int = 2048, most_bytes: int = MOST_BYTES) -> Corpus:
    """The tokens of a folder, or of Python's library, with a tokenizer of `n_tokens` tokens; made once and then kept.

    There are fewer tokens where a text has no more pairs. Raises `BadInput` for a folder without text.
    """
    require(300 <= n_tokens <= 65_536, "n_tokens", n_tokens, "from 300 to 65536")
    texts = list(documents(folder, most_bytes))
    if not texts:
        raise BadInput(f"{folder or 'the library of Python'} holds no text (files .txt, .md, .rst or .py)")
    digest = hashlib.sha256(str(n_tokens).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    named = digest.hexdigest()[:24]
    place = cache_folder() / "corpora" / named
    if not (place / "tokens.npy").is_file():
        tokenizer = learned_pairs(texts, n_tokens)
        write_bytes(place / "tokenizer.json", json.dumps(json.loads(tokenizer.library.to_str())).encode())
        rows = [found.ids for found in tokenizer.library.encode_batch(texts, add_special_tokens=False)]
        begun = [np.array([tokenizer.opening, *row]) for row in rows]
        flat = np.concatenate(begun).astype(np.uint16)
        buffer = io.BytesIO()
        np.save(buffer, flat, allow_pickle=False)
        write_bytes(place / "tokens.npy", buffer.getvalue())  # last, so that what is there is whole
    tokens = np.load(place / "tokens.npy", mmap_mode="r", allow_pickle=False)
    return Corpus(tokens, read_tokenizer(place), str(folder or "sources of Python's library"), named)


def learned_pairs(texts: list[str], n_tokens: int) -> Tokenizer:
    """A byte-level tokenizer whose pairs are those of the texts; token 0 opens documents."""
    try:
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise BadInput("texts need the library tokenizers (extra lm): pip install tokenizers") from None
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens, special_tokens=[OPENINGS[0]], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    library.train_from_iterator(texts, trainer)
    return Tokenizer(library, "learned")
