"""Draw what the science returns: curves with their bands, learning curves, comparisons, or a chart as it is."""

from typing import Any

import numpy as np

from meta_icl.errors import BadInput
from meta_icl.evaluation import Comparison, Curves, learning_curves
from meta_icl.plotting import Bars, Chart, Lines, Series
from meta_icl.plotting import show as draw_and_show
from meta_icl.probes.attention import AttentionMaps
from meta_icl.training import Trained


def show(thing: Any) -> None:
    """Show curves, the learning curves of a trained ensemble, a comparison, attention maps or a chart."""
    draw_and_show(chart(thing))


def chart(thing: Any) -> Chart:
    """The chart of something; raises `BadInput` for what has none."""
    if isinstance(thing, Curves):
        return lines(thing)
    if isinstance(thing, Trained):
        return lines(learning_curves(thing))
    if isinstance(thing, Comparison):
        return bars(thing)
    if isinstance(thing, AttentionMaps):
        return thing.chart()
    if isinstance(thing, Chart):
        return thing
    known = "curves, a trained ensemble, a comparison, attention maps or a chart"
    raise BadInput(f"show must get {known}, got {type(thing).__name__}")


def lines(curves: Curves, title: str = "") -> Lines:
    """A line with its band for every curve; the caption says what the bands cover."""
    series = []
    for name in curves:
        mean, low, high = curves.band(name)
        banded = bool(np.isfinite(low).all())
        series.append(Series(name, curves.x, mean, low if banded else None, high if banded else None))
    positive = all((np.asarray(s.y) > 0).all() and (s.low is None or (np.asarray(s.low) > 0).all()) for s in series)
    return Lines(
        title or f"{curves.y_label} by {curves.x_label}",
        curves.x_label,
        curves.y_label,
        series,
        log_y=positive,
        caption=f"Bands: {curves.interval}.",
    )


def bars(table: Comparison) -> Bars:
    """The loss of every predictor with its interval, over seeds where there are several."""
    rows = {name: row["loss"] for name, row in table.rows.items()}
    ends = [loss.over_seeds if len(loss.members) > 1 else loss.over_prompts for loss in rows.values()]
    low, high = np.array(ends).T
    values = [loss.mean for loss in rows.values()]
    return Bars("loss", "predictor", "loss", list(rows), values, low, high, f"Whiskers: {table.interval}.")
