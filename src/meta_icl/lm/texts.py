"""Texts and repeated tokens before a language model: losses token by token, and what every head looks at."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from meta_icl.analysis.circuits import prefix_matching, previous_token
from meta_icl.errors import BadInput, require
from meta_icl.lm.answers import AT_ONCE, logits_at
from meta_icl.lm.loaded import LanguageModel
from meta_icl.models import Intervention
from meta_icl.models.depth import in_bits

MODULES = ("argparse", "ast", "asyncio", "decimal", "doctest", "inspect", "json", "logging", "pickle", "random")
AMONG = 16  # the early part of a window begins behind a sixteenth of it


def library_text() -> str:
    """Docstrings of modules of Python's library, which every machine has, in the same order."""
    texts = []
    for name in MODULES:
        module = importlib.import_module(name)
        members = [module, *(member for _, member in sorted(vars(module).items()) if inspect.isclass(member))]
        texts += [inspect.cleandoc(member.__doc__) for member in members if isinstance(member.__doc__, str)]
    return "\n\n".join(texts)


def text_of(path: str | Path | None) -> str:
    """The text of a file, or of Python's library without one; `BadInput` for what cannot be read as text."""
    if not path:
        return library_text()
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as text ({error})") from None


def windows_of(model: LanguageModel, text: str, length: int, most: int) -> Int[np.ndarray, "windows t"]:
    """Up to `most` windows of a text one after another, each of `length` tokens with the opening one.

    Raises `BadInput` for a text of fewer than two windows.
    """
    numbers = model.tokenizer.numbers(text)
    n = min(length, model.longest) - len(model.before)
    rows = [[*model.before, *numbers[i : i + n]] for i in range(0, min(len(numbers), most * n) - n + 1, n)]
    require(len(rows) >= 2, "text", f"one of {len(numbers)} tokens", f"at least {2 * n} tokens")
    return np.array(rows)


def token_losses(
    network: Any,
    tokens: Int[np.ndarray, "n t"],
    removed: Bool[np.ndarray, "layers heads"] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Float[np.ndarray, "n t-1"]:
    """Nats of every token but the first, with the answers of some heads (`z`) set to zero."""
    without = () if removed is None else (Intervention("z", removed[:, :, None, None]),)
    size, found, network = max(1, AT_ONCE // tokens.shape[1]), [], in_bits(network)
    for i in range(0, len(tokens), size):
        group = np.resize(tokens[i : i + size], (size, tokens.shape[1]))  # a last group is filled up
        found.append(np.asarray(_losses(network, jnp.asarray(group), without))[: len(tokens) - i])
        progress(min(i + size, len(tokens)), len(tokens))
    return np.concatenate(found)


def in_context_score(losses: Float[np.ndarray, "n t"]) -> Float[np.ndarray, " n"]:
    """The mean loss of the last quarter of each window less that of its first quarter without a sixteenth, in nats.

    Olsson et al. (2022) take token 500 less token 50 of 512, over many texts; over quarters, few windows are enough.
    """
    quarter = losses.shape[1] // 4
    return losses[:, -quarter:].mean(1) - losses[:, losses.shape[1] // AMONG : quarter].mean(1)


def repeated_tokens(model: LanguageModel, period: int, seeds: Sequence[int]) -> Int[np.ndarray, "n t"]:
    """The opening token and a block of distinct random tokens twice, a sequence per seed."""
    size = model.network.embedding.table.shape[0]
    require(2 <= period < size, "period", period, f"from 2 to {size - 1}, since tokens are distinct")
    blocks = [np.random.default_rng(seed).choice(np.arange(1, size), period, replace=False) for seed in seeds]
    return np.stack([np.concatenate([model.before, block, block]) for block in blocks]).astype(int)


def head_scores(
    network: Any, tokens: Int[np.ndarray, "n t"], period: int
) -> dict[str, Float[np.ndarray, "n layers heads"]]:
    """Prefix matching, attention to the previous token and to the first of every head on repeated tokens.

    `prefix_corrected` is prefix matching as a share of the attention that does not go to the first token, where heads
    put what has nothing to do.
    """
    network = in_bits(network)
    found = [jax.tree.map(np.asarray, _heads(network, jnp.asarray(row), period)) for row in tokens]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def among_their_layers(
    mask: Bool[np.ndarray, "layers heads"], rng: np.random.Generator
) -> Bool[np.ndarray, "layers heads"]:
    """As many random heads of the same layers, other ones as far as there are enough."""
    drawn = np.zeros_like(mask)
    for layer in np.flatnonzero(mask.any(1)):
        order = sorted(rng.permutation(mask.shape[1]), key=lambda head, own=mask[layer]: bool(own[head]))
        drawn[layer, order[: mask[layer].sum()]] = True
    return drawn


def strongest_heads(scores: Float[np.ndarray, "layers heads"], n: int) -> Bool[np.ndarray, "layers heads"]:
    """Which heads are the n with the highest scores."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores, axis=None, kind="stable")[:n]] = True
    return mask.reshape(scores.shape)


@eqx.filter_jit
def _losses(network: Any, tokens: Int[Array, "b t"], without: tuple[Intervention, ...]) -> Float[Array, "b t-1"]:
    def one(row: Array) -> Array:
        logs = jax.nn.log_softmax(logits_at(network, row, jnp.arange(row.shape[0] - 1), without)[0])
        return -jnp.take_along_axis(logs, row[1:, None], axis=1)[:, 0]

    return jax.vmap(one)(tokens)


@eqx.filter_jit
def _heads(network: Any, row: Int[Array, " t"], period: int) -> dict[str, Float[Array, "layers heads"]]:
    pattern = network(row)[1]["pattern"]
    start = row.shape[0] - 2 * period
    rest = jnp.maximum(1 - pattern[..., :1], 1e-6)
    return {
        "prefix": prefix_matching(pattern, period, start),
        "prefix_corrected": prefix_matching((pattern / rest).at[..., 0].set(0), period, start),
        "previous": previous_token(pattern),
        "first": pattern[..., 1:, 0].mean(-1),
    }
