"""A language model with what its prompts need: network, tokenizer, opening token, longest prompt.

The name `tiny` is a random model made on the spot, whose tokens are bytes: for trying what runs, not for what it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax

from meta_icl.adapters.transformers import TransformersNetwork
from meta_icl.errors import BadInput, require
from meta_icl.lm.configurations import FAMILIES
from meta_icl.lm.files import read_checkpoint, read_config
from meta_icl.lm.networks import network_of
from meta_icl.lm.packages import located
from meta_icl.lm.tokenizer import OPENINGS, Tokenizer, read_tokenizer
from meta_icl.models import InContextLearner, Network, TokenLayout, llama

TINY = "tiny"


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A network of tokens, its tokenizer, the token that opens its prompts, and how many tokens it takes."""

    network: Any  # a `Network`, or a `TransformersNetwork` as far as that goes
    tokenizer: Tokenizer
    opening: int | None
    longest: int

    @property
    def learner(self) -> InContextLearner:
        """The network as a predictor."""
        return InContextLearner(TokenLayout(), self.network)

    @property
    def before(self) -> list[int]:
        """The opening token, or nothing."""
        return [] if self.opening is None else [self.opening]


@lru_cache(maxsize=1)
def language_model(name: str | Path) -> LanguageModel:
    """The model of a folder, a `.gguf` file, a fetched name, or `tiny`; the last one asked for is kept.

    Raises `BadInput` for what is no model of a family that is read here, or has no tokenizer.
    """
    if str(name) == TINY and not Path(name).exists():
        return tiny()
    checkpoint, tokenizer = read_checkpoint(name), read_tokenizer(name)
    return LanguageModel(network_of(checkpoint), tokenizer, tokenizer.opening, checkpoint.shape.n_positions)


class Opened(NamedTuple):
    """A network of any family, how many tokens it is for, where it says so, and what of its checkpoint was ignored."""

    network: Network | TransformersNetwork
    longest: int | None
    notes: tuple[str, ...]
    family: str
    heads: int  # of a layer


def any_network(name: str | Path, *, dtype: str = "float32") -> Opened:
    """The network of a checkpoint of any family.

    A folder of a family that is not read here goes through the library transformers (extra `torch`). Raises `BadInput`
    where that is missing or cannot load it, and for what `read_checkpoint` and `network_of` refuse.
    """
    path = located(name)
    kind = read_config(path).get("model_type") if (path / "config.json").is_file() else None
    if kind is None or kind in (*FAMILIES, "gemma3"):
        checkpoint = read_checkpoint(path)
        shape, network = checkpoint.shape, network_of(checkpoint, dtype=dtype)
        return Opened(network, shape.n_positions, checkpoint.notes, shape.family, shape.n_heads)
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise BadInput(
            f"{kind} is none of the families that are read here ({', '.join(FAMILIES)}): the library transformers may "
            "know it (extra torch): pip install torch transformers"
        )
    require(dtype == "float32", "dtype", dtype, f"float32 for {kind}, which goes through transformers")
    network = TransformersNetwork.load(path)
    note, stated = f"{kind} is read through the library transformers", network.model.config
    longest = getattr(stated, "max_position_embeddings", None)
    return Opened(network, longest, (note,), str(kind), stated.num_attention_heads)


def tiny(*, seed: int = 0, n_layers: int = 3) -> LanguageModel:
    """A random Llama of a few layers and two heads, whose tokens are bytes and one that opens documents."""
    tokenizer = bytes_tokenizer()
    network = llama(tokenizer.n_tokens, 16, n_layers, 2, 32, tied=True)(key=jax.random.key(seed))
    return LanguageModel(network, tokenizer, tokenizer.opening, 4096)


def bytes_tokenizer() -> Tokenizer:
    """Every byte a token, behind one that opens documents."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: i for i, text in enumerate((OPENINGS[0], *letters))}
    library = Library(models.BPE(vocab=vocabulary, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(OPENINGS[0], special=True)])
    return Tokenizer(library, "bytes")


def undecided_by(name: str) -> str | None:
    """Why a model decides no claim, or nothing."""
    return "the model is a random one, made to try what runs" if name == TINY else None


def model_of(config: Mapping[str, Any]) -> str | None:
    """The language model that a run of a paper asked, by the run's configuration; nothing where it asked none."""
    return config["config"].get("model")
