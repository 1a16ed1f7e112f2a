"""What a figure shows, independent of how it is drawn.

A chart is a frozen description made of numbers and names. Papers and user code build charts; `draw_plotly` and
`draw_matplotlib` draw them. Sequences and arrays are taken alike and kept as float64 arrays; NaN means "no point here".
Names and labels may use one level of `_` and `^` after a single letter (`W_Q W_K^T`), which is set as sub- and
superscript.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from meta_icl.errors import BadInput, choose, require
from meta_icl.plotting.base import Numbers, Shown, finite_range, numbers
from meta_icl.plotting.parallel import Parallel

STYLES = ("line", "dashed", "dotted", "points")


@dataclass(frozen=True, eq=False)
class Series:
    """One curve, or one set of points, of n values; `low` and `high` bound a band (error bars for points).

    `published` marks numbers taken from a publication, which are drawn in a style of their own. `band` says what lies
    between the bounds, such as "range over seeds"; captions explain it.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    style: str = "line"  # one of STYLES
    published: bool = False
    band: str = ""

    def __post_init__(self):
        choose("style of a series", self.style, STYLES)
        for name in ("x", "y", "low", "high"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, numbers(value, f"{name} of series {self.name!r}", 1))
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
    return Series(name, x, np.median(rows, -1), rows.min(-1), rows.max(-1), style, band=_over(rows.shape[-1]))


def _over(n_seeds: int) -> str:
    return f"range over {n_seeds} seeds" if n_seeds > 1 else ""


def thin(x: np.ndarray, y: np.ndarray, n: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """At most about 2n points of a curve: n evenly along x, and n evenly along its rise and fall."""
    along = np.abs(np.diff(y, prepend=y[0])).cumsum()
    marks = [np.searchsorted(a, np.linspace(a[0], a[-1], n)) for a in (x, along)]
    keep = np.unique(np.clip(np.concatenate([*marks, [0, len(x) - 1]]), 0, len(x) - 1))
    return x[keep], y[keep]


@dataclass(frozen=True, eq=False)
class Lines(Shown):
    """Curves and points over common axes; `h_lines` and `v_lines` are labelled levels, (label, value).

    `spans` are intervals of x that have a name, (label, from, to), such as the phases of a training: coloured bands
    behind the curves.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    caption: str = ""
    h_lines: Sequence[tuple[str, float]] = ()
    v_lines: Sequence[tuple[str, float]] = ()
    spans: Sequence[tuple[str, float, float]] = ()

    def __post_init__(self):
        object.__setattr__(self, "series", tuple(self.series))
        for label, start, end in self.spans:
            require(start <= end, f"span {label!r} of {self.title!r}", (start, end), "its start, then its end")


@dataclass(frozen=True, eq=False)
class Panel:
    """One matrix, "rows columns", with the names of its rows (`y_labels`) and columns (`x_labels`)."""

    name: str
    matrix: Numbers
    x_labels: Sequence[str] | None = None
    y_labels: Sequence[str] | None = None

    def __post_init__(self):
        matrix = numbers(self.matrix, f"matrix of panel {self.name!r}", 2)
        object.__setattr__(self, "matrix", matrix)
        for name, labels, n in (("x_labels", self.x_labels, matrix.shape[1]), ("y_labels", self.y_labels, len(matrix))):
            allowed = f"{n} names"
            require(labels is None or len(labels) == n, f"{name} of panel {self.name!r}", labels, allowed)


@dataclass(frozen=True, eq=False)
class Heatmaps(Shown):
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
        ends = [finite_range(np.asarray(panel.matrix)) for panel in self.panels]
        if self.shared_scale:
            ends = [(min(low for low, _ in ends), max(high for _, high in ends))] * len(ends)
        if self.diverging:
            ends = [(-max(abs(low), abs(high)), max(abs(low), abs(high))) for low, high in ends]
        return [(low, high) if low < high else (low - 1, high + 1) for low, high in ends]


@dataclass(frozen=True, eq=False)
class Bars(Shown):
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
                value = numbers(value, f"{name} of {self.title!r}", 1)
                object.__setattr__(self, name, value)
                n = len(self.names)
                require(len(value) == n, f"{name} of {self.title!r}", f"{len(value)} values", f"{n}, one per name")
        both = (self.low is None) == (self.high is None)
        require(both, f"whiskers of {self.title!r}", "one bound", "given by both low and high")


@dataclass(frozen=True, eq=False)
class Grid(Shown):
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
class Slider(Shown):
    """One chart per value of a slider, all on the same axes; `frames` are (value, chart), `start` an index.

    Where nothing can move the start frame stands, or the chart `static`: of a film, the steps that tell side by side.
    """

    title: str
    label: str
    frames: "Sequence[tuple[Any, Chart]]"
    start: int = 0
    caption: str = ""
    static: "Chart | None" = None

    def __post_init__(self):
        object.__setattr__(self, "frames", tuple(self.frames))
        n = len(self.frames)
        require(n > 0, f"frames of {self.title!r}", self.frames, "at least one frame")
        require(0 <= self.start < n, f"start of {self.title!r}", self.start, f"an index from 0 to {n - 1}")


@dataclass(frozen=True, eq=False)
class Widget(Shown):
    """An interactive figure of its own: `html` is mounted, then `script` runs with (root, data).

    `script` is the body of a JavaScript function, `data` anything that JSON can hold (arrays included), `static` the
    chart that stands for the widget where nothing can move.
    """

    title: str
    html: str
    script: str
    data: Mapping[str, Any] = field(default_factory=dict)
    caption: str = ""
    static: "Chart | None" = None


Chart: TypeAlias = Lines | Heatmaps | Bars | Grid | Slider | Widget | Parallel


def deciding(figures: Mapping[str, Chart], claims: Mapping[str, str]) -> dict[str, Chart]:
    """The figures, each with the claims that it decides, {name: "R-2 R-3"}; figures that are not drawn do not count."""
    named = {name: tuple(claims[name].split()) for name in figures if name in claims}
    return {n: replace(chart, decides=named[n]) if n in named else chart for n, chart in figures.items()}


def still(chart: Chart) -> Chart:
    """The chart as it stands where nothing can move: a slider's start frame, a widget's static chart."""
    if isinstance(chart, Slider):
        if chart.static is not None:
            return still(chart.static)
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
