"""Function classes against numpy, and their pools, curricula and laws against what they claim."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.errors import BadInput
from meta_icl.tasks import (
    DecisionTree,
    FamilyMixture,
    FunctionRegression,
    LeakyUnit,
    Linear,
    LinearClassification,
    MatchingQuery,
    Orthants,
    OrthogonalQuery,
    PromptPool,
    Quadratic,
    Ramp,
    ReluNetwork,
    SparseLinear,
    disjoint_bases,
    garg_curriculum,
    half_subspace_law,
    overlapping_bases,
    skewed_law,
)

KEY = jax.random.key(0)

# One compiled program per draw: run operation by operation, the compilation of each would be most of these tests.
drawn_from = eqx.filter_jit(lambda task, n: task.sample_with_functions(n, key=KEY))
functions_of = eqx.filter_jit(lambda function, n, d_active=None: function.draw(n, key=KEY, d_active=d_active))
rows_of = eqx.filter_jit(lambda law, n, d, batch: law.rows(n, d, batch, key=KEY))


def numpy_tree(coordinates, leaves, x):
    """Recursive descent, one row."""

    def descend(node):
        if node >= len(coordinates):
            return leaves[node - len(coordinates)]
        return descend(2 * node + 2 if x[coordinates[node]] > 0 else 2 * node + 1)

    return descend(0)


ORACLES = {
    "linear": (Linear(6), lambda w, x: w @ x),
    "sparse": (SparseLinear(6, n_active=2), lambda w, x: w @ x),
    "quadratic": (Quadratic(6), lambda w, x: sum(w * x**2) / 3**0.5),
    "leaky": (LeakyUnit(6, 0.1), lambda w, x: max(w @ x, 0.1 * (w @ x))),
    "classes": (LinearClassification(6), lambda w, x: 1.0 if w @ x >= 0 else -1.0),
    "network": (
        ReluNetwork(6, width=8),
        lambda p, x: sum(a * max(w @ x, 0) for a, w in zip(p.output, p.hidden.T, strict=True)) * (2 / 8) ** 0.5,
    ),
    "tree": (DecisionTree(6, depth=3), lambda p, x: numpy_tree(p.coordinates, p.leaves, x)),
    "bases": (disjoint_bases(6, 3), lambda p, x: p.w @ x),
}


@pytest.mark.parametrize("name", ORACLES)
def test_values_and_variance(name):
    """Every target is the function's value written in numpy, and E f^2 is what `variance` says (5 standard errors)."""
    function, oracle = ORACLES[name]
    drawn = drawn_from(FunctionRegression(function, n_context=3), 20_000)
    x, clean = np.asarray(drawn.prompts.x, np.float64), np.asarray(drawn.clean)
    for i in range(5):
        one = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], np.float64 if leaf.dtype == float else None), drawn[2])
        one = jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, one)
        expected = [oracle(one, row) for row in x[i]]
        np.testing.assert_allclose(clean[i, :, 0], expected, rtol=1e-4, atol=1e-5)
    squares = (clean[..., 0] ** 2).mean(1)
    assert abs(squares.mean() - function.variance) < 5 * squares.std() / 20_000**0.5 + 1e-6


def test_sparse_masks_and_bases():
    w = np.asarray(functions_of(SparseLinear(7, n_active=3), 4000))
    assert ((w != 0).sum(1) == 3).all()
    assert np.allclose((w != 0).mean(0), 3 / 7, atol=5 * (3 / 7 * 4 / 7 / 4000) ** 0.5)
    visible = np.asarray(functions_of(SparseLinear(7, n_active=3), 500, 4))
    assert ((visible[:, :4] != 0).sum(1) == 3).all()
    assert (visible[:, 4:] == 0).all()
    bases = disjoint_bases(6, 3)
    np.testing.assert_array_equal(bases.bases @ bases.bases.T, 2 * np.eye(3))
    groups = np.asarray(overlapping_bases(16, 5).bases)
    overlap = groups @ groups.T
    assert (overlap[:4, 4:] == 0).all()
    assert (overlap[:4, :4] > 0).all()


def test_mixture_takes_each_family_and_marks_it():
    mixture = FamilyMixture((Linear(4), Quadratic(4), LeakyUnit(4)))
    drawn = drawn_from(FunctionRegression(mixture, n_context=2), 3000)
    family = np.asarray(drawn.functions.family)
    assert np.allclose(np.bincount(family) / 3000, 1 / 3, atol=5 * (2 / 9 / 3000) ** 0.5)
    w = np.asarray(drawn.functions.members[1])
    mine = family == 1
    expected = np.einsum("bnd,bd->bn", np.asarray(drawn.prompts.x)[mine] ** 2, w[mine]) / 3**0.5
    np.testing.assert_allclose(np.asarray(drawn.clean)[mine, :, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [SparseLinear(5, n_active=2), DecisionTree(5, depth=2)], ids=["sparse", "tree"])
def test_a_pool_is_a_pool_of_whole_functions(function):
    """Every prompt's function is a member of the pool, mask and coordinates included, and all members occur."""
    task = FunctionRegression(function, n_context=2).with_pool(6, key=jax.random.key(1))
    drawn = drawn_from(task, 400).functions
    rows = np.concatenate([np.asarray(leaf).reshape(400, -1) for leaf in jax.tree.leaves(drawn)], axis=1)
    members = np.concatenate([np.asarray(leaf).reshape(6, -1) for leaf in jax.tree.leaves(task.pool)], axis=1)
    same = (rows[:, None] == members[None]).all(-1)
    assert (same.sum(1) == 1).all()
    assert (same.sum(0) > 0).all()
    assert task.pool_size == 6


def test_prompt_pool_repeats_whole_prompts_and_nothing_else():
    pool = PromptPool(FunctionRegression(Linear(16), n_context=2), 5, jax.random.key(3))
    prompts = eqx.filter_jit(lambda pool: pool.sample_batch(200, key=KEY))(pool)
    distinct = np.unique(np.asarray(prompts.x).reshape(200, -1), axis=0)
    assert len(distinct) == 5
    # No number of one prompt occurs in another (the released code shared seeds between neighbours).
    values = np.asarray(eqx.filter_jit(eqx.filter_vmap(pool.member))(jnp.arange(5)).x).ravel()
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("linear", {0: (5, 11), 1999: (5, 11), 2000: (6, 13), 29_999: (19, 39), 30_000: (20, 41), 2**30: (20, 41)}),
        ("deep", {0: (5, 26), 2000: (6, 31), 30_000: (20, 101), 10**9: (20, 101)}),
    ],
)
def test_the_published_curriculum(family, expected):
    curriculum = garg_curriculum(20, family)
    for step, sizes in expected.items():
        assert (int(curriculum.dimensions(jnp.asarray(step))), int(curriculum.points(jnp.asarray(step)))) == sizes


@given(
    start=st.integers(1, 9),
    more=st.integers(0, 20),
    up=st.integers(1, 5),
    every=st.integers(1, 7),
    s=st.integers(0, 200),
)
def test_ramp_is_the_loop_it_stands_for(start, more, up, every, s):
    value = start
    for step in range(1, s + 1):
        if step % every == 0:
            value = min(value + up, start + more)
    assert int(Ramp(start, start + more, up, every)(jnp.asarray(s))) == value


def test_curriculum_is_traced_and_hides_coordinates_before_labels():
    task = FunctionRegression(Linear(8), n_context=16, curriculum=garg_curriculum(8, every=10))
    drawn_at = eqx.filter_jit(lambda task, step: task.at_step(step).sample_with_functions(50, key=KEY))
    for step, visible, points in ((0, 5, 11), (10, 6, 13), (99, 8, 17)):
        drawn = drawn_at(task, jnp.asarray(step))
        x = np.asarray(drawn.prompts.x)
        assert (x[..., visible:] == 0).all()
        assert (x[..., :visible] != 0).all()
        expected = np.einsum("bnd,bd->bn", x, np.asarray(drawn.functions))
        np.testing.assert_allclose(np.asarray(drawn.clean)[..., 0], expected, rtol=1e-4, atol=1e-4)
        weights = task.at_step(jnp.asarray(step)).position_weights(17)
        np.testing.assert_array_equal(weights, np.arange(17) < points)
    np.testing.assert_array_equal(task.position_weights(17), np.ones(17))


def test_noise_and_scales():
    quiet = FunctionRegression(Linear(3), n_context=4, x_scale=2.0, y_scale=0.5)
    noisy = FunctionRegression(Linear(3), n_context=4, x_scale=2.0, y_scale=0.5, noise=0.7)
    a, b = (drawn_from(task, 4000) for task in (quiet, noisy))
    np.testing.assert_array_equal(a.prompts.x, b.prompts.x)
    np.testing.assert_array_equal(a.clean, b.clean)
    difference = np.asarray(b.prompts.y - b.clean)
    assert (difference[:, -1] == 0).all()
    assert difference[:, :-1].std() == pytest.approx(0.7, rel=0.03)
    expected = 0.5 * np.einsum("bnd,bd->bn", np.asarray(a.prompts.x), np.asarray(a.functions))
    np.testing.assert_allclose(np.asarray(a.clean)[..., 0], expected, rtol=1e-5, atol=1e-5)


def test_laws_of_the_test_prompts():
    d, n, batch = 6, 5, 4000
    skewed = np.asarray(skewed_law(d, key=KEY).covariance)
    values = np.sort(np.linalg.eigvalsh(skewed))[::-1]
    np.testing.assert_allclose(values / values[0], 1 / np.arange(1, d + 1) ** 2, rtol=1e-4)
    assert np.trace(skewed) == pytest.approx(d, rel=1e-5)
    half = half_subspace_law(d, key=KEY)
    x = np.asarray(rows_of(half, n, d, batch))
    singular = np.linalg.svd(x.reshape(-1, d), compute_uv=False)
    assert (singular[3:] < 1e-3 * singular[0]).all()
    assert (x**2).sum(-1).mean() == pytest.approx(d, rel=0.03)
    x = np.asarray(rows_of(Orthants(), n, d, batch))
    signs = np.sign(x[:, :-1])
    assert (signs == signs[:, :1]).all()
    assert abs(np.sign(x[:, 0]).mean()) < 0.05
    assert abs((np.sign(x[:, -1]) == signs[:, 0]).mean() - 0.5) < 0.05  # the query knows nothing of the orthant
    x = np.asarray(rows_of(OrthogonalQuery(), n, d, batch))
    assert np.abs(np.einsum("bkd,bd->bk", x[:, :-1], x[:, -1])).max() < 1e-3
    assert (x[:, -1] ** 2).sum(-1).mean() == pytest.approx(d, rel=0.05)
    x = np.asarray(rows_of(MatchingQuery(), n, d, 400))
    found = (x[:, :-1] == x[:, -1:]).all(-1)
    assert (found.sum(1) == 1).all()
    assert (found.sum(0) > 50).all()


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SparseLinear(3, n_active=4), "n_active"),
        (lambda: disjoint_bases(6, 4), "n_bases"),
        (lambda: FamilyMixture((Linear(2), Linear(3))), "families"),
        (lambda: FunctionRegression(Linear(3), n_context=4, noise=-1.0), "noise"),
        (lambda: FunctionRegression(Linear(20), n_context=4, curriculum=garg_curriculum(20)), "end of the points"),
        (lambda: OrthogonalQuery().rows(7, 6, 2, key=KEY), "n"),
        (lambda: PromptPool(FunctionRegression(Linear(3), n_context=4), 0, KEY), "m"),
    ],
)
def test_bad_input_is_one_line(make, field):
    with pytest.raises(BadInput, match=f"^{field} must be") as raised:
        make()
    assert "\n" not in str(raised.value)
