"""The figures of Raventós et al. (2023), drawn from a finished run."""

from collections.abc import Mapping

import numpy as np

from meta_icl.plotting import Chart, Grid, Lines, Series
from meta_icl.runs import Run, drawn

from .experiments import SHARES, main_ladder, trainings_of

WORDS = {"ridge": "ridge", "dmmse": "Bayes over the pool (dMMSE)"}


def figures(run: Run) -> dict[str, Chart]:
    """Errors and distances against M, over training, by position, and between tasks."""
    makers = {
        "diversity": diversity_figure,
        "training": training_figure,
        "by_position": position_figure,
        "between_tasks": arc_figure,
    }
    decides = {
        "diversity": "V-1 V-2 V-3 V-4 T-1 T-2",
        "training": "V-5 V-6 V-7",
        "by_position": "V-2 V-13",
        "between_tasks": "V-8",
    }
    found = trainings_of(run)
    if not found:  # a run of the reference learners alone
        return {}
    ladder = main_ladder(found)
    return drawn(run, {name: lambda _, draw=draw: draw(ladder) for name, draw in makers.items()}, decides)


def diversity_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts, m = [], list(ladder)
    for law, title in (("pool", "tasks of the pool"), ("true", "new tasks")):
        series = [Series("decoder", m, [np.median(a[f"mse_{law}"][-1]) for a in ladder.values()])]
        for name in ("dmmse", "ridge"):
            series.append(
                Series(WORDS[name], m, [float(a[f"mse_{name}_{law}"]) for a in ladder.values()], style="dashed")
            )
        charts.append(Lines(title, "tasks in pretraining M", "error over D", tuple(series), log_x=True))
    return Grid("Task diversity (Fig. 2)", tuple(charts), 2)


def training_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts = []
    for name in ("ridge", "dmmse"):
        series = tuple(Series(f"M = {m}", a["step"], np.median(a[f"to_{name}_true"], 1)) for m, a in ladder.items())
        charts.append(Lines(f"To {WORDS[name]}", "training step", "squared distance Δ, new tasks", series, log_y=True))
    return Grid("Distances while training (Fig. 4)", tuple(charts), 2)


def position_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts = []
    for m, a in ladder.items():
        k = np.arange(a["by_position_true"].shape[1])
        series = (
            Series("decoder", k, np.median(a["by_position_true"], 0)),
            Series(WORDS["ridge"], k, a["by_position_ridge_true"], style="dashed"),
            Series(WORDS["dmmse"], k, a["by_position_dmmse_true"], style="dotted"),
        )
        charts.append(Lines(f"M = {m}", "examples k", "error over D, new tasks", series))
    return Grid("Error by position on new tasks", tuple(charts[:6]), 3)


def arc_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts = []
    for m, a in ladder.items():
        series = tuple(
            Series(f"to {WORDS[name]}", SHARES, np.median(a[f"arc_{name}"], 0)) for name in ("ridge", "dmmse")
        )
        charts.append(Lines(f"M = {m}", "share of the first task", "squared distance Δ", series))
    return Grid("Between two tasks (Fig. 5)", tuple(charts[:6]), 3)
