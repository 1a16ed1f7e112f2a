"""The claims of Hendel et al. (2023), judged from a finished run; the values of a check are those of the tasks."""

from collections.abc import Mapping, Sequence

import numpy as np

from meta_icl.lm.loaded import undecided_by
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Converged, at_least, at_most, is_true, within

from .experiments import Found, conflicts_of, neighbours, tasks_of

LEARNED = 0.3  # accuracy with examples from which on a task counts as learned in context
ENOUGH = 3  # tasks learned in context, without which nothing is said of what their vectors keep
KEPT, BASELINE = 0.8, 0.2  # "80-90 %" of the accuracy with examples, and "10-20 %" without


def claims(run: Run) -> list[Claim]:
    """T-1 .. T-5; tolerances were set before the run."""
    return judged(tasks_of(run), conflicts_of(run), str(run.config["config"]["model"]))


def judged(found: Found, conflicts: Found, model: str) -> list[Claim]:
    """The claims from what every task and every conflict left behind."""
    each = list(found.values())
    icl, alone, vector, control = (
        np.array([arrays[name].mean() for arrays in each]) for name in ("with examples", "alone", "vector", "control")
    )
    learned = icl >= LEARNED  # tasks that the model does not do say nothing of vectors, as the source, too, has it
    depth = np.array([(int(arrays["best"]) + 1) / int(arrays["n_layers"]) for arrays in each])
    peaked = np.array([peaks(arrays) for arrays in each])
    which = f"Judged: {', '.join(np.array(list(found))[learned])} (accuracy with examples at least {LEARNED})."
    few = None
    if learned.sum() < ENOUGH:
        few = f"{learned.sum()} of {len(found)} tasks are learned (accuracy with examples at least {LEARNED})"
    note = f"Measured on {model}; a value per task: {', '.join(found)}. Layers count from 1."
    bests = ", ".join(f"{name} {int(arrays['best']) + 1}" for name, arrays in found.items())
    accuracies = ", ".join(
        f"{n} {a:.2f} / {b:.2f} / {c:.2f}" for n, a, b, c in zip(found, icl, vector, alone, strict=True)
    )

    def claim(
        id: str,
        statement: str,
        source: str,
        checks: Sequence[Check],
        told: str = "",
        missing: str | None = None,
        converged: Converged | None = None,
    ) -> Claim:
        return Claim(f"hendel2023/{id}", statement, source, tuple(checks), undecided_by(model) or missing,
                     f"{note} {told}".strip(), converged)  # fmt: skip

    return [
        claim("T-1", "One state in place of the examples keeps most of their accuracy", "Fig. 4, sec. 3.3", [
            Check("accuracy with the vector / with examples", at_least(KEPT), vector[learned] / icl[learned]),
            Check("accuracy without either / with examples", at_most(BASELINE), alone[learned] / icl[learned]),
        ] if few is None else [], f"{which} With examples / vector / without: {accuracies}.", few),
        claim("T-2", "The vector works best at a middle layer", "Fig. 3", [
            Check("best layer / number of layers", within(0.2, 0.8), depth[learned]),
            Check("half of the best accuracy is lost at the first and at the last layer", is_true(), peaked[learned]),
        ] if few is None else [], f"{which} Best layers: {bests}.", few),
        claim("T-3", "Vectors of one task lie together", "Fig. 5", [
            Check("share of vectors whose nearest neighbour is of the same task", at_least(0.9), neighbours(found)),
        ] if len(found) > 1 else [], missing=None if len(found) > 1 else "the preset has one task"),
        claim("T-4", "A vector overrides the examples of another task", "Table 2", [
            Check("accuracy on the vector's task less on that of the examples", at_least(0),
                  [rate(a, "vector B") - rate(a, "vector A") for a in conflicts.values()]),
            Check("accuracy on the task of the examples, with the vector less without", at_most(0),
                  [rate(a, "vector A") - rate(a, "plain A") for a in conflicts.values()]),
        ] if conflicts else [], "Pairs, examples > vector: " + "; ".join(
            f"{pair}: {rate(a, 'plain A'):.2f} / {rate(a, 'plain B'):.2f} to {rate(a, 'vector A'):.2f} / "
            f"{rate(a, 'vector B'):.2f}" for pair, a in conflicts.items()) + " (accuracy on the first / second task).",
            missing=None if conflicts else "the preset has no tasks in conflict",
            # Only where the model does both tasks is there anything to override, and something to override it with.
            converged=Converged("accuracy with examples of either task, the lower", at_least(LEARNED),
                                [min(rate(found[pair.partition(">")[2]], "with examples"), rate(a, "plain A"))
                                 for pair, a in conflicts.items()])
            if conflicts else None),
        claim("T-5", "The state of a query without examples carries nothing (control of T-1)", "own control", [
            Check("accuracy with it less without either", at_most(0.05), (control - alone)[learned]),
        ] if few is None else [], which, few),
    ]  # fmt: skip


def rate(arrays: Mapping[str, np.ndarray], name: str) -> float:
    """The share of prompts answered right."""
    return float(arrays[name].mean())


def peaks(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the first and the last layer have at most half of the best accuracy, which is not zero."""
    by_layer = arrays["by layer"].mean(1)
    return bool(by_layer.max() > 0 and max(by_layer[0], by_layer[-1]) <= by_layer.max() / 2)
