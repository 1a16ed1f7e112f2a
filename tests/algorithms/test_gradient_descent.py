"""Gradient descent and GD++ against float64 numpy that loops over examples, tokens and steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.algorithms import GradientDescent, GradientDescentPlusPlus
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt, answer_batch

RATES, GAMMAS = (0.9, 0.5, 1.3, 0.7, 0.2), (0.02, 0.05, 0.01, 0.03, 0.04)


@eqx.filter_jit
def answer(predictor, prompt):
    return predictor(prompt)


def random_prompt(n, d, o, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n + 1, d)), rng.normal(size=(n + 1, o)), rng.normal(size=(o, d))


def descend(x, y, w, rates):
    """The prediction after one explicit update per rate; the gradient is accumulated example by example."""
    n = len(x) - 1
    for rate in rates:
        gradient = np.zeros_like(w)
        for xi, yi in zip(x[:n], y[:n], strict=True):
            gradient += np.outer(w @ xi - yi, xi) / n
        w = w - rate * gradient
    return w @ x[n]


def descend_plus_plus(x, y, w0, rates, gammas):
    """The prediction of GD++, token by token; each token is changed by sums over the old context."""
    n = len(x) - 1
    x, y = x.copy(), y.copy()
    y[n] = -w0 @ x[n]
    for rate, gamma in zip(rates, gammas, strict=True):
        old_x, old_y = x.copy(), y.copy()
        for j in range(n + 1):
            for i in range(n):
                weight = float(np.dot(old_x[i], old_x[j]))
                x[j] -= gamma * weight * old_x[i]
                y[j] += rate / n * weight * (w0 @ old_x[i] - old_y[i])
    return -y[n]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("start", ["zero", "given"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_gradient_descent_is_exact(steps, start):
    x, y, w0 = random_prompt(7, 3, 2)
    w0 = w0 if start == "given" else np.zeros_like(w0)
    prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
    shared = answer(GradientDescent(0.6, steps, w0=None if start == "zero" else w0), prompt)
    np.testing.assert_allclose(shared, descend(x, y, w0, [0.6] * steps), rtol=0, atol=1e-12)
    per_step = answer(GradientDescent(RATES[:steps], w0=w0), prompt)
    np.testing.assert_allclose(per_step, descend(x, y, w0, RATES[:steps]), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("start", ["zero", "given"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_gradient_descent_plus_plus_is_exact(steps, start):
    x, y, w0 = random_prompt(7, 3, 2)
    w0 = w0 if start == "given" else np.zeros_like(w0)
    prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
    given_w0 = None if start == "zero" else w0
    shared = answer(GradientDescentPlusPlus(0.6, 0.03, steps, w0=given_w0), prompt)
    np.testing.assert_allclose(shared, descend_plus_plus(x, y, w0, [0.6] * steps, [0.03] * steps), rtol=0, atol=1e-12)
    per_step = answer(GradientDescentPlusPlus(RATES[:steps], GAMMAS[:steps], w0=given_w0), prompt)
    expected = descend_plus_plus(x, y, w0, RATES[:steps], GAMMAS[:steps])
    np.testing.assert_allclose(per_step, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_without_curvature_correction_it_is_gradient_descent():
    x, y, w0 = random_prompt(7, 3, 2)
    prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
    plain = answer(GradientDescentPlusPlus(RATES, 0.0, w0=w0), prompt)
    np.testing.assert_allclose(plain, descend(x, y, w0, RATES), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_many_steps_reach_least_squares():
    x, y, _ = random_prompt(12, 3, 2)
    expected = x[-1] @ np.linalg.lstsq(x[:-1], y[:-1])[0]
    answer_ = answer(GradientDescent(0.5, 2000), Prompt(jnp.asarray(x), jnp.asarray(y)))
    np.testing.assert_allclose(answer_, expected, rtol=0, atol=1e-10)


def test_sensitivity_to_the_query_is_the_weights_and_the_target_is_never_read():
    x, y, w0 = (jnp.asarray(part, jnp.float32) for part in random_prompt(5, 3, 2))
    gd = GradientDescent(0.4, 3, w0=w0)

    @jax.jit
    def sensitivity(query):
        return jax.jacobian(lambda q: gd(Prompt(x.at[-1].set(q), y)))(query)

    np.testing.assert_allclose(sensitivity(x[-1]), gd.weights(Prompt(x, y)), rtol=1e-5, atol=1e-6)
    for predictor in (gd, GradientDescentPlusPlus(0.4, 0.01, 3, w0=w0)):
        other = Prompt(x, y.at[-1].set(7.0))
        np.testing.assert_array_equal(answer(predictor, other), answer(predictor, Prompt(x, y)))


def test_rates_are_swept_by_vmap_and_prompts_come_in_batches():
    x, y, _ = (jnp.asarray(part, jnp.float32) for part in random_prompt(5, 3, 1))
    prompts = Prompt(jnp.stack([x, 2 * x]), jnp.stack([y, y]))
    rates = jnp.array([0.1, 0.7])
    swept = jax.jit(jax.vmap(lambda rate: answer_batch(GradientDescent(rate, 2), prompts)))(rates)
    for row, rate in zip(np.asarray(swept), (0.1, 0.7), strict=True):
        for cell, scale in zip(row, (1.0, 2.0), strict=True):
            expected = descend(
                scale * np.asarray(x, np.float64), np.asarray(y, np.float64), np.zeros((1, 3)), [rate] * 2
            )
            np.testing.assert_allclose(cell, expected, rtol=1e-4, atol=1e-5)


@given(n=st.integers(0, 4), d=st.integers(1, 4), o=st.integers(1, 3), steps=st.integers(1, 4))
def test_shapes(n, d, o, steps):
    x, y = jax.ShapeDtypeStruct((n + 1, d), jnp.float32), jax.ShapeDtypeStruct((n + 1, o), jnp.float32)
    for predictor in (GradientDescent(0.1, steps), GradientDescentPlusPlus([0.1] * steps, 0.01)):
        answered = eqx.filter_eval_shape(lambda x, y, p=predictor: p(Prompt(x, y)), x, y)  # compiles nothing
        assert answered.shape == (o,)


def test_an_empty_context_teaches_nothing():
    prompt = Prompt(jnp.ones((1, 3)), jnp.ones((1, 2)))
    np.testing.assert_array_equal(GradientDescent(0.5)(prompt), np.zeros(2))
    np.testing.assert_array_equal(GradientDescentPlusPlus(0.5, 0.1)(prompt), np.zeros(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientDescent(0.1, 0), "steps must be a positive integer, got 0"),
        (
            lambda: GradientDescent([0.1, 0.2], 3),
            "rate must be one number, or one for each of 3 steps, got '2 numbers'",
        ),
        (lambda: GradientDescent([]), "rate must be one number, or one per step"),
        (
            lambda: GradientDescentPlusPlus([0.1, 0.2], [0.1, 0.2, 0.3]),
            "gammas must be one number, or one for each of 2",
        ),
        (lambda: GradientDescent(np.ones((2, 2))), "rate must be one number, or one per step"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(BadInput) as raised:
        make()
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
