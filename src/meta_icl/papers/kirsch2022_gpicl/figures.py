"""The figures of Kirsch et al. (2022), drawn from a finished run."""

from collections.abc import Callable, Mapping

import numpy as np

from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds
from meta_icl.runs import Run, drawn

from .readings import Found, end, gains, of_study, phase, trainings_of


def figures(run: Run) -> dict[str, Chart]:
    """Learning curves, the images of a task, phases, plateaus and the size of the state."""
    found = trainings_of(run)
    studies = {study: of_study(found, study) for study in ("main", "pool", "mlp", "bias")}
    main, both = studies["main"], of_study(found, "state", "main")
    makers: dict[str, Callable[[Run], Chart]] = {}
    if main:
        makers["learning"] = lambda run: learning_figure(main, run.part_arrays("references"))
        makers["images"] = lambda run: image_figure(next(iter(main.values())))
    if studies["pool"]:
        makers["phases"] = lambda run: phase_figure(studies["pool"], main)
    if studies["mlp"]:
        makers["mlp"] = lambda run: mlp_figure(studies["mlp"])
    if studies["bias"]:
        makers["plateau"] = lambda run: loss_figure(studies["bias"])
    if both:
        makers["state"] = lambda run: state_figure(both)
    decides = {
        "learning": "G1 G2 G3 G14",
        "phases": "G4 G5 G6",
        "mlp": "G7",
        "state": "G8",
        "plateau": "G9 G10 G12 G13",
    }
    return deciding(drawn(run, makers, decides), decides)


def learning_figure(main: Found, known: Mapping[str, np.ndarray]) -> Chart:
    first = min(main, key=lambda t: (t.data != "mnist", t.seed))
    same = [a for t, a in main.items() if t.data == first.data]
    charts = []
    for name in [key for key in same[0] if key.startswith("curve_")]:
        label = name.removeprefix("curve_")
        curves = np.stack([a[name] for a in same if name in a], axis=1)
        seen = np.arange(len(curves))
        series = [over_seeds("transformer", seen, curves)]
        for learner in ("1-NN", "centroid", "SGD", "MAML"):
            series.append(Series(learner, seen, known[f"{learner}/{label}"], style="dashed"))
        title = {"seen": f"{first.data}, training tasks", "unseen": f"{first.data}, new tasks and images"}.get(
            label, label
        )
        charts.append(Lines(title, "examples seen", "accuracy", series, h_lines=(("chance", 1 / first.n_labels),)))
    caption = "One network, trained on one data set; no weight changes while it sees the examples."
    return Grid("Learning from examples in the context", charts, 3, caption)


def image_figure(a: Mapping[str, np.ndarray]) -> Chart:
    n = min(10, len(a["shown"]))
    panels = [
        Panel(f"label {int(a['shown_labels'][i])}, answer {int(a['shown_answers'][i])}", a["shown"][i])
        for i in range(len(a["shown"]) - n, len(a["shown"]))
    ]
    return Heatmaps(
        "The last examples of a new task, as the network sees them", panels, "Every pixel is mixed.", shared_scale=True
    )


def phase_figure(pools: Found, main: Found) -> Chart:
    rows = sorted([*pools.items(), next(iter(main.items()))], key=lambda pair: pair[0].n_tasks)
    n = [t.n_tasks for t, _ in rows]
    found = [gains(a) for _, a in rows]
    series = [Series(f"{s}, {w}", n, [getattr(g[s], w) for g in found], style=style)
              for s in ("seen", "unseen") for w, style in (("start", "dashed"), ("end", "line"))]  # fmt: skip
    caption = "; ".join(f"{t.n_tasks:,} tasks: {phase(t, a)}" for t, a in rows)
    return Lines("Phases by the number of tasks", "tasks", "accuracy", series, log_x=True, caption=caption)


def mlp_figure(rows: Found) -> Chart:
    widths, tasks = (sorted({getattr(t, name) for t in rows}) for name in ("width", "n_tasks"))
    at = {(t.width, t.n_tasks): a for t, a in rows.items()}
    panels = []
    for name in ("seen", "unseen"):
        matrix = [[float(at[w, n][f"curve_{name}"][0]) if (w, n) in at else np.nan for n in tasks] for w in widths]
        panels.append(Panel(f"accuracy, {name} tasks", np.array(matrix), list(map(str, tasks)), list(map(str, widths))))
    caption = "Rows: width; columns: number of tasks."
    return Heatmaps("A network without context", panels, caption, diverging=False, shared_scale=True)


def loss_figure(rows: Found) -> Chart:
    series = []
    for p in sorted({t.bias for t in rows}):
        same = [a for t, a in rows.items() if t.bias == p]
        series.append(over_seeds(f"{p:.0%} biased", same[0]["step"][1:], np.stack([a["loss"][1:] for a in same], 1)))
    level = (("chance", float(np.log(next(iter(rows)).n_labels))),)
    return Lines("The plateau, with and without bias", "training step", "loss in nats", series, h_lines=level)


def state_figure(rows: Found) -> Chart:
    charts = []
    for name, label in (("state_size", "numbers of state"), ("n_parameters", "weights")):
        series = []
        for model in sorted({t.model for t in rows}):
            same = [a for t, a in rows.items() if t.model == model]
            x, y = [float(a[name]) for a in same], [end(a["curve_unseen"]) for a in same]
            series.append(Series(model.replace("_", " "), x, y, style="points"))
        charts.append(Lines(f"Against {label}", label, "accuracy, new tasks", series, log_x=True))
    return Grid("State or weights?", charts)
