"""`show` makes charts of what the science returns, with bands that say what they cover."""

import numpy as np
import pytest

from meta_icl.algorithms import GradientDescent, Ridge
from meta_icl.apps.show import chart
from meta_icl.errors import BadInput
from meta_icl.evaluation import Curves, compare, loss_by_context
from meta_icl.evaluation.estimates import Estimate, with_members
from meta_icl.plotting import Bars, Lines, draw
from meta_icl.tasks import LinearRegression
from meta_icl.training import Trained

TASK = LinearRegression(d=2, n_context=4)


def test_curves_become_lines_with_bands():
    curves = loss_by_context({"gd": GradientDescent(0.5), "ridge": Ridge(0.1)}, TASK, [2, 4], key=0, n_prompts=50)
    drawn = chart(curves)
    assert isinstance(drawn, Lines) and drawn.x_label == "examples in the context"
    assert drawn.caption == "Bands: ± 95 % over 50 prompts."
    for series in drawn.series:
        low, high = zip(*(point.over_prompts for point in curves[series.name]), strict=True)
        np.testing.assert_allclose(series.low, low)
        np.testing.assert_allclose(series.high, high)
    draw(drawn)


def test_a_curve_of_one_seed_has_no_band():
    estimates = {"loss": [Estimate(1.0, np.nan, (1.0,))]}
    one = Curves(
        estimates,
        x=[1],
        x_label="step",
        y_label="loss",
        interval="one seed, no interval",
    )
    assert chart(one).series[0].low is None


def test_a_training_shows_its_learning_curve():
    history = {"step": np.array([0, 5]), "loss": np.array([[np.nan, np.nan], [2.0, 4.0]])}
    drawn = chart(Trained(np.zeros(2), history, ({"seed": 0}, {"seed": 1})))
    assert drawn.series[0].y.tolist() == [3.0] and drawn.series[0].x.tolist() == [5.0]
    low, high = with_members(3.0, np.nan, np.array([2.0, 4.0])).over_seeds
    assert (drawn.series[0].low[0], drawn.series[0].high[0]) == (low, high)


def test_a_comparison_is_bars():
    table = compare([GradientDescent(0.5), Ridge(0.1)], TASK, key=0, n_prompts=50)
    drawn = chart(table)
    assert isinstance(drawn, Bars) and list(drawn.names) == ["GradientDescent", "Ridge"]
    assert drawn.low[0] == pytest.approx(table["GradientDescent"]["loss"].over_prompts[0])
    assert chart(drawn) is drawn


def test_what_has_no_chart_is_named():
    with pytest.raises(BadInput, match="got int"):
        chart(3)
