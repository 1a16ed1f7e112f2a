"""What reports of trainings and comparisons show: learning curves over seeds, losses beside references."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.apps.report.story import Story
from meta_icl.apps.report.tables import Table
from meta_icl.plotting import Bars, Chart, Lines, Series, over_seeds

SHOWN = 1e-9  # the smallest share of the largest loss that is drawn


def of_training(
    config: Mapping[str, Any], curves: Mapping[str, tuple[np.ndarray, np.ndarray]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of the report of a training: `curves` are {point of the sweep: (steps "n", losses "n seeds")}, `rows`
    the summaries of the points."""
    seeds, objective = config["seeds"], str(config["objective"]).replace("_", " ")
    names = [name or "training loss" for name in curves]
    series = [over_seeds(name, *curve) for name, curve in zip(names, curves.values(), strict=True)]
    several = f"the median over {seeds} seeds" if seeds > 1 else "one seed"
    figure = Lines(
        "Training loss",
        "training step",
        f"loss ({objective})",
        series,
        log_y=all((losses[np.isfinite(losses)] > 0).all() for _, losses in curves.values()),
        caption=f"Mean over the batches between two records; {several}"
        + (" with the range over them as a band." if seeds > 1 else "."),
    )
    ends = {name: float(np.median(losses[-1])) for name, (_, losses) in curves.items()}
    best = min(ends, key=lambda name: ends[name] if np.isfinite(ends[name]) else np.inf)
    steps, losses = curves[best]
    first, last = float(np.median(losses[0])), np.asarray(losses[-1], float)
    spread = f" [{last.min():.4g}, {last.max():.4g}] over {seeds} seeds" if seeds > 1 else ""
    at = f" at {best}" if best else ""
    model, task = config["model"]["name"], config["task"]["name"]
    answer = f"After {int(steps[-1])} steps the loss is {np.median(last):.4g}{spread}{at}; it began at {first:.4g}."
    return {
        "figures": {"loss": figure},
        "tables": [Table("Losses by point of the sweep", list(rows[0]), [list(row.values()) for row in rows])],
        "story": Story(f"How far does {model} learn {task} in {config['steps']} steps?", answer, "loss"),
        "kind": "training",
    }


def of_comparison(compared: Sequence[Mapping[str, Any]], n_prompts: int) -> dict[str, Any]:
    """The content of the report of a comparison: what `meta-icl compare --json` tells of every point of a sweep.

    Curves are means over prompts; their bands are normal 95 % intervals of that mean.
    """
    figures: dict[str, Chart] = {}
    tables = []
    for number, one in enumerate(compared):
        suffix, at = (f"-{number}", f", {one['point']}") if len(compared) > 1 else ("", "")
        losses = {name: row["loss"] for name, row in one["rows"].items()}
        if one["curves"]:
            figures[f"contexts{suffix}"] = _curves(
                f"Loss by context length{at}", "context length", one["contexts"], one["curves"], n_prompts
            )
        for field, shift in one["shifts"].items():
            title = f"Loss out of distribution: {field}{at}"
            figures[f"{field}{suffix}"] = _curves(title, field, shift["values"], shift["curves"], n_prompts)
        means, errors = (np.array([loss[part] for loss in losses.values()], float) for part in ("mean", "error"))
        reach = 1.96 * errors
        figures[f"losses{suffix}"] = Bars(
            f"Loss on {n_prompts} prompts{at}",
            "predictor",
            "half-MSE of the query",
            [name.replace("_", " ") for name in losses],
            means,
            means - reach,
            means + reach,
            caption="Whiskers: 95 % intervals over prompts.",
        )
        measures = list(next(iter(one["rows"].values())))
        rows = [[name, *(row[m]["mean"] for m in measures)] for name, row in one["rows"].items()]
        heads = ["predictor", *(m.replace("_", " ") for m in measures)]
        tables.append(Table(f"Losses and distances to {one['reference']}{at}", heads, rows))
    one = compared[0]
    ratio, reference = one["rows"]["trained"]["loss_ratio"], one["reference"]
    at = f" at {one['point']}" if one["point"] else ""
    answer = f"The loss of the trained network is {ratio['mean']:.4g} times that of {reference}{at}"
    story = Story(
        f"How close does the trained network come to {', '.join(name for name in one['rows'] if name != 'trained')}?",
        f"{answer} ({n_prompts} prompts).",
        next(iter(figures)),
    )
    return {"figures": figures, "tables": tables, "story": story, "kind": "comparison with references"}


def _curves(title: str, x_label: str, x: Sequence[float], curves: Mapping[str, Any], n_prompts: int) -> Chart:
    series = []
    largest = max(e["mean"] for estimates in curves.values() for e in estimates)
    exact = False
    for name, estimates in curves.items():
        means, errors = (np.array([e[part] for e in estimates], float) for part in ("mean", "error"))
        exact = exact or bool(np.any(means < SHOWN * largest))
        means = np.where(means < SHOWN * largest, np.nan, means)  # rounding, whose decades would hide all others
        style = "line" if name == "trained" else "dashed"
        series.append(Series(name.replace("_", " "), x, means, means - 1.96 * errors, means + 1.96 * errors, style))
    caption = f"Means over {n_prompts} prompts, the same for all; bands: 95 % intervals over prompts."
    caption += " Losses of nothing but rounding are not drawn." if exact else ""
    x_label, y_label = x_label.replace("_", " "), "half-MSE of the query"
    return Lines(title, x_label, y_label, series, log_y=largest > 0, caption=caption)
