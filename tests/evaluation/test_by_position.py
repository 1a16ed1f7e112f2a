"""Errors by position, intervals, thresholds and probes against numpy, scipy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from meta_icl.algorithms import Averaging, EveryPosition, LeastSquares, Ridge, greedy_tree
from meta_icl.analysis import (
    decodability_by_layer,
    head_importance,
    patching_matrix,
    task_decodability,
    task_means,
)
from meta_icl.errors import BadInput
from meta_icl.evaluation import (
    answers_by_position,
    between_tasks,
    bootstrap,
    closest_approach,
    crossing,
    distance_by_position,
    errors_by_position,
    up_to,
    weight_alignment,
    with_query,
)
from meta_icl.models import Interleaved, Learner, garg
from meta_icl.prompt import Prompt
from meta_icl.tasks import FunctionRegression, Linear

PROMPTS = FunctionRegression(Linear(3), n_context=5, noise=0.5).sample_with_functions(40, key=jax.random.key(0))


def test_both_kinds_of_predictor_give_the_same_positions():
    every = answers_by_position(EveryPosition(Ridge(0.4)), PROMPTS.prompts, [1, 4])
    query = answers_by_position(Ridge(0.4), PROMPTS.prompts, [1, 4])
    np.testing.assert_allclose(every, query, atol=1e-5)
    tree = answers_by_position(greedy_tree(2), PROMPTS.prompts, [0, 3])
    assert tree.shape == (40, 2, 1)
    assert up_to(PROMPTS.prompts, 3).x.shape == (40, 4, 3)
    with pytest.raises(BadInput, match=r"^positions must be"):
        answers_by_position(Averaging(), PROMPTS.prompts, [6])


def test_errors_and_distances():
    answers = np.asarray(answers_by_position(Averaging(), PROMPTS.prompts))
    errors = errors_by_position(Averaging(), PROMPTS.prompts, PROMPTS.clean, positions=[2, 5])
    np.testing.assert_allclose(errors, ((answers - np.asarray(PROMPTS.clean)) ** 2)[:, [2, 5], 0], rtol=1e-5)
    other = np.asarray(answers_by_position(EveryPosition(Ridge(1.0)), PROMPTS.prompts))
    distance = distance_by_position(Averaging(), EveryPosition(Ridge(1.0)), PROMPTS.prompts)
    np.testing.assert_allclose(distance, ((answers - other) ** 2).sum(-1).mean(0), rtol=1e-4, atol=1e-6)


def test_a_changed_query_changes_its_own_answer_only():
    changed = with_query(PROMPTS.prompts, 3, jnp.zeros((40, 3)))
    a, b = (np.asarray(answers_by_position(Averaging(), p)) for p in (PROMPTS.prompts, changed))
    np.testing.assert_array_equal(a[:, :3], b[:, :3])
    assert (b[:, 3] == 0).all()


def test_bootstrap_covers_like_the_normal_law():
    values = np.random.default_rng(0).normal(size=(2000, 2)) + np.array([0.0, 5.0])
    band = bootstrap(values)
    np.testing.assert_allclose(band.mean, values.mean(0))
    half = 1.645 * values.std(0) / 2000**0.5
    np.testing.assert_allclose((band.high - band.low) / 2, half, rtol=0.12)


def test_least_squares_knows_w_as_far_as_the_context_tells():
    """Its gradient by the query is w projected on the span, here by the normal equations in float64."""
    drawn = FunctionRegression(Linear(4), n_context=6).sample_with_functions(20, key=jax.random.key(5))
    w = np.asarray(drawn.functions, np.float64)
    for k in (2, 5):
        found = weight_alignment(LeastSquares(), up_to(drawn.prompts, k), drawn.functions)
        x = np.asarray(drawn.prompts.x, np.float64)[:, :k]
        inside = np.stack([np.linalg.pinv(a) @ a @ v for a, v in zip(x, w, strict=True)])
        cosines = np.linalg.norm(inside, axis=1) / np.linalg.norm(w, axis=1)  # of w with its projection
        np.testing.assert_allclose(found.to_projection, 1, atol=1e-5)
        np.testing.assert_allclose(found.to_w, cosines, atol=1e-5)
    turned = weight_alignment(Averaging(), up_to(drawn.prompts, 2), drawn.functions)
    assert float(turned.to_projection.mean()) < 0.999


def test_thresholds():
    m = np.array([4.0, 16.0, 64.0, 256.0])
    early, late = np.array([1.0, 1.0, 1.0, 1.0]), np.array([2.0, 2.0, 0.5, 0.1])
    share = 1.0 / 1.5  # between 16 and 64 the gap goes from 1 to -1/2
    assert crossing(m, early, late) == pytest.approx(16 * 4**share)
    assert np.isnan(crossing(m, late, late + 1))
    steps = np.arange(6)
    assert closest_approach(steps, np.array([5, 3, 1, 2, 3, 4], float)) == (2, True)
    assert closest_approach(steps, np.array([5, 4, 3, 2, 1, 0], float)) == (5, False)
    assert closest_approach(steps, np.array([5, 3, 1, 9, 1, 1], float), window=3)[0] in (1, 4, 5)
    a, b = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 4.0]])
    np.testing.assert_allclose(between_tasks(a, b, 1.0), [[3.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(between_tasks(a, b, 0.3)), 3.0, rtol=1e-6)


def test_decodability_leaves_the_state_itself_out():
    rng = np.random.default_rng(2)
    states = np.concatenate([rng.normal(size=(30, 5)), rng.normal(size=(30, 5)) + 1.0, rng.normal(size=(30, 5))])
    tasks = np.repeat([0, 1, 2], 30)
    found = task_decodability(jnp.asarray(states, jnp.float32), jnp.asarray(tasks), n_tasks=3)
    right = []
    for i in range(90):
        rest = np.arange(90) != i
        model = KNeighborsClassifier(10, algorithm="brute").fit(states[rest], tasks[rest])
        right.append(model.predict(states[i : i + 1])[0] == tasks[i])
    np.testing.assert_allclose(found, np.reshape(right, (3, 30)).mean(1), atol=1e-6)
    labels = jnp.asarray(rng.permutation(tasks))
    chance = task_decodability(jnp.asarray(states, jnp.float32), labels, n_tasks=3, n_neighbours=1)
    assert abs(float(chance.mean()) - 1 / 3) < 0.2  # scored on itself, one neighbour would give 1
    layers = decodability_by_layer(
        jnp.asarray(np.stack([states, 0 * states]), jnp.float32), jnp.asarray(tasks), n_tasks=3
    )
    np.testing.assert_allclose(layers[0], found, atol=1e-6)


def test_patching_and_pruning():
    """A patched mean equals overwriting by hand; the pruned head is the one whose output is zero."""
    learner = Learner(garg(3, 8, 2, 2, 9, init_std=0.5), layout=Interleaved())(key=jax.random.key(1))
    prompts = Prompt(PROMPTS.prompts.x[:6, 1:], PROMPTS.prompts.y[:6, 1:])
    tasks = jnp.asarray([0, 1, 0, 1, 0, 1])

    def loss(prompt, interventions):
        answer, _ = learner.trace(prompt, interventions)
        return jnp.sum(jnp.square(answer[-1] - prompt.y[-1]))

    states = jax.jit(jax.vmap(lambda p: learner.trace(p)[1]["resid_post"][0, -1]))(prompts)
    means = task_means(states, tasks, n_tasks=2)
    np.testing.assert_allclose(means[1], states[1::2].mean(0), rtol=1e-5, atol=1e-6)
    matrix = patching_matrix(loss, prompts, tasks, means, layer=0, position=8, n_layers=2, n_positions=9)

    # Layer 0's state at the last position replaced: the rest of the network from there, other rows as they are.
    @jax.jit
    def rise(one, mean):
        net, (_, trace) = learner.network, learner.trace(one)
        h = trace["resid_post"][0].at[-1].set(mean)
        h = net.block(1)(h)
        return jnp.sum(jnp.square(net.read(h)[-1] - one.y[-1])) - loss(one, ())

    expected = np.zeros((2, 2))
    for i in range(6):
        for target in range(2):
            one = jax.tree.map(lambda leaf, i=i: leaf[i], prompts)
            expected[int(tasks[i]), target] += float(rise(one, means[target])) / 3
    np.testing.assert_allclose(matrix, expected, rtol=1e-3, atol=1e-5)
    importance = head_importance(loss, prompts, tasks, n_tasks=2, n_layers=2, n_heads=2)
    assert importance.shape == (2, 2, 2)
    assert (np.asarray(importance) != 0).all()
