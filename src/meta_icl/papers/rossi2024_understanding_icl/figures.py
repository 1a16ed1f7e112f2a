"""The figures of Rossi et al. (2024), drawn from a finished run."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from meta_icl.algorithms import best_rate
from meta_icl.analysis import copying_score
from meta_icl.plotting import (
    Chart,
    Grid,
    Lines,
    Series,
    Slider,
    gradient_animation,
    moving_task,
    over_seeds,
    weight_products,
)
from meta_icl.runs import Run, drawn

from .experiments import LOOPS, closed_form_loss, contexts_of, lstms_of, published, regression, stacks_of


def figures(run: Run) -> dict[str, Chart]:
    """The post's figures, interactive where the post's are, with its curves drawn beside ours."""
    makers = {
        "moving_task": moving_task_figure,
        "loss_by_context": loss_by_context_figure,
        "training_by_context": training_slider,
        "alignment_by_context": alignment_slider,
        "learning_rate": rate_slider,
        "dampening": dampening_slider,
        "gradients": gradient_figure,
        "weights": weights_figure,
    }
    for kind, number in (("softmax", 7), ("linear", 8)):
        if stacks_of(run, kind):
            makers[f"depth_{kind}"] = partial(depth_figure, kind=kind, number=number)
    if any(name.startswith("lstm") for name in run.parts()):
        makers |= {"lstm": lstm_figure, "lstm_alignment": lstm_alignment_figure}
    decides = {
        "loss_by_context": "R-2",
        "training_by_context": "R-2 R-3",
        "alignment_by_context": "R-4",
        "learning_rate": "R-5",
        "depth_softmax": "R-6",
        "depth_linear": "R-7",
        "dampening": "R-8 R-9",
        "lstm": "R-10 R-11 R-12",
        "lstm_alignment": "R-10 R-11 R-12",
    }
    return drawn(run, makers, decides)


def story(run: Run) -> dict[str, str]:
    """What the first screen of the report says: question, answer, figure."""
    layers = [run.part_arrays(f"layer-D5-C{c}") for c in contexts_of(run)]
    ratios = [float(np.median(arrays["final/loss"] / arrays["final/gd_loss"])) for arrays in layers]
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    cosine = min(float(np.median(arrays["final/cosine"])) for arrays in layers)
    lengths = f"{min(contexts_of(run))} to {max(contexts_of(run))}"
    return {
        "question": "Is a trained layer of linear self-attention a step of gradient descent on its prompt?",
        "answer": f"Its loss is {worst:.3f} times that of one gradient step, at worst, for context lengths {lengths}; "
        f"the gradients of both point the same way (cosine at least {cosine:.4f}).",
        "figure": "loss_by_context",
    }


def moving_task_figure(run: Run) -> Chart:
    arrays = run.part_arrays("layer-D1-C10")
    return moving_task(
        arrays["qk"][0, 0, 0],
        arrays["ov"][0, 0, 0],
        rate=float(best_rate(regression(1, 10))),
        n_context=10,
        title="Move the task: the frozen layer follows (Fig. 3)",
        caption="A layer trained on lines through the origin. Its weights are frozen; only the prompt changes.",
    )


def loss_by_context_figure(run: Run) -> Chart:
    contexts = contexts_of(run)
    layers = [run.part_arrays(f"layer-D5-C{c}") for c in contexts]
    plotted = published()["trained_vs_gd_loss"]
    grid = np.arange(1, max(contexts) + 1)
    return Lines(
        "Loss of one trained layer against context length (Fig. 9)",
        "context length C",
        "half-MSE",
        (
            over_seeds("trained layer", contexts, np.stack([arrays["final/loss"] for arrays in layers]), "points"),
            Series("gradient step, closed form", grid, [closed_form_loss(int(c)) for c in grid], style="dashed"),
            Series("published", [r["context"] for r in plotted], [r["trained_final"] for r in plotted], published=True),
        ),
        log_y=True,
    )


def training_slider(run: Run) -> Chart:
    plotted = {row["context"]: row for row in published()["trained_vs_gd_loss"]}
    frames = []
    for c in contexts_of(run):
        arrays = run.part_arrays(f"layer-D5-C{c}")
        steps, ends = arrays["step"], np.array([0, arrays["step"][-1]])
        series = [
            over_seeds("trained layer", steps, arrays["eval"]),
            Series("one gradient step, same prompts", ends, np.full(2, arrays["gd_loss"]), style="dashed"),
        ]
        if c in plotted:
            series.append(Series("published final loss", ends, np.full(2, plotted[c]["trained_final"]), published=True))
        frames.append((c, Lines(f"Training at C = {c}", "training step", "half-MSE", tuple(series), log_y=True)))
    return Slider("Training at every context length (Fig. 9)", "context length C", tuple(frames))


# Our name of a measure -> its name among the final values of Figs. 10 and 12.
PLOTTED_ALIGNMENT = {
    "prediction_error": "final_l2_predictions",
    "gradient_error": "final_l2_gradients",
    "cosine": "final_cosine",
}


def alignment_slider(run: Run) -> Chart:
    """Fig. 10; of the post's curves only the last values are known."""
    plotted = {row["context"]: row for row in published()["alignment_final"]}
    frames = []
    for c in contexts_of(run):
        arrays = run.part_arrays(f"layer-D5-C{c}")

        def curve(label: str, name: str, c: int = c, arrays: Mapping[str, np.ndarray] = arrays) -> list[Series]:
            steps, series = arrays["step"], [over_seeds(label, arrays["step"], arrays[f"to_gd/{name}"])]
            if c in plotted:
                known = np.full(2, plotted[c][PLOTTED_ALIGNMENT[name]])
                series.append(Series(f"published final, {label}", [0, steps[-1]], known, published=True))
            return series

        errors = curve("predictions", "prediction_error") + curve("gradients", "gradient_error")
        charts = (
            Lines("Errors", "training step", "error to gradient descent", errors, log_y=True),
            Lines("Cosine", "training step", "cosine of gradients", curve("cosine", "cosine")),
        )
        frames.append((c, Grid(f"Alignment at C = {c}", charts, 2)))
    return Slider("Alignment with gradient descent while training (Fig. 10)", "context length C", tuple(frames))


def rate_slider(run: Run) -> Chart:
    """Fig. 12: the rate on the slider; the post's slider shows the rate times sqrt(20)."""
    sweep = run.load_arrays("rate_sweep")
    plotted = published()["gd_learning_rate_sweep"]
    rates = np.array([row["gd_learning_rate"] for row in plotted]) / np.sqrt(20)
    frames = []
    for index in range(0, len(sweep["rate"]), 2):
        rate = float(sweep["rate"][index])
        charts = []
        for name, key in PLOTTED_ALIGNMENT.items():
            series = (
                over_seeds("trained layer against GD", sweep["rate"], sweep[name]),
                Series("published", rates, [row[key] for row in plotted], published=True),
                Series(f"rate {rate:.2f}", [rate], [float(np.median(sweep[name][index]))], style="points"),
            )
            charts.append(Lines(name.replace("_", " "), "rate of gradient descent", name.replace("_", " "), series))
        frames.append((round(rate, 2), Grid(f"rate {rate:.2f}", tuple(charts), 3)))
    nearest = int(np.argmin([abs(value - float(sweep["best"])) for value, _ in frames]))
    title, caption = "Which rate does the trained layer use? (Fig. 12)", f"The best rate is {float(sweep['best']):.3f}."
    return Slider(title, "rate of gradient descent", tuple(frames), nearest, caption)


def dampening_slider(run: Run) -> Chart:
    rollouts = run.load_arrays("rollouts")
    plotted = {row["dampening"]: row for row in published()["recursive_layers"]}
    loops = np.arange(1, LOOPS + 1)

    def shown(losses: np.ndarray) -> np.ndarray:
        return np.where(losses < 3, losses, np.nan)  # beyond the zero predictor: diverged

    frames = []
    for index, dampening in enumerate(rollouts["dampening"].tolist()):
        series = [
            over_seeds("gradient step, looped", loops, shown(rollouts["gd"][:, index]).T, "dashed"),
            over_seeds("trained layer, looped", loops, shown(rollouts["trained"][:, index]).T),
            over_seeds("trained layer, target only", loops, shown(rollouts["trained_y"][:, index]).T, "dotted"),
        ]
        for name, values in plotted.get(dampening, {}).items():
            if name in ("trained", "gd"):
                known = {int(k): float(v) for k, v in values.items() if v is not None and float(v) < 3}
                label = {"trained": "published, trained", "gd": "published, gradient step"}[name]
                series.append(Series(label, list(known), list(known.values()), published=True))
        frames.append((dampening, Lines(f"dampening {dampening}", "loops", "half-MSE", tuple(series), log_y=True)))
    title, caption = "Looping one layer under dampening (Fig. 13)", "Curves end where the loss passes 3."
    return Slider(title, "dampening", tuple(frames), 3, caption)


def gradient_figure(run: Run) -> Chart:
    arrays = run.part_arrays("layer-D2-C10")
    return gradient_animation(
        arrays["step"],
        arrays["followed"][:, 0],
        arrays["followed_gd"],
        title="The sensitivities of the trained layer find those of gradient descent (Fig. 11)",
        caption="Six prompts (D = 2, C = 10); the frozen arrow is one gradient step at the best rate.",
    )


def weights_figure(run: Run) -> Chart:
    arrays = run.part_arrays(f"layer-D5-C{contexts_of(run)[-1]}")
    products = {"W_Q W_K^T": arrays["qk"][:, 0, 0], "W_V W_O": arrays["ov"][:, 0, 0]}
    scores = ", ".join(f"{float(np.median(copying_score(one))):.2f} of {name}" for name, one in products.items())
    caption = (
        "One gradient step: identity on x, and one entry for y. Positive eigenvalues of W_V W_O copy, negative ones "
        f"suppress (Elhage et al., 2021); the read-out has the sign -1. Copying scores: {scores}."
    )
    title = "The products of the trained weights and their eigenvalues"
    return weight_products(products, labels=[*(f"x{i + 1}" for i in range(5)), "y"], title=title, caption=caption)


def depth_figure(run: Run, kind: str, number: int) -> Chart:
    plotted = published()[f"loss_vs_context_{kind}_transformer"]
    series = []
    for depth, row in stacks_of(run, kind).items():
        curve = plotted[f"Transformer ({depth} layers)"]
        series.append(
            over_seeds(f"{depth} layers", list(row), np.stack([arrays["eval"][-1] for arrays in row.values()]))
        )
        series.append(Series(f"published, {depth} layers", curve["x"], curve["median"], published=True))
    return Lines(
        f"{kind.capitalize()} transformers (Fig. {number})", "context length C", "half-MSE", tuple(series), log_y=True
    )


def lstm_figure(run: Run) -> Chart:
    series, plotted = [], published()["lstm_loss"]
    for kind, label in (("uni", "UNI-LSTM"), ("bi", "BI-LSTM")):
        found = lstms_of(run, kind)
        if found:
            series.append(
                over_seeds(f"{kind}directional", list(found), np.stack([a["eval"][-1] for a in found.values()]))
            )
        known = {row["layers"]: row[f"{label} ({row['layers']} layers)"]["final_median"] for row in plotted}
        series.append(Series(f"published, {kind}directional", list(known), list(known.values()), published=True))
    series.append(Series("one gradient step", [1, 5], [closed_form_loss(10, 10)] * 2, style="dashed"))
    return Lines("LSTMs (Fig. 14)", "layers", "half-MSE", tuple(series))


# Our name of a measure -> its name in Figs. 15 and 16.
PLOTTED_LSTMS = {
    "prediction_error": "L2 error (predictions)",
    "gradient_error": "L2 error (gradients)",
    "cosine": "Model similarity",
}


def lstm_alignment_figure(run: Run) -> Chart:
    """The final values of Figs. 15 and 16."""
    charts = []
    for name, known in PLOTTED_LSTMS.items():
        series = []
        for kind in ("uni", "bi"):
            found, plotted = lstms_of(run, kind), published()[f"{kind}lstm_alignment"]
            if found:
                values = np.stack([arrays[f"final/{name}"] for arrays in found.values()])
                series.append(over_seeds(f"{kind}directional", list(found), values))
            layers, medians = zip(*((row["layers"], row[known]["final_median"]) for row in plotted), strict=True)
            series.append(Series(f"published, {kind}directional", layers, medians, published=True))
        charts.append(Lines(name.replace("_", " "), "layers", name.replace("_", " "), series))
    return Grid("Alignment of LSTMs with gradient descent (Figs. 15, 16)", tuple(charts), 3)
