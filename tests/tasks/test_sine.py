"""Both published families of sine regression."""

import jax
import numpy as np
import pytest
from scipy import integrate, stats

from meta_icl.errors import BadInput
from meta_icl.tasks import SineRegression

KEY = jax.random.key(0)


@pytest.mark.parametrize(("family", "largest"), [("paper", 5.0), ("released_code", 0.5)])
def test_prompts_are_sines_of_the_stated_laws(family, largest):
    task = SineRegression(family=family)
    prompts, a, phi = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part)
        for part in task.sample_with_parameters(5000, key=KEY)
    )
    assert prompts.x.shape == prompts.y.shape == (5000, 11, 1)
    assert stats.kstest(prompts.x.ravel(), stats.uniform(-5, 10).cdf).pvalue > 1e-3
    assert stats.kstest(a, stats.uniform(0.1, largest - 0.1).cdf).pvalue > 1e-3
    assert stats.kstest(phi, stats.uniform(0, np.pi).cdf).pvalue > 1e-3
    expected = a[:, None] * (
        np.sin(prompts.x[..., 0]) * np.cos(phi)[:, None] + np.cos(prompts.x[..., 0]) * np.sin(phi)[:, None]
    )
    np.testing.assert_allclose(prompts.y[..., 0], expected, atol=5e-6)
    correlation = np.corrcoef(a, phi)[0, 1]
    if family == "released_code":
        assert correlation == pytest.approx(1.0, abs=1e-6)
    else:
        assert abs(correlation) < 5 / np.sqrt(5000)


def test_zero_predictor_on_the_released_family():
    """Half-MSE of answering zero: 0.0259, by quadrature over the one parameter u and x."""
    value, _ = integrate.dblquad(
        lambda x, u: 0.5 * ((0.1 + 0.4 * u) * np.sin(x + np.pi * u)) ** 2 / 10, 0, 1, lambda _: -5, lambda _: 5
    )
    assert value == pytest.approx(0.0259, abs=5e-5)
    squares = 0.5 * np.asarray(SineRegression(family="released_code").sample_batch(20_000, key=KEY).y[:, -1, 0]) ** 2
    assert abs(squares.mean() - value) < 4 * squares.std() / np.sqrt(20_000)


def test_one_prompt_is_a_batch_of_one():
    task = SineRegression(n_context=3)
    np.testing.assert_array_equal(task.sample(key=KEY).y, task.sample_batch(1, key=KEY).y[0])


def test_bad_input():
    with pytest.raises(BadInput, match="did you mean 'paper'"):
        SineRegression(family="papr")
    with pytest.raises(BadInput, match="n_context"):
        SineRegression(n_context=0)
    with pytest.raises(BadInput, match="half_range"):
        SineRegression(half_range=-5.0)
