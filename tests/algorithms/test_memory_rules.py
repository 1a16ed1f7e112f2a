"""The untrained ladder against its closed forms, and that nothing beats Bayes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.algorithms import (
    Delta,
    Hebbian,
    Implicit,
    RecursiveRidge,
    Surprise,
    hebbian_error,
    kaczmarz_error,
    least_squares_error,
    recall_accuracy,
    scaled_hebbian_error,
    softmax_recall,
)
from meta_icl.prompt import Prompt, answer_positions
from meta_icl.tasks import LinearRegression, Normal

D, N = 10, 1000
TASK = LinearRegression(d=D, n_context=2 * D, x_law=Normal())
T = jnp.arange(2.0 * D + 1)


@pytest.fixture(scope="module")
def prompts():
    return TASK.sample_batch(N, key=jax.random.key(0))


def errors(rule, prompts):
    """Squared errors over d at every position, "prompts positions": E over x of what E |w_hat - w|^2 / d is."""
    answers = jax.jit(lambda prompts: answer_positions(rule, prompts))(prompts)
    return np.asarray(jnp.square(answers - prompts.y)[..., 0]) / D


CURVES = {
    "linear attention": (Hebbian(), lambda: hebbian_error(T, D)),
    "linear attention, one scale": (Hebbian(raw=True), lambda: scaled_hebbian_error(T, D, 1.0)),
    "delta": (Delta(), lambda: kaczmarz_error(T, D)),
    "delta, rate 1/2": (Delta(rate=0.5), lambda: kaczmarz_error(T, D, 0.5)),
    "mesa": (RecursiveRidge(), lambda: least_squares_error(T, D)),
}


@pytest.mark.parametrize("name", CURVES)
def test_closed_forms(name, prompts):
    rule, curve = CURVES[name]
    measured, expected = errors(rule, prompts), np.asarray(curve())
    deviation = 5 * measured.std(axis=0)[:-1] / N**0.5 + 1e-3
    assert (np.abs(measured.mean(axis=0) - expected)[:-1] < deviation).all()


@pytest.mark.parametrize("rule", [Hebbian(), Delta(), Implicit(), Surprise(), Surprise(alpha=0.02)], ids=repr)
def test_nothing_beats_bayes(rule, prompts):
    """Bayes is least squares here; paired, so that the difference has a small error."""
    difference = errors(rule, prompts) - errors(RecursiveRidge(), prompts)
    assert (difference.mean(axis=0) > -5 * difference.std(axis=0) / N**0.5 - 1e-3).all()


@pytest.mark.parametrize("rule", [Hebbian(), Delta(), Implicit(), Surprise(), RecursiveRidge()], ids=repr)
def test_no_position_reads_its_own_target_or_later_rows(rule):
    x, y = np.random.default_rng(0).normal(size=(2, 9, 4))
    before = np.asarray(rule(Prompt(jnp.asarray(x), jnp.asarray(y[:, :1]))))
    y[5:] = 7.0
    after = np.asarray(rule(Prompt(jnp.asarray(x), jnp.asarray(y[:, :1]))))
    np.testing.assert_array_equal(before[:6], after[:6])
    assert (before[6:] != after[6:]).all()


@pytest.mark.slow
def test_published_recall():
    """The sheet's accuracies at d = 32 for N / d = 1/2, 1, 2, to their two digits and our error."""
    expected = {
        Hebbian(raw=True): (1.00, 0.98, 0.83),
        Delta(): (0.98, 0.81, 0.45),
        RecursiveRidge(0.01): (1.00, 1.00, 0.98),
    }
    for rule, row in expected.items():
        for n, share in zip((16, 32, 64), row, strict=True):
            measured = float(recall_accuracy(rule, n, 32, 60, key=jax.random.key(n)))
            assert measured == pytest.approx(share, abs=0.03), (rule, n)
    assert float(recall_accuracy(softmax_recall, 64, 32, 20, key=jax.random.key(0))) == 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_rules_are_the_mixers_rules():
    """The same recurrences as in the layers, on unit keys."""
    from meta_icl.models.mixers.delta import delta_chunks
    from meta_icl.models.mixers.titans_rule import Gates, Momentum, titans_products

    rng = np.random.default_rng(1)
    x, y = jnp.asarray(rng.normal(size=(9, 4))), jnp.asarray(rng.normal(size=(9, 3)))
    length = jnp.linalg.norm(x, axis=1, keepdims=True)
    k, v, zero = x / length, y / length, jnp.zeros((3, 4))
    shifted = Prompt(jnp.concatenate([x, x[-1:]]), jnp.concatenate([y, y[-1:]]))
    memory = delta_chunks(zero, k, k, v, jnp.full(9, 0.7), jnp.log(jnp.full(9, 0.9)), 4)[0]
    np.testing.assert_allclose(Delta(0.7, 0.9)(shifted)[-1], memory @ x[-1], rtol=0, atol=1e-12)
    gates = Gates(jnp.full(9, 0.1), jnp.full(9, 0.3), jnp.full(9, 0.25))
    memory = titans_products(Momentum((zero,), (zero,)), k, k, v, gates, 1)[0].weights[0]
    np.testing.assert_allclose(Surprise(0.25, 0.3, 0.1)(shifted)[-1], memory @ x[-1], rtol=0, atol=1e-12)
