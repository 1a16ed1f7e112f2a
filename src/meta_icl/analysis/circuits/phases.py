"""Phases of a training curve: jumps, plateaus, onsets, and whether two onsets coincide. Everything is numpy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from meta_icl.analysis.dynamics import Plateau, plateaus
from meta_icl.errors import require


def rises(
    steps: Shaped[np.ndarray, " t"], accuracy: Shaped[np.ndarray, " t"], window: int = 100
) -> Float[np.ndarray, " t"]:
    """The accuracy `window` steps later less that at every record: DeltaAcc of Minegishi et al. (2025).

    Linear between records, and level after the last.
    """
    x, y = np.asarray(steps, np.float64), np.asarray(accuracy, np.float64)
    require(bool((np.diff(x) > 0).all()), "steps", np.asarray(steps).tolist(), "ascending")
    return np.interp(x + window, x, y) - y


def smoothed(
    steps: Shaped[np.ndarray, " t"], curve: Shaped[np.ndarray, " t"], decades: float = 0.04
) -> Float[np.ndarray, " t"]:
    """A curve smoothed over log10 of the step, by a line through every record (Gaussian weights, least squares).

    `decades` is the deviation of the weights. Records at step 0 have no logarithm and stay as they are.
    """
    out = np.array(curve, np.float64)
    keep = np.asarray(steps) > 0
    times, values = np.log10(np.asarray(steps, np.float64)[keep]), out[keep]
    apart = times[None] - times[:, None]
    weights = np.exp(-0.5 * (apart / decades) ** 2)
    sums = [(weights * apart**power).sum(1) for power in range(3)]
    level, slope = weights @ values, (weights * apart) @ values
    spread = sums[0] * sums[2] - sums[1] ** 2
    lonely = spread <= 1e-12  # no other record near enough for a line
    line = (sums[2] * level - sums[1] * slope) / np.where(lonely, 1, spread)
    out[keep] = np.where(lonely, level / sums[0], line)
    return out


def accuracy_plateaus(
    steps: Shaped[np.ndarray, " t"],
    accuracy: Shaped[np.ndarray, " t"],
    *,
    min_rise: float = 0.1,
    max_slowness: float = 0.5,
    decades: float = 0.04,
) -> list[Plateau]:
    """The plateaus of an accuracy curve over the logarithm of the step, in order; `height` is the accuracy there.

    A plateau lies between two rises of at least `min_rise` of the whole rise each, and is at most `max_slowness` times
    as steep, per decade, as both. `time` is log10 of the step. The start and the end of the curve are not plateaus.
    Steepness is that of the curve smoothed over `decades`: unsmoothed, the sampling noise of 4,096 prompts makes
    plateaus in every rise that takes half a decade.
    """
    keep = np.asarray(steps) > 0
    if keep.sum() < 3:
        return []
    times, errors = np.log10(np.asarray(steps)[keep]), 1 - smoothed(steps, accuracy, decades)[keep]
    found = plateaus(times, errors, min_drop=min_rise, max_slowness=max_slowness)
    return [Plateau(1 - p.height, p.time, p.slowness) for p in found]


def phase_numbers(
    steps: Shaped[np.ndarray, " t"], accuracy: Shaped[np.ndarray, " t"], found: Sequence[Plateau]
) -> Int[np.ndarray, " t"]:
    """How many jumps of the accuracy lie behind every record: 0 at the start, n + 1 at the end of n plateaus.

    A jump is where the curve first comes to the middle between two neighbouring levels, which are its start, its
    plateaus (`found`, by `accuracy_plateaus`) and its end; a level that is not above the one before it has none.
    """
    levels = [float(accuracy[0]), *(plateau.height for plateau in found), float(accuracy[-1])]
    starts = [0.0, *(10**plateau.time for plateau in found)]
    numbers = np.zeros(len(steps), int)
    for low, high, start in zip(levels, levels[1:], starts, strict=False):
        behind = np.flatnonzero((np.asarray(accuracy) >= 0.5 * (low + high)) & (np.asarray(steps) >= start))
        if high > low and behind.size:
            numbers[behind[0] :] += 1
    return numbers


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
