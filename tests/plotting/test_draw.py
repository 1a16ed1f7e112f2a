"""Both backends draw the numbers that a chart holds."""

import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from meta_icl.errors import BadInput
from meta_icl.plotting import (
    Bars,
    Grid,
    Heatmaps,
    Lines,
    Panel,
    Series,
    Slider,
    Widget,
    draw,
    save,
    tree,
    trees_on_common_axes,
)

NAN = math.nan
values = hnp.arrays(np.float64, st.integers(0, 6), elements=st.floats(allow_nan=True, allow_infinity=True, width=32))


def lines(y=(1.0, 2.0, 4.0), title="loss", **options):
    x = np.arange(len(y)) + 1.0
    curve = Series("ours", x, y, np.asarray(y) / 2, np.asarray(y) * 2)
    return Lines(title, "step", "half-MSE", (curve, Series("theirs", x, y, published=True)), **options)


def strict(node):
    """Through JSON as a browser reads it, in which NaN is an error."""
    return json.loads(json.dumps(node, allow_nan=False))


def close_to(values):
    return [pytest.approx(v, rel=1e-5) if math.isfinite(v) else None for v in values]


@given(values)
def test_a_curve_keeps_its_points_and_breaks_at_missing_ones(y):
    chart = Lines("t", "x", "y", (Series("s", np.arange(len(y)), y),))
    (trace,) = strict(tree(chart))["data"]
    assert trace["x"] == list(range(len(y)))
    assert trace["y"] == close_to(y)


@given(values, st.booleans())
def test_a_band_lies_between_its_bounds(y, log):
    band = Series("s", np.arange(len(y)), y, y - 1, y + 1)
    node = strict(tree(Lines("t", "x", "y", (band,), log_y=log)))
    outline = node["data"][0]
    assert outline["fill"] == "toself" and not outline["showlegend"]
    finite = [v for v in y if math.isfinite(v)]
    drawn = [v for v in outline["y"] if v is not None]
    assert len(drawn) == 2 * len(finite)
    assert sum(v is None for v in outline["x"]) <= max(len(finite), 0)
    if log:
        positive = [v for v in [*finite, *(v - 1 for v in finite)] if v > 0]
        floor = min(positive, default=1.0)
        lowest = [v for v in drawn if v < floor * (1 - 1e-5)]
        assert all(v in [pytest.approx(u + 1, rel=1e-5, abs=1e-5) for u in finite] for v in lowest)


def test_published_curves_lie_below_ours_in_a_style_of_their_own():
    node = strict(tree(lines()))
    assert [trace.get("name") for trace in node["data"]] == [None, "theirs", "ours"]
    assert node["data"][1]["marker"]["symbol"] == "circle-open"
    assert node["data"][1]["line"]["color"].startswith("@published")
    assert [trace["legendrank"] for trace in node["data"][1:]] == [2, 1]


def test_points_have_error_bars():
    chart = Lines("t", "x", "y", (Series("s", [1, 2], [3, 4], [2, 3.5], [5, 6], style="points"),))
    (trace,) = strict(tree(chart))["data"]
    assert trace["mode"] == "markers"
    assert trace["error_y"]["array"] == [2, 2] and trace["error_y"]["arrayminus"] == [1, 0.5]


def test_axes_show_labels_levels_and_logarithms():
    layout = strict(tree(lines(log_y=True, h_lines=(("zero < all", 8.0),), v_lines=(("d", 2.0),))))["layout"]
    assert layout["yaxis"]["type"] == "log" and layout["xaxis"]["type"] == "linear"
    low, high = layout["yaxis"]["range"]
    assert low < math.log10(0.5) < math.log10(8) < high
    across, up = layout["shapes"]
    assert (across["y0"], across["y1"], across["xref"]) == (8, 8, "x domain")
    assert (up["x0"], up["x1"], up["yref"]) == (2, 2, "y domain")
    assert across["label"]["text"] == "zero &lt; all"


def test_frames_of_a_slider_share_their_axes():
    frames = ((1, lines((1.0, 2.0))), (2.5, lines((10.0, 30.0, 20.0))))
    node = strict(tree(Slider("s", "C", frames, start=1)))
    assert node["values"] == ["1", "2.5"] and node["start"] == 1
    ranges = [(f["layout"]["xaxis"]["range"], f["layout"]["yaxis"]["range"]) for f in node["frames"]]
    assert ranges[0] == ranges[1]
    assert ranges[0][0][0] < 1 and ranges[0][0][1] > 3 and ranges[0][1][0] < 0.5 and ranges[0][1][1] > 60


def test_frames_that_are_grids_share_axes_place_by_place():
    frames = tuple((i, Grid("g", (lines((1.0, i + 1.0)), Bars("b", "x", "y", ["a"], [i])), 2)) for i in range(3))
    nodes = strict(tree(Slider("s", "C", frames)))["frames"]
    for place in range(2):
        ranges = [node["cells"][place]["node"]["layout"]["yaxis"]["range"] for node in nodes]
        assert ranges[0] == ranges[1] == ranges[2]
    assert nodes[0]["cells"][0]["node"]["layout"]["yaxis"] != nodes[0]["cells"][1]["node"]["layout"]["yaxis"]


def test_heat_maps_on_common_axes_share_their_colours():
    maps = [Heatmaps("h", (Panel("W_Q", np.full((2, 3), v)), Panel("W_V", np.eye(2)))) for v in (1.0, -4.0)]
    nodes = strict(trees_on_common_axes(maps))
    first = [node["cells"][0]["node"]["data"][0] for node in nodes]
    assert [(t["zmin"], t["zmax"]) for t in first] == [(-4, 4)] * 2
    assert first[1]["z"] == [[-4.0] * 3] * 2
    assert [cell["title"] for cell in nodes[0]["cells"]] == ["W<sub>Q</sub>", "W<sub>V</sub>"]


def test_cells_hold_numbers_only_where_two_decimals_tell_them():
    chart = Heatmaps("h", tuple(Panel(str(size), size * np.eye(3)) for size in (0.1, 1e-6, 5e3)))
    cells = tree(chart)["cells"]
    assert ["texttemplate" in cell["node"]["data"][0] for cell in cells] == [True, False, False]
    maps = [axes for axes in draw(chart).axes if axes.get_images()]
    assert [len(axes.texts) for axes in maps] == [9, 0, 0]


def test_rows_without_names_are_numbered_by_whole_numbers():
    chart = Heatmaps("h", (Panel("a", np.ones((3, 30))),))
    layout = tree(chart)["cells"][0]["node"]["layout"]
    (axes,) = [axes for axes in draw(chart).axes if axes.get_images()]
    for ticks, n in ((layout["xaxis"]["tickvals"], 30), (layout["yaxis"]["tickvals"], 3)):
        assert len(ticks) <= 12 and set(ticks) <= set(range(n))
    assert list(axes.get_xticks()) == layout["xaxis"]["tickvals"] and list(axes.get_yticks()) == [0, 1, 2]


def test_charts_of_different_kinds_keep_their_own_axes():
    charts = [lines(), Bars("b", "x", "y", ["a", "b"], [1, 2], [0.5, 1], [2, 4])]
    assert trees_on_common_axes(charts) == [tree(chart) for chart in charts]


def test_a_widget_carries_its_data_as_json():
    data = {"w": np.array([[1.0, NAN]]), "n": np.int64(3), "name": "</script>"}
    node = strict(tree(Widget("w", "<b></b>", "return;", data)))
    assert node["data"] == {"w": [[1.0, None]], "n": 3, "name": "</script>"}


CHARTS = {
    "lines": lines(h_lines=(("level", 3.0),), v_lines=(("here", 2.0),)),
    "log": lines(log_x=True, log_y=True),
    "empty": Lines("nothing", "x", "y", (Series("s", [], []), Series("t", [1], [NAN]))),
    "points": Lines("t", "x", "y", (Series("s", [1, 2], [3, 4], [2, 3.5], [5, 6], style="points"),)),
    "bars": Bars("b", "x", "y", ["a long name", "b"], [1, NAN], [0.5, NAN], [2, NAN]),
    "heat": Heatmaps("h", (Panel("W_Q W_K^T", np.eye(3), list("abc"), list("abc")), Panel("m", np.ones((20, 2))))),
    "grid": Grid("g", (lines(), lines(), Heatmaps("h", (Panel("p", [[NAN, 1]]),))), 2),
    "slider": Slider("s", "C", ((1, lines()), (2, lines((5.0, 6.0)))), start=1),
    "widget": Widget("w", "", "", static=lines()),
}


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_becomes_json_and_a_small_file(name, tmp_path):
    chart = CHARTS[name]
    strict(tree(chart))
    save(chart, tmp_path / "deep" / "a.svg")
    save(chart, tmp_path / "deep" / "b.svg")
    text = (tmp_path / "deep" / "a.svg").read_bytes()
    assert text == (tmp_path / "deep" / "b.svg").read_bytes()  # the same figure is the same file
    assert ET.fromstring(text).tag.endswith("svg") and len(text) < 120_000
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.svg", "b.svg"]


def test_png_by_suffix_and_no_other(tmp_path):
    save(lines(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="unknown figure format 'pdf'"):
        save(lines(), tmp_path / "a.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_matplotlib_draws_the_same_numbers():
    (axes,) = draw(lines(log_y=True)).axes
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    expected = np.array([[1, 1], [2, 2], [3, 4]])
    np.testing.assert_array_equal(drawn["ours"], expected)
    np.testing.assert_array_equal(drawn["theirs"], expected)
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "half-MSE"
    outline = axes.collections[0].get_paths()[0].vertices
    assert outline[:, 1].min() == 0.5 and outline[:, 1].max() == 8


def test_a_slider_stands_at_its_start_and_says_so():
    figure = draw(Slider("Training", "C", ((1, lines()), (20, lines((5.0, 6.0)))), start=1))
    assert figure.get_suptitle() == "Training: C = 20"
    assert figure.axes[0].lines[0].get_ydata().tolist() == [5, 6]


def test_a_grid_leaves_no_empty_axes_visible():
    figure = draw(Grid("g", (lines(title="a"), lines(title="b"), lines(title="c")), 2))
    shown = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert shown == ["a", "b", "c"]


def test_a_notebook_shows_a_chart():
    assert lines()._repr_svg_().lstrip().startswith("<?xml")


def test_nothing_stands_outside_of_a_figure():
    names = ["1", "8", "64", "512"]
    maps = Heatmaps("maps", [Panel(f"map {i}", np.eye(3, 4), names, names[:3]) for i in range(2)])
    long = Lines("The alignment of every update with the step of the same pairs that is taken instead", "x", "y", ())
    named = Bars(
        "bars", "", "loss", [f"without {word}" for word in ("forgetting", "momentum", "convolution")], [1, 2, 3]
    )
    for chart in (maps, Grid("both", (lines(), long), 2), named):
        figure = draw(chart)
        figure.draw_without_rendering()
        whole = figure.bbox
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box.x0 > whole.x0 - 1 and box.x1 < whole.x1 + 1, chart.title
            assert box.y0 > whole.y0 - 1 and box.y1 < whole.y1 + 1, chart.title
