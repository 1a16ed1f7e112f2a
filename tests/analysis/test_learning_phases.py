"""Phases by the published definitions on made curves; plateaus and power laws with known answers."""

import numpy as np
import pytest

from meta_icl.analysis import (
    Improvement,
    improvement,
    learning_phase,
    learns_in_general,
    plateau_length,
    power_law,
)
from meta_icl.errors import BadInput


def curve(start, end, n=100):
    return start + (end - start) * (1 - np.exp(-np.arange(n) / 10)) / (1 - np.exp(-(n - 1) / 10))


CASES = [
    # seen from, to; unseen from, to; phase at chance 0.1
    ((0.95, 0.97), (0.1, 0.11), "memorisation"),
    ((0.10, 0.45), (0.1, 0.12), "task identification"),
    ((0.10, 0.70), (0.1, 0.68), "general learning to learn"),
    ((0.60, 0.90), (0.1, 0.30), "general learning to learn"),
    ((0.10, 0.11), (0.1, 0.10), "failed"),
    ((0.15, 0.16), (0.1, 0.10), "failed"),  # above chance, but not well above
    ((0.10, 0.149), (0.1, 0.149), "failed"),  # both just below the margin of 0.05
    ((0.10, 0.151), (0.1, 0.149), "task identification"),
    ((0.10, 0.151), (0.1, 0.151), "general learning to learn"),
]


@pytest.mark.parametrize(("seen", "unseen", "expected"), CASES)
def test_phase_of_a_curve(seen, unseen, expected):
    assert learning_phase(improvement(curve(*seen)), improvement(curve(*unseen)), chance=0.1) == expected


def test_general_in_the_full_sense():
    good, low, none = Improvement(0.1, 0.7), Improvement(0.1, 0.6), Improvement(0.1, 0.12)
    assert learns_in_general(good, good, low)
    assert not learns_in_general(good, low, low)  # seen and unseen differ by 0.1
    assert not learns_in_general(good, good, none)


def test_improvement_is_the_difference_of_the_ends():
    values = np.array([0.0, 0.2, 0.4, 0.9, 1.0, 0.8])
    assert improvement(values).gain == pytest.approx(0.8)
    found = improvement(values, window=2)
    assert (found.start, found.end) == pytest.approx((0.1, 0.9))
    for wrong in (0, 4):
        with pytest.raises(BadInput, match="window"):
            improvement(values, window=wrong)


def test_plateau_length():
    steps = np.arange(0, 1000, 100)
    losses = np.log(10) - np.array([0, 0.01, 0.02, 0.049, 0.051, 0.03, 0.5, 1, 1, 1])
    assert plateau_length(steps, losses, 10) == 400
    assert plateau_length(steps, losses, 10, delta=0.2) == 600
    assert plateau_length(steps, losses, 10, delta=2.0) == float("inf")


def test_power_law():
    x = np.array([32.0, 64, 128, 256])
    exact = power_law(x, 5 * x**-0.7)
    assert (exact.slope, exact.r_squared) == pytest.approx((-0.7, 1.0))
    assert np.exp(exact.intercept) == pytest.approx(5)
    noisy = power_law(x, np.array([1.0, 3, 1, 3]))
    assert noisy.r_squared == pytest.approx(np.corrcoef(np.log(x), np.log([1, 3, 1, 3]))[0, 1] ** 2)
    with pytest.raises(BadInput, match="positive"):
        power_law(x, np.array([1, 2, np.inf, 3]))
