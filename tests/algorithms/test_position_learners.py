"""Learners that answer every position against loops over positions in float64 numpy, scipy and scikit-learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from meta_icl.algorithms import (
    Averaging,
    BayesFinitePool,
    DiscreteMmse,
    EveryPosition,
    LeastSquares,
    NearestNeighbours,
    NetworkDescent,
    Ridge,
    bayes_over_bases,
    best_training_vector_error,
    boosted_trees,
    greedy_tree,
    lasso,
    smoothed_dmmse,
)
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt, answer_batch

N, D = 7, 4
RNG = np.random.default_rng(0)
POOL = RNG.normal(size=(5, D))
MASKS = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]], float)


def least_squares(x, y, query):
    return query @ np.linalg.pinv(x) @ y if len(x) else 0.0


def ridge(x, y, query):
    return query @ np.linalg.solve(x.T @ x + 0.3 * np.eye(D), x.T @ y)


def averaging(x, y, query):
    return sum(t * (row @ query) for row, t in zip(x, y, strict=True)) / len(x) if len(x) else 0.0


def neighbours(x, y, query):
    if not len(x):
        return 0.0
    return KNeighborsRegressor(min(3, len(x)), algorithm="brute").fit(x, y).predict(query[None])[0]


def dmmse(x, y, query):
    likelihood = np.array([np.prod(stats.norm(x @ w, 0.5).pdf(y)) for w in POOL])
    return likelihood / likelihood.sum() @ (POOL @ query)


def mixture(x, y, query, means, covariances, noise):
    """Evidence as a joint density, means by conditioning: nothing sequential."""
    densities, predictions = [], []
    for mean, covariance in zip(means, covariances, strict=True):
        joint = x @ covariance @ x.T + noise * np.eye(len(x))
        residual = y - x @ mean
        densities.append(stats.multivariate_normal(np.zeros(len(x)), joint).pdf(residual) if len(x) else 1.0)
        predictions.append(query @ mean + query @ covariance @ x.T @ np.linalg.solve(joint, residual))
    return np.dot(densities, predictions) / np.sum(densities)


def bases(x, y, query):
    return mixture(x, y, query, np.zeros_like(MASKS), [np.diag(mask) for mask in MASKS], 0.2)


def smoothed(x, y, query):
    return mixture(x, y, query, POOL, [0.09 * np.eye(D)] * len(POOL), 0.2)


ORACLES = {
    "least squares": (lambda: EveryPosition(LeastSquares()), least_squares),
    "ridge": (lambda: EveryPosition(Ridge(0.3)), ridge),
    "averaging": (Averaging, averaging),
    "neighbours": (NearestNeighbours, neighbours),
    "dMMSE": (lambda: DiscreteMmse(POOL, 0.25), dmmse),
    "dMMSE by query": (lambda: EveryPosition(BayesFinitePool(POOL[:, :, None], 0.25)), dmmse),
    "bases": (lambda: bayes_over_bases(MASKS, 0.2), bases),
    "smoothed dMMSE": (lambda: smoothed_dmmse(POOL, 0.2, 0.3), smoothed),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ORACLES)
def test_every_position(name):
    make, oracle = ORACLES[name]
    x, y = RNG.normal(size=(N, D)), RNG.normal(size=(N, 1))
    answers = eqx.filter_jit(make())(Prompt(jnp.asarray(x), jnp.asarray(y)))
    expected = [oracle(x[:k], y[:k, 0], x[k]) for k in range(N)]
    np.testing.assert_allclose(np.asarray(answers)[:, 0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ORACLES)
def test_no_position_reads_its_own_target_or_later_rows(name):
    x, y = RNG.normal(size=(N, D)), RNG.normal(size=(N, 1))
    predictor = eqx.filter_jit(ORACLES[name][0]())
    before = np.asarray(predictor(Prompt(jnp.asarray(x), jnp.asarray(y))))
    x[4:], y[3:] = RNG.normal(size=(N - 4, D)), RNG.normal(size=(N - 3, 1))
    after = np.asarray(predictor(Prompt(jnp.asarray(x), jnp.asarray(y))))
    np.testing.assert_array_equal(before[:4], after[:4])
    assert (before[4:] != after[4:]).all()


def test_smoothing_tends_to_the_pool_and_to_ridge():
    """A vanishing width is dMMSE; one member at zero with unit width is ridge."""
    run = eqx.filter_jit(lambda predictor, prompt: predictor(prompt))
    with jax.enable_x64(True):
        x, y = RNG.normal(size=(N, D)), RNG.normal(size=(N, 1))
        prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(
            run(smoothed_dmmse(POOL, 0.25, 1e-6), prompt), run(DiscreteMmse(POOL, 0.25), prompt), atol=1e-8
        )
        alone = smoothed_dmmse(np.zeros((1, D)), 0.25, 1.0)
        np.testing.assert_allclose(run(alone, prompt), run(EveryPosition(Ridge(0.25)), prompt), atol=1e-10)


@pytest.mark.slow
@given(n=st.integers(1, 6), d=st.integers(1, 4))
def test_shapes(n, d):
    prompt = Prompt(jnp.ones((n, d)), jnp.ones((n, 1)))
    for predictor in (Averaging(), NearestNeighbours(), DiscreteMmse(np.ones((3, d)), 1.0)):
        assert predictor(prompt).shape == (n, 1)


def test_fitted_learners_are_scikit_learn_on_each_context():
    x, y = RNG.normal(size=(3, 9, D)).astype(np.float32), RNG.normal(size=(3, 9, 1)).astype(np.float32)
    prompts = Prompt(jnp.asarray(x), jnp.asarray(y))
    cases = {
        "lasso": (lasso(0.05), lambda a, b: Lasso(alpha=0.05, fit_intercept=False).fit(a, b), False),
        "tree": (
            greedy_tree(2, "sign"),
            lambda a, b: DecisionTreeRegressor(max_depth=2, random_state=0).fit(a, b),
            True,
        ),
    }
    for predictor, fit, signs in cases.values():
        seen = np.sign(x) if signs else x
        expected = [fit(seen[i, :-1], y[i, :-1, 0]).predict(seen[i, -1:])[0] for i in range(3)]
        np.testing.assert_allclose(np.asarray(answer_batch(predictor, prompts))[:, 0], expected, rtol=1e-5, atol=1e-5)
    assert np.asarray(answer_batch(lasso(0.05), jax.tree.map(lambda a: a[:, :1], prompts))).tolist() == [[0.0]] * 3


def test_boosted_trees_fit_a_step():
    x = np.linspace(-1, 1, 41)[:, None]
    y = np.where(x > 0.1, 2.0, -1.0)
    x, y = np.concatenate([x, [[0.5]]]), np.concatenate([y, [[0.0]]])
    answer = boosted_trees()(Prompt(jnp.asarray(x), jnp.asarray(y)))
    # A share 0.9^50 of the residual is left, plus what lambda = 1 takes of leaves of 20 rows.
    assert float(answer[0]) == pytest.approx(2.0, abs=0.05)


def test_network_descent_learns_a_line():
    x = RNG.uniform(-1, 1, size=(21, 1))
    prompt = Prompt(jnp.asarray(x, jnp.float32), jnp.asarray(3 * x, jnp.float32))
    answer = eqx.filter_jit(NetworkDescent(rate=1e-2, width=20, steps=600))(prompt)
    assert float(answer[0]) == pytest.approx(3 * float(x[-1, 0]), abs=0.1)


def test_best_training_vector_against_simulation():
    rng = np.random.default_rng(5)
    for n, d in ((1, 3), (200, 4)):
        smallest = [((rng.normal(size=(n, d)) - rng.normal(size=d)) ** 2).sum(1).min() / d for _ in range(4000)]
        error = np.std(smallest) / 4000**0.5
        assert abs(best_training_vector_error(n, d) - np.mean(smallest)) < 5 * error


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: NearestNeighbours(0), "n_neighbours"),
        (lambda: DiscreteMmse(POOL, 0.0), "noise_variance"),
        (lambda: smoothed_dmmse(POOL, 0.1, 0.0), "width"),
        (lambda: bayes_over_bases(MASKS, -1.0), "noise_variance"),
        (lambda: best_training_vector_error(0, 3), "n_vectors"),
        (lambda: NetworkDescent(steps=0), "steps"),
    ],
)
def test_bad_input_is_one_line(make, field):
    with pytest.raises(BadInput, match=f"^{field} must be") as raised:
        make()
    assert "\n" not in str(raised.value)
