"""What a sweep has found: a row per point, learning curves of the best, heat maps and parallel coordinates."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.apps.cli import train
from meta_icl.runs import Run
from meta_icl.runs.claims import VERDICTS

CURVES_SHOWN = 8  # those of the best points
LINES_SHOWN = 300  # of parallel coordinates: the best
MAPS_SHOWN = 6  # pairs of what varies
Rows = Sequence[Mapping[str, Any]]


def points_told(
    run: Run, parts: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One row per point: of trainings the median of the final losses over seeds and their range, of papers verdicts."""
    if "papers" in run.config:
        return [
            {"point": parts[name]["point"] or name} | {verdict: int(results[name][verdict]) for verdict in VERDICTS}
            for name in parts
        ]
    return [
        {
            "point": label or "-",
            "seeds": losses.shape[1],
            "initial_loss": float(np.median(losses[0])),
            "final_loss": float(np.median(losses[-1])),
            "lowest": float(np.min(losses[-1])),
            "highest": float(np.max(losses[-1])),
        }
        for label, losses in train.losses_by_point(parts, results).items()
    ]


def told(run: Run) -> dict[str, Any]:
    """What a report shows of a sweep: the table of its points, and the learning curves of the best of them."""
    from meta_icl.apps.report import Story, Table, of_training

    parts = {name: part.config["arguments"] for name, part in run.parts().items()}
    results = {name: run.part_arrays(name) for name in parts}
    rows = points_told(run, parts, results)
    if "papers" in run.config:
        table = Table("Verdicts by point of the sweep", list(rows[0]), [list(row.values()) for row in rows])
        return {"figures": {}, "tables": [table], "story": Story("What do the claims depend on?"), "kind": "sweep"}
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, arguments in parts.items():
        for label, losses in train.losses_by_point({name: arguments}, results).items():
            steps = np.asarray(results[name]["history/step"])[-len(losses) :]
            earlier = [curves[label][1]] if label in curves else []
            curves[label] = steps, np.concatenate([*earlier, losses], axis=1)
    ranked = sorted(curves, key=lambda label: np.nan_to_num(np.median(curves[label][1][-1]), nan=np.inf))
    trainings = [group["training"] for group in run.config["groups"]]
    alike = {
        key: {"name": " or ".join(sorted({training[key]["name"] for training in trainings}))}
        for key in ("model", "task")
    }
    config = {
        "seeds": run.config["seeds"],
        "steps": max(training["steps"] for training in trainings),
        "objective": " or ".join(sorted({training["objective"] for training in trainings})),
        **alike,
    }
    finite = [label for label in ranked if np.isfinite(curves[label][1]).any()] or ranked
    best = {label: curves[label] for label in finite[:CURVES_SHOWN]}
    content: dict[str, Any] = of_training(config, best, rows) | {"kind": "sweep"}
    content["figures"] |= {
        name: chart for name, chart in (("losses", heat_maps(rows)), ("settings", parallel(rows))) if chart
    }
    return content


def varied(rows: Rows) -> dict[str, list[str]]:
    """What varies over the points of a sweep of trainings: {name: the text of its value at every point}."""
    points = [dict(pair.split(" = ", 1) for pair in str(row["point"]).split(", ") if " = " in pair) for row in rows]
    names = list(dict.fromkeys(name for point in points for name in point))
    columns = {name: [point.get(name, "-") for point in points] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def heat_maps(rows: Rows) -> Any:
    """The final losses by every two things that vary, the lowest over all others, where every combination was tried;
    else, or where fewer vary, `None`."""
    from meta_icl.plotting import Heatmaps, Panel

    columns, losses = varied(rows), np.array([row["final_loss"] for row in rows], float)
    levels = {name: list(dict.fromkeys(values)) for name, values in columns.items()}
    if len(columns) < 2 or len(set(zip(*columns.values(), strict=True))) < np.prod([len(v) for v in levels.values()]):
        return None
    panels = []
    for one, other in itertools.islice(itertools.combinations(columns, 2), MAPS_SHOWN):
        matrix = np.full((len(levels[one]), len(levels[other])), np.inf)
        for down, across, loss in zip(columns[one], columns[other], losses, strict=True):
            place = levels[one].index(down), levels[other].index(across)
            matrix[place] = np.fmin(matrix[place], loss)
        names = [f"{other} = {value}" for value in levels[other]], [f"{one} = {value}" for value in levels[one]]
        panels.append(Panel("final loss", np.where(np.isinf(matrix), np.nan, matrix), *names))
    rest = " The lowest over whatever else varies." if len(columns) > 2 else ""
    caption = f"The median over seeds of the mean loss between the last two records.{rest}"
    return Heatmaps("Final loss", panels, caption, diverging=False, shared_scale=True)


def parallel(rows: Rows) -> Any:
    """All points as lines over what varies and the final loss; `None` where nothing does."""
    from meta_icl.plotting import Coordinate, Parallel

    losses = np.array([row["final_loss"] for row in rows], float)
    best = np.argsort(np.where(np.isfinite(losses), losses, np.inf), kind="stable")[:LINES_SHOWN]
    columns = varied([rows[place] for place in best])
    if not columns:
        return None
    axes = []
    for name, texts in columns.items():
        try:
            numbers = [float(text) for text in texts]
        except ValueError:
            words = list(dict.fromkeys(texts))
            axes.append(Coordinate(name, [words.index(text) for text in texts], words=words))
        else:
            axes.append(Coordinate(name, numbers, log=spread(numbers)))
    axes.append(Coordinate("final loss", losses[best], log=spread(losses[best])))
    some = f" The best {LINES_SHOWN} of {len(rows)} points." if len(rows) > LINES_SHOWN else ""
    caption = f"A line per point; blue: the best quarter by the final loss; dotted: diverged.{some}"
    return Parallel("Final loss by setting", axes, caption)


def spread(values: Sequence[float] | np.ndarray) -> bool:
    """Whether numbers are read on a logarithmic scale: positive, over more than a factor of 20."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return bool(finite.size and finite.min() > 0 and finite.max() / finite.min() > 20)
