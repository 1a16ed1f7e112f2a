"""What a probe looks at: a model, prompts for it, what of a prompt belongs together, and what it is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from meta_icl.analysis.weights import shuffled
from meta_icl.errors import BadInput, require
from meta_icl.lm.prompts import TokenizedPrompt
from meta_icl.models import InContextLearner, Intervened, Intervention, Network, Trace
from meta_icl.models.depth import in_bits
from meta_icl.prompt import LabelledTokens, Prompt, TokenPrompt


@dataclass(frozen=True)
class Subject:
    """A model and a batch of prompts, each of m examples and a query that ends with the last token.

    `examples` holds the example 0 .. m-1 of every token but the last, or -1; `labels_at` the token that is the label
    (or target) of every example; `classes` "prompts m" the class of every example, for probes that compare examples of
    one class; `names` those of the examples of the first prompt. `loaded` weights are those of a checkpoint, whose twin
    is shuffled because nobody knows how it was drawn.
    """

    model: InContextLearner
    prompts: Any  # a batch of `Prompt` or `TokenPrompt`
    examples: Int[np.ndarray, " context"]
    labels_at: Int[np.ndarray, " m"]
    classes: Int[np.ndarray, "prompts m"]
    names: tuple[str, ...]
    loaded: bool = False

    @property
    def network(self) -> Any:
        """The network inside the model, which reads tokens."""
        return self.model.network

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return jax.tree.leaves(self.prompts)[0].shape[0]

    @property
    def is_language(self) -> bool:
        """Whether the prompts are tokens alone."""
        return isinstance(self.prompts, TokenPrompt)

    def tokens(self) -> Any:
        """What the network reads, with a leading axis of prompts; no target of a query is in it."""
        hidden = self.prompts if self.is_language else jax.vmap(Prompt.hidden)(self.prompts)
        return jax.vmap(self.model.layout.encode)(hidden)

    def rows(self) -> Array:
        """What the blocks read, "prompts t d": the residual stream before the first."""
        return jax.vmap(self.network.embedded)(self.tokens())

    def shape_of_trace(self) -> Trace:
        """The trace of one prompt, as shapes."""
        one = jax.tree.map(lambda leaf: leaf[0], self.tokens())
        return eqx.filter_eval_shape(lambda network, tokens: network(tokens)[1], self.network, one)

    def traced(self, read: Callable[[Any], Any], interventions: Sequence[Intervention] = (), tokens: Any = None) -> Any:
        """What `read(trace)` makes of the trace of every prompt, stacked; a few prompts at a time."""
        tokens = self.tokens() if tokens is None else tokens
        found = _traced(in_bits(self.network), tokens, tuple(interventions), read)
        return jax.tree.map(np.asarray, found)

    def losses(self, interventions: Sequence[Intervention] = ()) -> Float[Array, " prompts"]:
        """The loss of every prompt: half the squared error of the query, or nats of its label, or nats per token."""
        return _losses(self.model, self.prompts, tuple(interventions))

    @property
    def is_drawn(self) -> bool:
        """Whether the law of the network's first weights is known, so that its twin is drawn and not shuffled."""
        return isinstance(self.network, Network) and not self.loaded

    def twin(self, *, key: Key[Array, ""]) -> "Subject":
        """The same prompts before the same network untrained: drawn afresh, or shuffled where it was loaded."""
        network = self.network
        if self.is_drawn:
            fresh = network.config(key=key)
        else:
            fresh = shuffled(network, int(jax.random.randint(key, (), 0, 2**31 - 1)))
        return replace(self, model=InContextLearner(self.model.layout, fresh))


def require_site(subject: Subject, site: str, because: str) -> None:
    """Raise `BadInput` in one line unless the network's trace has a site."""
    require(
        isinstance(subject.model, InContextLearner), "model", type(subject.model).__name__, "a network and a layout"
    )
    require(site in subject.shape_of_trace(), "network", f"one without `{site}`", because)


def learner_subject(learner: Any, prompts: Any) -> Subject:
    """An in-context learner and prompts of its task; the class of a pair is its label or the sign of its target."""
    require(isinstance(learner, InContextLearner), "model", type(learner).__name__, "one that reads tokens by a layout")
    if isinstance(prompts, TokenPrompt):
        t = prompts.tokens.shape[1]
        classes = np.asarray(prompts.tokens)[:, :-1]
        return Subject(learner, prompts, np.arange(t - 1), np.arange(t - 1), classes, tuple(map(str, range(1, t))))
    m, y = prompts.x.shape[1] - 1, np.asarray(prompts.y)[:, :-1]
    classes = y if y.ndim == 2 else (y[..., 0] > 0).astype(int)
    per = learner.layout.tokens_per_pair
    examples = np.repeat(np.arange(m), per)
    return Subject(
        learner, prompts, examples, np.arange(m) * per + per - 1, classes, tuple(str(i + 1) for i in range(m))
    )


def language_subject(
    model: InContextLearner, tokens: Int[np.ndarray, " t"], separator: int | None = None, loaded: bool = True
) -> Subject:
    """A language model and one prompt of token numbers.

    Without a `separator` every token is an example, and equal tokens are of one class. With one, every example ends
    with that token and its class is the token before it, its label; what follows the last separator belongs to the
    query.
    """
    _require_tokens(model, tokens)
    context = tokens[:-1]
    if separator is None:
        examples = labels_at = np.arange(len(context))
        classes = context
        names = [f"{i + 1}: {token}" for i, token in enumerate(context)]
    else:
        ends = np.flatnonzero(context == separator)
        if not ends.size or np.any(np.diff(ends, prepend=-1) < 2):
            raise BadInput(f"separator must end one or more examples of at least one token each, got {separator}")
        examples = np.searchsorted(ends, np.arange(len(context)))
        examples = np.where(examples < ends.size, examples, -1)
        labels_at = ends - 1
        classes = context[labels_at]
        names = [f"{i + 1}: {label}" for i, label in enumerate(classes)]
    return _of_tokens(model, tokens, examples, labels_at, classes, names, loaded)


def text_subject(
    model: InContextLearner, tokens: Any, text: str, separator: str = "\n", loaded: bool = True
) -> Subject:
    """A language model and one prompt of text, with its `tokens` (`lm.Tokens`).

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
        return _of_tokens(model, tokens.numbers, examples, np.flatnonzero(own), classes, names, loaded)
    ends = np.cumsum([len(part) + len(separator) for part in parts])
    require(query != "" and bool(tokens.starts[-1] >= ends[-1]), "text", query, "a query after the last separator")
    for part in parts:
        require(part.strip() != "", "example", part, "a text that is not blank")
    owner = np.where(context >= 0, np.searchsorted(ends, context, side="right"), -1)
    examples = np.where(owner < len(parts), owner, -1)
    missing = sorted(set(range(len(parts))) - set(examples.tolist()))
    require(not missing, "example", [parts[i] for i in missing], "the start of at least one token")
    # The label is the last token that starts before the separator does.
    label_ends = ends - len(separator)
    labels_at = [int(np.flatnonzero((examples == i) & (context < label_ends[i]))[-1]) for i in range(len(parts))]
    classes = np.unique([part.split()[-1] for part in parts], return_inverse=True)[1]
    named = [_named(i, part) for i, part in enumerate(parts)]
    return _of_tokens(model, tokens.numbers, examples, np.array(labels_at), classes, named, loaded)


def prompt_subject(
    model: InContextLearner, prompt: TokenizedPrompt, texts: Sequence[str], classes: Sequence[str], loaded: bool = True
) -> Subject:
    """A language model and one few-shot prompt whose tokens are known to belong to its examples.

    An example is its question, answer and the separator behind it, whatever lines they have; its label is the last
    token of the answer. `texts` name the examples of the context, `classes` are their answers.
    """
    _require_tokens(model, prompt.tokens)
    m = len(texts)
    examples = prompt.example_of[:-1]
    labels_at = np.array([answer.stop - 1 for answer in prompt.of("answer")[:m]])
    numbers = np.unique(np.array(classes), return_inverse=True)[1]
    named = [_named(i, text) for i, text in enumerate(texts)]
    return _of_tokens(model, prompt.tokens, np.where(examples < m, examples, -1), labels_at, numbers, named, loaded)


def _require_tokens(model: InContextLearner, tokens: np.ndarray) -> None:
    require(tokens.shape[0] >= 2, "tokens", tokens.tolist(), "at least two")
    size = model.network.embedding.table.shape[0]
    require(bool(np.all((tokens >= 0) & (tokens < size))), "tokens", tokens.tolist(), f"below {size} and not negative")


def _of_tokens(
    model: InContextLearner,
    tokens: np.ndarray,
    examples: np.ndarray,
    labels_at: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    loaded: bool,
) -> Subject:
    """One prompt of a language model."""
    prompts = TokenPrompt(jnp.asarray(tokens)[None], jnp.ones((1, len(tokens)), bool))
    return Subject(model, prompts, examples, labels_at, classes[None], tuple(names), loaded)


def _named(i: int, text: str) -> str:
    """The name of example i, in few enough letters for an axis."""
    words = " ".join(text.split()) or repr(text)
    return f"{i + 1}: {words if len(words) <= 24 else words[:23] + '…'}"


@eqx.filter_jit
def _traced(network: Any, tokens: Any, interventions: tuple[Intervention, ...], read: Callable[[Any], Any]) -> Any:
    return jax.lax.map(lambda one: read(network(one, interventions)[1]), tokens, batch_size=8)


@eqx.filter_jit
def _losses(model: InContextLearner, prompts: Any, interventions: tuple[Intervention, ...]) -> Float[Array, " p"]:
    changed = eqx.tree_at(lambda m: m.network, model, Intervened(model.network, interventions))

    def one(prompt: Any) -> Array:
        seen = prompt if isinstance(prompt, TokenPrompt) else prompt.hidden()
        return loss_of_answer(changed(seen), prompt)

    return jax.lax.map(one, prompts, batch_size=8)


def loss_of_answer(answer: Float[Array, "..."], prompt: Any) -> Float[Array, ""]:
    """Half the squared error of the query; nats of its label; or nats per token that is asked for."""
    if isinstance(prompt, TokenPrompt):
        labelled = isinstance(prompt, LabelledTokens)
        asked = prompt.labels if labelled else jnp.roll(prompt.tokens, -1)
        scored = prompt.loss_mask if labelled else prompt.loss_mask.at[-1].set(False)
        nats = -jnp.take_along_axis(jax.nn.log_softmax(answer), asked[:, None], axis=-1)[:, 0]
        return jnp.sum(jnp.where(scored, nats, 0)) / jnp.maximum(jnp.sum(scored), 1).astype(nats.dtype)
    answer, target = (answer[-1] if answer.ndim == 2 else answer), prompt.y[-1]
    if jnp.issubdtype(prompt.y.dtype, jnp.integer):
        return -jax.nn.log_softmax(answer)[target]
    return 0.5 * jnp.sum(jnp.square(answer - target))
