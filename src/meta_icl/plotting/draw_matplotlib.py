"""Charts as matplotlib figures and small files, in the light scheme; matplotlib is loaded on first use."""

import io
import math
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meta_icl.errors import choose
from meta_icl.plotting.chart import (
    Bars,
    Chart,
    Grid,
    Heatmaps,
    Lines,
    Series,
    band_segments,
    read_with_two_decimals,
    smallest_positive,
    still,
)
from meta_icl.plotting.theme import COLOURS, DIVERGING, SEQUENTIAL, Look, looks, mathtext

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = COLOURS["light"]
CELL = (4.6, 3.3)  # inches of one chart in a grid
ALONE = (6.4, 3.9)  # inches of a chart that stands alone
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK["ink"],
    "axes.labelcolor": INK["ink"],
    "axes.edgecolor": INK["rule"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK["rule"],
    "grid.linewidth": 0.7,
    "xtick.color": INK["muted"],
    "ytick.color": INK["muted"],
    "text.color": INK["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "mathtext.default": "regular",
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "meta_icl",  # the same figure is the same file
    "figure.facecolor": INK["paper"],
    "axes.facecolor": INK["paper"],
}
DASHES = {"line": "-", "dashed": (0, (5, 2.5)), "dotted": (0, (1.2, 1.8)), "points": "none"}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "cross": "P", "star": "*"}


def draw(chart: Chart) -> "Figure":
    """The chart as a matplotlib figure; sliders stand at their start, widgets are drawn by their static chart."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    chart = still(chart)
    rows = _rows(chart)
    n_columns = max(sum(_width(cell) for cell in row) for row in rows)
    alone = len(rows) == 1 and n_columns == 1
    width, height = ALONE if alone else CELL
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * n_columns, height * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), n_columns, squeeze=False)
        for row, places in zip(rows, axes, strict=True):
            column = 0
            for cell in row:
                _draw_cell(cell, places[column : column + _width(cell)], titled=not alone)
                column += _width(cell)
            for place in places[column:]:
                place.set_axis_off()
        figure.suptitle(mathtext(chart.title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def save(chart: Chart, path: str | os.PathLike[str]) -> None:
    """Write the chart to an SVG or PNG file, by the suffix of `path`; the file is whole or not there."""
    path = Path(path)
    choose("figure format", path.suffix.lower().lstrip("."), ("svg", "png"))
    data = _rendered(chart, path.suffix.lower().lstrip("."))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def show(chart: Chart) -> None:
    """Show the chart: as an image in a notebook, elsewhere as a file in the browser."""
    if "IPython" in sys.modules:  # a notebook has loaded it before anything else
        from IPython.core.getipython import get_ipython  # pyright: ignore[reportMissingImports]
        from IPython.display import Image, display  # pyright: ignore[reportMissingImports]

        shell = get_ipython()
        if shell is not None and shell.has_trait("kernel"):
            display(Image(data=_rendered(chart, "png"), format="png", width=_pixels(chart)))
            return
    path = Path(tempfile.mkdtemp(prefix="meta_icl-")) / "chart.svg"
    save(chart, path)
    webbrowser.open(path.as_uri())


def _pixels(chart: Chart) -> int:
    """Width on a page: figures are rendered at twice the density, for sharp screens."""
    return round(draw(chart).get_figwidth() * 72)


def svg(chart: Chart) -> str:
    """The chart as the text of an SVG file."""
    return _rendered(chart, "svg").decode()


def _rendered(chart: Chart, kind: str) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        draw(chart).savefig(buffer, format=kind, dpi=144, metadata=metadata)
    return buffer.getvalue()


def _rows(chart: Chart) -> list[list[Chart]]:
    """The charts of a figure, row by row; a grid inside a grid is spread out."""
    if not isinstance(chart, Grid):
        return [[chart]]
    cells = [cell for inner in chart.charts for row in _rows(inner) for cell in row]
    return [cells[i : i + chart.columns] for i in range(0, len(cells), chart.columns)]


def _width(chart: Chart) -> int:
    return len(chart.panels) if isinstance(chart, Heatmaps) else 1


def _draw_cell(chart: Chart, axes: Sequence["Axes"], titled: bool) -> None:
    if isinstance(chart, Heatmaps):
        for panel, limits, place in zip(chart.panels, chart.limits(), axes, strict=True):
            _heatmap(place, panel, limits, DIVERGING if chart.diverging else SEQUENTIAL)
        return
    (place,) = axes
    if isinstance(chart, Lines):
        _lines(place, chart)
    elif isinstance(chart, Bars):
        _bars(place, chart)
    if titled:
        place.set_title(mathtext(chart.title))


def _lines(axes: "Axes", chart: Lines) -> None:
    floor = smallest_positive(chart) if chart.log_y else None
    for series, look in zip(chart.series, looks([s.published for s in chart.series]), strict=True):
        _curve(axes, series, look, floor)
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    mark = {"color": INK["muted"], "linewidth": 1.0, "linestyle": (0, (6, 2, 1, 2))}
    write = {"color": INK["muted"], "fontsize": 8}
    for label, value in chart.h_lines:
        axes.axhline(value, **mark)
        axes.annotate(mathtext(label), (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", **write)
    for label, value in chart.v_lines:
        axes.axvline(value, **mark)
        axes.annotate(
            mathtext(label), (value, 1), xycoords=("data", "axes fraction"), ha="right", va="top", rotation=90, **write
        )
    axes.set_xlabel(mathtext(chart.x_label))
    axes.set_ylabel(mathtext(chart.y_label))
    if len(chart.series) > 1:
        axes.legend(loc="best" if len(chart.series) <= 6 else "upper right", ncols=1 + (len(chart.series) > 6))


def _curve(axes: "Axes", series: Series, look: Look, floor: float | None) -> None:
    x, y = np.asarray(series.x), np.asarray(series.y)
    colour, label = INK[look.colour], mathtext(series.name)
    if series.published:
        style = {"color": colour, "linewidth": 1.0, "alpha": 0.85, "linestyle": DASHES[series.style], "zorder": 2}
        marker = {"marker": MARKERS[look.marker], "markersize": 3.8, "markerfacecolor": "none", "markeredgewidth": 0.9}
        axes.plot(x, y, label=label, **style, **(marker if len(x) <= 60 or series.style == "points" else {}))
        return
    if series.style == "points":
        if series.low is not None and series.high is not None:
            reach = np.stack([y - np.asarray(series.low), np.asarray(series.high) - y])
            axes.errorbar(
                x, y, np.maximum(reach, 0), fmt="none", ecolor=colour, alpha=0.6, elinewidth=1.2, capsize=2, zorder=3
            )
        axes.plot(x, y, marker="o", markersize=5, linestyle="none", color=colour, label=label, zorder=4)
        return
    for run in band_segments(series):
        low, high = np.asarray(series.low)[run], np.asarray(series.high)[run]
        low = low if floor is None else np.where(low > 0, low, floor)
        axes.fill_between(x[run], low, high, color=colour, alpha=0.18, linewidth=0, zorder=1)
    few = {"marker": "o", "markersize": 3.2} if len(x) <= 12 and series.style == "line" else {}
    axes.plot(x, y, color=colour, linewidth=1.7, linestyle=DASHES[series.style], label=label, zorder=3, **few)


def _bars(axes: "Axes", chart: Bars) -> None:
    values, places = np.asarray(chart.values), np.arange(len(chart.names))
    axes.bar(places, values, width=0.65, color=INK["c0"], alpha=0.85)
    if chart.low is not None and chart.high is not None:
        reach = np.stack([values - np.asarray(chart.low), np.asarray(chart.high) - values])
        axes.errorbar(places, values, np.maximum(reach, 0), fmt="none", ecolor=INK["ink"], elinewidth=1.1, capsize=3)
    long = max((len(name) for name in chart.names), default=0) * len(chart.names) > 60
    axes.set_xticks(places, [mathtext(name) for name in chart.names], rotation=30 if long else 0)
    axes.grid(False, axis="x")
    axes.set_xlabel(mathtext(chart.x_label))
    axes.set_ylabel(mathtext(chart.y_label))


def _heatmap(axes: "Axes", panel: Any, limits: tuple[float, float], stops: Sequence[tuple[float, str]]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("meta_icl", list(stops)).with_extremes(bad=INK["rule"])
    matrix = np.asarray(panel.matrix)
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=colours, vmin=limits[0], vmax=limits[1])
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02).outline.set_visible(False)  # type: ignore[operator]
    axes.grid(False)
    axes.set_title(mathtext(panel.name))
    for set_ticks, labels, n in (
        (axes.set_xticks, panel.x_labels, matrix.shape[1]),
        (axes.set_yticks, panel.y_labels, matrix.shape[0]),
    ):
        if labels is not None and n <= 40:
            set_ticks(range(n), [mathtext(label) for label in labels])
    if max(matrix.shape) <= 8 and read_with_two_decimals(limits):
        for (row, column), value in np.ndenumerate(matrix):
            if math.isfinite(value):
                red, green, blue, _ = colours((value - limits[0]) / (limits[1] - limits[0]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                ink = INK["paper"] if dark else INK["ink"]
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink)
