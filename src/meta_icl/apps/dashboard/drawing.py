"""Charts of the plotting room in Bokeh, which change in place: curves, bars, and maps of attention to click on."""

from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Any

import numpy as np
import panel as pn
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper, PointDrawTool, Range1d, Title
from bokeh.plotting import figure

from meta_icl.plotting import Lines, Series
from meta_icl.plotting.theme import COLOURS, DIVERGING, SEQUENTIAL, Scheme, looks, marked_up

DASHES = {"line": "solid", "dashed": "dashed", "dotted": "dotted", "points": "solid"}
MAP = 190  # pixels of a map of attention
STEPS = 101  # colours of a scale


def text_pane(text: str = "", **options: Any) -> pn.pane.HTML:
    """HTML in the look of the page; whoever makes the text escapes what comes from names and files."""
    return pn.pane.HTML(text, sizing_mode="stretch_width", stylesheets=[_style()], **options)


def problem(error: Exception) -> str:
    """What went wrong, as HTML."""
    return f'<p class="note" role="alert">{escape(str(error))}</p>'


def beside(main: Any, side: Any) -> pn.FlexBox:
    """Two parts beside each other, below each other where the page is narrow."""
    main.styles = {"flex": "3 1 520px", "min-width": "min(100%, 300px)"}
    side.styles = {"flex": "2 1 400px", "min-width": "min(100%, 300px)"}
    return pn.FlexBox(main, side, gap="24px", sizing_mode="stretch_width")


def plain_text(text: str) -> str:
    """Text for a canvas, where Bokeh would set what stands between double dollars as mathematics."""
    return text.replace("$$", "$ $").replace(r"\[", r"\ [").replace(r"\(", r"\ (")


class LinePlot:
    """A chart of curves; `show` changes its numbers in place where the curves stay the same.

    Points of the series named `dragged` can be moved; then `moved(x, y)` is called with all of them.
    """

    def __init__(self, *, height: int = 340, dragged: str = "", moved: Callable[[Any, Any], None] | None = None):
        empty = figure(height=height, toolbar_location=None, sizing_mode="stretch_width")  # else 600 wide on any screen
        self.plot = pn.pane.Bokeh(empty, sizing_mode="stretch_width")
        self.names = text_pane()
        self.view = pn.Column(self.names, self.plot, sizing_mode="stretch_width")
        self._height, self._dragged, self._moved = height, dragged, moved
        self._drawn: tuple[Any, ...] | None = None
        self._sources: dict[str, dict[str, ColumnDataSource]] = {}
        self._painted: list[tuple[Any, str]] = []  # glyphs, and the names of their colours
        self._scheme: Scheme = "light"
        self._quiet = False

    def show(self, chart: Lines) -> None:
        """Draw a chart; a curve keeps its colour as long as the names of all stay."""
        kinds = [(s.name, s.style, s.low is not None) for s in chart.series]
        wanted = (chart.x_label, chart.y_label, chart.log_x, chart.log_y, *kinds)
        if wanted != self._drawn:
            self._drawn = wanted
            self._make(chart)
        self._quiet = True
        for series in chart.series:
            for source in self._sources[series.name].values():
                source.data = _columns(series)
        self._quiet = False

    def paint(self, scheme: Scheme) -> None:
        """Give the curves the colours of a scheme, which keep their contrast with its paper."""
        self._scheme = scheme
        for glyph, colour in self._painted:
            for name in ("line_color", "fill_color"):
                if name in glyph.properties():
                    setattr(glyph, name, COLOURS[scheme][colour])

    def _make(self, chart: Lines) -> None:
        axes: dict[str, Any] = {
            f"{axis}_axis_type": "log" if log else "linear" for axis, log in (("x", chart.log_x), ("y", chart.log_y))
        }
        fig = figure(
            height=self._height,
            sizing_mode="stretch_width",
            tools="pan,wheel_zoom,box_zoom,reset,save" if not self._dragged else "reset,save",
            toolbar_location="above" if not self._dragged else None,
            x_axis_label=plain_text(chart.x_label),
            y_axis_label=plain_text(chart.y_label),
            **axes,
        )
        self._sources, self._painted, entries = {}, [], []
        styled = looks([s.published for s in chart.series])
        for series, look in zip(chart.series, styled, strict=True):
            source = ColumnDataSource(_columns(series))
            self._sources[series.name] = {"curve": source}
            hover = HoverTool(tooltips=[(plain_text(series.name), "@y{0.0000a}"), (plain_text(chart.x_label), "@x")])
            if series.low is not None:
                band = fig.varea("x", "low", "high", source=source, fill_alpha=0.18)
                self._painted.append((band.glyph, look.colour))
            if series.style == "points":
                mark: Any = fig.scatter("x", "y", source=source, size=11, line_width=1)
                if series.name == self._dragged and self._moved is not None:
                    tool = PointDrawTool(renderers=[mark], add=False)
                    fig.add_tools(tool)
                    fig.toolbar.active_tap = tool
                    source.on_change("data", self._changed)
            else:
                mark = fig.line("x", "y", source=source, line_width=2.4, line_dash=DASHES[series.style])
            hover.renderers = [mark]
            fig.add_tools(hover)
            self._painted.append((mark.glyph, look.colour))
            entries.append((series, look.colour))
        for value in (level for _, level in chart.h_lines):
            fig.hspan(y=value, line_dash="dotdash", line_color="gray")
        self.paint(self._scheme)
        self.plot.object = fig
        self.names.object = legend(entries)

    def _changed(self, attribute: str, old: Any, new: Any) -> None:
        del attribute, old
        if not self._quiet and self._moved is not None:
            self._moved(np.asarray(new["x"], float), np.asarray(new["y"], float))


class HeadMap:
    """The attention of one head; a click on it calls `clicked()`."""

    def __init__(self, title: str, clicked: Callable[[], None]):
        self._title = plain_text(title)
        self._source = ColumnDataSource({"x": [], "y": [], "weight": [], "read": [], "reader": []})
        self._heading = Title(text=self._title)
        self._colours = LinearColorMapper(palette=_palette(SEQUENTIAL), low=0, high=1)
        self._x, self._y = Range1d(start=-0.5, end=0.5), Range1d(start=0.5, end=-0.5)
        fig = figure(
            width=MAP, height=MAP + 24, x_range=self._x, y_range=self._y, tools="", toolbar_location=None,
            title=self._heading, x_axis_location=None, y_axis_location=None,
        )  # fmt: skip
        colour: Any = {"field": "weight", "transform": self._colours}
        cells = fig.rect("x", "y", 1, 1, source=self._source, fill_color=colour, line_color=None)
        tips = [("reads", "@reader"), ("from", "@read"), ("weight", "@weight{0.000}")]
        fig.add_tools(HoverTool(renderers=[cells], tooltips=tips))
        fig.grid.visible = False
        fig.on_event(Tap, lambda event: clicked())
        self.view = pn.pane.Bokeh(fig, width=MAP, height=MAP + 24)

    def show(self, pattern: np.ndarray, names: Sequence[str], high: float, removed: bool) -> None:
        """Draw "readers read" up to the weight `high`; `names` are those of what is read, of which the last read."""
        readers, read = pattern.shape
        y, x = np.indices(pattern.shape)
        queries = list(names)[-readers:]
        self._source.data = {
            "x": x.ravel(),
            "y": y.ravel(),
            "weight": pattern.ravel(),
            "read": [names[i] for i in x.ravel().tolist()],
            "reader": [queries[i] for i in y.ravel().tolist()],
        }
        signed = bool((pattern < 0).any())
        palette = _palette(DIVERGING if signed else SEQUENTIAL)
        self._colours.update(palette=palette, low=-high if signed else 0, high=high)
        self._x.update(start=-0.5, end=read - 0.5)
        self._y.update(start=readers - 0.5, end=-0.5)
        self._heading.text = f"{self._title}: removed" if removed else self._title
        self.view.styles = {"opacity": "0.35" if removed else "1"}


def bars(names: Sequence[str], values: Sequence[float], x_label: str) -> str:
    """Bars with their numbers as HTML: what a screen reader reads as a table."""
    most = max([*values, 1e-12])
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><i class="bar" style="width:{100 * value / most:.1f}%"></i></td>'
        f'<td class="number">{value:.4f}</td></tr>'
        for name, value in zip(names, values, strict=True)
    )
    head = f'<thead><tr><th scope="col">answer</th><th scope="col" colspan="2">{escape(x_label)}</th></tr></thead>'
    return f'<table class="bars">{head}<tbody>{rows}</tbody></table>'


def legend(entries: Sequence[tuple[Series, str]]) -> str:
    """The names of the curves, each behind a sample of its line, as HTML."""
    samples = "".join(
        f'<span><svg width="26" height="10" aria-hidden="true">{_sample(series.style, colour)}</svg>'
        f"{marked_up(series.name)}</span>"
        for series, colour in entries
    )
    return f'<p class="legend">{samples}</p>'


def _sample(style: str, colour: str) -> str:
    if style == "points":
        return f'<circle cx="13" cy="5" r="4.5" fill="var(--{colour})"/>'
    dashes = {"dashed": ' stroke-dasharray="6 3"', "dotted": ' stroke-dasharray="2 3"'}.get(style, "")
    return f'<line x1="1" x2="25" y1="5" y2="5" stroke="var(--{colour})" stroke-width="2.5"{dashes}/>'


@cache
def _style() -> str:
    return resources.files("meta_icl.apps.dashboard").joinpath("dashboard.css").read_text("utf-8")


def _columns(series: Series) -> dict[str, Any]:
    columns: dict[str, Any] = {"x": np.array(series.x), "y": np.array(series.y)}
    if series.low is not None:
        columns |= {"low": np.array(series.low), "high": np.array(series.high)}
    return columns


def _palette(stops: Sequence[tuple[float, str]]) -> list[str]:
    """Even steps between the stops of a scale."""
    at = np.linspace(0, 1, STEPS)
    channels = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in stops], float)
    mixed = np.stack([np.interp(at, [place for place, _ in stops], channel) for channel in channels.T], -1)
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in mixed.round().astype(int).tolist()]
