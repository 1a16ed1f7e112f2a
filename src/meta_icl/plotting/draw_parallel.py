"""Parallel coordinates as a plot of plotly and on axes of matplotlib."""

import math
from typing import Any

import numpy as np

from meta_icl.plotting.parallel import Parallel
from meta_icl.plotting.theme import COLOURS, marked_up, mathtext


def node(chart: Parallel) -> dict[str, Any]:
    """The chart for `draw_plotly`: its lines from the worst to the best, each told in full where one points at it."""
    heights = np.stack([axis.heights() for axis in chart.axes], axis=1)
    best, lost = chart.standing_out(), ~np.isfinite(heights[:, -1])
    data = []
    for line in sorted(range(len(best)), key=lambda line: (best[line], not lost[line])):
        look = {"color": "@muted/0.45", "width": 1.2, "dash": "solid"}
        look |= {"color": "@c0", "width": 2.2} if best[line] else {}
        look |= {"color": "@fails/0.7", "dash": "dot"} if lost[line] else {}
        words = "<br>".join(f"{marked_up(axis.name)} = {marked_up(axis.told(line))}" for axis in chart.axes)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": list(range(len(chart.axes))),
                "y": [float(f"{h:.4g}") if math.isfinite(h) else None for h in heights[line]],
                "line": look,
                "hovertemplate": f"{words}<extra></extra>",
                "showlegend": False,
            }
        )
    names = [marked_up(axis.name) for axis in chart.axes]
    last = len(names) - 1
    upright = {"type": "line", "y0": 0, "y1": 1, "line": {"color": "@ink", "width": 1}, "layer": "below"}
    label = {"showarrow": False, "font": {"color": "@muted", "size": 11}, "bgcolor": "@paper/0.75"}
    layout = {
        "xaxis": {"range": [-0.15, last + 0.35], "autorange": False, "showgrid": False, "zeroline": False}
        | {"tickvals": list(range(len(names))), "ticktext": names},
        "yaxis": {"range": [-0.06, 1.06], "autorange": False, "visible": False},
        "shapes": [upright | {"x0": place, "x1": place} for place in range(len(names))],
        "annotations": [
            label | {"x": place, "y": height, "text": marked_up(text), "xanchor": "left", "xshift": 4}
            for place, axis in enumerate(chart.axes)
            for height, text in axis.ticks()
        ],
        "hovermode": "closest",
        "showlegend": False,
    }
    return {"kind": "plot", "data": data, "layout": layout}


def on_axes(axes: Any, chart: Parallel) -> None:
    """The chart on axes of matplotlib."""
    ink = COLOURS["light"]
    heights = np.stack([axis.heights() for axis in chart.axes], axis=1)
    best, lost = chart.standing_out(), ~np.isfinite(heights[:, -1])
    places = range(len(chart.axes))
    for line, (good, gone) in enumerate(zip(best, lost, strict=True)):
        colour = ink["fails"] if gone else ink["c0"] if good else ink["muted"]
        look = {"linewidth": 1.8, "zorder": 3} if good else {"linewidth": 0.9, "alpha": 0.5, "zorder": 2}
        axes.plot(places, heights[line], color=colour, linestyle=":" if gone else "-", **look)
    box = {"facecolor": ink["paper"], "alpha": 0.75, "linewidth": 0, "pad": 0.5}
    for place, axis in enumerate(chart.axes):
        axes.axvline(place, 0.05, 0.95, color=ink["ink"], linewidth=0.8, zorder=1)
        for height, text in axis.ticks():
            at = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 7.5, "zorder": 4}
            axes.annotate(mathtext(text), (place, height), color=ink["muted"], bbox=box, **at)
    axes.set_xticks(list(places), [mathtext(axis.name) for axis in chart.axes], fontsize=8)
    axes.set_xlim(-0.15, len(chart.axes) - 0.65)
    axes.set_ylim(-1 / 18, 19 / 18)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
