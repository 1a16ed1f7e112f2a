"""Reference learners of labels against scikit-learn and loops in numpy float64; none sees the label it is asked for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.algorithms import (
    EveryPosition,
    LogisticRegression,
    NearestCentroid,
    NearestNeighbours,
    OneHot,
    Ridge,
    online_network,
)
from meta_icl.prompt import Prompt, query_prediction

N, D, LABELS = 14, 3, 4


def prompt(seed=0):
    rng = np.random.default_rng(seed)
    means = 2 * rng.normal(size=(LABELS, D))
    y = rng.integers(0, LABELS, N)
    return Prompt(jnp.asarray(means[y] + rng.normal(size=(N, D))), jnp.asarray(y))


LEARNERS = {
    "neighbours": OneHot(NearestNeighbours(3), LABELS),
    "ridge": OneHot(EveryPosition(Ridge(0.5)), LABELS),
    "centroid": NearestCentroid(LABELS),
    "logistic": LogisticRegression(LABELS, penalty=0.1, steps=400),
    "online": online_network(D, LABELS, width=5)(key=jax.random.key(0)),
}
ANSWERS = {name: eqx.filter_jit(learner) for name, learner in LEARNERS.items()}  # one program for all tests
LONG_FIT = eqx.filter_jit(LogisticRegression(LABELS, penalty=0.1, steps=3_000))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LEARNERS)
def test_no_row_sees_its_own_label_or_what_follows(name):
    answer = ANSWERS[name]
    asked = prompt()
    before = np.asarray(answer(asked))
    assert before.shape == (N, LABELS)
    changed = Prompt(asked.x.at[9:].add(0.7), asked.y.at[8:].set((asked.y[8:] + 1) % LABELS))
    after = np.asarray(answer(changed))
    np.testing.assert_allclose(after[:9], before[:9], atol=1e-12)
    assert np.abs(after[9:] - before[9:]).max() > 1e-3
    np.testing.assert_array_equal(query_prediction(answer, asked).shape, (LABELS,))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("k", [4, N - 1])
def test_against_scikit_learn(k):
    from sklearn.linear_model import LogisticRegression as Logistic
    from sklearn.neighbors import KNeighborsClassifier

    asked = prompt(1)
    x, y = np.asarray(asked.x), np.asarray(asked.y)
    present = np.unique(y[:k])
    votes = KNeighborsClassifier(3).fit(x[:k], y[:k]).predict_proba(x[k : k + 1])[0]
    np.testing.assert_allclose(ANSWERS["neighbours"](asked)[k][present], votes, atol=1e-12)

    squares = [((x[k] - x[:k][y[:k] == c].mean(0)) ** 2).sum() for c in present]
    centroid = np.asarray(ANSWERS["centroid"](asked)[k])
    np.testing.assert_allclose(-centroid[present], squares, rtol=1e-10)
    assert (np.delete(centroid, present) < -1e20).all()

    fitted = Logistic(C=1 / (0.1 * k), fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x[:k], y[:k])
    if len(present) == LABELS:  # scikit-learn knows the labels that it has seen
        ours = jax.nn.softmax(LONG_FIT(asked)[k])
        np.testing.assert_allclose(ours, fitted.predict_proba(x[k : k + 1])[0], atol=1e-5)

    one_hot = np.eye(LABELS)[y[:k]]
    ridge = np.linalg.solve(x[:k].T @ x[:k] + 0.5 * np.eye(D), x[:k].T @ one_hot)
    np.testing.assert_allclose(ANSWERS["ridge"](asked)[k], x[k] @ ridge, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_online_network_descends_row_by_row():
    """Gradients written out by hand, in a loop."""
    learner = online_network(D, LABELS, width=5, rate=0.3, steps=2)(key=jax.random.key(1))
    learner = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), learner)
    asked = prompt(2)
    x, y = np.asarray(asked.x), np.asarray(asked.y)
    w, b, v, c = (np.asarray(leaf) for leaf in (learner.w, learner.b, learner.v, learner.c))
    rate, expected = float(np.exp(learner.log_rate)), []
    for k in range(N):
        expected.append(np.maximum(x[k] @ w + b, 0) @ v + c)
        for _ in range(2):
            u = x[: k + 1] @ w + b
            h = np.maximum(u, 0)
            logits = h @ v + c
            p = np.exp(logits - logits.max(1, keepdims=True))
            error = (p / p.sum(1, keepdims=True) - np.eye(LABELS)[y[: k + 1]]) / (k + 1)
            back = (error @ v.T) * (u > 0)
            w, b, v, c = (
                w - rate * x[: k + 1].T @ back,
                b - rate * back.sum(0),
                v - rate * h.T @ error,
                c - rate * error.sum(0),
            )
    np.testing.assert_allclose(eqx.filter_jit(learner)(asked), expected, atol=1e-10)
