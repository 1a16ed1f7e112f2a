"""The figures of Ahn et al. (2023), drawn from a finished run."""

import numpy as np

from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds
from meta_icl.runs import Run, drawn

from .experiments import fresh_fits, length_table
from .references import N


def figures(run: Run) -> dict[str, Chart]:
    """Heat maps of A and B, distances to the scaled identity, and losses against depth and context length."""
    makers = {"one_layer": one_layer_figure, "distances": distance_figure}
    if any(name.startswith(("raw-", "settled-")) for name in run.parts()):
        makers["matrices"] = matrices_figure
    if any(name.startswith("depth-") for name in run.parts()):
        makers["depth"] = depth_figure
    makers |= {"length": length_figure, "gradient": gradient_figure}
    decides = {
        "one_layer": "A-1 A-2 A-3",
        "gradient": "A-6",
        "distances": "A-7",
        "matrices": "A-8 A-11",
        "depth": "A-5 A-9",
        "length": "A-10",
    }
    return deciding(drawn(run, makers, decides), decides)


def one_layer_figure(run: Run) -> Chart:
    charts = []
    for name, title in (
        ("identity", "skewed, w ~ N(0, I)"),
        ("isotropic", "isotropic"),
        ("inverse", "skewed, w ~ N(0, Sigma^-1)"),
    ):
        if f"one-{name}-sampled" not in run.parts():
            continue
        pair = {kind: run.part_arrays(f"one-{name}-{kind}") for kind in ("sampled", "population")}
        series = [over_seeds(kind, arrays["step"], arrays["loss"]) for kind, arrays in pair.items()]
        best = (("theorem 1", float(pair["sampled"]["best"])),)
        charts.append(Lines(title, "step", "mean squared error", series, log_y=True, h_lines=best))
    return Grid("One layer: population loss of the trained map", tuple(charts), 3)


def distance_figure(run: Run) -> Chart:
    parts = list(run.arrays_of_parts("adam-").values())
    series = []
    for x, layers in (("a", 3), ("b", 2)):
        values = np.stack([part[f"distance_{x}"][:, 0] for part in parts], -1)  # records layers seeds
        series += [
            over_seeds(f"{x.upper()}_{layer}", parts[0]["step"], values[:, layer], "line" if x == "a" else "dashed")
            for layer in range(layers)
        ]
    return Lines(
        "Distance of A_l and B_l to multiples of the identity, isotropic",
        "step of Adam",
        "|M - (tr M / d) I| / |M|",
        series,
        log_y=True,
    )


def matrices_figure(run: Run) -> Chart:
    arrays = fresh_fits(run)
    best = int(np.argmin(arrays["held_out"]))
    without = run.part_arrays("no-b-skewed-3")
    panels = [Panel(f"A_{layer}", arrays["a"][best, layer]) for layer in range(3)]
    panels += [Panel(f"B_{layer}", arrays["b"][best, layer]) for layer in range(2)]
    rest = [Panel(f"A_{layer}", without["a"][0, layer]) for layer in range(3)]
    return Grid(
        "Learned matrices in whitened coordinates",
        (Heatmaps("Three layers with B, best seed", panels), Heatmaps("Skewed, three layers without B", rest)),
        1,
    )


def depth_figure(run: Run) -> Chart:
    oracle = run.part_arrays("references")
    found = {int(depth): arrays for depth, arrays in run.arrays_of_parts("depth-").items()}
    depths = sorted(found)
    series = [
        over_seeds("linear transformer", depths, np.stack([found[depth]["held_out"] for depth in depths]), "points")
    ]
    for name, label in (("plain", "gradient descent"), ("whitened", "preconditioned gradient descent")):
        series.append(Series(label, depths, [oracle[f"{name}_{depth}_{N}"][0] for depth in depths], style="dashed"))
    for name, label in (("per_step", "best steps per layer"), ("plus", "best steps and re-conditioning")):
        known = [depth for depth in depths if f"{name}_{depth}" in oracle]
        series.append(Series(label, known, [oracle[f"{name}_{depth}"][0] for depth in known], style="dotted"))
    return Lines("Loss against depth, skewed covariance, n = 20", "layers", "mean squared error", series, log_y=True)


def length_figure(run: Run) -> Chart:
    lengths, rows = length_table(run)
    names = {
        "transformer": "linear transformer",
        "whitened": "preconditioned gradient descent",
        "plain": "gradient descent",
    }
    series = [Series(names[k], lengths, v, style="line" if k == "transformer" else "dashed") for k, v in rows.items()]
    return Lines(
        "Loss against context length, three layers", "context length n", "mean squared error", series, log_y=True
    )


def gradient_figure(run: Run) -> Chart:
    mean = run.part_arrays("gradient")["mean"]
    names = ("A_0", "A_1", "A_2", "B_0", "B_1")
    panels = [Panel(name, matrix) for name, matrix in zip(names, mean, strict=True)]
    return Heatmaps(
        "The gradient at the structured point, whitened coordinates",
        panels,
        "Skewed covariance: every block is a multiple of I.",
    )
