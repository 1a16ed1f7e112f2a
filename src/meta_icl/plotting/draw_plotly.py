"""Charts as plotly JSON: a tree of nodes that a page lays out, each leaf one small plotly figure.

A grid, the panels of heat maps and the frames of a slider stay separate figures, so that a page can stack them on a
narrow screen. Colours are symbols, `@c0` or `@c0/0.2` (name and opacity in `theme.COLOURS`), which the page replaces by
those of its light or dark scheme, again whenever the scheme changes.

Nodes:
- `{"kind": "plot", "data", "layout"}`; `"names": [{"text", "y", "colour", "symbol", "dash", "open"}]` name the curves
  at their ends (y: share of the height);
- `{"kind": "grid", "columns", "cells": [{"title", "node"}]}`; one legend serves all cells with `"names"`, one scale of
  colours with `"scale": [low, high, colours]`;
- `{"kind": "slider", "label", "values", "start", "frames"}`;
- `{"kind": "widget", "html", "script", "data"}`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.plotting import draw_parallel
from meta_icl.plotting.axes import (
    NEAR_END,
    Range,
    band_segments,
    counted,
    log_ticks,
    named_ends,
    on_one_scale,
    read_with_two_decimals,
    room_for,
    shared_names,
    shared_range,
    smallest_positive,
    staggered,
)
from meta_icl.plotting.chart import Bars, Chart, Grid, Heatmaps, Lines, Parallel, Series, Slider, Widget, value_text
from meta_icl.plotting.theme import DIVERGING, SEQUENTIAL, SPANS, Look, looks, marked_up

Node = dict[str, Any]
DASHES = {"line": "solid", "dashed": "dash", "dotted": "dot", "points": "solid"}
ABREAST = 4  # heat maps in a row
ORDER = ("line", "dashed", "dotted", "points")  # from below up: what has gaps lies over what has none
COLUMNS = ("end", "middle", "start")  # where the names of levels stand that are close to each other
DIGITS = 6  # significant digits that leave for the page


def tree(chart: Chart) -> Node:
    """The chart as a tree of nodes, JSON-ready: lists, strings, finite numbers and None."""
    match chart:
        case Lines():
            return _lines(chart)
        case Bars():
            return _bars(chart)
        case Heatmaps():
            return _heatmaps(chart, chart.limits())
        case Grid():
            return _grid(chart, [tree(cell) for cell in chart.charts])
        case Slider():
            return _slider(chart)
        case Parallel():
            return draw_parallel.node(chart)
        case Widget():
            return {"kind": "widget", "html": chart.html, "script": chart.script, "data": plain(chart.data)}


def plain(value: Any) -> Any:
    """The JSON form of a value: numbers rounded to six significant digits, those that are not finite as None."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _lines(chart: Lines, x_range: Range | None = None, y_range: Range | None = None) -> Node:
    bands, published, ours = [], [], []
    x_range, y_range = x_range or shared_range([chart], "x"), y_range or shared_range([chart], "y")
    floor = smallest_positive(chart) if chart.log_y else None
    styled = looks([s.published for s in chart.series])
    for rank, (series, look) in enumerate(zip(chart.series, styled, strict=True)):
        if series.style != "points" and series.low is not None:
            bands.append(_band(series, look.colour, floor))
        width = 2.0 + 0.45 * min(len(chart.series) - 1 - rank, 3)  # an earlier curve shows at both sides of a later one
        curve = _curve(series, look, width) | {"legendrank": rank + 1}
        (published if series.published else ours).append((ORDER.index(series.style), curve))
    curves = [curve for drawn in (published, ours) for _, curve in sorted(drawn, key=lambda entry: entry[0])]
    columns = staggered([value for _, value in chart.h_lines], y_range, chart.log_y)
    layout = {
        "xaxis": _axis(chart.x_label, chart.log_x, x_range),
        "yaxis": _axis(chart.y_label, chart.log_y, y_range),
        "shapes": [
            _span(*span, SPANS[i % len(SPANS)], room_for(*span, x_range, chart.log_x))
            for i, span in enumerate(chart.spans)
        ]
        + [
            _level(label, value, "y", chart.log_y, y_range, COLUMNS[column])
            for (label, value), column in zip(chart.h_lines, columns, strict=True)
        ]
        + [_level(label, value, "x", chart.log_x, x_range) for label, value in chart.v_lines],
        "hovermode": "closest" if all(s.style == "points" for s in chart.series) else "x",
        "showlegend": len(chart.series) > 1,
    }
    node = {"kind": "plot", "data": plain(bands + curves), "layout": plain(layout)}
    places = named_ends(chart, x_range, y_range)
    if places is not None:
        named = zip(_names(chart.series, styled), places, strict=True)
        node["names"] = [name | {"y": float(f"{place:.3g}")} for name, place in named]
    return node


def _names(series: Sequence[Series], styled: Sequence[Look]) -> list[dict[str, Any]]:
    """What a legend of our own shows of every curve."""
    return [
        {
            "text": marked_up(s.name),
            "colour": f"@{look.colour}",
            "symbol": look.marker if s.style in ("line", "points") else "",
            "dash": "" if s.style == "points" else DASHES[s.style],
            "open": s.published,
        }
        for s, look in zip(series, styled, strict=True)
    ]


def _grid(chart: Grid, nodes: Sequence[Node]) -> Node:
    cells = [{"title": _cell_title(cell), "node": node} for cell, node in zip(chart.charts, nodes, strict=True)]
    grid: Node = {"kind": "grid", "columns": chart.columns, "cells": cells}
    shared = shared_names(chart)
    if shared is None:
        return grid
    for node in nodes:
        node.pop("names", None)
        node["layout"]["showlegend"] = False
    return grid | {"names": _names(shared, looks([s.published for s in shared]))}


def _cell_title(chart: Chart) -> str:
    """The title of a chart in a grid; nothing for one heat map that says it itself."""
    said = isinstance(chart, Heatmaps) and [panel.name for panel in chart.panels] == [chart.title]
    return "" if said else marked_up(chart.title)


def _curve(series: Series, look: Look, width: float) -> dict[str, Any]:
    x, y = np.asarray(series.x), np.asarray(series.y)
    colour, marker = look
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": marked_up(series.name),
        "x": x,
        "y": y,
        "hovertemplate": "%{y:.4~g}",
    }
    if series.published:
        symbol = {"symbol": f"{marker}-open", "size": 7, "color": f"@{colour}", "line": {"width": 1.3}}
        mode = "markers" if series.style == "points" else "lines+markers"
        dash = "solid" if series.style == "line" else DASHES[series.style]
        return trace | {
            "mode": mode,
            "marker": symbol | ({"maxdisplayed": 40} if mode != "markers" else {}),
            "line": {"color": f"@{colour}/0.75", "width": 1.3, "dash": dash},
        }
    if series.style == "points":
        trace |= {"mode": "markers", "marker": {"symbol": marker, "size": 8, "color": f"@{colour}"}}
        if series.low is not None and series.high is not None:
            bars = {"color": f"@{colour}/0.6", "thickness": 1.5, "width": 4, "type": "data", "symmetric": False}
            trace["error_y"] = bars | {"array": np.asarray(series.high) - y, "arrayminus": y - np.asarray(series.low)}
        return trace
    line = {"color": f"@{colour}", "width": width, "dash": DASHES[series.style]}
    if series.style != "line":
        return trace | {"mode": "lines", "line": line}
    few = {} if len(x) <= 12 else {"maxdisplayed": 8}  # enough to tell curves apart without colours
    return trace | {"mode": "lines+markers", "line": line, "marker": {"symbol": marker, "size": 6} | few}


def _band(series: Series, colour: str, floor: float | None) -> dict[str, Any]:
    """The band as closed outlines, one per run of finite bounds."""
    x, low, high = (np.asarray(part) for part in (series.x, series.low, series.high))
    if floor is not None:
        low = np.where(low > 0, low, floor)
    outline_x: list[Any] = []
    outline_y: list[Any] = []
    for run in band_segments(series):
        back = run[::-1]
        outline_x += [*x[run].tolist(), *x[back].tolist(), None]
        outline_y += [*high[run].tolist(), *low[back].tolist(), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": outline_x,
        "y": outline_y,
        "fill": "toself",
        "fillcolor": f"@{colour}/0.18",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _axis(label: str, log: bool, range_: Range | None) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": marked_up(label)}, "type": "log" if log else "linear"}
    if log and range_:
        ticks = log_ticks(*range_)
        axis |= {"tickvals": [value for value, _ in ticks], "ticktext": [marked_up(text) for _, text in ticks]}
    return axis if range_ is None else axis | {"range": list(range_), "autorange": False}


def _span(label: str, start: float, end: float, colour: str, fits: bool) -> dict[str, Any]:
    """A named interval of x behind the curves; its name stands at the top, inside, upright if the interval is wide."""
    edges = {"type": "rect", "x0": start, "x1": end, "yref": "y domain", "y0": 0, "y1": 1, "layer": "below"}
    name = {"text": marked_up(label), "textposition": "top left", "font": {"color": "@muted", "size": 11}}
    name |= {} if fits else {"textangle": -90}
    return edges | {"fillcolor": f"@{colour}/0.13", "line": {"width": 0}, "label": name}


def _level(label: str, value: float, axis: str, log: bool, range_: Range | None, column: str = "end") -> dict[str, Any]:
    other = "x" if axis == "y" else "y"
    low, high = range_ or (0.0, 1.0)
    at = math.log10(value) if log and value > 0 else value
    beyond = at > low + NEAR_END * (high - low)  # no room for the text on the far side of the line
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{other}ref": f"{other} domain",
        f"{other}0": 0,
        f"{other}1": 1,
        "line": {"color": "@muted", "width": 1.3, "dash": "dashdot"},
        "label": {
            "text": marked_up(label),
            "textposition": column,
            "yanchor": "top" if (axis == "y") == beyond else "bottom",
            "font": {"color": "@muted", "size": 11},
        },
    }


def _bars(chart: Bars, y_range: Range | None = None) -> Node:
    values = np.asarray(chart.values)
    trace: dict[str, Any] = {
        "type": "bar",
        "x": [marked_up(name) for name in chart.names],
        "y": values,
        "marker": {"color": "@c0/0.85"},
        "hovertemplate": "%{y:.4~g}<extra></extra>",
    }
    if chart.low is not None and chart.high is not None:
        array = {"array": np.asarray(chart.high) - values, "arrayminus": values - np.asarray(chart.low)}
        trace["error_y"] = {"type": "data", "symmetric": False, "color": "@ink", "thickness": 1.3, "width": 4} | array
    layout = {
        "xaxis": _axis(chart.x_label, False, None) | {"type": "category"},
        "yaxis": _axis(chart.y_label, False, y_range),
        "showlegend": False,
        "bargap": 0.35,
    }
    return {"kind": "plot", "data": plain([trace]), "layout": plain(layout)}


def _heatmaps(chart: Heatmaps, limits: Sequence[tuple[float, float]]) -> Node:
    cells: list[dict[str, Any]] = []
    stops = DIVERGING if chart.diverging else SEQUENTIAL
    for panel, (low, high) in zip(chart.panels, limits, strict=True):
        matrix = np.asarray(panel.matrix)
        rows, columns = matrix.shape
        trace: dict[str, Any] = {
            "type": "heatmap",
            "z": matrix,
            "x": [marked_up(name) for name in panel.x_labels] if panel.x_labels is not None else list(range(columns)),
            "y": [marked_up(name) for name in panel.y_labels] if panel.y_labels is not None else list(range(rows)),
            "zmin": low,
            "zmax": high,
            "colorscale": [list(stop) for stop in stops],
            "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 1.0, "exponentformat": "power"},
            "hovertemplate": "row %{y}, column %{x}: %{z:.4~g}<extra></extra>",
        }
        if max(rows, columns) <= 12 and read_with_two_decimals((low, high)):
            trace |= {"texttemplate": "%{z:.2f}", "textfont": {"size": 11}, "xgap": 1, "ygap": 1}
        layout = {
            "xaxis": {"showgrid": False, "zeroline": False, "constrain": "domain", "side": "bottom"}
            | ({"type": "category"} if panel.x_labels is not None else {"tickvals": counted(columns)}),
            "yaxis": {"showgrid": False, "zeroline": False, "constrain": "domain", "autorange": "reversed"}
            | {"scaleanchor": "x"}
            | ({"type": "category"} if panel.y_labels is not None else {"tickvals": counted(rows)}),
            "showlegend": False,
        }
        node = {"kind": "plot", "data": plain([trace]), "layout": plain(layout)}
        cells.append({"title": marked_up(panel.name), "node": node})
    grid = {"kind": "grid", "columns": min(len(cells), ABREAST), "cells": cells}
    if len(cells) < 3 or len(set(limits)) > 1:
        return grid
    for cell in cells:  # one scale of colours serves all
        cell["node"]["data"][0]["showscale"] = False
    return grid | {"scale": plain([*limits[0], [colour for _, colour in stops]])}


def _slider(chart: Slider) -> Node:
    charts = [frame for _, frame in chart.frames]
    return {
        "kind": "slider",
        "label": marked_up(chart.label),
        "values": [value_text(value) for value, _ in chart.frames],
        "start": chart.start,
        "frames": trees_on_common_axes(charts),
    }


def trees_on_common_axes(charts: Sequence[Chart]) -> list[Node]:
    """The trees of charts that are read against each other: axes and colour scales of one place are the same in all.

    The frames of a slider, or one figure of several runs. Charts of different kinds or sizes keep their own axes.
    """
    if all(isinstance(chart, Lines) for chart in charts):
        lines = on_one_scale([chart for chart in charts if isinstance(chart, Lines)])
        x_range, y_range = shared_range(lines, "x"), shared_range(lines, "y")
        return [_lines(chart, x_range, y_range) for chart in lines]
    if all(isinstance(chart, Bars) for chart in charts):
        bars = [chart for chart in charts if isinstance(chart, Bars)]
        parts = [
            np.asarray(part) for chart in bars for part in (chart.values, chart.low, chart.high) if part is not None
        ]
        values = np.concatenate([*parts, np.zeros(1)])
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return [_bars(chart, (1.05 * low, 1.05 * high) if high > low else None) for chart in bars]
    if all(isinstance(chart, Heatmaps) for chart in charts):
        maps = [chart for chart in charts if isinstance(chart, Heatmaps)]
        if len({len(chart.panels) for chart in maps}) == 1:
            ends = np.array([chart.limits() for chart in maps])  # "frames panels 2"
            limits = list(zip(ends[..., 0].min(0).tolist(), ends[..., 1].max(0).tolist(), strict=True))
            return [_heatmaps(chart, limits) for chart in maps]
    if all(isinstance(chart, Grid) for chart in charts):
        grids = [chart for chart in charts if isinstance(chart, Grid)]
        if len({len(chart.charts) for chart in grids}) == 1:
            columns = [trees_on_common_axes(cells) for cells in zip(*(chart.charts for chart in grids), strict=True)]
            return [_grid(grid, nodes) for grid, nodes in zip(grids, zip(*columns, strict=True), strict=True)]
    return [tree(chart) for chart in charts]
