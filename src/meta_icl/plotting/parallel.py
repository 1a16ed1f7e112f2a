"""Parallel coordinates: one upright axis per quantity, one line per thing that has a value on each of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meta_icl.errors import require
from meta_icl.plotting.base import Numbers, Shown, finite_range, numbers

BEST = 0.25  # the share of lines, by the last axis, that stand out


@dataclass(frozen=True, eq=False)
class Coordinate:
    """One axis: a number per line, on a logarithmic scale if `log`, or the index of one of `words` per line."""

    name: str
    values: Numbers
    log: bool = False
    words: Sequence[str] = ()

    def __post_init__(self):
        object.__setattr__(self, "values", numbers(self.values, f"values of axis {self.name!r}", 1))
        values = np.asarray(self.values)[np.isfinite(self.values)]
        require(not self.log or bool((values > 0).all()), f"values of axis {self.name!r}", values, "positive on a log")

    def heights(self) -> np.ndarray:
        """Where the values stand, from 0 (the lowest) to 1; NaN where there is none."""
        values = np.asarray(self.values)
        scaled = np.where(np.isfinite(values), np.log(values) if self.log else values, np.nan)
        low, high = finite_range(scaled)
        return np.full(len(values), 0.5) if low == high else (scaled - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """The heights that are named: those of all words or of few numbers, else the ends and the middle."""
        values = np.asarray(self.values)
        there = np.unique(values[np.isfinite(values)])
        heights = self.heights()
        if self.words or len(there) <= 5:
            at = [float(heights[np.flatnonzero(values == value)[0]]) for value in there]
            return [(h, self.words[int(v)] if self.words else f"{v:.3g}") for h, v in zip(at, there, strict=True)]
        low, high = float(there[0]), float(there[-1])
        middle = math.sqrt(low * high) if self.log else (low + high) / 2
        return [(0.0, f"{low:.3g}"), (0.5, f"{middle:.3g}"), (1.0, f"{high:.3g}")]

    def told(self, line: int) -> str:
        """The value of one line in words."""
        value = float(np.asarray(self.values)[line])
        return self.words[int(value)] if self.words else f"{value:.4g}"


@dataclass(frozen=True, eq=False)
class Parallel(Shown):
    """Lines over parallel axes, of which the last one judges: low is good, and the best lines stand out."""

    title: str
    axes: Sequence[Coordinate]
    caption: str = ""

    def __post_init__(self):
        object.__setattr__(self, "axes", tuple(self.axes))
        lengths = {len(np.asarray(axis.values)) for axis in self.axes}
        require(
            len(self.axes) >= 2 and len(lengths) == 1, f"axes of {self.title!r}", lengths, "two or more of one length"
        )

    def standing_out(self) -> np.ndarray:
        """Which lines are among the best by the last axis, at least one if any has a value there."""
        judged = np.asarray(self.axes[-1].values)
        order = np.argsort(np.where(np.isfinite(judged), judged, np.inf), kind="stable")
        best = np.zeros(len(judged), bool)
        best[order[: max(1, round(BEST * len(judged)))]] = True
        return best & np.isfinite(judged)
