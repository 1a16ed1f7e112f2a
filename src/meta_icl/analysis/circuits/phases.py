"""Phases of a training curve: jumps, plateaus, onsets, and whether two onsets coincide. Everything is numpy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from meta_icl.analysis.dynamics import Plateau, plateaus
from meta_icl.errors import require


def rises(
    steps: Shaped[np.ndarray, " t"], accuracy: Shaped[np.ndarray, " t"], window: int = 100
) -> Float[np.ndarray, " t-1"]:
    """The rise of the accuracy per `window` steps between neighbouring records: DeltaAcc of Minegishi et al. (2025)."""
    spacing = np.diff(np.asarray(steps, np.float64))
    require(bool((spacing > 0).all()), "steps", np.asarray(steps).tolist(), "ascending")
    return np.diff(np.asarray(accuracy, np.float64)) * np.minimum(window / spacing, 1)


def accuracy_plateaus(
    steps: Shaped[np.ndarray, " t"],
    accuracy: Shaped[np.ndarray, " t"],
    *,
    min_rise: float = 0.1,
    max_slowness: float = 0.5,
) -> list[Plateau]:
    """The plateaus of an accuracy curve over the logarithm of the step, in order; `height` is the accuracy there.

    A plateau lies between two rises of at least `min_rise` of the whole rise each, and is at most `max_slowness` times
    as steep, per decade, as both. `time` is log10 of the step. The start and the end of the curve are not plateaus.
    """
    keep = np.asarray(steps) > 0
    times, errors = np.log10(np.asarray(steps)[keep]), 1 - np.asarray(accuracy, np.float64)[keep]
    if keep.sum() < 3:
        return []
    found = plateaus(times, errors, min_drop=min_rise, max_slowness=max_slowness)
    return [Plateau(1 - p.height, p.time, p.slowness) for p in found]


class Phase(NamedTuple):
    """A stretch of records whose accuracy stays near a level: first and last step, and the median accuracy."""

    start: int
    stop: int
    level: float


def stretch_at(
    steps: Shaped[np.ndarray, " t"], accuracy: Shaped[np.ndarray, " t"], low: float, high: float
) -> Phase | None:
    """The records from the first at which the accuracy reaches `low` to the last before it first exceeds `high`."""
    steps, accuracy = np.asarray(steps), np.asarray(accuracy, np.float64)
    above = np.flatnonzero(accuracy > high)
    end = int(above[0]) if above.size else len(steps)
    inside = np.flatnonzero(accuracy[:end] >= low)
    if not inside.size:
        return None
    first = int(inside[0])
    return Phase(int(steps[first]), int(steps[end - 1]), float(np.median(accuracy[first:end])))


def onset(steps: Shaped[np.ndarray, " t"], curve: Shaped[np.ndarray, " t"], share: float = 0.5) -> float:
    """The step at which a curve first crosses `share` of the way from its start to its furthest value from there.

    Linear between records; NaN for a constant curve or one with NaN.
    """
    x, y = np.asarray(steps, np.float64), np.asarray(curve, np.float64)
    away = np.abs(y - y[0])
    if not np.isfinite(y).all() or away.max() == 0:
        return float("nan")
    level = share * away.max()
    i = int(np.argmax(away >= level))
    return float(x[i - 1] + (x[i] - x[i - 1]) * (level - away[i - 1]) / (away[i] - away[i - 1]))


def steepest_window(
    steps: Shaped[np.ndarray, " t"], curve: Shaped[np.ndarray, " t"], share: float = 0.1
) -> tuple[float, float]:
    """The stretch of `share` of the training over which a curve changes most (Olsson et al.: where the change is)."""
    x, y = np.asarray(steps, np.float64), np.asarray(curve, np.float64)
    width = share * (x[-1] - x[0])
    starts = np.linspace(x[0], x[-1] - width, 1000)
    change = np.abs(np.interp(starts + width, x, y) - np.interp(starts, x, y))
    best = np.flatnonzero(change >= change.max() - 1e-12)
    start = float(starts[best].mean())
    return start, start + width


def co_occur(a: float, b: float, *, total: float, share: float = 0.1) -> bool:
    """Whether two onset times lie within `share` of the training of each other; NaN never does."""
    return bool(abs(a - b) <= share * total)


def log_spaced(steps: int, n: int, first: int = 10) -> list[int]:
    """At most `n` record steps from `first` to `steps`, evenly on a log axis, without repetition."""
    require(steps >= 1, "steps", steps, "a positive integer")
    points = np.geomspace(min(first, steps), steps, n)
    return sorted({round(point) for point in points})
