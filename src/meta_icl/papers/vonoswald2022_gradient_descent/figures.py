"""The figures of von Oswald et al. (2022), drawn from a finished run."""

import numpy as np

from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds
from meta_icl.runs import Run, drawn

from .measures import DEEP_SCALES, INPUT_SCALES, LOOPS, OTHER_SCALES, REPLACED, STUCK, TARGET_SCALES, reads
from .training import D, N


def figures(run: Run) -> dict[str, Chart]:
    """The paper's figures 2, 3 and 5 and the weights, with reference algorithms on the same prompts."""
    makers = {
        "training": lambda run: training_figure(run, run.load_arrays("single")),
        "weights": lambda run: weights_figure(run, run.load_arrays("single")),
        "sizes": sizes_figure,
        "shifted": lambda run: shifted_figure(run.load_arrays("single")),
        "deep": lambda run: deep_figure(run, run.load_arrays("deep")),
        "rollouts": lambda run: rollout_figure(run.load_arrays("rollouts")),
        "separate": separate_figure,
        "sine": sine_figure,
    }
    decides = {
        "training": "VO-3 VO-4 VO-5",
        "weights": "VO-6 VO-7",
        "sizes": "VO-8",
        "shifted": "VO-9 VO-10 VO-11 VO-12",
        "deep": "VO-13 VO-14 VO-15 VO-16",
        "rollouts": "VO-17 VO-18",
        "sine": "VO-20",
        "separate": "VO-21 VO-22 VO-23",
    }
    return deciding(drawn(run, makers, decides), decides)


def level(name: str, steps: np.ndarray, value: float) -> Series:
    """A constant drawn over all steps."""
    return Series(name, [steps[0], steps[-1]], [value, value], style="dashed")


def training_figure(run: Run, single: dict[str, np.ndarray]) -> Chart:
    one = run.part_arrays("K1")
    series = [
        over_seeds("one linear layer", one["step"], one["eval"]),
        level("one gradient step", one["step"], float(single["gd"][0])),
    ]
    for heads in (heads for heads in (1, 2) if f"softmax-{heads}" in run.parts()):
        arrays = run.part_arrays(f"softmax-{heads}")
        series.append(over_seeds(f"softmax, {heads} head{'s'[: heads - 1]}", arrays["step"], arrays["eval"]))
    return Lines("One layer of attention (Fig. 2 left)", "training step", "half-MSE", tuple(series))


def weights_figure(run: Run, single: dict[str, np.ndarray]) -> Chart:
    arrays = run.part_arrays("K1")
    qk, ov = arrays["qk"][0, 0, 0], arrays["ov"][0, 0, 0]
    scale = np.diagonal(qk)[:-1].mean()
    labels = [f"x{i + 1}" for i in range(D)] + ["y"]
    caption = f"The construction has an identity on x, and the entry {-float(single['rate']) / N:.3f} for y."
    panels = (Panel("W_Q W_K^T / m", qk / scale, labels, labels), Panel("W_V W_O m", ov * scale, labels, labels))
    return Heatmaps("The products of the trained weights", panels, caption)


def sizes_figure(run: Run) -> Chart:
    sizes = run.load_arrays("sizes")
    stuck = np.stack([reads(run, d) < STUCK for d in sizes["sizes"].tolist()])
    free = np.where(stuck, np.nan, sizes["interpolated"])  # halfway to the construction from elsewhere lies nothing
    middle, low, high = np.nanmedian(free, 1), np.nanmin(free, 1), np.nanmax(free, 1)
    series = (
        Series("one gradient step", sizes["sizes"], sizes["gd"], style="dashed"),
        over_seeds("trained layer", sizes["sizes"], sizes["trained"], "points"),
        Series("interpolated", sizes["sizes"], middle, low, high, "dotted", band="range over seeds that are not stuck"),
    )
    return Lines("Loss for N = d (Fig. 2)", "N = d", "half-MSE", series, log_y=True)


def shifted_figure(single: dict[str, np.ndarray]) -> Chart:
    charts = []
    for name, scales, label in (
        ("inputs", INPUT_SCALES, "scale of the inputs"),
        ("targets", TARGET_SCALES, "scale of w"),
        ("laws", OTHER_SCALES, "scale, exponential / normal / Laplace inputs"),
        ("replaced", REPLACED, "labels replaced by noise"),
    ):
        series = (
            Series("one gradient step", scales, single[f"{name}/gd"], style="dashed"),
            over_seeds("trained layer", scales, single[f"{name}/trained"]),
        )
        charts.append(Lines(label[0].upper() + label[1:], label, "half-MSE", series, log_y=name != "replaced"))
    return Grid("Outside the training law (Fig. 2 right and appendix)", tuple(charts), 2)


def deep_figure(run: Run, deep: dict[str, np.ndarray]) -> Chart:
    charts = []
    for name, label in (("K2", "two looped layers"), ("K5", "five layers")):
        arrays = run.part_arrays(name)
        series = (
            over_seeds("trained", arrays["step"], arrays["eval"]),
            level("gradient descent, best shared rate", arrays["step"], float(deep[f"{name}/gd"][0])),
            level("GD++, best parameters", arrays["step"], float(deep[f"{name}/plus"][0])),
        )
        charts.append(Lines(label.capitalize(), "training step", "half-MSE", series, log_y=True))
    for name, label in (("K2", "two looped layers"), ("K5", "five layers")):
        series = (
            Series("GD++", DEEP_SCALES, deep[f"{name}/shift_plus"], style="dashed"),
            over_seeds("trained", DEEP_SCALES, deep[f"{name}/shift_trained"]),
        )
        charts.append(
            Lines(f"{label.capitalize()}, scaled inputs", "scale of the inputs", "half-MSE", series, log_y=True)
        )
    return Grid("Deeper models find GD++ (Fig. 3)", tuple(charts), 2)


def rollout_figure(rollouts: dict[str, np.ndarray]) -> Chart:
    loops = np.arange(1, LOOPS + 1)
    series = [
        Series(f"gradient descent, {d:g}", loops, np.where(row < 1, row, np.nan), style="dashed")
        for d, row in zip(rollouts["dampening"], rollouts["gd"], strict=True)
    ]
    trained = np.minimum(rollouts["trained"], 1)  # what diverges leaves the figure at its upper edge
    series.append(over_seeds("trained layer, 0.75", loops, trained.T))
    return Lines("One layer rolled out, by dampening", "loops", "half-MSE", tuple(series), log_y=True)


def separate_figure(run: Run) -> Chart:
    soft, linear = run.part_arrays("separate-softmax"), run.part_arrays("separate-linear")
    loss = (
        over_seeds("softmax first", soft["step"], soft["eval"]),
        over_seeds("linear first", linear["step"], linear["eval"]),
        level("one gradient step", soft["step"], 0.2062),
        level("two gradient steps", soft["step"], 0.1566),
    )
    copying = tuple(
        over_seeds(f"{name.replace('_', ' ')} token(s)", soft["step"], soft[f"copying/{name}"])
        for name in ("own", "next", "other_without_next")
    )
    charts = (
        Lines("Loss", "training step", "half-MSE", loss),
        Lines("Sensitivity of the first layer's tokens", "training step", "norm of the mean gradient", copying),
    )
    return Grid("Separate tokens: copying comes first (Fig. 5)", charts, 2)


def sine_figure(run: Run) -> Chart:
    transformer, gd = run.part_arrays("sine-transformer"), run.part_arrays("sine-gd")
    series = (
        over_seeds("MLP and linear attention", transformer["step"], transformer["eval"]),
        over_seeds("MLP and a fixed gradient step", gd["step"], gd["eval"]),
    )
    return Lines("Sine waves (Fig. 4)", "training step", "half-MSE", series, log_y=True)
