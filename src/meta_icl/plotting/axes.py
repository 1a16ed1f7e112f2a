"""What a chart looks like in numbers, for both backends: ranges, bands, ticks, places of names, captions."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from meta_icl.plotting.chart import Bars, Chart, Grid, Heatmaps, Lines, Parallel, Series, Slider, Widget

Range = tuple[float, float]  # in axis units: log10 of the numbers on a logarithmic axis
GAP = 0.075  # of the height of a chart, between the names of two curves
NEAR_END = 0.9  # of an axis: from there on no room is left for a name on the far side of a line
LONGEST = 36  # letters of a name that has room beside its curve


def band_segments(series: Series) -> list[np.ndarray]:
    """The runs of consecutive indices at which x, low and high are all finite: a band has a hole elsewhere."""
    if series.low is None or series.high is None:
        return []
    known = np.isfinite([np.asarray(part) for part in (series.x, series.low, series.high)]).all(0)
    indices = np.flatnonzero(known)
    return [run for run in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1) if len(run)]


def smallest_positive(chart: Lines) -> float:
    """The smallest positive number on the y axis: where bands that reach zero end on a logarithmic axis."""
    parts = [np.asarray(part) for s in chart.series for part in (s.y, s.low) if part is not None]
    values = np.concatenate([*parts, np.zeros(1)])
    positive = values[np.isfinite(values) & (values > 0)]
    return float(positive.min()) if positive.size else 1.0


def on_one_scale(charts: Sequence[Lines]) -> list[Lines]:
    """The charts with logarithmic axes only where all of them have one: what shares a range shares its scale."""
    log_x, log_y = all(chart.log_x for chart in charts), all(chart.log_y for chart in charts)
    return [replace(chart, log_x=log_x, log_y=log_y) for chart in charts]


def shared_range(charts: Sequence[Lines], axis: Literal["x", "y"]) -> Range | None:
    """The range, in axis units (log10 on logarithmic axes), that shows the data of all charts with a small margin."""
    log = any(chart.log_x if axis == "x" else chart.log_y for chart in charts)
    parts = [np.asarray(getattr(s, axis)) for chart in charts for s in chart.series]
    if axis == "y":
        parts += [np.asarray(b) for chart in charts for s in chart.series for b in (s.low, s.high) if b is not None]
    levels = [level for chart in charts for _, level in (chart.v_lines if axis == "x" else chart.h_lines)]
    levels += [end for chart in charts for _, *ends in chart.spans for end in ends] if axis == "x" else []
    values = np.concatenate([*parts, np.asarray(levels, float)])
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not values.size:
        return None
    values = np.log10(values) if log else values
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or max(0.05 * abs(high), 0.05)
    return low - margin, high + margin


def read_with_two_decimals(limits: tuple[float, float]) -> bool:
    """Whether two decimals say anything of numbers on a scale with these ends: of very small ones they are all 0.00."""
    return 0.05 <= max(map(abs, limits)) < 1000


def counted(n: int) -> list[int]:
    """Ticks of rows or columns that have numbers for names: whole ones, a dozen at most."""
    return list(range(0, n, math.ceil(n / 12)))


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Ticks of a logarithmic axis from 10^low to 10^high: (number, text), read as numbers (0.01, 100), else as 10^k.

    Every decade, or every second, third, ... of many; with 2 and 5 between where there are few, and with plain steps
    where there is less than one.
    """
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    decades = last - first + 1
    if decades >= 4:
        return [(10.0**k, _power(k)) for k in range(first, last + 1, math.ceil(decades / 7))]
    between = [m * 10.0**k for k in range(first - 1, last + 1) for m in ((1, 2, 5) if decades < 3 else (1, 3))]
    inside = [value for value in between if low - 1e-9 <= math.log10(value) <= high + 1e-9]
    if len(inside) < 3:
        start, end = 10.0**low, 10.0**high
        step = 10.0 ** math.floor(math.log10((end - start) / 2))
        step *= max(m for m in (1, 2, 5) if m * step <= (end - start) / 2)
        inside = [step * k for k in range(math.ceil(start / step), math.floor(end / step) + 1)]
    return [(value, _plain(value)) for value in inside]


def _power(k: int) -> str:
    return _plain(10.0**k) if -4 <= k <= 5 else f"10^{{{k}}}".replace("-", "−")


def _plain(value: float) -> str:
    if not 1e-4 <= value < 1e6:
        k = math.floor(math.log10(value) + 1e-9)
        lead = value / 10.0**k
        return (f"{lead:.3g}·" if abs(lead - 1) > 1e-9 else "") + f"10^{{{k}}}".replace("-", "−")
    return f"{value:,.6g}" if value >= 1e4 else f"{value:.6g}"


def named_ends(chart: Lines, x_range: Range | None, y_range: Range | None) -> list[float] | None:
    """Where the names of the curves stand beside their right ends, as fractions of the height of the axes.

    One place per series, at least `GAP` apart. `None` if a legend is clearer: a single curve or very many of them, a
    long name, a curve that ends far from the right edge, or names that would stand far from their curves.
    """
    series, n = chart.series, len(chart.series)
    if x_range is None or y_range is None or not 2 <= n <= 8 or max(len(s.name) for s in series) > LONGEST:
        return None
    wanted: list[float] = []
    for s in series:
        x, y = np.asarray(s.x), np.asarray(s.y)
        known = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not chart.log_x)) & ((y > 0) | (not chart.log_y))
        x, y = x[known], y[known]
        if not len(x) or np.any(np.diff(x) < 0):
            return None
        end = (math.log10(x[-1]) if chart.log_x else x[-1]) - x_range[0]
        if end < 0.8 * (x_range[1] - x_range[0]):
            return None
        height = (math.log10(y[-1]) if chart.log_y else y[-1]) - y_range[0]
        wanted.append(min(max(height / (y_range[1] - y_range[0]), 0.0), 1.0))
    places = _apart(wanted)
    far = max(abs(place - want) for place, want in zip(places, wanted, strict=True))
    return places if far <= 2.1 * GAP else None


def room_for(label: str, start: float, end: float, range_: Range | None, log: bool) -> bool:
    """Whether the name of an interval of x fits above it, in a chart that stands beside others."""
    if range_ is None or (log and start <= 0):
        return False
    low, high = (math.log10(start), math.log10(end)) if log else (start, end)
    return high - low >= 0.03 * len(label) * (range_[1] - range_[0])


def staggered(levels: Sequence[float], range_: Range | None, log: bool) -> list[int]:
    """For every named level 0, 1 or 2, the column in which its name stands, so that names of close levels do not meet.

    Where more than three are that close, the last column takes the rest. A name stands on its line, but may hang from
    one that is `NEAR_END` of the axis.
    """
    if range_ is None:
        return [0] * len(levels)
    low, size = range_[0], range_[1] - range_[0]
    heights = [((math.log10(v) if log else v) - low) / size if v > 0 or not log else -math.inf for v in levels]
    tops, columns = [-math.inf] * 3, [0] * len(levels)
    for i in sorted(range(len(levels)), key=heights.__getitem__):
        below = GAP if heights[i] > NEAR_END else 0.0
        free = [column for column, top in enumerate(tops) if heights[i] - below - top >= 0.8 * GAP]
        columns[i] = free[0] if free else len(tops) - 1
        tops[columns[i]] = heights[i]
    return columns


def _apart(wanted: Sequence[float]) -> list[float]:
    """Places near those that are wanted, at least `GAP` apart, from 0 to 1: from below up, then from above down."""
    order = np.argsort(wanted, kind="stable")
    places = np.array(wanted, float)[order]
    groups: list[list[float]] = []  # (sum of wanted minus offset, number): names that touch stand centred on their mean
    for want in places:
        groups.append([want, 1.0])
        while len(groups) > 1:
            (low_sum, low_n), (high_sum, high_n) = groups[-2:]
            low, high = low_sum / low_n, high_sum / high_n
            if high - low >= GAP * (low_n + high_n) / 2:
                break
            groups[-2:] = [[low_sum + high_sum, low_n + high_n]]
    found: list[float] = []
    for total, count in groups:
        found += [total / count + GAP * (i - (count - 1) / 2) for i in range(int(count))]
    shift = max(0.0, -found[0]) - max(0.0, found[-1] - 1.0)
    out = np.empty(len(wanted))
    out[order] = np.array(found) + shift
    return out.tolist()


def shared_names(chart: Grid) -> list[Series] | None:
    """The series whose names all charts of a grid share, if several charts have the same: one legend serves them."""
    lines = [cell for cell in chart.charts if isinstance(cell, Lines)]
    names = {tuple((s.name, s.style, s.published) for s in cell.series) for cell in lines}
    if len(lines) < 2 or len(lines) < len(chart.charts) or len(names) != 1 or len(lines[0].series) < 2:
        return None
    return list(lines[0].series)


def told(chart: Chart) -> str:
    """The caption, and what the bands show where it does not say so."""
    bands = list(dict.fromkeys(s.band for s in _series(chart) if s.low is not None and s.band))
    caption = chart.caption.strip()
    if not bands or any(word in caption.lower() for word in ("band", "bar", "range", "interval")):
        return caption
    return f"{caption} Bands: {', '.join(bands)}; curves: medians.".strip()


def _series(chart: Chart) -> list[Series]:
    match chart:
        case Lines():
            return list(chart.series)
        case Grid():
            return [s for cell in chart.charts for s in _series(cell)]
        case Slider():
            return _series(chart.frames[0][1])
        case Widget():
            return _series(chart.static) if chart.static is not None else []
        case Bars() | Heatmaps() | Parallel():
            return []
