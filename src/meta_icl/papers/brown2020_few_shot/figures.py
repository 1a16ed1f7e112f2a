"""The figures about few-shot learning, drawn from a finished run."""

import numpy as np

from meta_icl.evaluation.by_position import bootstrap
from meta_icl.plotting import Chart, Grid, Lines, Series, deciding
from meta_icl.runs import Run

from .experiments import Found, tasks_of

BAND = "90% interval over prompts"


def figures(run: Run) -> dict[str, Chart]:
    """Accuracy by number of examples: open tasks, and those with labels under every control."""
    open_tasks, labelled = tasks_of(run, labelled=False), tasks_of(run, labelled=True)
    charts: dict[str, Chart] = {}
    if open_tasks:
        charts["curves"] = Lines(
            "Open answers by number of examples (Fig. 1.2)", "examples in the prompt", "share right",
            [curve(name, found, "accuracy/right") for name, found in open_tasks.items()],
        )  # fmt: skip
        charts["loss"] = Lines(
            "Loss of the whole answer; dashed: answers of the examples drawn at random", "examples in the prompt",
            "nats", [s for name, found in open_tasks.items() for s in (
                curve(name, found, "loss/right"), curve(f"{name}, random", found, "loss/random", "dashed"))],
        )  # fmt: skip
    if labelled:
        charts["labels"] = Grid(
            "What right labels are worth", tuple(of_controls(labelled, name) for name in labelled), 2
        )
    deciders = {"curves": "B-1 B-2 B-3", "labels": "L-1 L-2 L-3 L-4"}
    return deciding(charts, {name: ids for name, ids in deciders.items() if name in charts})


def of_controls(found: Found, name: str) -> Lines:
    """Accuracy of one task under right, random and exchanged labels, and calibrated."""
    arrays = found[name]
    series = [
        curve(label, arrays, f"accuracy/{control}", "line" if control == "right" else "dashed")
        for label, control in (
            ("right labels", "right"), ("random labels", "random"), ("exchanged labels", "flipped"),
            ("right, calibrated", "content free"),
        )
    ]  # fmt: skip
    return Lines(name, "examples in the prompt", "share right", series, h_lines=[("chance", 1 / int(arrays["labels"]))])


def curve(label: str, arrays: dict[str, np.ndarray], name: str, style: str = "line") -> Series:
    """A mean over prompts with its interval."""
    band = bootstrap(arrays[name].astype(float))
    return Series(label, arrays["shots"], band.mean, band.low, band.high, style, band=BAND)
