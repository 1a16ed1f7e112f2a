"""The claims about few-shot learning, judged from a finished run; the values of a check are those of the tasks."""

from collections.abc import Sequence

import numpy as np

from meta_icl.lm.loaded import undecided_by
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Rule, at_least, at_most

from .experiments import Found, tasks_of

GAIN = 0.05  # accuracy: what counts as better, or as no worse (Min et al. lose "0 to 5 %")


def claims(run: Run) -> list[Claim]:
    """B-1 .. B-3 of Brown et al., L-1 .. L-4 of what labels are worth; tolerances were set before the run."""
    model = run.config["config"]["model"]
    return judged(tasks_of(run, labelled=False), tasks_of(run, labelled=True), model)


def judged(open_tasks: Found, labelled: Found, model: str) -> list[Claim]:
    """The claims from what every task left behind."""
    learned = {name: found for name, found in open_tasks.items() if name != "addition"}
    both = {**learned, **{f"labels: {name}": found for name, found in labelled.items()}}

    def claim(id: str, statement: str, source: str, checks: Sequence[Check], needed: str, own: Found) -> Claim:
        missing = undecided_by(model) if own else f"the preset has no {needed}"
        note = f"Measured on {model}, a value per task: {', '.join(own)}." if own else None
        return Claim(f"brown2020/{id}", statement, source, tuple(checks) if own else (), missing, note)

    added = {name: found for name, found in open_tasks.items() if name == "addition"}
    return [
        claim("B-1", "Answers are better after examples than without", "Fig. 1.2, sec. 3", [
            changed("accuracy after most examples less without", learned, "accuracy/right", -1, 0, at_least(GAIN)),
            changed("loss after most examples less without, nats", learned, "loss/right", -1, 0, at_most(0)),
        ], "open task", learned),
        claim("B-2", "Several examples help more than one", "Fig. 1.2, sec. 3", [
            changed("accuracy after most examples less after one", both, "accuracy/right", -1, 1, at_least(0)),
            changed("loss after most examples less after one, nats", both, "loss/right", -1, 1, at_most(0)),
        ], "task", both),
        claim("B-3", "Models far below 13 billion parameters do not add numbers of two digits", "Fig. 3.10", [
            Check("accuracy after most examples", at_most(0.5), means(added, "accuracy/right", -1)),
        ], "task `addition`", added),
        claim("L-1", "Labels drawn at random cost no more than five points of accuracy", "Min et al. 2022, Fig. 1", [
            between("accuracy with right less with random labels", labelled, "right", "random", at_most(GAIN)),
        ], "task with labels", labelled),
        claim("L-2", "Examples with random labels are better than none", "Min et al. 2022, Fig. 1", [
            Check("accuracy with random labels less without examples", at_least(0),
                  means(labelled, "accuracy/random", -1) - means(labelled, "accuracy/right", 0)),
        ], "task with labels", labelled),
        claim("L-3", "Small models do not follow labels that are exchanged", "Wei et al. 2023, Fig. 2", [
            Check("accuracy after exchanged labels, where the exchanged one is right", at_most(0.5),
                  means(labelled, "accuracy/flipped", -1)),
        ], "task with labels", labelled),
        claim("L-4", "Dividing out what is answered to no content raises accuracy", "Zhao et al. 2021, Fig. 1", [
            Check("accuracy calibrated less plain, mean over numbers of examples", at_least(GAIN), np.array([
                (found["accuracy/content free"] - found["accuracy/right"]).mean() for found in labelled.values()])),
        ], "task with labels", labelled),
    ]  # fmt: skip


def means(found: Found, name: str, at: int) -> np.ndarray:
    """The mean over prompts at one number of examples, a value per task."""
    return np.array([arrays[name][:, at].mean() for arrays in found.values()])


def changed(quantity: str, found: Found, name: str, last: int, first: int, rule: Rule) -> Check:
    """What more examples change, a value per task."""
    return Check(quantity, rule, means(found, name, last) - means(found, name, first))


def between(quantity: str, found: Found, one: str, other: str, rule: Rule) -> Check:
    """What lies between two controls after the most examples, a value per task."""
    return Check(quantity, rule, means(found, f"accuracy/{one}", -1) - means(found, f"accuracy/{other}", -1))
