"""Charts as matplotlib figures and small files, in the light scheme; matplotlib is loaded on first use."""

import io
import math
import os
import sys
import tempfile
import textwrap
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from meta_icl.errors import choose
from meta_icl.plotting import draw_parallel
from meta_icl.plotting.axes import (
    Range,
    band_segments,
    counted,
    log_ticks,
    named_ends,
    read_with_two_decimals,
    room_for,
    shared_names,
    shared_range,
    smallest_positive,
    staggered,
    told,
)
from meta_icl.plotting.chart import Bars, Chart, Grid, Heatmaps, Lines, Parallel, Series, still
from meta_icl.plotting.theme import COLOURS, DIVERGING, SEQUENTIAL, SPANS, Look, looks, mathtext

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = COLOURS["light"]
CELL = (4.6, 3.3)  # inches of one chart in a grid
ALONE = (6.4, 3.9)  # inches of a chart that stands alone
DENSITY, WIDEST = 144, 1600  # pixels per inch for sharp screens, and pixels across, beyond which no page shows them
ABREAST = 4  # panels of heat maps in a row
Place: TypeAlias = tuple[Chart, int]  # a chart and, of heat maps, which panel of it stands here
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
    "axes.formatter.useoffset": False,  # every tick reads as the number that it stands for
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

    caption = told(chart)
    chart = still(chart)
    rows = _rows(chart)
    n_columns = max(map(len, rows))
    alone = len(rows) == 1 and n_columns == 1
    width, height = ALONE if alone else CELL
    shared = shared_names(chart) if isinstance(chart, Grid) else None
    square = any(isinstance(place, Heatmaps) for row in rows for place, _ in row)
    with mpl.rc_context(STYLE):
        size = (width * n_columns, height * len(rows))
        figure = Figure(figsize=size, layout="compressed" if square else "constrained")
        axes = figure.subplots(len(rows), n_columns, squeeze=False)
        for row, places in zip(rows, axes, strict=True):
            for place, cell in zip(row, places, strict=False):
                _draw_place(cell, place, not alone, shared is None)
            for cell in places[len(row) :]:
                cell.set_axis_off()
        if shared is not None:
            drawn = axes[0, 0].get_legend_handles_labels()
            figure.legend(*drawn, loc="outside right upper")
        title = textwrap.wrap(chart.title, round(11 * width * n_columns)) or [""]
        figure.suptitle(mathtext("\n".join(title)), x=0.01, ha="left", fontsize=11, fontweight="bold")
        if caption:
            lines = textwrap.wrap(caption.replace("`", ""), round(15 * width * n_columns))
            figure.supxlabel(mathtext("\n".join(lines)), x=0.01, ha="left", fontsize=8, color=INK["muted"])
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
        from IPython.core.getipython import get_ipython
        from IPython.display import Image, display

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
        figure = draw(chart)
        dpi = min(DENSITY, WIDEST / figure.get_figwidth())
        figure.savefig(buffer, format=kind, dpi=dpi if kind == "png" else DENSITY, metadata=metadata)
    return _indexed(buffer) if kind == "png" else buffer.getvalue()


def _indexed(picture: io.BytesIO) -> bytes:
    """A PNG with a palette of its colours: a third of the size, and nobody sees the difference."""
    from PIL import Image

    small = io.BytesIO()
    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _rows(chart: Chart) -> list[list[Place]]:
    """What stands in every row of a figure; a grid inside a grid is spread out, many heat maps take several rows."""
    if isinstance(chart, Heatmaps):
        places: list[Place] = [(chart, i) for i in range(len(chart.panels))]
        return [places[i : i + ABREAST] for i in range(0, len(places), ABREAST)]
    if not isinstance(chart, Grid):
        return [[(chart, 0)]]
    units = [row for inner in chart.charts for row in _rows(inner)]
    return [
        [place for row in units[i : i + chart.columns] for place in row] for i in range(0, len(units), chart.columns)
    ]


def _draw_place(axes: "Axes", place: Place, titled: bool, named: bool) -> None:
    chart, index = place
    if isinstance(chart, Heatmaps):
        _heatmap(axes, chart.panels[index], chart.limits()[index], DIVERGING if chart.diverging else SEQUENTIAL)
        return
    if isinstance(chart, Lines):
        _lines(axes, chart, named)
    elif isinstance(chart, Bars):
        _bars(axes, chart)
    elif isinstance(chart, Parallel):
        draw_parallel.on_axes(axes, chart)
    if titled:
        axes.set_title(_wrapped(chart.title))


def _wrapped(title: str) -> str:
    """The title of one of several charts, in lines that are no wider than it."""
    return mathtext("\n".join(textwrap.wrap(title, 46)))


def _lines(axes: "Axes", chart: Lines, named: bool) -> None:
    floor = smallest_positive(chart) if chart.log_y else None
    styled = looks([s.published for s in chart.series])
    mark = {"color": INK["muted"], "linewidth": 1.0, "linestyle": (0, (6, 2, 1, 2))}
    write: dict[str, Any] = {"color": INK["muted"], "fontsize": 8}
    clear = {"facecolor": INK["paper"], "alpha": 0.75, "edgecolor": "none", "pad": 0.4}  # of what it stands on
    up, across = ("data", "axes fraction"), ("axes fraction", "data")
    ranges = shared_range([chart], "x"), shared_range([chart], "y")
    for i, (label, start, end) in enumerate(chart.spans):
        axes.axvspan(start, end, color=INK[SPANS[i % len(SPANS)]], alpha=0.13, linewidth=0, zorder=0)
        turned: dict[str, Any] = {} if room_for(label, start, end, ranges[0], chart.log_x) else {"rotation": 90}
        axes.annotate(mathtext(label), (start, 1), (3, -3), up, "offset points", va="top", **turned, **write)
    for rank, (series, look) in enumerate(zip(chart.series, styled, strict=True)):
        _curve(axes, series, look, floor, rank, len(chart.series))
    _scale(axes.set_xscale, axes.xaxis, chart.log_x, ranges[0])
    _scale(axes.set_yscale, axes.yaxis, chart.log_y, ranges[1])
    columns = staggered([value for _, value in chart.h_lines], ranges[1], chart.log_y)
    for (label, value), column in zip(chart.h_lines, columns, strict=True):
        axes.axhline(value, **mark)
        place = {"xycoords": across, "ha": "right", "va": "bottom", "bbox": clear}
        axes.annotate(mathtext(label), (1 - column / 3, value), **place, **write)
    for label, value in chart.v_lines:
        axes.axvline(value, **mark)
        axes.annotate(mathtext(label), (value, 1), xycoords=up, ha="right", va="top", rotation=90, **write)
    axes.set_xlabel(mathtext(chart.x_label))
    axes.set_ylabel(mathtext(chart.y_label))
    if named and len(chart.series) > 1:
        _name_curves(axes, chart, *ranges)


def _scale(set_scale: Any, axis: Any, log: bool, range_: Range | None) -> None:
    if not log:
        return
    set_scale("log")
    if range_ is not None:
        ticks = log_ticks(*range_)
        axis.set_ticks([value for value, _ in ticks], [mathtext(text) for _, text in ticks])
        axis.set_ticks([], minor=True)


def _name_curves(axes: "Axes", chart: Lines, x_range: Range | None, y_range: Range | None) -> None:
    """The names of the curves beside their right ends, else a legend beside the axes: never over a curve."""
    places = named_ends(chart, x_range, y_range)
    if places is None or x_range is None or y_range is None:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
        return
    axes.set_xlim(*(10**end if chart.log_x else end for end in x_range))
    axes.set_ylim(*(10**end if chart.log_y else end for end in y_range))
    beside = {"transform": axes.transAxes, "clip_on": False, "label": "_key", "zorder": 3}
    for line, label, place in zip(*axes.get_legend_handles_labels(), places, strict=True):
        (key,) = axes.plot([1.02, 1.045, 1.07], [place] * 3)
        key.update_from(line)
        key.set(**beside, markevery=[1])
        axes.annotate(label, (1.085, place), xycoords="axes fraction", va="center", fontsize=8.5, annotation_clip=False)


def _curve(axes: "Axes", series: Series, look: Look, floor: float | None, rank: int, n: int) -> None:
    x, y = np.asarray(series.x), np.asarray(series.y)
    colour, label = INK[look.colour], mathtext(series.name)
    every = max(1, len(x) // 8) if len(x) > 12 else 1  # markers tell curves apart without colours
    marker: dict[str, Any] = {"marker": MARKERS[look.marker]}
    sparse: dict[str, Any] = {"markevery": (rank % every, every)}
    if series.published:
        style = {"color": colour, "linewidth": 1.0, "alpha": 0.85, "linestyle": DASHES[series.style], "zorder": 2}
        marker |= {"markersize": 4.2, "markerfacecolor": "none", "markeredgewidth": 0.9}
        axes.plot(x, y, label=label, **style, **marker, **({} if series.style == "points" else sparse))
        return
    if series.style == "points":
        if series.low is not None and series.high is not None:
            reach = np.stack([y - np.asarray(series.low), np.asarray(series.high) - y])
            axes.errorbar(
                x, y, np.maximum(reach, 0), fmt="none", ecolor=colour, alpha=0.6, elinewidth=1.2, capsize=2, zorder=3
            )
        axes.plot(x, y, markersize=5, linestyle="none", color=colour, label=label, zorder=5, **marker)
        return
    for run in band_segments(series):
        low, high = np.asarray(series.low)[run], np.asarray(series.high)[run]
        low = low if floor is None else np.where(low > 0, low, floor)
        axes.fill_between(x[run], low, high, color=colour, alpha=0.18, linewidth=0, zorder=1)
    width = 1.6 + 0.25 * min(n - 1 - rank, 3)  # an earlier curve shows at both sides of a later one
    over = 3 + ("line", "dashed", "dotted").index(series.style) / 2  # what has gaps lies over what has none
    marked: dict[str, Any] = (
        marker | sparse | {"markersize": 4} if series.style == "line" and (n > 1 or len(x) <= 12) else {}
    )
    axes.plot(x, y, color=colour, linewidth=width, linestyle=DASHES[series.style], label=label, zorder=over, **marked)


def _bars(axes: "Axes", chart: Bars) -> None:
    values, places = np.asarray(chart.values), np.arange(len(chart.names))
    axes.bar(places, values, width=0.65, color=INK["c0"], alpha=0.85)
    if chart.low is not None and chart.high is not None:
        reach = np.stack([values - np.asarray(chart.low), np.asarray(chart.high) - values])
        axes.errorbar(places, values, np.maximum(reach, 0), fmt="none", ecolor=INK["ink"], elinewidth=1.1, capsize=3)
    long = max((len(name) for name in chart.names), default=0) * len(chart.names) > 60
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(places, [mathtext(name) for name in chart.names], **turned)
    axes.grid(False, axis="x")
    axes.set_xlabel(mathtext(chart.x_label))
    axes.set_ylabel(mathtext(chart.y_label))


def numbers_fit(shape: tuple[int, ...], beside: int = 0) -> bool:
    """Whether every cell of a matrix of this shape has room for a number, in a place of some 3.4 by 2.6 inches less the
    longest name of a row, of so many letters `beside`."""
    return min((3.4 - 0.07 * beside) / shape[1], 2.6 / shape[0]) >= 0.36


def _heatmap(axes: "Axes", panel: Any, limits: tuple[float, float], stops: Sequence[tuple[float, str]]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("meta_icl", list(stops)).with_extremes(bad=INK["rule"])
    matrix = np.asarray(panel.matrix)
    wide = max(matrix.shape) > 3 * min(matrix.shape)  # square cells of a long strip could not be seen
    aspect = "auto" if wide else "equal"
    shown = np.ma.masked_invalid(matrix)
    image = axes.imshow(shown, cmap=colours, vmin=limits[0], vmax=limits[1], aspect=aspect, interpolation="nearest")
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02).outline.set_visible(False)  # type: ignore[operator]
    axes.grid(False)
    axes.set_title(_wrapped(panel.name))
    for set_ticks, labels, n in (
        (axes.set_xticks, panel.x_labels, matrix.shape[1]),
        (axes.set_yticks, panel.y_labels, matrix.shape[0]),
    ):
        if labels is not None:  # as many of them as can be read
            every = math.ceil(n / 24)
            set_ticks(range(0, n, every), [mathtext(label) for label in labels[::every]])
        else:  # numbers of rows and columns, of which none is a half
            set_ticks(counted(n))
    if panel.x_labels is not None and sum(map(len, panel.x_labels)) > 30:
        axes.tick_params(axis="x", labelrotation=90)
    beside = max(map(len, panel.y_labels or ("",)))
    if numbers_fit(matrix.shape, beside) and read_with_two_decimals(limits):
        for (row, column), value in np.ndenumerate(matrix):
            if math.isfinite(value):
                red, green, blue, _ = colours((value - limits[0]) / (limits[1] - limits[0]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                ink = INK["paper"] if dark else INK["ink"]
                axes.text(column, row, f"{value:z.2f}", ha="center", va="center", fontsize=7.5, color=ink)
