"""What a figure shows, independent of how it is drawn.

A chart is a frozen description made of numbers and names. Papers and user code build charts; `draw_plotly` and
`draw_matplotlib` draw them. Sequences and arrays are taken alike and kept as float64 arrays; NaN means "no point here".
Names and labels may use one level of `_` and `^` after a single letter (`W_Q W_K^T`), which is set as sub- and
superscript.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from meta_icl.errors import BadInput, choose, require


@runtime_checkable
class HasArray(Protocol):
    """What numpy can turn into an array: arrays of any library."""

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


Numbers: TypeAlias = np.ndarray | HasArray | Sequence[Any]
STYLES = ("line", "dashed", "dotted", "points")


class _Shown:
    """What a notebook shows for a chart that is the last value of a cell."""

    def _repr_svg_(self) -> str:
        from meta_icl.plotting.draw_matplotlib import svg  # drawing is loaded when something is drawn

        return svg(self)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Series:
    """One curve, or one set of points, of n values; `low` and `high` bound a band (error bars for points).

    `published` marks numbers taken from a publication, which are drawn in a style of their own.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    style: str = "line"  # one of STYLES
    published: bool = False

    def __post_init__(self):
        choose("style of a series", self.style, STYLES)
        for name in ("x", "y", "low", "high"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _numbers(value, f"{name} of series {self.name!r}", 1))
        n = len(np.asarray(self.x))
        for name in ("y", "low", "high"):
            value = getattr(self, name)
            if value is not None:
                require(len(value) == n, f"{name} of series {self.name!r}", f"{len(value)} values", f"{n} values, as x")
        both = (self.low is None) == (self.high is None)
        require(both, f"band of series {self.name!r}", "one bound", "given by both low and high")


def over_seeds(name: str, x: Numbers, values: np.ndarray, style: str = "line") -> Series:
    """The median over seeds of `values` "n seeds" against `x` "n", with the range of the seeds as its band."""
    rows = np.asarray(values, np.float64)
    return Series(name, x, np.median(rows, -1), rows.min(-1), rows.max(-1), style)


def thin(x: np.ndarray, y: np.ndarray, n: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """At most about 2n points of a curve: n evenly along x, and n evenly along its rise and fall."""
    along = np.abs(np.diff(y, prepend=y[0])).cumsum()
    marks = [np.searchsorted(a, np.linspace(a[0], a[-1], n)) for a in (x, along)]
    keep = np.unique(np.clip(np.concatenate([*marks, [0, len(x) - 1]]), 0, len(x) - 1))
    return x[keep], y[keep]


@dataclass(frozen=True, eq=False)
class Lines(_Shown):
    """Curves and points over common axes; `h_lines` and `v_lines` are labelled levels, (label, value)."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    caption: str = ""
    h_lines: Sequence[tuple[str, float]] = ()
    v_lines: Sequence[tuple[str, float]] = ()

    def __post_init__(self):
        object.__setattr__(self, "series", tuple(self.series))


@dataclass(frozen=True, eq=False)
class Panel:
    """One matrix, "rows columns", with the names of its rows (`y_labels`) and columns (`x_labels`)."""

    name: str
    matrix: Numbers
    x_labels: Sequence[str] | None = None
    y_labels: Sequence[str] | None = None

    def __post_init__(self):
        matrix = _numbers(self.matrix, f"matrix of panel {self.name!r}", 2)
        object.__setattr__(self, "matrix", matrix)
        for name, labels, n in (("x_labels", self.x_labels, matrix.shape[1]), ("y_labels", self.y_labels, len(matrix))):
            allowed = f"{n} names"
            require(labels is None or len(labels) == n, f"{name} of panel {self.name!r}", labels, allowed)


@dataclass(frozen=True, eq=False)
class Heatmaps(_Shown):
    """Matrices side by side, row 0 on top; `diverging` centres the colours on zero, else they start at the minimum."""

    title: str
    panels: Sequence[Panel]
    caption: str = ""
    diverging: bool = True
    shared_scale: bool = False

    def __post_init__(self):
        object.__setattr__(self, "panels", tuple(self.panels))
        require(len(self.panels) > 0, f"panels of {self.title!r}", self.panels, "at least one panel")

    def limits(self) -> list[tuple[float, float]]:
        """The numbers at the two ends of the colour scale of every panel."""
        ends = [_finite_range(np.asarray(panel.matrix)) for panel in self.panels]
        if self.shared_scale:
            ends = [(min(low for low, _ in ends), max(high for _, high in ends))] * len(ends)
        if self.diverging:
            ends = [(-max(abs(low), abs(high)), max(abs(low), abs(high))) for low, high in ends]
        return [(low, high) if low < high else (low - 1, high + 1) for low, high in ends]


@dataclass(frozen=True, eq=False)
class Bars(_Shown):
    """One bar per name, with optional whiskers from `low` to `high`."""

    title: str
    x_label: str
    y_label: str
    names: Sequence[str]
    values: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    caption: str = ""

    def __post_init__(self):
        for name in ("values", "low", "high"):
            value = getattr(self, name)
            if value is not None:
                value = _numbers(value, f"{name} of {self.title!r}", 1)
                object.__setattr__(self, name, value)
                n = len(self.names)
                require(len(value) == n, f"{name} of {self.title!r}", f"{len(value)} values", f"{n}, one per name")
        both = (self.low is None) == (self.high is None)
        require(both, f"whiskers of {self.title!r}", "one bound", "given by both low and high")


@dataclass(frozen=True, eq=False)
class Grid(_Shown):
    """Charts side by side, filled row by row."""

    title: str
    charts: "Sequence[Chart]"
    columns: int = 2
    caption: str = ""

    def __post_init__(self):
        object.__setattr__(self, "charts", tuple(self.charts))
        require(len(self.charts) > 0, f"charts of {self.title!r}", self.charts, "at least one chart")
        require(self.columns >= 1, f"columns of {self.title!r}", self.columns, "1 or more")


@dataclass(frozen=True, eq=False)
class Slider(_Shown):
    """One chart per value of a slider, all on the same axes; `frames` are (value, chart), `start` an index."""

    title: str
    label: str
    frames: "Sequence[tuple[Any, Chart]]"
    start: int = 0
    caption: str = ""

    def __post_init__(self):
        object.__setattr__(self, "frames", tuple(self.frames))
        n = len(self.frames)
        require(n > 0, f"frames of {self.title!r}", self.frames, "at least one frame")
        require(0 <= self.start < n, f"start of {self.title!r}", self.start, f"an index from 0 to {n - 1}")


@dataclass(frozen=True, eq=False)
class Widget(_Shown):
    """An interactive figure of its own: `html` is mounted, then `script` runs with (root, data, Plotly).

    `script` is the body of a JavaScript function, `data` anything that JSON can hold (arrays included), `static` the
    chart that stands for the widget where nothing can move.
    """

    title: str
    html: str
    script: str
    data: Mapping[str, Any] = field(default_factory=dict)
    caption: str = ""
    static: "Chart | None" = None


Chart: TypeAlias = Lines | Heatmaps | Bars | Grid | Slider | Widget


def still(chart: Chart) -> Chart:
    """The chart as it stands where nothing can move: a slider's start frame, a widget's static chart."""
    if isinstance(chart, Slider):
        value, frame = chart.frames[chart.start]
        return replace(still(frame), title=f"{chart.title}: {chart.label} = {value_text(value)}", caption=chart.caption)
    if isinstance(chart, Widget):
        if chart.static is None:
            raise BadInput(f"static chart of {chart.title!r} must be given, to draw the widget in a file")
        return still(chart.static)
    if isinstance(chart, Grid):
        return replace(chart, charts=tuple(still(cell) for cell in chart.charts))
    return chart


def value_text(value: Any) -> str:
    """A slider's value as people write it."""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


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


def shared_range(charts: Sequence[Lines], axis: Literal["x", "y"]) -> tuple[float, float] | None:
    """The range, in axis units (log10 on logarithmic axes), that shows the data of all charts with a small margin."""
    log = any(chart.log_x if axis == "x" else chart.log_y for chart in charts)
    parts = [np.asarray(getattr(s, axis)) for chart in charts for s in chart.series]
    if axis == "y":
        parts += [np.asarray(b) for chart in charts for s in chart.series for b in (s.low, s.high) if b is not None]
    levels = [level for chart in charts for _, level in (chart.v_lines if axis == "x" else chart.h_lines)]
    values = np.concatenate([*parts, np.asarray(levels, float)])
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not values.size:
        return None
    values = np.log10(values) if log else values
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or max(0.05 * abs(high), 0.05)
    return low - margin, high + margin


def _numbers(value: Numbers, what: str, ndim: int) -> np.ndarray:
    """A float64 array of `ndim` axes, read-only, so that a frozen chart stays what it was."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = None
    if array is None or array.ndim != ndim:
        raise BadInput(f"{what} must be numbers along {ndim} {'axis' if ndim == 1 else 'axes'}, got {value!r}")
    array.setflags(write=False)
    return array


def read_with_two_decimals(limits: tuple[float, float]) -> bool:
    """Whether two decimals say anything of numbers on a scale with these ends: of very small ones they are all 0.00."""
    return 0.05 <= max(map(abs, limits)) < 1000


def _finite_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
