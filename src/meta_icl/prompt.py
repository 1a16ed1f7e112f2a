"""The nouns that every room shares: a prompt, and anything that answers one.

A `Prompt` is one in-context problem; a `Predictor` is any callable that answers it. Trained networks, gradient
descent, ridge regression, a hand-built construction and a plain function of the user's all have this one signature,
so any two of them can be compared on the same prompts.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from meta_icl.errors import require


class Pairs(NamedTuple):
    """Inputs with their targets: several rows (`prompt.context`) or a single one (`prompt.query`)."""

    x: Float[Array, "*rows dx"]
    y: Shaped[Array, "..."]


class Prompt(eqx.Module):
    """One in-context problem of n rows; the last row is the query, the rows before it are the context.

    `x` has shape "n dx"; `y` holds real targets of shape "n dy", or integer labels of shape "n".
    """

    x: Float[Array, "*batch n dx"]
    y: Float[Array, "*batch n dy"] | Int[Array, "*batch n"]

    @property
    def n_context(self) -> int:
        """Number of context rows, n - 1."""
        return self.x.shape[-2] - 1

    @property
    def context(self) -> Pairs:
        """The n - 1 rows that come with their targets."""
        return Pairs(self.x[:-1], self.y[:-1])

    @property
    def query(self) -> Pairs:
        """The last row: its input, and the target that a predictor is asked for."""
        return Pairs(self.x[-1], self.y[-1])

    def hidden(self) -> "Prompt":
        """The same prompt with the query's target set to zero: what a predictor is allowed to see."""
        return eqx.tree_at(lambda prompt: prompt.y, self, self.y.at[-1].set(jnp.zeros((), self.y.dtype)))


class PlacedPrompt(Prompt):
    """A prompt whose first token stands at a position of its own, the `offset`, for networks that see positions."""

    offset: Int[Array, "*batch"]


class TokenPrompt(eqx.Module):
    """One problem made of discrete tokens of shape "t"; `loss_mask` marks the positions whose successor is scored."""

    tokens: Int[Array, "*batch t"]
    loss_mask: Bool[Array, "*batch t"]


class LabelledTokens(TokenPrompt):
    """Tokens with a label at every position; the labels where `loss_mask` holds are asked for, not the next tokens."""

    labels: Int[Array, "*batch t"]


@runtime_checkable
class Predictor(Protocol):
    """Anything that answers prompts.

    Called on a prompt with y of shape "n dy" it returns the query's prediction, "dy", or the prediction of every
    position, "n dy", whose row k has seen the rows before k and x_k only. With integer labels of shape "n" the
    predictions are logits, "classes" or "n classes".
    """

    def __call__(self, prompt: Prompt, /) -> Float[Array, "..."]: ...


class Task(eqx.Module):
    """A distribution over prompts. Numbers that a sweep may vary are array leaves; sizes are static fields."""

    def at_step(self, step: Int[Array, ""]) -> "Task":
        """The task as it stands at a (traced) step of training; tasks with a curriculum override it."""
        del step
        return self

    def position_weights(self, n: int) -> Float[Array, " n"]:
        """How much each of n rows counts in an every-position loss; a curriculum gives later rows zero."""
        return jnp.ones(n)

    def sample(self, *, key: Key[Array, ""]) -> Prompt:
        """Draw ONE prompt."""
        raise TypeError(f"{type(self).__name__} does not define sample(*, key)")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        """Draw `n` independent prompts, stacked on a leading axis, by one program per `n`."""
        return jax.vmap(lambda k: self.sample(key=k))(jax.random.split(key, n))


class BatchTask(Task):
    """A task that draws all prompts of a batch at once: it defines `sample_batch`, and one prompt is a batch of one."""

    def sample(self, *, key: Key[Array, ""]) -> Prompt:
        """Draw ONE prompt."""
        return jax.tree.map(lambda leaf: leaf[0], self.sample_batch(1, key=key))

    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        """Draw `n` independent prompts, stacked on a leading axis; compiled by the task that defines it."""
        raise TypeError(f"{type(self).__name__} does not define sample_batch(n, *, key)")


class TokenTask(Task):
    """A distribution over problems made of discrete tokens."""

    def sample(self, *, key: Key[Array, ""]) -> TokenPrompt:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw ONE problem."""
        raise TypeError(f"{type(self).__name__} does not define sample(*, key)")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> TokenPrompt:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw `n` independent problems, stacked on a leading axis."""
        return jax.vmap(lambda k: self.sample(key=k))(jax.random.split(key, n))


def query_prediction(predictor: Predictor, prompt: Prompt) -> Float[Array, " dy"]:
    """The predictor's answer for the query, which never gets to see the query's target.

    An every-position predictor is recognised by its two-dimensional answer and contributes its last row.
    """
    answer = jnp.asarray(predictor(prompt.hidden()))
    return answer[-1] if answer.ndim == 2 else answer


class Ensemble(eqx.Module):
    """Several predictors of one structure, such as one network trained from several seeds.

    `stacked` is the predictor with a leading "members" axis on every array leaf. Called on a prompt it answers
    "members ..."; indexing returns one member, itself a plain predictor.
    """

    stacked: Any

    def __len__(self) -> int:
        return jax.tree.leaves(eqx.filter(self.stacked, eqx.is_array))[0].shape[0]

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"member {index} of an ensemble of {len(self)}")
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.stacked)

    def __call__(self, prompt: Prompt) -> Float[Array, "members ..."]:
        return eqx.filter_vmap(lambda member: member(prompt))(self.stacked)


def answer_batch(predictor: Predictor, prompts: Prompt) -> Float[Array, "*members b dy"]:
    """The predictor's answers for the queries of a batch of prompts, whose targets it never gets to see.

    An ensemble contributes a leading axis of members.

    The one place where a predictor meets a batch: by its own method `batched(prompts)` where it has one (networks with
    a lean form, wrapped libraries), else by `vmap` of its one-prompt call, else, for a plain function that needs
    concrete numbers (numpy), one prompt after the other.
    """
    if isinstance(predictor, Ensemble):
        return jnp.stack([answer_batch(predictor[i], prompts) for i in range(len(predictor))])
    answers = _answers(predictor, prompts)
    return answers[:, -1] if answers.ndim == 3 else answers


def answer_positions(predictor: Predictor, prompts: Prompt) -> Float[Array, "b n dy"]:
    """The answers of an every-position predictor for a batch of prompts: row k has seen the rows before k and x_k only.

    Raises `BadInput` for a predictor that answers the query alone.
    """
    answers = _answers(predictor, prompts)
    require(answers.ndim == 3, "predictor", type(predictor).__name__, "one that answers every position")
    return answers


def _answers(predictor: Predictor, prompts: Prompt) -> Float[Array, "b ..."]:
    """The answers of a single predictor for a batch, by whichever way it offers."""
    hidden = jax.vmap(Prompt.hidden)(prompts)
    batched = getattr(predictor, "batched", None)
    try:
        answers = jnp.asarray(_each(predictor, hidden) if batched is None else batched(hidden))
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], hidden) for i in range(prompts.x.shape[0])]
        answers = jnp.stack([jnp.asarray(predictor(prompt)) for prompt in each])
    return answers


def _each(predictor: Any, prompts: Any) -> Any:
    """One prompt's answer after the other by `vmap`, compiled for modules; for a function it would be at every call."""
    return _each_compiled(predictor, prompts) if isinstance(predictor, eqx.Module) else jax.vmap(predictor)(prompts)


@eqx.filter_jit
def _each_compiled(predictor: Any, prompts: Any) -> Any:
    return jax.vmap(predictor)(prompts)


def answer_tokens(predictor: Any, prompts: TokenPrompt) -> Float[Array, "b t vocabulary"]:
    """The next-token logits of a batch of token prompts: by the predictor's own `batched`, else by `vmap` of its call.

    A predictor of tokens maps a `TokenPrompt` to logits "t vocabulary"; row i has seen the tokens up to and with i.
    """
    batched = getattr(predictor, "batched", None)
    return _each(predictor, prompts) if batched is None else batched(prompts)


def take_rows(prompt: Prompt, rows: slice) -> Prompt:
    """Some rows of a prompt, or of every prompt of a batch; the last one taken becomes the query."""
    labels = jnp.issubdtype(prompt.y.dtype, jnp.integer)
    taken = prompt.x[..., rows, :], prompt.y[..., rows] if labels else prompt.y[..., rows, :]
    return eqx.tree_at(lambda whole: (whole.x, whole.y), prompt, taken)


def truncated(prompt: Prompt, n_context: int) -> Prompt:
    """The prompt with its last `n_context` pairs only; the query stays the same (works on batches too)."""
    return take_rows(prompt, slice(-(n_context + 1), None))
