"""The figures of He et al. (2025), drawn from a finished run."""

import numpy as np

from meta_icl import tasks
from meta_icl.algorithms import map_loss, softmax_heads
from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds
from meta_icl.runs import Run, drawn

from .experiments import GIVEN, LENGTHS, NOISE, D, L, head_numbers, seeds_of


def figures(run: Run) -> dict[str, Chart]:
    """Losses, weights, the phase plane, prompt lengths, and the approximate loss beside the exact one."""
    makers = {
        "training": training_figure,
        "weights": weights_figure,
        "phase_plane": phase_figure,
        "lengths": length_figure,
        "flow": flow_figure,
        "profile": profile_figure,
        "two_tasks": task_figure,
        "correlated": correlated_figure,
    }
    decides = {
        "weights": "H1 H2 H4",
        "phase_plane": "H3 H5",
        "training": "H6 H7",
        "lengths": "H8 H9 H10",
        "flow": "H11",
        "two_tasks": "H13",
        "correlated": "H14",
    }
    return deciding(drawn(run, makers, decides), decides)


def trained_heads(run: Run) -> list[int]:
    """The numbers of heads that were trained."""
    return sorted({int(name.split("-")[1]) for name in run.parts() if name.startswith("heads-")})


def training_figure(run: Run) -> Chart:
    series = []
    for heads in trained_heads(run):
        found = seeds_of(run, f"heads-{heads}-")
        losses = np.stack([a["test"] for a in found])
        series.append(over_seeds(f"{heads} head{'s' * (heads > 1)}", found[0]["step"], losses.T))
    eta = softmax_heads.best_descent_rate(**GIVEN, debiased=True)
    levels = (
        ("debiased step, exact optimum", float(softmax_heads.descent_loss(eta, **GIVEN, debiased=True))),
        ("paper's approximation", softmax_heads.pair_limit(**GIVEN).loss),
        ("Bayes", softmax_heads.ridge_loss(**GIVEN)),
    )
    return Lines("Test loss while training, L = 40", "step", "mean squared error", series, h_lines=levels)


def weights_figure(run: Run) -> Chart:
    charts = []
    labels = [f"x{i + 1}" for i in range(D)] + ["y"]
    for heads in trained_heads(run):
        arrays = min(seeds_of(run, f"heads-{heads}-"), key=lambda a: a["by_length"][LENGTHS.index(L)])
        panels = [Panel(f"KQ, head {h + 1}", block[:, :D], labels[:D], labels) for h, block in enumerate(arrays["kq"])]
        panels.append(Panel("OV, one row per head", arrays["ov"], labels, [str(h + 1) for h in range(heads)]))
        charts.append(Heatmaps(f"{heads} head{'s' if heads > 1 else ''}", panels))
    return Grid(
        "Products of the trained weights (best seed)",
        tuple(charts),
        1,
        "The query's label is zero, so the last column of KQ is never used and left out.",
    )


def phase_figure(run: Run) -> Chart:
    charts = []
    for heads in trained_heads(run):
        arrays = min(seeds_of(run, f"heads-{heads}-"), key=lambda a: a["by_length"][LENGTHS.index(L)])
        series = [Series(f"head {h + 1}", arrays["omega"][:, h], arrays["mu"][:, h]) for h in range(heads)]
        series.append(Series("end", arrays["omega"][-1], arrays["mu"][-1], style="points"))
        charts.append(Lines(f"Training, {heads} head{'s' if heads > 1 else ''}", "KQ weight ω", "OV weight μ", series))
    if "flow-2" in run.parts():
        arrays = run.part_arrays("flow-2")
        series = [Series(f"head {h + 1}", arrays["omega"][0, :, h], arrays["mu"][0, :, h]) for h in range(2)]
        charts.append(Lines("Gradient flow, 2 heads", "KQ weight ω", "OV weight μ", series))
    return Grid(
        "The phase plane of heads",
        tuple(charts),
        2,
        "Heads start near zero, grow along omega = mu, then mu rises while omega falls.",
    )


def length_figure(run: Run) -> Chart:
    arrays = run.part_arrays("lengths")
    names = {
        "pair": "pair of heads",
        "descent": "gradient step",
        "debiased": "debiased step",
        "ridge": "ridge = Bayes",
        "kernel": "kernel smoother",
        "unnormalised": "linear, no 1/L",
    }
    series = [Series(label, LENGTHS, arrays[f"exact/{name}"], style="dashed") for name, label in names.items()]
    for name in ("pair", "kernel"):
        series.append(Series(f"{name}, approximate", LENGTHS, arrays[f"approximate/{name}"], style="dotted"))
    for heads in trained_heads(run):
        values = np.stack([a["by_length"] for a in seeds_of(run, f"heads-{heads}-")])
        series.append(over_seeds(f"{heads} trained", LENGTHS, values.T, "points"))
    return Lines(
        "Loss against prompt length, trained at L = 40",
        "prompt length L",
        "mean squared error",
        series,
        log_x=True,
        log_y=True,
        caption="Dashed: exact losses; dotted: the paper's approximation; points: trained heads, by their number.",
    )


def flow_figure(run: Run) -> Chart:
    charts = []
    for name in sorted(n for n in run.parts() if n.startswith("flow-")):
        arrays, heads = run.part_arrays(name), name.removeprefix("flow-")
        later = arrays["times"] > 0
        t = arrays["times"][later]
        series = [Series(f"|omega|, head {h + 1}", t, np.abs(arrays["omega"][0, later, h])) for h in range(int(heads))]
        if heads != "1":
            end = np.abs(arrays["omega"][0, -1]).max()
            series.append(Series("t^(-1/6)", t[t > 100], end * (t[t > 100] / t[-1]) ** (-1 / 6), style="dashed"))
        title = "1 head" if heads == "1" else f"{heads} heads"
        charts.append(Lines(title, "time", "KQ weight |ω|", series, log_x=True, log_y=True))
    return Grid("Gradient flow on the paper's loss: omega falls along the valley", tuple(charts), 3)


def profile_figure(run: Run) -> Chart:
    arrays = run.part_arrays("profile")
    series = [
        Series(
            f"{label}, {kind}", arrays["omega"], arrays[f"{kind}/{name}"], style="line" if kind == "exact" else "dashed"
        )
        for name, label in (("one", "one head"), ("pair", "opposite pair"))
        for kind in ("approximate", "exact")
    ]
    lowest = float(arrays["omega"][np.argmin(arrays["exact/pair"])])
    return Lines(
        "Loss at the best mu against omega: the paper's formula and the exact loss",
        "omega",
        "mean squared error",
        series,
        log_x=True,
        caption=f"The exact loss of a pair is lowest near omega = {lowest:.3f}; the approximate one falls towards 0.",
    )


def task_figure(run: Run) -> Chart:
    series = []
    for heads in (3, 4):
        for seed, arrays in enumerate(seeds_of(run, f"tasks-{heads}-")):
            series.append(Series(f"{heads} heads, seed {seed}", arrays["step"], arrays["test"]))
    return Lines("Two tasks in one prompt", "step", "mean squared error per output", series, log_y=True)


def correlated_figure(run: Run) -> Chart:
    covariance = tasks.ar1_covariance(D, 0.5)
    best = map_loss(covariance, L, prior=np.eye(D) / D, noise_variance=NOISE, debiased=True).minimiser()
    panels = [Panel("best preconditioner", best)]
    for seed, arrays in enumerate(seeds_of(run, "skewed-")):
        learned = np.einsum("h,hde->de", head_numbers(arrays)[1], arrays["kq"][:, :D, :D])
        panels.append(Panel(f"KQ of all heads, weighed by μ, seed {seed}", learned))
    return Heatmaps("Correlated inputs, covariance 0.5^|i-j|", panels, shared_scale=True)
