"""Closed-form learners against scikit-learn, numpy and brute-force Bayes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import linear_model

from meta_icl.algorithms import BayesFinitePool, BayesLinear, LeastSquares, Ridge, ZeroPredictor
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt

SHAPES = [(8, 3, 2), (3, 3, 1), (2, 5, 2)]  # more pairs than inputs, as many, fewer


@eqx.filter_jit
def answer(predictor, prompt):
    return predictor(prompt)


def random_prompt(n, d, o, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n + 1, d)), rng.normal(size=(n + 1, o))
    return x, y, Prompt(jnp.asarray(x), jnp.asarray(y))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", SHAPES)
def test_least_squares_of_smallest_norm(shape):
    x, y, prompt = random_prompt(*shape)
    reference = linear_model.LinearRegression(fit_intercept=False).fit(x[:-1], y[:-1]).predict(x[-1:])[0]
    np.testing.assert_allclose(answer(LeastSquares(), prompt), reference, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_least_squares_with_repeated_rows():
    x, y, _ = random_prompt(4, 3, 2)
    x = np.concatenate([x[:2], x[:2], x[-1:]])  # rank 2 of 3, with labels that disagree
    expected = x[-1] @ np.linalg.pinv(x[:-1]) @ y[:-1]
    np.testing.assert_allclose(
        answer(LeastSquares(), Prompt(jnp.asarray(x), jnp.asarray(y))), expected, rtol=0, atol=1e-10
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("penalty", [1e-3, 0.5, 20.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_ridge(shape, penalty):
    x, y, prompt = random_prompt(*shape)
    model = linear_model.Ridge(alpha=penalty, fit_intercept=False, solver="cholesky").fit(x[:-1], y[:-1])
    np.testing.assert_allclose(answer(Ridge(penalty), prompt), model.predict(x[-1:]).ravel(), rtol=0, atol=1e-10)


def condition(x, y, covariance, noise_variance):
    """The posterior mean of w x_q by conditioning the joint normal law of the labels and w x_q."""
    joint = x @ covariance @ x.T + noise_variance * np.diag([1.0] * (len(x) - 1) + [0.0])
    return joint[-1, :-1] @ np.linalg.solve(joint[:-1, :-1], y[:-1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("prior", ["isotropic", "full", "singular"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bayes_linear_is_the_conditional_mean(shape, prior):
    x, y, prompt = random_prompt(*shape)
    d = shape[1]
    root = np.random.default_rng(1).normal(size=(d, 2 if prior == "singular" else d))
    covariance = 2.5 * np.eye(d) if prior == "isotropic" else root @ root.T
    predictor = BayesLinear(0.3, 2.5) if prior == "isotropic" else BayesLinear(0.3, prior_covariance=covariance)
    np.testing.assert_allclose(answer(predictor, prompt), condition(x, y, covariance, 0.3), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_bayes_linear_without_noise_is_the_limit():
    x, y, prompt = random_prompt(2, 4, 1)  # fewer pairs than inputs: the prior decides between interpolants
    root = np.random.default_rng(2).normal(size=(4, 4))
    predictor = BayesLinear(0.0, prior_covariance=root @ root.T)
    np.testing.assert_allclose(answer(predictor, prompt), condition(x, y, root @ root.T, 0.0), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_finite_pool_is_bayes_rule():
    x, y, prompt = random_prompt(3, 2, 2)
    pool = np.random.default_rng(3).normal(size=(5, 2, 2))
    likelihood = [stats.norm(x[:-1] @ w, np.sqrt(0.4)).pdf(y[:-1]).prod() for w in pool]
    posterior = np.array(likelihood) / np.sum(likelihood)
    predictor = BayesFinitePool(pool, 0.4)
    np.testing.assert_allclose(predictor.weights(prompt), posterior, rtol=0, atol=1e-12)
    expected = sum(p * (x[-1] @ w) for p, w in zip(posterior, pool, strict=True))
    np.testing.assert_allclose(answer(predictor, prompt), expected, rtol=0, atol=1e-12)


def test_finite_pool_without_noise_identifies_the_task_and_shares_ties():
    rng = np.random.default_rng(4)
    pool = rng.normal(size=(6, 3, 1)).astype(np.float32)
    pool[5] = pool[2]
    x = rng.normal(size=(5, 3)).astype(np.float32)
    for member, expected in ((0, np.eye(6)[0]), (2, (np.eye(6)[2] + np.eye(6)[5]) / 2)):
        prompt = Prompt(jnp.asarray(x), jnp.asarray(x @ pool[member]))
        np.testing.assert_allclose(BayesFinitePool(pool, 0.0).weights(prompt), expected, atol=1e-6)
        np.testing.assert_allclose(
            answer(BayesFinitePool(pool, 0.0), prompt), x[-1] @ pool[member], rtol=1e-5, atol=1e-6
        )
    empty = Prompt(jnp.asarray(x[-1:]), jnp.zeros((1, 1)))
    np.testing.assert_allclose(BayesFinitePool(pool, 0.0).weights(empty), np.full(6, 1 / 6), rtol=1e-6)


def test_float32_keeps_its_digits():
    """Ridge with a tiny penalty on an ill-conditioned context, where forming X^T X in float32 would lose the answer."""
    x, y, _ = random_prompt(6, 3, 1)
    x[:, 2] = x[:, 1] + 1e-3 * x[:, 2]
    y = x @ np.array([[1.0], [2.0], [-1.0]])
    prompt = Prompt(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(answer(Ridge(1e-9), prompt), y[-1], rtol=2e-3)


def test_zero_predictor_and_empty_contexts():
    prompt = Prompt(jnp.ones((1, 3)), jnp.ones((1, 2)))
    for predictor in (ZeroPredictor(), LeastSquares(), Ridge(0.1), BayesLinear(0.1)):
        np.testing.assert_array_equal(predictor(prompt), np.zeros(2))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Ridge(-1.0), "penalty"),
        (lambda: BayesLinear(-0.1), "noise_variance"),
        (lambda: BayesLinear(0.1, 0.0), "prior_variance"),
        (lambda: BayesLinear(0.1, 2.0, np.eye(3)), "prior_variance"),
        (lambda: BayesLinear(0.1, prior_covariance=np.ones((2, 3))), "prior_covariance"),
        (lambda: BayesFinitePool(np.ones((2, 3, 1)), -1.0), "noise_variance"),
    ],
)
def test_bad_input_is_one_line(make, field):
    with pytest.raises(BadInput, match=f"^{field} must be") as raised:
        make()
    assert "\n" not in str(raised.value)
