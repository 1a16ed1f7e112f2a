"""Covariances, priors and mixtures against moments computed in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl import tasks
from meta_icl.errors import BadInput

KEY = jax.random.key(3)


@given(d=st.sampled_from([1, 2, 6]), seed=st.integers(0, 1000))
def test_rotations_are_orthogonal_and_keep_the_spectrum(d, seed):
    for make in (tasks.random_rotation, tasks.singular_rotation):
        u = make(d, key=jax.random.key(seed))
        np.testing.assert_allclose(u @ u.T, np.eye(d), atol=1e-13)
        values = tasks.linear_spectrum(d)
        matrix = tasks.covariance_from(values, u)
        np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(matrix)), np.sort(values), atol=1e-13)


def test_spectra():
    np.testing.assert_allclose(tasks.linear_spectrum(4), [0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(tasks.power_spectrum(3, 2.0, 49 / 36), [1, 1 / 4, 1 / 9])
    np.testing.assert_allclose(tasks.ar1_covariance(3, 0.5), [[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]])


def test_haar_rotations_have_no_preferred_direction():
    columns = np.stack([tasks.random_rotation(3, key=jax.random.key(i))[:, 0] for i in range(400)])
    # Entries of a uniform unit vector in three dimensions have mean 0 and variance 1/3.
    np.testing.assert_allclose(columns.mean(0), 0, atol=4 * np.sqrt(1 / 3 / 400))
    np.testing.assert_allclose(columns.T @ columns / 400, np.eye(3) / 3, atol=0.08)


@pytest.mark.parametrize("prior", ["identity", "inverse"])
def test_gaussian_regression_has_the_stated_moments(prior):
    covariance = tasks.covariance_from([1.0, 0.5, 0.25], tasks.random_rotation(3, key=KEY))
    task = tasks.gaussian_regression(covariance, 4, prior=prior, noise=0.5, noisy_query=True)
    prompts, w = task.sample_with_weights(40_000, key=KEY)
    x = np.asarray(prompts.x).reshape(-1, 3)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.02)
    expected = np.eye(3) if prior == "identity" else np.linalg.inv(covariance)
    np.testing.assert_allclose(np.cov(np.asarray(w)[:, :, 0].T), expected, atol=0.1)
    noise = np.asarray(prompts.y)[..., 0] - np.einsum("bnd,bd->bn", np.asarray(prompts.x), np.asarray(w)[..., 0])
    np.testing.assert_allclose(noise.std(), 0.5, rtol=0.01)


def test_several_tasks_read_their_own_inputs():
    task = tasks.several_tasks(6, [(0, 1, 2, 3), (2, 3, 4, 5)], 48)
    prompts, w = task.sample_with_weights(2_000, key=KEY)
    weights = np.asarray(w)
    assert (weights[:, 4:, 0] == 0).all() and (weights[:, :2, 1] == 0).all()
    np.testing.assert_allclose(weights[:, 2, 1].std(), 1, atol=0.1)
    np.testing.assert_allclose(prompts.y, np.einsum("bnd,bdo->bno", prompts.x, weights), atol=1e-5)
    assert prompts.y.shape == (2_000, 49, 2)


@pytest.mark.parametrize("d", [1, 3])
def test_whitened_prompts_have_exact_first_moments(d):
    task = tasks.gaussian_regression(np.diag(tasks.linear_spectrum(d)), 4)
    with jax.enable_x64(True):
        prompts = tasks.whitened_prompts(task, 50, key=KEY)
        x, y = np.asarray(prompts.x), np.asarray(prompts.y)[..., 0]
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-12)
    w = np.stack([np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(w.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(w.T @ w / 50, np.eye(d), atol=1e-9)


@pytest.mark.parametrize("context", ["labels", "noise"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_fixed_weight_mixture(context, share):
    regression = tasks.gaussian_regression(np.eye(4) / 4, 6)
    fixed = jnp.array([[1.0], [-1.0], [1.0], [1.0]])
    task = tasks.FixedWeightMixture(regression, fixed, share=share, context=context)
    prompts = task.sample_batch(4_000, key=KEY)
    expected = np.einsum("bnd,do->bno", prompts.x, fixed)
    remembered = np.isclose(prompts.y[:, -1, 0], expected[:, -1, 0], atol=1e-5)
    np.testing.assert_allclose(remembered.mean(), 1 - share, atol=0.03)
    if context == "labels":
        np.testing.assert_allclose(np.asarray(prompts.y)[remembered], expected[remembered], atol=1e-5)
    elif share < 1:
        labels = np.asarray(prompts.y)[remembered][:, :-1]
        np.testing.assert_allclose([labels.mean(), labels.std()], [0, 1], atol=0.02)
    np.testing.assert_array_equal(prompts.x, regression.sample_batch(4_000, key=jax.random.split(KEY, 3)[0]).x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tasks.linear_spectrum(0),
        lambda: tasks.covariance_from([1.0, -1.0]),
        lambda: tasks.ar1_covariance(3, 1.0),
        lambda: tasks.gaussian_regression(np.eye(3), 4, prior="inverted"),
        lambda: tasks.gaussian_regression(np.diag([1.0, 0.0]), 4, prior="inverse"),
        lambda: tasks.gaussian_regression(np.ones((2, 3)), 4),
        lambda: tasks.several_tasks(3, [(0, 3)], 4),
        lambda: tasks.whitened_prompts(tasks.gaussian_regression(np.eye(3), 4), 3, key=KEY),
        lambda: tasks.whitened_prompts(tasks.gaussian_regression(np.eye(3), 4, noise=0.1), 30, key=KEY),
        lambda: tasks.FixedWeightMixture(tasks.gaussian_regression(np.eye(2), 3), jnp.ones((2, 1)), share=1.5),
        lambda: tasks.FixedWeightMixture(tasks.gaussian_regression(np.eye(2), 3), jnp.ones((3, 1))),
    ],
)
def test_bad_input_is_one_line(make):
    with pytest.raises(BadInput) as error:
        make()
    assert "\n" not in str(error.value)
