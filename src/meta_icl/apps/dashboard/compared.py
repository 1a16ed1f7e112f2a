"""Chosen runs on the same prompts, beside gradient descent, ridge and Bayes."""

from collections.abc import Sequence
from html import escape
from typing import Any

import jax

from meta_icl.apps.cli import compare as command
from meta_icl.apps.dashboard.inspection import RATE_PROMPTS, REFERENCES
from meta_icl.apps.dashboard.subjects import own_code
from meta_icl.apps.report.tables import Cell, table
from meta_icl.errors import BadInput
from meta_icl.evaluation import Comparison, compare
from meta_icl.runs import Run

N_PROMPTS = 1000


def on_same_prompts(runs: Sequence[Run], n_prompts: int = N_PROMPTS) -> Comparison:
    """All networks of the runs, ensembles over seeds, on prompts of the task of the first; references where they fit.

    Raises `BadInput` for a run that was not made by `meta-icl train` or is of code of the user's own, and for one whose
    prompts have other shapes than those of the first.
    """
    predictors: dict[str, Any] = {}
    first: Any = None
    for run in runs:
        if run.config.get("command") != "train" or own_code(run.config):
            raise BadInput(f"{run.name}: only runs of `meta-icl train` without code of your own are compared here")
        for point, (task, members) in command.members_of(run).items():
            first = task if first is None else first
            if shape_of(task) != shape_of(first):
                raise BadInput(f"{run.name}: its prompts are of shape {shape_of(task)}, not {shape_of(first)}")
            predictors[", ".join(filter(None, (run.name, point)))] = members
    if first is None:
        raise BadInput("choose one or more runs of `meta-icl train`")
    prompts = first.sample_batch(RATE_PROMPTS, key=jax.random.key(1))
    for name, short in REFERENCES.items():
        try:
            predictors[name] = command.reference(short, first, prompts)
        except BadInput:  # it does not fit this task, as ridge does not fit labels
            continue
    return compare(predictors, first, key=0, n_prompts=n_prompts, reference=next(iter(predictors)))


def shape_of(task: Any) -> str:
    """What a prompt of a task looks like."""
    prompt = jax.eval_shape(lambda key: task.sample(key=key), jax.random.key(0))
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(prompt))


def as_html(compared: Comparison) -> str:
    """The comparison as a table; names of runs are escaped."""
    measures = list(next(iter(compared.rows.values())))
    rows = [
        [f'<span class="id">{escape(name)}</span>', *(Cell(escape(str(row[measure]))) for measure in measures)]
        for name, row in compared.rows.items()
    ]
    head = ["predictor", *(measure.replace("_", " ") for measure in measures)]
    notes = [f"{compared.interval}; differences are to {compared.reference}", *compared.notes]
    told = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return table("comparison on the same prompts", head, rows, "compared", scripted=False) + told
