"""What a probe looks at: a model, prompts for it, and what of a prompt belongs together."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from meta_icl.errors import BadInput, require
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
    require(tokens.shape[0] >= 2, "tokens", tokens.tolist(), "at least two")
    size = model.embed.shape[0]
    require(bool(np.all((tokens >= 0) & (tokens < size))), "tokens", tokens.tolist(), f"below {size} and not negative")
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
    prompts = TokenPrompt(jnp.asarray(tokens)[None], jnp.ones((1, len(tokens)), bool))
    return Subject(model, prompts, examples, classes[None], tuple(names))
