"""Probes of dynamics on curves and matrices whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl import analysis
from meta_icl.errors import BadInput


@given(seed=st.integers(0, 10**6), n=st.integers(0, 5))
def test_plateaus_of_a_staircase(seed, n):
    """Smooth drops of random sizes at random, well separated times."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0, 100 * (n + 1), 2000 * (n + 1))
    drops = 100 * (np.arange(n + 1) + rng.uniform(0.4, 0.6, n + 1))
    sizes = rng.uniform(0.2, 1, n + 1)
    loss = sizes.sum() - sum(size / (1 + np.exp(-(times - at))) for size, at in zip(sizes, drops, strict=True))
    found = analysis.plateaus(times, loss)
    levels = sizes.sum() - np.cumsum(sizes)
    np.testing.assert_allclose([plateau.height for plateau in found], levels[:-1], atol=1e-6)
    for plateau, before, after in zip(found, drops[:-1], drops[1:], strict=True):
        assert before < plateau.time < after
        assert plateau.slowness < 1e-6


def test_plateaus_need_two_drops():
    t = np.linspace(0, 10, 200)
    assert analysis.plateaus(t, np.exp(-t)) == []
    assert analysis.plateaus(t, np.ones(200)) == []
    assert analysis.plateaus(t, t) == []
    # Two drops that run into each other are one drop unless slower ones are allowed.
    loss = 2 - 1 / (1 + np.exp(-3 * (t - 4))) - 1 / (1 + np.exp(-3 * (t - 5.5)))
    assert analysis.plateaus(t, loss) == []
    assert len(analysis.plateaus(t, loss, max_slowness=0.9)) == 1
    with pytest.raises(BadInput):
        analysis.plateaus(t[::-1], loss)


def test_direction_overlap():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0].T
    target = basis.T @ np.diag([1.0, 2.0, 3.0, 4.0]) @ basis
    learned = basis.T @ np.diag([1.0, 2.0, 1.5, 0.0]) @ basis + 0.4 * np.outer(basis[3], basis[0])
    overlap = analysis.direction_overlap(learned, target, basis)
    np.testing.assert_allclose(overlap.share, [1, 1, 0.5, 0], atol=1e-12)
    assert overlap.off == pytest.approx(0.1)


def test_distance_to_scaled_identity():
    matrices = np.stack(
        [3 * np.eye(3), np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), np.diag([1.0, 0, 0]), np.zeros((3, 3))]
    )
    distances = analysis.distance_to_scaled_identity(matrices)
    np.testing.assert_allclose(distances[:3], [0, 1, np.sqrt(4 / 9 + 2 / 9)], atol=1e-12)
    assert np.isnan(distances[3])


def test_heads():
    omega, mu = np.array([0.2, -0.21, 0.3, -0.19]), np.array([3.0, -2.0, 0.01, -1.0])
    roles = analysis.head_roles(omega, mu)
    assert roles.tolist() == [1, -1, 0, -1]
    assert analysis.zero_sum_score(mu) == pytest.approx(0.01 / 3)
    assert analysis.homogeneity_score(omega, roles) == pytest.approx(0.05)
    assert analysis.diagonal_share(np.array([[3.0, 0], [1, 0]])) == pytest.approx(0.9)
    assert analysis.conservation_drift(np.array([[1.0, 2], [1.5, 2], [1, 1]])) == 1


def test_plateau_table():
    """Two seeds, one with two plateaus and one with none; a map that has learned one direction, then two."""
    times = np.linspace(0, 30, 3001)
    steps = [1 / (1 + np.exp(-2 * (times - at))) for at in (5, 15, 25)]
    loss = 3 - sum(steps)
    target, basis = np.diag([1.0, 2.0, 4.0]), np.eye(3)
    learned = target[None] * np.stack(steps, -1)[:, None, :]
    table = analysis.plateau_table(times, np.stack([loss, np.exp(-times)]), np.stack([learned, learned]), target, basis)
    np.testing.assert_allclose(table["height"], [[2, 1, np.nan], [np.nan] * 3], atol=1e-4)
    np.testing.assert_allclose(table["time"][0, :2], [10, 20], atol=0.1)
    np.testing.assert_allclose(table["share"][0, :2], [[1, 0, 0], [1, 1, 0]], atol=1e-4)
    np.testing.assert_allclose(table["map"][0, 1], np.diag([1.0, 2.0, 0.0]), atol=1e-3)
    np.testing.assert_allclose(table["off"][0, :2], 0, atol=1e-12)
    assert analysis.nearest_plateau(table["height"], 1.2).tolist() == [1, -1]
    below = analysis.first_below(times, np.stack([loss, 2 * np.ones_like(loss)]), 1.5)
    np.testing.assert_allclose(below, [15, np.inf], atol=0.02)
