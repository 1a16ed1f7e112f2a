"""The figures of Zhang et al. (2025), drawn from a finished run."""

from collections.abc import Callable
from functools import partial

import numpy as np

from meta_icl.plotting import Bars, Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds, thin
from meta_icl.runs import Run, drawn

from .experiments import SPECTRA


def figures(run: Run) -> dict[str, Chart]:
    """The paper's figures, with the levels of theory drawn in."""
    flow = partial(
        spectra_figure,
        start="separate-",
        x_label="time / tau",
        title="Separate keys and queries of rank one: a plateau per eigenvector",
        caption="Population gradient flow from several seeds: heights are universal, times are not.",
    )
    sampled = partial(
        spectra_figure,
        start="sampled-",
        x_label="step",
        title="Separate attention, gradient descent on finite sets of prompts",
        caption="Every seed has its own set. Dashed: population flow from the same weights, without a sample.",
    )
    makers: dict[str, Callable[[Run], Chart]] = {
        "merged": merged_figure,
        "separate": flow,
        "sampled": sampled,
        "time_course": time_course_figure,
        "maps": maps_figure,
        "inits": init_figure,
        "mixture": mixture_figure,
        "softmax": softmax_figure,
        "conserved": conserved_figure,
    }
    for name, start, title in (
        ("ranks", "rank-", "Rank of keys and queries, D = 8, 9 heads"),
        ("few_heads", "heads-", "Fewer heads than dimensions, D = 4, rank one"),
    ):
        if any(part.startswith(start) for part in run.parts()):
            makers[name] = partial(first_seeds_figure, start=start, title=title)
    decides = {
        "merged": "Z1 Z2",
        "time_course": "Z3",
        "separate": "Z4",
        "maps": "Z5",
        "conserved": "Z6",
        "ranks": "Z7",
        "mixture": "Z8",
        "softmax": "Z9",
        "inits": "Z10",
        "few_heads": "Z11",
    }
    return deciding(drawn(run, makers, decides), decides)


def curves(arrays: dict[str, np.ndarray], label: str = "seed") -> list[Series]:
    """One thinned curve per seed, up to the time at which all are at rest."""
    rest = arrays["loss"][:, -1:] + 1e-4 * (arrays["loss"][:, :1] - arrays["loss"][:, -1:])
    moving = (arrays["loss"] > rest).any(0)
    end = min(int(1.05 * (np.flatnonzero(moving)[-1] + 2)) if moving.any() else 2, arrays["loss"].shape[1])
    return [Series(f"{label} {i}", *thin(arrays["times"][:end], loss[:end])) for i, loss in enumerate(arrays["loss"])]


def level_lines(levels: np.ndarray) -> tuple[tuple[str, float], ...]:
    """The levels of theory as labelled lines."""
    return tuple((f"{m} learned", float(level)) for m, level in enumerate(levels))


def spectra_figure(run: Run, start: str, x_label: str, title: str, caption: str) -> Chart:
    """Loss curves of every spectrum between the levels of theory, with the flows beside sampled runs."""
    charts = []
    for name, spectrum in SPECTRA.items():
        arrays = run.part_arrays(start + name)
        series = curves(arrays)
        for seed, loss in enumerate(arrays.get("flow", ())):
            series.append(Series(f"flow, seed {seed}", *thin(arrays["times"], loss), style="dashed"))
        label = "Spectrum " + ", ".join(f"{value:.3g}" for value in spectrum)
        charts.append(Lines(label, x_label, "mean squared error", series, h_lines=level_lines(arrays["levels"])))
    return Grid(title, tuple(charts), 2, caption)


def merged_figure(run: Run) -> Chart:
    flow_arrays, set_arrays, mlp = (run.part_arrays(name) for name in ("merged", "sampled-merged", "mlp"))
    ends = (("zero map", float(flow_arrays["levels"][0])), ("best map", float(flow_arrays["levels"][-1])))
    left = Lines("Population flow", "time / tau", "mean squared error", curves(flow_arrays), h_lines=ends)
    middle = Lines("Gradient descent on a finite set", "step", "mean squared error", curves(set_arrays), h_lines=ends)
    step = np.arange(len(mlp["mlp"]))
    both = (
        Series("merged attention", *thin(step, mlp["merged"])),
        Series("MLP, cubic features", *thin(step, mlp["mlp"]), style="dashed"),
    )
    right = Lines("The same weights, step by step", "step", "mean squared error", both)
    return Grid("Merged key and query: one drop", (left, middle, right), 3)


def time_course_figure(run: Run) -> Chart:
    charts = []
    for d, arrays in run.arrays_of_parts("white-").items():
        series = []
        for init, t, loss, exact in zip(
            arrays["inits"], arrays["times"], arrays["loss"], arrays["closed_form"], strict=True
        ):
            series.append(Series(f"flow, start {init:g}", *thin(t[0], loss[0])))
            series.append(Series(f"closed form, start {init:g}", *thin(t[0], exact[0]), style="dashed"))
        charts.append(Lines(f"D = {d}", "time / tau", "mean squared error", series))
    return Grid("The closed-form time course of merged attention on white inputs", tuple(charts), 2)


def maps_figure(run: Run) -> Chart:
    arrays = run.part_arrays("separate-linear")
    n = int(np.isfinite(arrays["plateau_height"][0]).sum())
    panels = [Panel(f"plateau {m + 1}", arrays["plateau_map"][0, m]) for m in range(n)]
    return Heatmaps(
        "The learned map U at the plateaus",
        [*panels, Panel("best map", arrays["best_map"])],
        "First seed; the covariance stands in a random basis. Each plateau adds one eigenvector.",
        shared_scale=True,
    )


def first_seeds_figure(run: Run, start: str, title: str) -> Chart:
    """The first seed of every part, over the logarithm of time."""
    found, what = run.arrays_of_parts(start), start.removesuffix("-")
    series = [Series(f"{what} {n}", *thin(np.maximum(a["times"], 1.0), a["loss"][0])) for n, a in sorted(found.items())]
    levels = level_lines(next(iter(found.values()))["levels"])
    return Lines(title, "time / tau", "mean squared error", series, log_x=True, h_lines=levels)


def init_figure(run: Run) -> Chart:
    left, right = [], []
    for target, start in ((left, "init-"), (right, "merged-init-")):
        for init, arrays in sorted(run.arrays_of_parts(start).items(), key=lambda item: -float(item[0])):
            target.append(Series(f"start {init}", *thin(np.maximum(arrays["times"], 1.0), arrays["loss"][0])))
    charts = [
        Lines(name, "time / tau", "mean squared error", s, log_x=True)
        for name, s in (("Separate", left), ("Merged", right))
    ]
    return Grid("Smaller starts wait longer: as 1 / start if separate, as its logarithm if merged", tuple(charts), 2)


def mixture_figure(run: Run) -> Chart:
    charts = []
    found = sorted(run.arrays_of_parts("mixture-").items(), key=lambda item: float(item[0]))
    for name in ("in_context", "in_weights"):
        series = [over_seeds(f"share {s}", a["step"], a[name].T) for s, a in found]
        charts.append(Lines(f"Test loss {name.replace('_', ' ')}", "step", "mean squared error", series))
    return Grid("A share of prompts with new weights, the rest with one fixed weight vector", tuple(charts), 2)


def softmax_figure(run: Run) -> Chart:
    charts = []
    for kind in ("merged", "separate"):
        found = run.arrays_of_parts(f"softmax-{kind}-")
        series = [Series(f"seed {s}", *thin(a["step"], a["loss"])) for s, a in found.items()]
        charts.append(Lines(f"{kind.capitalize()} key and query", "step", "mean squared error", series))
    return Grid("Softmax attention", tuple(charts), 2)


def conserved_figure(run: Run) -> Chart:
    names = ("merged", *(f"separate-{name}" for name in SPECTRA), "white-4", "sampled-half-rate", "sampled-linear")
    drift = np.array([float(np.max(run.part_arrays(name)["drift"])) for name in names])
    values = np.log10(np.maximum(drift, 1e-18))
    told = [name.replace("-", " ") for name in names]
    return Bars("Drift of the conserved quantities, log10", "run", "log10 of the largest drift", told, values)
