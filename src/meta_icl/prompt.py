"""The nouns that every room shares: a prompt, and anything that answers one.

A `Prompt` is one in-context problem; a `Predictor` is any callable that answers it. Trained networks, gradient
descent, ridge regression, a hand-built construction and a plain function of the user's all have this one signature,
so any two of them can be compared on the same prompts.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from meta_icl import conversions
from meta_icl.errors import BadInput, require

BLOCK = 2048  # prompts that a predictor answers at once; of larger batches the answers are put together
# What a function raises that computes with numpy, or asks for the value of a number, while it is being traced.
ON_HOST = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
)


class Pairs(NamedTuple):
    """Inputs with their targets: several rows (`prompt.context`) or a single one (`prompt.query`)."""

    x: Float[Array, "*rows dx"]
    y: Shaped[Array, "..."]


class Prompt(eqx.Module):
    """One in-context problem of n rows; the last row is the query, the rows before it are the context.

    `x` has shape "n dx"; `y` holds real targets of shape "n dy", or integer labels 0, 1, .. of shape "n". Arrays of
    numpy and lists are converted. Of shape "n dy" targets are real whatever their type; of shape "n" integers are
    labels, and real numbers are one channel, "n 1". Raises `BadInput` where shapes, types or labels do not fit.
    """

    x: Float[Array, "*batch n dx"]
    y: Float[Array, "*batch n dy"] | Int[Array, "*batch n"]

    def __init__(self, x: Any, y: Any):
        self.x, self.y = conversions.pairs(x, y)

    @property
    def n_context(self) -> int:
        """Number of context rows, n - 1."""
        return self.x.shape[-2] - 1

    @property
    def has_labels(self) -> bool:
        """Whether the targets are integer labels, not real numbers."""
        return self.y.ndim < self.x.ndim

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

    def __init__(self, x: Any, y: Any, offset: Any):
        super().__init__(x, y)
        self.offset = jnp.asarray(offset)


class TokenPrompt(eqx.Module):
    """One problem made of discrete tokens of shape "t"; `loss_mask` marks the positions whose successor is scored."""

    tokens: Int[Array, "*batch t"]
    loss_mask: Bool[Array, "*batch t"]

    def __init__(self, tokens: Any, loss_mask: Any):
        self.tokens, self.loss_mask = conversions.tokens(tokens, loss_mask)


class LabelledTokens(TokenPrompt):
    """Tokens with a label at every position; the labels where `loss_mask` holds are asked for, not the next tokens."""

    labels: Int[Array, "*batch t"]

    def __init__(self, tokens: Any, loss_mask: Any, labels: Any):
        super().__init__(tokens, loss_mask)
        self.labels = conversions.tokens(labels, loss_mask)[0]


@runtime_checkable
class Predictor(Protocol):
    """Anything that answers prompts.

    Called on a prompt with y of shape "n dy" it returns the query's prediction, "dy", or the prediction of every
    position, "n dy", whose row k has seen the rows before k and x_k only. With integer labels of shape "n" the
    predictions are logits, "classes" or "n classes". One channel may be answered as a plain number.

    A predictor that is faster on many prompts at once has a method `batched(prompts)` as well, which gets prompts with
    a leading axis and answers "b dy" or "b n dy".
    """

    def __call__(self, prompt: Prompt, /) -> Float[Array, "..."]: ...


class Task(eqx.Module):
    """A distribution over prompts. Numbers that a sweep may vary are array leaves; sizes are static fields.

    A field written plainly is taken as it is meant: of type int, bool or str it is a size or an option and static;
    a real number or an array of numpy becomes an array leaf. `eqx.field(..)` says otherwise.
    """

    def __init_subclass__(cls, **arguments: Any):
        super().__init_subclass__(**arguments)
        for name, kind in inspect.get_annotations(cls).items():
            given = vars(cls).get(name, dataclasses.MISSING)
            if isinstance(given, dataclasses.Field) or "ClassVar" in str(kind):
                continue
            default: dict[str, Any] = {} if given is dataclasses.MISSING else {"default": given}
            if kind in (int, bool, str, "int", "bool", "str"):
                setattr(cls, name, eqx.field(static=True, **default))
            else:
                setattr(cls, name, eqx.field(converter=conversions.leaf_of(kind), **default))

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

    def batches(self, batch: int, n: int, *, key: Key[Array, ""]) -> Iterator[dict[str, np.ndarray]]:
        """`n` batches of `batch` prompts as dictionaries of numpy arrays, to train in any framework on this task.

        Entries are the fields of a prompt with a leading axis: x, y, or tokens, loss_mask (and labels, offset). Batch i
        is drawn from `key` with i folded in, from the task as it stands at step i.
        """
        conversions.require_count("batch", batch)
        for i in range(n):
            prompts = self.at_step(jnp.asarray(i)).sample_batch(batch, key=jax.random.fold_in(key, i))
            yield {field.name: np.asarray(getattr(prompts, field.name)) for field in dataclasses.fields(prompts)}


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

    def sample(self, *, key: Key[Array, ""]) -> TokenPrompt:  # pyrefly: ignore[bad-override]
        """Draw ONE problem."""
        raise TypeError(f"{type(self).__name__} does not define sample(*, key)")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> TokenPrompt:  # pyrefly: ignore[bad-override]
        """Draw `n` independent problems, stacked on a leading axis."""
        return jax.vmap(lambda k: self.sample(key=k))(jax.random.split(key, n))


def query_prediction(predictor: Predictor, prompt: Prompt) -> Float[Array, " dy"]:
    """The predictor's answer for the query, which never gets to see the query's target.

    An every-position predictor is recognised by its two-dimensional answer and contributes its last row.
    """
    answer = fitting(predictor, as_array(predictor, prompt.hidden())[None], prompt)[0]
    return answer[-1] if answer.ndim == 2 else answer


class Ensemble(eqx.Module):
    """Several predictors of one structure, such as one network trained from several seeds.

    `stacked` is the predictor with a leading "members" axis on every array leaf. Called on a prompt it answers
    "members ..."; a number as index returns one member, itself a plain predictor, a slice or a list an ensemble.
    """

    stacked: Any

    def __len__(self) -> int:
        return jax.tree.leaves(eqx.filter(self.stacked, eqx.is_array))[0].shape[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice | list | tuple | np.ndarray):
            return self.subset(np.arange(len(self))[np.asarray(index) if not isinstance(index, slice) else index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"member {index} of an ensemble of {len(self)}")
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.stacked)

    def subset(self, members: Int[np.ndarray, " k"]) -> "Ensemble":
        """The ensemble of some members, by their numbers."""
        require(len(members) > 0, "index", members.tolist(), f"one or more of the {len(self)} members")
        return Ensemble(jax.tree.map(lambda leaf: leaf[members] if eqx.is_array(leaf) else leaf, self.stacked))

    def __call__(self, prompt: Prompt) -> Float[Array, "members ..."]:
        return eqx.filter_vmap(lambda member: member(prompt))(self.stacked)


def answer_batch(predictor: Predictor, prompts: Prompt) -> Float[Array, "*members b dy"]:
    """The predictor's answers for the queries of a batch of prompts, whose targets it never gets to see.

    An ensemble contributes a leading axis of members.

    The one place where a predictor meets a batch: by its own method `batched(prompts)` where it has one (networks with
    a lean form, wrapped libraries), else by `vmap` of its one-prompt call, else, for a plain function that needs
    concrete numbers (numpy), one prompt after the other; in blocks of prompts where there are many. Raises `BadInput`
    where answers do not have the shape of the targets.
    """
    if isinstance(predictor, Ensemble):
        return jnp.stack([answer_batch(predictor[i], prompts) for i in range(len(predictor))])
    answers = answers_of(predictor, prompts)
    return answers[:, -1] if answers.ndim == 3 else answers


def answer_positions(predictor: Predictor, prompts: Prompt) -> Float[Array, "b n dy"]:
    """The answers of an every-position predictor for a batch of prompts: row k has seen the rows before k and x_k only.

    Raises `BadInput` for a predictor that answers the query alone.
    """
    answers = answers_of(predictor, prompts)
    require(answers.ndim == 3, "predictor", called(predictor), "one that answers every position")
    return answers


def answers_of(predictor: Predictor, prompts: Prompt, *, hidden: bool = True) -> Float[Array, "b ..."]:
    """The answers of a single predictor for a batch, "b dy" or "b n dy", by whichever way it offers.

    Only the search for leaks leaves the queries' targets in their place (`hidden=False`).
    """
    seen = jax.vmap(Prompt.hidden)(prompts) if hidden else prompts
    batched = getattr(predictor, "batched", None)
    try:
        way = (lambda block: _each(predictor, block)) if batched is None else batched
        answers = in_blocks(lambda block: jnp.asarray(way(block)), seen)
    except ON_HOST:
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], seen) for i in range(prompts.x.shape[0])]
        answers = jnp.stack([as_array(predictor, prompt) for prompt in each])
    return fitting(predictor, answers, prompts)


def in_blocks(function: Callable[[Any], Any], prompts: Any) -> Any:
    """A function of a batch of prompts, whose results have the batch in front, on at most `BLOCK` prompts at once.

    All blocks have one length, so that one program serves them; what is being traced stays whole.
    """
    leaves = jax.tree.leaves(prompts)
    n = leaves[0].shape[0]
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return function(_spread(prompts))
    if n <= BLOCK:
        return function(prompts)
    blocks = -(-n // BLOCK)
    length = -(-n // blocks)
    again = blocks * length - n  # prompts of the last block that the one before has had
    starts = [min(i * length, n - length) for i in range(blocks)]
    results = [function(jax.tree.map(lambda leaf, s=start: leaf[s : s + length], prompts)) for start in starts]
    return jax.tree.map(lambda *parts: jnp.concatenate([*parts[:-1], parts[-1][again:]]), *results)


def _spread(prompts: Any) -> Any:
    """A batch that is being traced, spread over the devices of the axis `prompts` of the mesh in use, if it has one."""
    shares = jax.sharding.get_abstract_mesh().shape.get("prompts", 1)
    if shares == 1 or any(leaf.shape[0] % shares for leaf in jax.tree.leaves(prompts)):
        return prompts
    return jax.lax.with_sharding_constraint(prompts, jax.sharding.PartitionSpec("prompts"))


def fitting(predictor: Any, answers: Shaped[Array, "b ..."], prompts: Prompt) -> Float[Array, "b ..."]:
    """The answers to a batch if they have the shape that the targets ask for, numbers for one channel as "1".

    Raises `BadInput` in one line that names the shape got and the shape wanted.
    """
    n, shape = prompts.x.shape[-2], answers.shape[1:]
    answers = answers if jnp.issubdtype(answers.dtype, jnp.inexact) else answers.astype(jnp.result_type(float))
    if prompts.has_labels:
        known = not isinstance(prompts.y, Tracer) and prompts.y.size > 0
        classes = int(np.asarray(prompts.y).max()) + 1 if known else 1
        fits = shape[:-1] in ((), (n,)) and len(shape) > 0 and shape[-1] >= classes
        kinds = f"at least {classes} logits"
        wanted = f"(classes,) for the query or ({n}, classes) for every position, with {kinds}"
    else:
        dy = prompts.y.shape[-1]
        if shape == () and dy == 1:
            return answers[:, None]
        fits = shape in ((dy,), (n, dy))
        wanted = f"({dy},) for the query or ({n}, {dy}) for every position"
    if not fits:
        raise BadInput(f"the answer of {called(predictor)} to one prompt has shape {shape}, wanted {wanted}")
    return answers


def as_array(predictor: Any, prompt: Any) -> Array:
    """One answer as an array; a plain function may return numbers, lists or arrays of any library."""
    answer = predictor(prompt)
    try:
        return jnp.asarray(answer)
    except ON_HOST:
        raise
    except (TypeError, ValueError):
        hint = "; a network that returns (output, trace) needs a layout" if isinstance(answer, tuple) else ""
        raise BadInput(f"{called(predictor)} must return an array, got {type(answer).__name__}{hint}") from None


def called(predictor: Any) -> str:
    """What to call a predictor in a message: the name of a function, else of its class."""
    return getattr(predictor, "__name__", type(predictor).__name__)


def _each(predictor: Any, prompts: Any) -> Any:
    """One prompt's answer after the other by `vmap`, compiled for modules; for a function it would be at every call."""
    one = _each_compiled if isinstance(predictor, eqx.Module) else _each_plain
    return one(predictor, prompts)


def _each_plain(predictor: Any, prompts: Any) -> Any:
    return jax.vmap(lambda prompt: as_array(predictor, prompt))(prompts)


_each_compiled = eqx.filter_jit(_each_plain)


def answer_tokens(predictor: Any, prompts: TokenPrompt) -> Float[Array, "b t vocabulary"]:
    """The next-token logits of a batch of token prompts: by the predictor's own `batched`, else by `vmap` of its call.

    A predictor of tokens maps a `TokenPrompt` to logits "t vocabulary"; row i has seen the tokens up to and with i.
    """
    batched = getattr(predictor, "batched", None)
    answers = in_blocks(lambda block: _each(predictor, block) if batched is None else batched(block), prompts)
    shape, t = answers.shape[1:], prompts.tokens.shape[-1]
    if len(shape) != 2 or shape[0] != t:
        raise BadInput(f"the answer of {called(predictor)} to one prompt has shape {shape}, wanted ({t}, vocabulary)")
    return answers


def take_rows(prompt: Prompt, rows: slice) -> Prompt:
    """Some rows of a prompt, or of every prompt of a batch; the last one taken becomes the query."""
    taken = prompt.x[..., rows, :], prompt.y[..., rows] if prompt.has_labels else prompt.y[..., rows, :]
    return eqx.tree_at(lambda whole: (whole.x, whole.y), prompt, taken)


def truncated(prompt: Prompt, n_context: int) -> Prompt:
    """The prompt with its last `n_context` pairs only; the query stays the same (works on batches too)."""
    return take_rows(prompt, slice(-(n_context + 1), None))
