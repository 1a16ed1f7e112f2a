"""Compare any predictors on the same prompts: losses, and distances to a reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from meta_icl.conversions import random_key
from meta_icl.errors import BadInput, choose, fitting, require
from meta_icl.evaluation import distances
from meta_icl.evaluation.estimates import Estimate, covered, estimate, ratio
from meta_icl.evaluation.leaks import leaks
from meta_icl.prompt import ON_HOST, Ensemble, Prompt, Task, answer_batch, called, in_blocks

MEASURES = ("loss", "loss_ratio", "accuracy", "prediction_difference", "model_difference", "sensitivity_cosine")


@dataclass(frozen=True)
class Comparison:
    """`rows[predictor][measure]`, on the same prompts; distances are to the predictor named `reference`.

    The loss is half the squared error, or with labels the cross-entropy in nats; then there is `accuracy` too. `notes`
    tell of predictors that read what they may not know.
    """

    rows: dict[str, dict[str, Estimate]]
    reference: str
    n_prompts: int
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> dict[str, Estimate]:
        return self.rows[choose("predictor", name, self.rows)]

    @property
    def interval(self) -> str:
        """What the printed intervals cover."""
        return covered(self.n_prompts, [len(row["loss"].members) for row in self.rows.values()])

    def __str__(self) -> str:
        shown = [measure for measure in MEASURES if any(measure in row for row in self.rows.values())]
        headers = ["predictor", *(measure.replace("_", " ") for measure in shown)]
        cells = [[name, *(str(row[measure]) for measure in shown)] for name, row in self.rows.items()]
        widths = [max(len(line[i]) for line in [headers, *cells]) for i in range(len(headers))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in [headers, ["-" * width for width in widths], *cells]
        ]
        return "\n".join([*lines, f"{self.interval}; differences are to {self.reference}", *self.notes])


def compare(
    predictors: Any,
    task: Task,
    *,
    key: Key[Array, ""] | int,
    n_prompts: int = 10_000,
    reference: str | None = None,
) -> Comparison:
    """Evaluate all `predictors` on the same `n_prompts` prompts of `task`.

    Predictors are callables on a prompt: trained ensembles, algorithms, or a plain function of your own, which may use
    jax.numpy or numpy; a list of them is named by their classes. The points of a sweep are compared apart. Distances
    are to `reference` (default: the last name). Sensitivities of a function that jax cannot differentiate are left out
    ("-"). Every predictor is checked for reading the query's target or later rows; what is found stands in `notes`.
    """
    chosen = points_apart(named(predictors))
    if not chosen:
        raise BadInput("compare needs at least one predictor")
    reference = choose("reference", reference, chosen) if reference is not None else list(chosen)[-1]
    prompts = drawn(task, n_prompts, key)
    notes, measured = [], {}
    for name, predictor in chosen.items():
        require(callable(predictor), f"predictor {name!r}", called(predictor), "callable on a prompt")
        with fitting(f"predictor {name!r} does not fit {called(task)}"):
            notes.append(_note(name, predictor, prompts))
            measured[name] = _measure(predictor, prompts)
    base_answers, base_sensitivities = measured[reference]
    base_loss = distances.query_losses(base_answers[0], prompts)
    rows = {}
    for name, (answers, gradients) in measured.items():
        losses = [distances.query_losses(a, prompts) for a in answers]
        alike = answers[0].shape == base_answers[0].shape
        pairs = [(g, base_sensitivities[0]) for g in gradients] if gradients and base_sensitivities and alike else []
        apart = [distances.prediction_difference(a, base_answers[0]) for a in answers] if alike else []
        rows[name] = {
            "loss": estimate(losses),
            "loss_ratio": ratio(losses, base_loss),
            "prediction_difference": estimate(apart),
            "model_difference": estimate([distances.model_difference(*pair) for pair in pairs]),
            "sensitivity_cosine": estimate([distances.sensitivity_cosine(*pair) for pair in pairs]),
        }
        if prompts.has_labels:
            rows[name]["accuracy"] = estimate([distances.query_accuracy(a, prompts) for a in answers])
    return Comparison(rows, reference, n_prompts, tuple(filter(None, notes)))


def drawn(task: Task, n_prompts: int, key: Key[Array, ""] | int) -> Prompt:
    """Prompts of a task to be scored on; raises `BadInput` for a task of tokens."""
    require(n_prompts >= 2, "n_prompts", n_prompts, "at least 2")
    prompts = task.sample_batch(n_prompts, key=random_key(key))
    kind = type(prompts).__name__
    require(isinstance(prompts, Prompt), "task", type(task).__name__, f"one of pairs (x, y); its prompts are {kind}")
    return prompts


def named(predictors: Any) -> dict[str, Any]:
    """Predictors by name; those of a list are called by function or class, with a number where that is taken."""
    if isinstance(predictors, Mapping):
        return dict(predictors)
    if not isinstance(predictors, list | tuple):
        raise BadInput(f"predictors must be a dictionary {{name: predictor}} or a list, got {called(predictors)}")
    names: dict[str, Any] = {}
    for predictor in predictors:
        name, number = called(predictor), 2
        while name in names:
            name, number = f"{called(predictor)} {number}", number + 1
        names[name] = predictor
    return names


def points_apart(predictors: Mapping[str, Any]) -> dict[str, Any]:
    """The same predictors with a trained sweep as one ensemble over seeds for every point of it."""
    apart: dict[str, Any] = {}
    for name, predictor in predictors.items():
        points = predictor.points() if hasattr(predictor, "points") else {}
        if len(points) > 1:
            apart |= {f"{name}, {label}": predictor[members] for label, members in points.items()}
        else:
            apart[name] = predictor
    return apart


def losses_of(predictor: Any, prompts: Prompt) -> list[Array]:
    """The losses of every member's answers to the queries; a single predictor is an ensemble of one."""
    return [distances.query_losses(answers, prompts) for answers in members_first(predictor, prompts)]


def members_first(predictor: Any, prompts: Prompt) -> Array:
    """The answers "members b dy", by compiled programs where the predictor can be traced."""
    return jnp.stack([_answers(member, prompts) for member in _members(predictor)])


def _members(predictor: Any) -> list[Any]:
    return [predictor[i] for i in range(len(predictor))] if isinstance(predictor, Ensemble) else [predictor]


def _answers(predictor: Any, prompts: Prompt) -> Array:
    try:
        return in_blocks(lambda block: _compiled(predictor, block), prompts)
    except ON_HOST:
        return answer_batch(predictor, prompts)


def _measure(predictor: Any, prompts: Prompt) -> tuple[Array, list[Array] | None]:
    members = _members(predictor)
    try:
        both = [
            in_blocks(lambda block, member=member: distances.answers_and_sensitivities(member, block), prompts)
            for member in members
        ]
    except ON_HOST:
        return jnp.stack([answer_batch(member, prompts) for member in members]), None
    answers, gradients = zip(*both, strict=True)
    return jnp.stack(answers), list(gradients)


def _note(name: str, predictor: Any, prompts: Prompt) -> str:
    """One line about a predictor that reads what it may not know; nothing about others."""
    member = predictor[0] if isinstance(predictor, Ensemble) else predictor
    found = leaks(member, jax.tree.map(lambda leaf: leaf[0], prompts))
    if found.target:
        return f"note: {name} reads the place of the query's target, which is hidden (zero) here"
    if found.row is not None:
        return f"note: {name} answers row {found.row} from its target or later rows, which it may not know"
    return ""


_compiled = eqx.filter_jit(answer_batch)
