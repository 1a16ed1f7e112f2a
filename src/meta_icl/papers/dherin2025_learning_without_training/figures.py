"""The figures of Dherin et al. (2025), drawn from a finished run."""

from collections.abc import Mapping

import numpy as np

from meta_icl.plotting import Bars, Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds
from meta_icl.runs import Run, drawn

from .experiments import ANY_WEIGHTS, Exact
from .identities import IDENTITIES, PRECISIONS


def figures(run: Run) -> dict[str, Chart]:
    """The paper's figures, and the probe by layer and example."""
    makers = {
        "identities": lambda run: identities_figure(
            {name: run.part_arrays(f"identities-{name}") for name in PRECISIONS}
        ),
        "training": lambda run: training_figure(run.part_arrays("attention")),
        "update_sizes": lambda run: sizes_figure(run.part_arrays("attention"), run.part_arrays("recurrent")),
        "fine_tuning": lambda run: tuning_figure(run.part_arrays("attention")),
        "thought": lambda run: thought_figure(run.part_arrays("attention"), run.part_arrays("thought-random")),
        "examples": lambda run: examples_figure(run.part_arrays("deep")),
    }
    decides = {
        "identities": "D1 D2 D3 D10",
        "training": "D7",
        "update_sizes": "D8 D11",
        "fine_tuning": "D9",
        "thought": "D12",
    }
    return deciding(drawn(run, makers, decides), decides)


def identities_figure(exact: Exact) -> Chart:
    names = {f"{kind}/all": kind for kind in IDENTITIES} | {
        "stack/all": "ten pre-LN blocks",
        "chains/additive answer": "additive chain",
        "chains/factorised answers": "factorised chain",
    }
    charts = []
    for precision in PRECISIONS:
        largest = [np.log10(max(exact[precision][name].max(), 1e-18)) for name in names]
        charts.append(Bars(precision, "", "log10 of the relative error", list(names.values()), largest))
    title = "The patched block without the context against the block with it"
    n = len(exact["float64"]["no skip/all"])
    return Grid(title, charts, 2, f"Largest error of {n} random blocks. {ANY_WEIGHTS}")


def training_figure(attention: Mapping[str, np.ndarray]) -> Chart:
    steps = attention["step"]
    series = (
        over_seeds("with the context", steps, attention["replaced/context"]),
        over_seeds("context removed, weights patched", steps, attention["replaced/patched"], "dashed"),
    )
    caption = "The two curves coincide at every step, trained or not."
    return Lines("Validation loss while training (Fig. 2, v1)", "training step", "half-MSE", series, caption=caption)


def sizes_figure(attention: Mapping[str, np.ndarray], recurrent: Mapping[str, np.ndarray]) -> Chart:
    series = []
    tokens = np.arange(1, attention["update size"].shape[2])
    for name, arrays in (("softmax attention", attention), ("LSTM", recurrent)):
        sizes = np.median(arrays["update size"], axis=1)
        series.append(over_seeds(name, tokens, (sizes[:, 1:] / sizes[:, 1:2]).T))
    series.append(Series("1 / i", tokens, 1 / tokens, style="dotted"))
    title, y_label = "Size of the update by token (Fig. 3, v1)", "|W_{i+1} - W_i|, relative to i = 1"
    caption = "Median over prompts; a small |A(x)| gives the mean a heavy tail."
    return Lines(title, "token i", y_label, series, log_x=True, log_y=True, caption=caption)


def tuning_figure(attention: Mapping[str, np.ndarray]) -> Chart:
    prompt, tuned, rates = attention["prompt loss"].mean(1), attention["tuned loss"].mean(1), attention["rates"]
    pairs = np.arange(prompt.shape[1])
    losses = [over_seeds("prompt, or its patch", pairs, prompt.T)]
    losses += [
        over_seeds(f"fine-tuning, rate {rate:g}", pairs, tuned[:, i].T, "dashed") for i, rate in enumerate(rates)
    ]
    chosen = int(np.argmin(np.abs(rates - 0.01)))
    aligned = (over_seeds(f"rate {rates[chosen]:g}", pairs[1:], attention["cosine"].mean(1)[:, chosen].T),)
    charts = (
        Lines("Loss on the query", "pairs seen", "half-MSE", losses, log_y=True),
        Lines("Update i against fine-tuning step i", "pair i", "cosine", aligned),
    )
    caption = "How fast fine-tuning is depends wholly on its rate."
    return Grid("The prompt against fine-tuning on its pairs (Fig. 4, v1)", charts, 2, caption)


def thought_figure(attention: Mapping[str, np.ndarray], random: Mapping[str, np.ndarray]) -> Chart:
    shown = (("calibration queries", "calibration", "dotted"), ("new queries", "test", "line"))
    charts = []
    for title, arrays, start in (("Trained block", attention, "thought/"), ("Random block", random, "")):
        none, sizes = arrays[f"{start}none"][:, None], arrays[f"{start}sizes"]
        series = [
            over_seeds(label, sizes, (arrays[start + name] / none).clip(1e-3).T, style)
            for label, name, style in (*shown, ("thought vector", "vector", "dashed"))
        ]
        y_label = "squared error / without a patch"
        charts.append(Lines(title, "calibration queries K", y_label, series, log_x=True, log_y=True))
    caption = (
        "The random block is fitted exactly up to K = its width, where the error on new queries peaks. Shares below "
        "0.001 are drawn there."
    )
    return Grid("One patch for many queries", charts, 2, caption)


def examples_figure(deep: Mapping[str, np.ndarray]) -> Chart:
    sizes = deep["example sizes"]
    blocks, examples = ([str(i + 1) for i in range(n)] for n in sizes.shape)
    panel = Panel("|dW| / |W| of leaving one example out", sizes, examples, [f"block {name}" for name in blocks])
    caption = "One prompt through the trained stack of ten blocks; columns are its examples in order."
    return Heatmaps("Which examples move the weights, and where", (panel,), caption, diverging=False)
