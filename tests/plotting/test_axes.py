"""Places of names and ticks, against explicit loops; captions that explain bands."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.plotting import Grid, Lines, Series, Slider, draw, over_seeds, told, tree
from meta_icl.plotting.axes import GAP, log_ticks, named_ends, on_one_scale, room_for, shared_range, staggered


def lines(ends, x=(0.0, 1.0), **options):
    series = [Series(f"s{i}", x, [0.5, end]) for i, end in enumerate(ends)]
    return Lines("t", "x", "y", series, h_lines=(("", 0.0), ("", 1.0)), **options)


def places(chart):
    return named_ends(chart, shared_range([chart], "x"), shared_range([chart], "y"))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_names_stand_apart_in_the_order_of_the_ends(ends):
    found = places(lines(ends))
    if found is None:  # only where many ends touch
        assert any(abs(a - b) < 4 * GAP for i, a in enumerate(ends) for b in ends[:i])
        return
    order = np.argsort(ends, kind="stable")
    assert np.all(np.diff(np.array(found)[order]) >= GAP - 1e-9)
    low, high = shared_range([lines(ends)], "y")
    wanted = [(end - low) / (high - low) for end in ends]
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 2.1 * GAP + 1e-9


def test_ends_that_are_apart_are_not_moved():
    chart = lines([0.1, 0.9, 0.5])
    low, high = shared_range([chart], "y")
    assert places(chart) == pytest.approx([(end - low) / (high - low) for end in (0.1, 0.9, 0.5)])


def test_names_stay_in_a_legend_where_they_do_not_fit():
    assert places(lines([0.1])) is None
    assert places(lines([0.5] * 8)) is None  # they would stand far from their curves
    early = Lines("t", "x", "y", (Series("a", [0, 1], [0, 1]), Series("b", [0, 9], [0, 1])))
    assert places(early) is None
    assert places(Lines("t", "x", "y", (Series("a", [0, 1, 0], [0, 1, 2]), Series("b", [0, 1], [0, 1])))) is None
    assert places(Lines("t", "x", "y", (Series("a" * 60, [0, 1], [0, 1]), Series("b", [0, 1], [1, 0])))) is None


@given(st.floats(-14, 9), st.floats(0.02, 20))
def test_ticks_lie_inside_and_read_as_what_they_are(low, span):
    ticks = log_ticks(low, low + span)
    assert 2 <= len(ticks) <= 12
    for value, text in ticks:
        assert low - 1e-6 <= math.log10(value) <= low + span + 1e-6
        lead, _, power = text.replace(",", "").replace("−", "-").partition("10^{")
        read = (
            float(text.replace(",", "")) if not power else float(lead.rstrip("·") or 1) * 10.0 ** int(power.rstrip("}"))
        )
        assert read == pytest.approx(value, rel=2e-2 if power else 1e-5)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 2.0, ["1", "3", "10", "30", "100"]),
        (-0.1, 1.2, ["1", "2", "5", "10"]),
        (-6.0, 2.0, ["10^{−6}", "0.0001", "0.01", "1", "100"]),
        (3.0, 6.0, ["1000", "10,000", "100,000", "10^{6}"]),
    ],
)
def test_ticks_of_common_axes(low, high, texts):
    assert [text for _, text in log_ticks(low, high)] == texts


def test_both_backends_name_curves_and_ticks():
    chart = lines([0.1, 0.9], log_y=True)
    node = tree(chart)
    assert [name["text"] for name in node["names"]] == ["s0", "s1"] and node["names"][0]["y"] < node["names"][1]["y"]
    (axes,) = draw(chart).axes
    assert axes.get_legend() is None and {"s0", "s1"} <= {text.get_text() for text in axes.texts}
    assert [label.get_text() for label in axes.get_yticklabels()] == list(node["layout"]["yaxis"]["ticktext"])


def test_a_grid_of_the_same_curves_has_one_legend():
    node = tree(Grid("g", (lines([0.1, 0.9]), lines([0.3, 0.4]))))
    assert [name["text"] for name in node["names"]] == ["s0", "s1"]
    assert not any(cell["node"]["layout"]["showlegend"] or "names" in cell["node"] for cell in node["cells"])
    assert len(draw(Grid("g", (lines([0.1, 0.9]), lines([0.3, 0.4])))).legends) == 1


def test_captions_explain_bands():
    band = over_seeds("a", [0, 1], np.array([[1.0, 2.0], [3.0, 4.0]]))
    chart = Lines("t", "x", "y", (band,), caption="A curve.")
    assert told(chart) == "A curve. Bands: range over 2 seeds; curves: medians."
    assert told(Slider("s", "C", ((1, Grid("g", (chart,))),))) == "Bands: range over 2 seeds; curves: medians."
    said = Lines("t", "x", "y", (band,), caption="The band is the range.")
    assert told(said) == "The band is the range."
    assert draw(chart).get_supxlabel() == told(chart)


def test_names_of_close_levels_stand_in_columns():
    assert staggered([0.1, 0.5, 0.9], (0.0, 1.0), False) == [0, 0, 0]
    assert staggered([0.5, 0.51, 0.1, 0.52, 0.53], (0.0, 1.0), False) == [0, 1, 0, 2, 2]
    assert staggered([1.0, 10.0, 10.1], (0.0, 1.0), True) == [0, 0, 1]
    assert staggered([1.0, 1.0], None, False) == [0, 0]
    # The name of the highest hangs from its line, into that of the next.
    assert staggered([0.33, 0.87, 1.0], (0.0, 1.05), False) == [0, 0, 1]
    assert staggered([50.33, 50.87, 51.0], (50.0, 51.05), False) == [0, 0, 1]
    assert staggered([0.33, 0.7, 1.0], (0.0, 1.05), False) == [0, 0, 0]


@pytest.mark.parametrize(
    ("start", "end", "log", "fits"),
    [(0.0, 50.0, False, True), (0.0, 20.0, False, False), (1.0, 10.0, True, True), (50.0, 100.0, True, False)],
)
def test_names_of_intervals_stand_upright_where_they_fit(start, end, log, fits):
    """Seven letters take a fifth of an axis, which goes from 0 to 100, or from 1 to 100 by its logarithm."""
    assert room_for("phase 1", start, end, (0.0, 2.0) if log else (0.0, 100.0), log) == fits
    assert not room_for("phase 1", start, end, None, log)


def test_charts_side_by_side_have_one_scale():
    """A run whose values reach below zero takes the logarithm from the other's axis, too."""
    x = np.arange(3.0)
    charts = [
        Lines("a", "x", "y", [Series("one", x, np.array(values))], log_y=log)
        for values, log in (([1.0, 10.0, 100.0], True), ([50.0, 5.0, -1.0], False))
    ]
    assert [chart.log_y for chart in on_one_scale(charts)] == [False, False]
    low, high = shared_range(on_one_scale(charts), "y")
    assert low < -1 and high > 100
    assert [chart.log_y for chart in on_one_scale(charts[:1])] == [True]
