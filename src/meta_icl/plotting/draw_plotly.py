"""Charts as plotly JSON: a tree of nodes that a page lays out, each leaf one small plotly figure.

A grid, the panels of heat maps and the frames of a slider stay separate figures, so that a page can stack them on a
narrow screen. Colours are symbols, `@c0` or `@c0/0.2` (name and opacity in `theme.COLOURS`), which the page replaces by
those of its light or dark scheme, again whenever the scheme changes.

Nodes: `{"kind": "plot", "data", "layout"}`, `{"kind": "grid", "columns", "cells": [{"title", "node"}]}`,
`{"kind": "slider", "label", "values", "start", "frames"}`, `{"kind": "widget", "html", "script", "data"}`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.plotting.chart import (
    Bars,
    Chart,
    Grid,
    Heatmaps,
    Lines,
    Series,
    Slider,
    Widget,
    band_segments,
    read_with_two_decimals,
    shared_range,
    smallest_positive,
    value_text,
)
from meta_icl.plotting.theme import DIVERGING, SEQUENTIAL, looks, marked_up

Node = dict[str, Any]
Range = tuple[float, float]  # in axis units: log10 of the numbers on a logarithmic axis
DASHES = {"line": "solid", "dashed": "dash", "dotted": "dot", "points": "solid"}
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
            cells = [{"title": marked_up(cell.title), "node": tree(cell)} for cell in chart.charts]
            return {"kind": "grid", "columns": chart.columns, "cells": cells}
        case Slider():
            return _slider(chart)
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
    for rank, (series, look) in enumerate(zip(chart.series, looks([s.published for s in chart.series]), strict=True)):
        if series.style != "points" and series.low is not None:
            bands.append(_band(series, look.colour, floor))
        curve = _curve(series, look.colour, look.marker) | {"legendrank": rank + 1}
        (published if series.published else ours).append(curve)
    layout = {
        "xaxis": _axis(chart.x_label, chart.log_x, x_range),
        "yaxis": _axis(chart.y_label, chart.log_y, y_range),
        "shapes": [_level(label, value, "y", chart.log_y, y_range) for label, value in chart.h_lines]
        + [_level(label, value, "x", chart.log_x, x_range) for label, value in chart.v_lines],
        "hovermode": "closest" if all(s.style == "points" for s in chart.series) else "x",
        "showlegend": len(chart.series) > 1,
    }
    return {"kind": "plot", "data": plain(bands + published + ours), "layout": plain(layout)}


def _curve(series: Series, colour: str, marker: str) -> dict[str, Any]:
    x, y = np.asarray(series.x), np.asarray(series.y)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": marked_up(series.name),
        "x": x,
        "y": y,
        "hovertemplate": "%{y:.4~g}",
    }
    if series.published:
        symbol = {"symbol": f"{marker}-open", "size": 6, "color": f"@{colour}", "line": {"width": 1.3}}
        mode = "markers" if series.style == "points" else "lines+markers" if len(x) <= 60 else "lines"
        dash = "solid" if series.style == "line" else DASHES[series.style]
        return trace | {
            "mode": mode,
            "marker": symbol,
            "line": {"color": f"@{colour}/0.75", "width": 1.3, "dash": dash},
        }
    if series.style == "points":
        trace |= {"mode": "markers", "marker": {"symbol": marker, "size": 8, "color": f"@{colour}"}}
        if series.low is not None and series.high is not None:
            bars = {"color": f"@{colour}/0.6", "thickness": 1.5, "width": 4, "type": "data", "symmetric": False}
            trace["error_y"] = bars | {"array": np.asarray(series.high) - y, "arrayminus": y - np.asarray(series.low)}
        return trace
    few = len(x) <= 12 and series.style == "line"
    line = {"color": f"@{colour}", "width": 2.2, "dash": DASHES[series.style]}
    return trace | {"mode": "lines+markers" if few else "lines", "line": line, "marker": {"size": 5}}


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
    if log:
        decades = range_[1] - range_[0] if range_ else 1.0
        axis |= {"tickformat": "~g"}  # 0.02, not a small 2 between powers of ten
        axis |= {"dtick": 1 if decades > 2.2 else "D2"} if decades > 0.6 else {"nticks": 6}
    return axis if range_ is None else axis | {"range": list(range_), "autorange": False}


def _level(label: str, value: float, axis: str, log: bool, range_: Range | None) -> dict[str, Any]:
    other = "x" if axis == "y" else "y"
    low, high = range_ or (0.0, 1.0)
    at = math.log10(value) if log and value > 0 else value
    beyond = at > low + 0.9 * (high - low)  # no room for the text on the far side of the line
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
            "textposition": "end",
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
    cells = []
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
            "colorscale": [list(stop) for stop in (DIVERGING if chart.diverging else SEQUENTIAL)],
            "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 1.0, "exponentformat": "power"},
            "hovertemplate": "row %{y}, column %{x}: %{z:.4~g}<extra></extra>",
        }
        if max(rows, columns) <= 12 and read_with_two_decimals((low, high)):
            trace |= {"texttemplate": "%{z:.2f}", "textfont": {"size": 11}, "xgap": 1, "ygap": 1}
        layout = {
            "xaxis": {"showgrid": False, "zeroline": False, "constrain": "domain", "side": "bottom"}
            | ({"type": "category"} if panel.x_labels is not None else {}),
            "yaxis": {"showgrid": False, "zeroline": False, "constrain": "domain", "autorange": "reversed"}
            | {"scaleanchor": "x"}
            | ({"type": "category"} if panel.y_labels is not None else {}),
            "showlegend": False,
        }
        node = {"kind": "plot", "data": plain([trace]), "layout": plain(layout)}
        cells.append({"title": marked_up(panel.name), "node": node})
    return {"kind": "grid", "columns": len(cells), "cells": cells}


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
        lines = [chart for chart in charts if isinstance(chart, Lines)]
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
            frames = []
            for grid, nodes in zip(grids, zip(*columns, strict=True), strict=True):
                cells = [
                    {"title": marked_up(cell.title), "node": node}
                    for cell, node in zip(grid.charts, nodes, strict=True)
                ]
                frames.append({"kind": "grid", "columns": grid.columns, "cells": cells})
            return frames
    return [tree(chart) for chart in charts]
