"""Charts refuse what cannot be drawn, and know their ranges; against explicit loops over the numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.errors import BadInput
from meta_icl.plotting import (
    Bars,
    Coordinate,
    Grid,
    Heatmaps,
    Lines,
    Panel,
    Parallel,
    Series,
    Slider,
    Widget,
    draw,
    over_seeds,
    still,
    thin,
    tree,
)
from meta_icl.plotting.axes import band_segments, shared_range, smallest_positive
from meta_icl.plotting.theme import COLOURS, Look, looks, marked_up, mathtext

numbers = st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf))
NAN = math.nan


def series(y, low=None, high=None, **options):
    return Series("s", np.arange(len(y)), y, low, high, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Series("s", [1, 2], [1, 2, 3]), "y of series 's' must be 2 values, as x, got '3 values'"),
        (lambda: Series("s", [1], [1], low=[0]), "both low and high"),
        (lambda: Series("s", [1], [1], style="dahsed"), "did you mean 'dashed'"),
        (lambda: Series("s", ["a"], [1]), "x of series 's' must be numbers"),
        (lambda: Series("s", [[1]], [1]), "x of series 's' must be numbers along 1 axis"),
        (lambda: Panel("p", [1, 2]), "matrix of panel 'p' must be numbers along 2 axes"),
        (lambda: Panel("p", [[1, 2]], x_labels=["a"]), "x_labels of panel 'p' must be 2 names"),
        (lambda: Heatmaps("h", ()), "at least one panel"),
        (lambda: Bars("b", "", "", ["a", "b"], [1]), "2, one per name"),
        (lambda: Bars("b", "", "", ["a"], [1], low=[0]), "both low and high"),
        (lambda: Grid("g", ()), "at least one chart"),
        (lambda: Grid("g", (Lines("l", "", "", ()),), columns=0), "1 or more"),
        (lambda: Slider("s", "C", ()), "at least one frame"),
        (lambda: Slider("s", "C", ((1, Lines("l", "", "", ())),), start=1), "an index from 0 to 0"),
        (lambda: still(Widget("w", "", "")), "static chart of 'w'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(build, message):
    with pytest.raises(BadInput) as caught:
        build()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_charts_keep_their_own_numbers():
    y = np.array([1.0, 2.0])
    chart = series(y)
    y[0] = 5
    assert chart.y[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        chart.y[0] = 5


def test_the_band_over_seeds_is_their_range():
    band = over_seeds("x", [0, 1], np.array([[1.0, 5.0, 2.0], [3.0, 3.0, 9.0]]))
    assert (band.y.tolist(), band.low.tolist(), band.high.tolist()) == ([2, 3], [1, 3], [5, 9])


def test_a_thinned_curve_keeps_its_ends_and_its_drop():
    x = np.linspace(0, 1, 100_001)
    y = 0.5 - 0.5 * np.tanh(5e3 * (x - 0.3))
    few, values = thin(x, y, 50)
    assert len(few) <= 102 and few[0] == 0 and few[-1] == 1
    assert np.abs(np.interp(x, few, values) - y).max() < 0.03


@given(st.lists(st.booleans(), max_size=12))
def test_a_band_has_a_hole_where_a_bound_is_missing(known):
    low = np.where(known, 0.0, NAN)
    runs = [run.tolist() for run in band_segments(series(low, low, low + 1))]
    expected: list[list[int]] = []
    for index, here in enumerate(known):
        if here and (index == 0 or not known[index - 1]):
            expected.append([])
        if here:
            expected[-1].append(index)
    assert runs == expected


@given(st.lists(st.lists(numbers, min_size=1, max_size=5), min_size=1, max_size=3), st.booleans())
def test_a_shared_range_shows_every_number(rows, log):
    charts = [Lines("l", "x", "y", (series(row),), log_y=log) for row in rows]
    found = shared_range(charts, "y")
    inside = [v for row in rows for v in row if math.isfinite(v) and (v > 0 or not log)]
    if not inside:
        assert found is None
        return
    assert found is not None
    low, high = (10**end for end in found) if log else found
    assert low < min(inside) <= max(inside) < high or (min(inside) == max(inside) and low < high)


def test_a_shared_range_has_levels_and_bands():
    chart = Lines("l", "x", "y", (series([1.0, 2.0], [0.0, 1.0], [2.0, 9.0]),), h_lines=(("far", -10.0),))
    assert shared_range([chart], "y") == pytest.approx((-10 - 0.95, 9 + 0.95))
    assert smallest_positive(Lines("l", "x", "y", (series([-1.0, 3.0], [0.0, 0.5], [4.0, 4.0]),))) == 0.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(-2, 2), (-1, 1)]),
        ({"shared_scale": True}, [(-2, 2), (-2, 2)]),
        ({"diverging": False}, [(-2, 1), (-1, 1)]),
        ({"diverging": False, "shared_scale": True}, [(-2, 1), (-2, 1)]),
    ],
)
def test_limits_of_heat_maps(options, expected):
    maps = Heatmaps("h", (Panel("a", [[-2, 1], [0, NAN]]), Panel("b", [[-1, 1]])), **options)
    assert maps.limits() == expected


def test_limits_of_a_constant_panel_are_apart():
    assert Heatmaps("h", (Panel("a", [[0.0]]),)).limits() == [(-1, 1)]
    assert Heatmaps("h", (Panel("a", [[NAN]]),), diverging=False).limits() == [(0, 1)]


def test_published_curves_are_grey_or_paired():
    assert [look.colour for look in looks([False, False, True])] == ["c0", "c1", "published"]
    assert [look.colour for look in looks([False, True, False, True])] == ["c0", "c0", "c1", "c1"]
    assert looks([False, True, True])[1:] == [Look("published", "circle"), Look("published", "square")]


@pytest.mark.parametrize(
    ("text", "html", "tex"),
    [
        ("W_Q W_K^T", "W<sub>Q</sub> W<sub>K</sub><sup>T</sup>", r"W$_{\mathrm{Q}}$ W$_{\mathrm{K}}$$^{\mathrm{T}}$"),
        ("σ^2", "σ<sup>2</sup>", r"σ$^{\mathrm{2}}$"),
        ("x_{q1} < $5", "x<sub>q1</sub> &lt; $5", r"x$_{\mathrm{q1}}$ < \$5"),
        ("to_gd, n_context", "to_gd, n<sub>context</sub>", r"to_gd, n$_{\mathrm{context}}$"),
        ("plain", "plain", "plain"),
    ],
)
def test_indices_and_exponents_are_set(text, html, tex):
    assert marked_up(text) == html
    assert mathtext(text) == tex


def relative_luminance(colour):
    """By the formula of WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_with_the_paper(scheme):
    paper = relative_luminance(COLOURS[scheme]["paper"])

    def contrast(name):
        low, high = sorted((paper, relative_luminance(COLOURS[scheme][name])))
        return (high + 0.05) / (low + 0.05)

    assert all(contrast(name) >= 3 for name in (*(f"c{i}" for i in range(8)), "published"))
    assert all(contrast(name) >= 4.5 for name in ("ink", "muted", "accent", "holds", "fails", "open"))


def test_parallel_axes_have_every_line_from_the_lowest_value_to_the_highest():
    rates, losses = [1e-4, 1e-2, 1e-3, 1e-3], [4.0, 1.0, 2.0, np.nan]
    chart = Parallel(
        "t",
        [
            Coordinate("rate", rates, log=True),
            Coordinate("model", [0, 1, 1, 0], words=["a", "b"]),
            Coordinate("loss", losses),
        ],
    )
    np.testing.assert_allclose(
        [axis.heights() for axis in chart.axes], [[0, 1, 0.5, 0.5], [0, 1, 1, 0], [1, 0, 1 / 3, np.nan]]
    )
    assert chart.axes[0].ticks() == [(0, "0.0001"), (pytest.approx(0.5), "0.001"), (1, "0.01")]
    assert chart.axes[1].ticks() == [(0, "a"), (1, "b")]
    assert Coordinate("x", range(9)).ticks() == [(0, "0"), (0.5, "4"), (1, "8")]
    assert chart.standing_out().tolist() == [False, True, False, False]  # of four the best quarter
    assert not Parallel("t", [chart.axes[0], Coordinate("loss", [np.nan] * 4)]).standing_out().any()
    plot = tree(chart)
    drawn = [trace["y"] for trace in plot["data"]]  # the lost line first, the best one last, on top
    assert drawn[0] == [pytest.approx(0.5), 0, None] and drawn[-1] == [1, 1, 0] and len(drawn) == 4
    assert plot["data"][-1]["hovertemplate"] == "rate = 0.01<br>model = b<br>loss = 1<extra></extra>"
    assert plot["layout"]["xaxis"]["ticktext"] == ["rate", "model", "loss"]
    (axes,) = draw(chart).axes
    np.testing.assert_allclose(sorted(line.get_ydata()[0] for line in axes.lines[:4]), [0, 0.5, 0.5, 1])
    for wrong in ([chart.axes[0]], [chart.axes[0], Coordinate("x", [1])]):
        with pytest.raises(BadInput, match="two or more of one length"):
            Parallel("t", wrong)
    with pytest.raises(BadInput, match="positive on a log"):
        Coordinate("x", [0, 1], log=True)
