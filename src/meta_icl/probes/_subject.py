"""What a probe looks at: a model, prompts for it, and what of a prompt belongs together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from meta_icl.errors import BadInput, require
from meta_icl.lm import Tokens
from meta_icl.models import InContextLearner
from meta_icl.models.blocks import LanguageModel
from meta_icl.prompt import Prompt, TokenPrompt


class Subject(NamedTuple):
    """A model and a batch of prompts, each of m examples and a query, its last token."""

    model: InContextLearner | LanguageModel
    prompts: Prompt | TokenPrompt
    examples: Int[np.ndarray, " context"]  # of every token but the last: its example 0 .. m-1, or -1
    classes: Int[np.ndarray, "prompts m"]  # of every example, for probes that compare examples of one class
    names: tuple[str, ...]  # of the examples, in the first prompt

    @property
    def network(self) -> Any:
        """The network inside the model, which reads rows."""
        return self.model.network

    def rows(self) -> Array:
        """What the network reads, "prompts t d"."""
        if isinstance(self.prompts, TokenPrompt):
            assert isinstance(self.model, LanguageModel)
            return jax.vmap(self.model.embedded)(self.prompts.tokens)
        assert isinstance(self.model, InContextLearner)
        return jax.vmap(lambda prompt: self.model.layout.encode(prompt.hidden()))(self.prompts)  # type: ignore[union-attr]


def learner_subject(learner: Any, prompts: Prompt) -> Subject:
    """An in-context learner and prompts of its task; the class of a pair is its label or the sign of its target."""
    require(isinstance(learner, InContextLearner), "model", type(learner).__name__, "one that reads tokens by a layout")
    m, y = prompts.x.shape[1] - 1, np.asarray(prompts.y)[:, :-1]
    classes = y if y.ndim == 2 else (y[..., 0] > 0).astype(int)
    examples = np.repeat(np.arange(m), learner.layout.tokens_per_pair)
    return Subject(learner, prompts, examples, classes, tuple(str(i + 1) for i in range(m)))


def language_subject(model: LanguageModel, tokens: Int[np.ndarray, " t"], separator: int | None = None) -> Subject:
    """A language model and one prompt of token numbers.

    Without a `separator` every token is an example, and equal tokens are of one class. With one, every example ends
    with that token and its class is the token before it, its label; what follows the last separator belongs to the
    query.
    """
    _require_tokens(model, tokens)
    context = tokens[:-1]
    if separator is None:
        examples, classes = np.arange(len(context)), context
        names = [f"{i + 1}: {token}" for i, token in enumerate(context)]
    else:
        ends = np.flatnonzero(context == separator)
        if not ends.size or np.any(np.diff(ends, prepend=-1) < 2):
            raise BadInput(f"separator must end one or more examples of at least one token each, got {separator}")
        examples = np.searchsorted(ends, np.arange(len(context)))
        examples = np.where(examples < ends.size, examples, -1)
        classes = context[ends - 1]
        names = [f"{i + 1}: {label}" for i, label in enumerate(classes)]
    return _of_tokens(model, tokens, examples, classes, names)


def text_subject(model: LanguageModel, tokens: Tokens, text: str, separator: str = "\n") -> Subject:
    """A language model and one prompt of text, with its `tokens`.

    Every example ends with the `separator`, its class is its last word, and what follows the last separator is the
    query. A text without a separator has an example in every token but the last, and equal tokens are of one class.
    A token belongs to the example in which it starts; tokens put before the text belong to none.
    """
    _require_tokens(model, tokens.numbers)
    require(separator != "", "separator", separator, "at least one character")
    *parts, query = text.split(separator)
    context = tokens.starts[:-1]
    if not parts:
        own = context >= 0
        require(bool(own.any()), "text", text, "more than one token")
        examples, classes = np.where(own, np.cumsum(own) - 1, -1), tokens.numbers[:-1][own]
        names = [_named(i, tokens.texts[at]) for i, at in enumerate(np.flatnonzero(own))]
        return _of_tokens(model, tokens.numbers, examples, classes, names)
    ends = np.cumsum([len(part) + len(separator) for part in parts])
    require(query != "" and bool(tokens.starts[-1] >= ends[-1]), "text", query, "a query after the last separator")
    for part in parts:
        require(part.strip() != "", "example", part, "a text that is not blank")
    owner = np.where(context >= 0, np.searchsorted(ends, context, side="right"), -1)
    examples = np.where(owner < len(parts), owner, -1)
    missing = sorted(set(range(len(parts))) - set(examples.tolist()))
    require(not missing, "example", [parts[i] for i in missing], "the start of at least one token")
    classes = np.unique([part.split()[-1] for part in parts], return_inverse=True)[1]
    return _of_tokens(model, tokens.numbers, examples, classes, [_named(i, part) for i, part in enumerate(parts)])


def _require_tokens(model: LanguageModel, tokens: np.ndarray) -> None:
    require(tokens.shape[0] >= 2, "tokens", tokens.tolist(), "at least two")
    size = model.embed.shape[0]
    require(bool(np.all((tokens >= 0) & (tokens < size))), "tokens", tokens.tolist(), f"below {size} and not negative")


def _of_tokens(
    model: LanguageModel, tokens: np.ndarray, examples: np.ndarray, classes: np.ndarray, names: Sequence[str]
) -> Subject:
    """One prompt of a language model."""
    prompts = TokenPrompt(jnp.asarray(tokens)[None], jnp.ones((1, len(tokens)), bool))
    return Subject(model, prompts, examples, classes[None], tuple(names))


def _named(i: int, text: str) -> str:
    """The name of example i, in few enough letters for an axis."""
    words = " ".join(text.split()) or repr(text)
    return f"{i + 1}: {words if len(words) <= 24 else words[:23] + '…'}"
