"""The figures of Garg et al. (2022), drawn from a finished run."""

from collections.abc import Callable
from functools import partial

import numpy as np

from meta_icl.plotting import Bars, Chart, Grid, Lines, Series
from meta_icl.runs import Run, drawn

from .config import Training
from .experiments import BASELINE_KS, part_arrays, trainings_of

PROMPTS = {
    "plain": "plain prompts",
    "skewed": "skewed inputs",
    "half": "inputs in a half subspace",
    "orthants": "context and query in different orthants",
    "noisy": "noisy labels",
}
INPUTS = {"raw": "x", "sign": "signs"}


def figures(run: Run) -> dict[str, Chart]:
    """Errors by position, tests under changed prompts, and the reference learners at full size."""
    makers: dict[str, Callable[[Run], Chart]] = {"reference_learners": reference_figure, "trees": trees_figure}
    decides = {"reference_learners": "B-1 B-2 B-3", "trees": "B-5"}
    for t in trainings_of(run):
        name = t.name.replace(".", "")
        makers[name], decides[name] = partial(error_figure, t=t), "T-1 T-2 T-3 T-4 T-5 F-1 F-12 F-13 F-14 F-16 F-17"
        if "skewed_error" in part_arrays(run, t.name):
            changed = f"{name}-changed"
            makers[changed], decides[changed] = partial(changed_figure, t=t), "F-4 F-5 F-6"
    return drawn(run, makers, decides)


ROUNDING = 1e-6  # errors below it would take the axis from all others


def error_figure(run: Run, t: Training) -> Chart:
    arrays = part_arrays(run, t.name)
    k, last = np.arange(arrays["error"].shape[2]), arrays["error"][-1]
    series = [Series("decoder", k, np.median(last, 0), arrays["band_low"], arrays["band_high"])]
    for name, label in (("bayes", "Bayes"), ("least_squares", "least squares")):
        if name in arrays and not (t.noise and name == "least_squares"):
            exact = arrays[name] < ROUNDING
            series.append(Series(label, k, np.where(exact, np.nan, arrays[name]), style="dashed"))
    caption = (
        "Squared error over that of the zero predictor; band: 90 % bootstrap interval over prompts, first seed. Not "
        "drawn: errors of reference learners that are those of rounding."
    )
    return Lines(
        f"Error by number of examples (Fig. {'4b' if t.noise else 2}): {told(t)}",
        "examples k",
        "error / zero predictor's",
        tuple(series),
        log_y=True,
        caption=caption,
    )


def told(t: Training) -> str:
    """What a network was trained on, in words."""
    extra = [f"noise {t.noise:g}"] if t.noise else []
    extra += ["curriculum"] if t.curriculum else []
    extra += [f"{n:,} {label}" for label, n in (("functions", t.functions), ("prompts", t.prompts)) if n]
    return ", ".join([f"{t.family} functions, d = {t.d}", f"{t.size} decoder", *extra])


def changed_figure(run: Run, t: Training) -> Chart:
    charts, arrays = [], part_arrays(run, t.name)
    for name in ("skewed", "half", "noisy"):
        k = np.arange(arrays[f"{name}_error"].shape[1])
        series = (
            Series("decoder", k, np.median(arrays[f"{name}_error"], 0)),
            Series("least squares", k, np.minimum(arrays[f"{name}_least_squares"], 10), style="dashed"),
            Series("three neighbours", k, arrays[f"{name}_neighbours"], style="dotted"),
        )
        charts.append(Lines(PROMPTS[name], "examples k", "error / zero predictor's", series))
    return Grid(f"Changed prompts (Figs. 4, 8): {told(t)}", tuple(charts), 3)


def reference_figure(run: Run) -> Chart:
    found = part_arrays(run, "baseline-linear")
    labels = {"squares": "least squares", "averaging": "averaging", "neighbours": "three neighbours"}
    charts = []
    for name in ("plain", "skewed", "half", "orthants"):
        series = tuple(Series(label, BASELINE_KS, found[f"{name}_{key}"]) for key, label in labels.items())
        charts.append(Lines(PROMPTS[name], "examples k", "error / zero predictor's", series, log_y=False))
    return Grid("Reference learners, d = 20 (Figs. 2, 4b, 5a, 5c, 5d)", tuple(charts), 2)


def trees_figure(run: Run) -> Chart:
    names, values = [], []
    for inputs in ("raw", "sign"):
        arrays = part_arrays(run, f"baseline-trees-{inputs}")
        for name in ("greedy", "boosted"):
            names.append(f"{name}, {INPUTS[inputs]}")
            values.append(float(arrays[name][0]))
    return Bars("Decision trees, 100 examples (Fig. 5b)", "learner", "error / zero predictor's", names, values)
