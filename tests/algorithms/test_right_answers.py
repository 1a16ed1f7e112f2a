"""Reference learners against float64 loops where float32, several outputs, zeros or labels once led them astray."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from sklearn.tree import DecisionTreeRegressor

from meta_icl import algorithms
from meta_icl.algorithms import (
    Averaging,
    Delta,
    DiscreteMmse,
    EveryPosition,
    GaussianMixtureBayes,
    GradientDescent,
    Hebbian,
    LeastSquares,
    LogisticRegression,
    NearestCentroid,
    NearestNeighbours,
    OneHot,
    RecursiveRidge,
    Ridge,
    Surprise,
    bayes_over_bases,
    best_rate,
    greedy_tree,
    lasso,
)
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt, answer_batch
from meta_icl.tasks import FunctionRegression, Linear, LinearRegression, ProjectedImages, PromptPool, Uniform

KEY = jax.random.key(0)
N, D, OUT = 12, 4, 2
SCALES = st.sampled_from([1e-3, 1.0, 1e3])
SMALL = st.sampled_from([1e-12, 1e-9, 1e-6, 1e-3, 1.0])


def drawn(seed, outputs=OUT, scale=1.0, noise=0.1):
    """float32 pairs of a linear function, all of one scale."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)) * scale
    y = x @ rng.normal(size=(D, outputs)) + noise * scale * rng.normal(size=(N, outputs))
    return x.astype(np.float32), y.astype(np.float32)


_ridge = jax.jit(lambda penalty, x, y: RecursiveRidge(penalty)(Prompt(x, y)))
_mixture = jax.jit(lambda means, variances, noise, x, y: GaussianMixtureBayes(means, variances, noise)(Prompt(x, y)))


@given(st.integers(0, 100), SCALES, SMALL)
def test_recursive_least_squares_in_float32_at_any_penalty(seed, scale, penalty):
    x, y = drawn(seed, scale=scale)
    mine = np.asarray(_ridge(penalty, x, y))
    for k in range(1, N):
        u, s, vt = np.linalg.svd(x[:k].astype(float), full_matrices=False)
        w = vt.T @ ((s / (s**2 + penalty))[:, None] * (u.T @ y[:k].astype(float)))
        np.testing.assert_allclose(mine[k], x[k].astype(float) @ w, rtol=0, atol=2e-5 * np.abs(y).max())


def mixture_loop(means, variances, noise, x, y):
    """Bayes for one output in float64: the joint normal law of all targets given every component."""
    x, y, answers = x.astype(float), y.astype(float), []
    for k in range(len(x)):
        logs, predictions = [], []
        for mean, variance in zip(means, variances, strict=True):
            law = (x[: k + 1] * variance) @ x[: k + 1].T + noise * np.diag([1.0] * k + [0.0])
            residual = y[:k] - x[:k] @ mean
            solved = np.linalg.solve(law[:k, :k], residual) if k else residual
            log_det = np.linalg.slogdet(law[:k, :k])[1] if k else 0.0
            logs.append(-0.5 * (residual @ solved + log_det))
            predictions.append(x[k] @ mean + law[k, :k] @ solved)
        weights = np.exp(np.array(logs) - max(logs))
        answers.append(weights @ predictions / weights.sum())
    return np.array(answers)


@given(st.integers(0, 100), st.sampled_from([1e-3, 1.0, 30.0]), st.sampled_from([1e-6, 1e-4, 1e-2, 1.0]))
def test_mixtures_in_float32_at_any_noise(seed, scale, noise):
    rng = np.random.default_rng(seed)
    bases = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]], float)
    x = (scale * rng.normal(size=(N, D))).astype(np.float32)
    w = bases[seed % 3][:, None] * rng.normal(size=(D, OUT))
    y = (x @ w + noise**0.5 * rng.normal(size=(N, OUT))).astype(np.float32)
    mine = np.asarray(_mixture(np.zeros_like(bases), bases, noise, x, y))
    assert mine.shape == (N, OUT)
    for o in range(OUT):
        expected = mixture_loop(np.zeros_like(bases), bases, noise, x, y[:, o])
        np.testing.assert_allclose(mine[:, o], expected, rtol=0, atol=1e-3 * np.abs(y).max())


def test_every_output_is_answered_by_itself():
    """Of two outputs each has the answer that it would have alone."""
    x, y = drawn(3)
    learners = [
        lasso(0.01), greedy_tree(2), bayes_over_bases(np.eye(D), 0.1), DiscreteMmse(np.eye(D), 0.5), Averaging(),
        NearestNeighbours(2), Ridge(0.1), RecursiveRidge(), Hebbian(), GradientDescent(0.1, 3),
    ]  # fmt: skip
    for learner in learners:
        both = np.asarray(learner(Prompt(x, y)))
        for o in range(OUT):
            np.testing.assert_allclose(both[..., o : o + 1], learner(Prompt(x, y[:, o])), rtol=1e-4, atol=1e-5)
    tree = DecisionTreeRegressor(max_depth=2, random_state=0).fit(x[:-1], y[:-1, 1]).predict(x[-1:])
    assert float(greedy_tree(2)(Prompt(x, y))[1]) == pytest.approx(float(tree[0]))


def test_integers_as_real_targets_are_real():
    x = np.array([[1, 0], [0, 1], [1, 1], [2, 1]])
    y = np.array([[3], [5], [8], [0]])
    prompt = Prompt(x, y)
    assert float(LeastSquares()(prompt)[0]) == pytest.approx(11, rel=1e-5)
    fitted = Lasso(alpha=0.1, fit_intercept=False).fit(x[:-1], y[:-1, 0]).predict(x[-1:])
    assert fitted[0] != round(fitted[0])
    assert float(lasso(0.1)(prompt)[0]) == pytest.approx(float(fitted[0]), rel=1e-5)


def test_one_channel_as_a_row_of_numbers_is_one_answer():
    x, y = drawn(1, outputs=1)
    assert Ridge(0.1)(Prompt(x, y[:, 0])).shape == (1,)


def test_learners_of_real_targets_refuse_labels_in_one_line():
    prompt = Prompt(np.ones((3, 2)), np.array([0, 1, 1]))
    learners = [
        Ridge(0.1), LeastSquares(), GradientDescent(0.1), Averaging(), NearestNeighbours(), Hebbian(), lasso(0.1),
        DiscreteMmse(np.ones((2, 2)), 1.0), EveryPosition(Ridge(0.1)),
    ]  # fmt: skip
    for learner in learners:
        with pytest.raises(BadInput, match=r"^targets must be real numbers .*OneHot") as raised:
            learner(prompt)
        assert "\n" not in str(raised.value)


def test_labels_outside_the_classes_are_named():
    for learner in (OneHot(NearestNeighbours(), 2), NearestCentroid(2), LogisticRegression(2, steps=1)):
        with pytest.raises(BadInput, match=r"^labels must be from 0 to 1, got \[0, 2\]"):
            learner(Prompt(np.ones((2, 1)), np.array([0, 2])))
        with pytest.raises(BadInput, match="targets must be integer labels"):
            learner(Prompt(np.ones((2, 1)), np.ones(2)))


def test_a_key_of_zeros_writes_nothing():
    x, y = drawn(2)
    x[3] = 0
    for rule in (Delta(), Surprise(eta=0.0), RecursiveRidge()):
        with_zero = np.asarray(rule(Prompt(x, y)))
        without = np.asarray(rule(Prompt(np.delete(x, 3, 0), np.delete(y, 3, 0))))
        np.testing.assert_allclose(np.delete(with_zero, 3, 0), without, rtol=1e-4, atol=1e-5)


def test_many_prompts_are_answered_as_few_are(monkeypatch):
    monkeypatch.setattr("meta_icl.prompt.BLOCK", 4)
    prompts = LinearRegression(d=D, n_context=5).sample_batch(11, key=KEY)
    bayes = bayes_over_bases(np.eye(D), 0.1)
    one_by_one = [bayes(jax.tree.map(lambda leaf, i=i: leaf[i], prompts))[-1] for i in range(11)]
    np.testing.assert_allclose(answer_batch(bayes, prompts), one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearRegression(d=2, n_context=3, noise=np.inf),
        lambda: LinearRegression(d=2, n_context=3, noise=np.nan),
        lambda: LinearRegression(d=2, n_context=3, x_scale=np.inf),
        lambda: FunctionRegression(Linear(2), 3, noise=np.inf),
        lambda: Uniform(half_range=np.inf),
        lambda: Ridge(np.inf),
        lambda: algorithms.BayesLinear(np.inf),
        lambda: RecursiveRidge(0.0),
        lambda: LinearRegression(d=2, n_context=3).with_pool(2**31, key=KEY),
        lambda: LinearRegression(d=2**20, n_context=3).with_pool(2**12, key=KEY),
        lambda: FunctionRegression(Linear(2**20), 3).with_pool(2**12, key=KEY),
        lambda: PromptPool(LinearRegression(d=2, n_context=3), 2**31, KEY),
        lambda: ProjectedImages(jnp.ones((2, 3)), jnp.ones(2, int), KEY, 3, 2, n_tasks=2**33),  # type: ignore[arg-type]
    ],
)
def test_numbers_without_end_are_refused_in_one_line(make):
    with pytest.raises(BadInput, match="must be") as raised:
        make()
    assert "\n" not in str(raised.value)


def test_the_best_rate_of_another_context_length():
    task = LinearRegression(d=3, n_context=5)
    for n in (2, 5, 40):
        assert float(best_rate(task, n)) == pytest.approx(float(best_rate(LinearRegression(d=3, n_context=n))))
    with pytest.raises(BadInput, match="n_context"):
        best_rate(LinearRegression(d=3, n_context=5, n_replaced=3), 2)


BASES = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]], float)


@given(
    st.integers(0, 100),
    st.integers(1, 3),
    SCALES,
    st.sampled_from([np.float64, np.float32, np.int32]),
    st.sampled_from(["lasso", "tree", "bases", "ridge"]),
)
def test_any_outputs_scale_and_type_are_answered_as_in_float64(seed, outputs, scale, kind, learner):
    """Each output by itself, from data of any type: integers as real targets are neither cut nor taken for labels."""
    x, y = drawn(seed, outputs, scale)
    y = (y * (100 / scale)).astype(kind) if kind is np.int32 else y.astype(kind)
    wide, targets = x.astype(float), y.astype(float)
    reach = np.abs(targets).max()
    given_y = y[:, 0] if outputs == 1 and kind is not np.int32 else y  # of rank one: a single channel
    prompt = Prompt(x.astype(np.float64) if kind is np.float64 else x, given_y)
    if learner == "lasso":
        alpha = 0.1 * scale * reach
        mine = lasso(alpha)(prompt)
        fits = [Lasso(alpha=alpha, fit_intercept=False).fit(wide[:-1], t[:-1]).predict(wide[-1:])[0] for t in targets.T]
    elif learner == "tree":
        mine = greedy_tree(2)(prompt)
        trees = [DecisionTreeRegressor(max_depth=2, random_state=0).fit(x[:-1], t[:-1]) for t in targets.T]
        fits = [tree.predict(x[-1:])[0] for tree in trees]
    elif learner == "bases":
        noise = 0.01 * reach**2
        mine = bayes_over_bases(BASES, noise)(prompt)[-1]
        fits = [mixture_loop(np.zeros_like(BASES), BASES, noise, wide, t)[-1] for t in targets.T]
    else:
        penalty = 0.1 * scale**2
        mine = Ridge(penalty)(prompt)
        gram = wide[:-1].T @ wide[:-1] + penalty * np.eye(D)
        fits = wide[-1] @ np.linalg.solve(gram, wide[:-1].T @ targets[:-1])
    assert np.shape(mine) == (outputs,)
    np.testing.assert_allclose(mine, fits, rtol=1e-3, atol=1e-4 * reach)
