"""Linear regression prompts: labels, noise, replaced labels, pools, sweeps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from meta_icl.errors import BadInput
from meta_icl.tasks import Exponential, Laplace, LinearRegression, Normal, NormalisedMixture, Uniform

KEY = jax.random.key(0)
SMALL = LinearRegression(d=3, n_context=6, n_out=2)


@eqx.filter_jit
def draw(task, n, key):
    return task.sample_with_weights(n, key=key)


def residuals(task, n=4000, key=KEY):
    """Labels minus w.x by an explicit sum in float64, "n rows outputs", with the inputs and weights."""
    prompts, w = draw(task, n, key)
    x, y, w = (np.asarray(part, np.float64) for part in (prompts.x, prompts.y, w))
    clean = np.stack([sum(x[:, :, i] * w[:, None, i, o] for i in range(task.d)) for o in range(task.n_out)], axis=-1)
    return y - clean, x, w


def test_labels_without_noise_are_linear():
    off, _, w = residuals(SMALL)
    assert np.abs(off).max() < 1e-5
    assert stats.kstest(w.ravel(), "norm").pvalue > 1e-3


def test_one_prompt_is_a_batch_of_one():
    prompt, batch = SMALL.sample(key=KEY), SMALL.sample_batch(1, key=KEY)
    assert prompt.x.shape == (7, 3)
    assert prompt.y.shape == (7, 2)
    np.testing.assert_array_equal(prompt.x, batch.x[0])
    np.testing.assert_array_equal(prompt.y, batch.y[0])


@given(d=st.integers(1, 4), n=st.integers(1, 5), o=st.integers(1, 2), data=st.data())
def test_shapes(d, n, o, data):
    task = LinearRegression(d, n, o, noise=0.1, n_replaced=data.draw(st.integers(0, n)))
    prompts, w = jax.eval_shape(lambda key: task.sample_with_weights(5, key=key), KEY)  # traced only
    assert (prompts.x.shape, prompts.y.shape, w.shape) == ((5, n + 1, d), (5, n + 1, o), (5, d, o))


@pytest.mark.parametrize("noisy_query", [False, True])
def test_noise_is_added_and_the_query_stays_clean_unless_asked(noisy_query):
    task = LinearRegression(d=3, n_context=6, n_out=2, noise=0.5, noisy_query=noisy_query)
    off, x, w = residuals(task)
    assert stats.kstest(off[:, :-1].ravel() / 0.5, "norm").pvalue > 1e-3
    if noisy_query:
        assert stats.kstest(off[:, -1].ravel() / 0.5, "norm").pvalue > 1e-3
    else:
        assert np.abs(off[:, -1]).max() < 1e-5
    _, clean_x, clean_w = residuals(SMALL)
    np.testing.assert_array_equal(x, clean_x)  # the noise has a key of its own
    np.testing.assert_array_equal(w, clean_w)


def test_replaced_labels_are_standard_normal_and_anywhere_in_the_context():
    task = LinearRegression(d=3, n_context=6, n_replaced=2, w_scale=5.0)
    off, x, w = residuals(task)
    replaced = np.abs(off[..., 0]) > 1e-4
    assert (replaced[:, :-1].sum(1) == 2).mean() > 0.999  # a draw may fall next to the label that it replaces
    assert not replaced[:, -1].any()
    assert stats.chisquare(replaced[:, :-1].sum(0)).pvalue > 1e-3
    labels = (off + np.einsum("bnd,bdo->bno", x, w))[..., 0][replaced]
    assert stats.kstest(labels, "norm").pvalue > 1e-3


def test_pool_is_all_that_is_ever_used():
    task = LinearRegression(d=3, n_context=6, n_out=2, w_scale=3.0).with_pool(4, key=jax.random.key(5))
    off, _, w = residuals(task)
    assert np.abs(off).max() < 1e-4
    distance = np.abs(w[:, None] - 3.0 * np.asarray(task.pool, np.float64)[None]).max((2, 3))
    assert distance.min(1).max() < 1e-5
    assert stats.chisquare(np.bincount(distance.argmin(1), minlength=4)).pvalue > 1e-3
    given_pool = LinearRegression(d=1, n_context=2, pool=np.array([[[2.0]], [[-2.0]]]))
    assert set(np.asarray(draw(given_pool, 50, KEY)[1]).ravel()) == {2.0, -2.0}


def test_scales_multiply_inputs_and_weights():
    _, x, w = residuals(SMALL, 20)
    _, scaled_x, scaled_w = residuals(LinearRegression(d=3, n_context=6, n_out=2, x_scale=2.0, w_scale=0.5), 20)
    np.testing.assert_allclose(scaled_x, 2 * x, rtol=1e-6)
    np.testing.assert_allclose(scaled_w, w / 2, rtol=1e-6)


def test_columns_of_w_follow_the_covariance_over_inputs():
    covariance = np.diag([4.0, 1.0, 0.25])
    task = LinearRegression(d=3, n_context=1, n_out=2, w_law=Normal(covariance=covariance))
    w = np.asarray(draw(task, 20_000, KEY)[1])
    np.testing.assert_allclose(w.var(0), np.diag(covariance)[:, None] * np.ones((1, 2)), rtol=4.5 * np.sqrt(2 / 20_000))
    assert abs(np.corrcoef(w[:, 0, 0], w[:, 0, 1])[0, 1]) < 5 / np.sqrt(20_000)


def test_every_number_is_swept_by_vmap():
    levels = jnp.array([0.0, 0.3])
    swept = eqx.filter_vmap(lambda noise: LinearRegression(3, 6, noise=noise, x_scale=1 + noise).sample(key=KEY))(
        levels
    )
    for level, x, y in zip(levels, swept.x, swept.y, strict=True):
        alone = LinearRegression(3, 6, noise=float(level), x_scale=1 + float(level)).sample(key=KEY)
        np.testing.assert_allclose(x, alone.x, rtol=1e-6)
        np.testing.assert_allclose(y, alone.y, rtol=1e-5, atol=1e-6)


def test_moments_for_closed_forms():
    task = LinearRegression(4, 5, x_law=Laplace(scale=0.5), x_scale=3.0, w_scale=2.0)
    assert float(task.x_variance) == pytest.approx(9 * 0.5)
    assert task.x_kurtosis == 6.0
    assert float(task.w_variance) == pytest.approx(4.0)


@pytest.mark.parametrize("law", [Exponential(), NormalisedMixture(), Normal(covariance=np.eye(4))])
def test_laws_without_closed_form_say_so(law):
    with pytest.raises(BadInput, match="x_law must be a law of independent entries"):
        _ = LinearRegression(4, 5, x_law=law).x_variance


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d": 0}, "d must be a positive integer, got 0"),
        ({"n_context": -3}, "n_context must be a positive integer, got -3"),
        ({"noise": -0.1}, "noise must be zero or positive"),
        ({"n_replaced": 7}, "n_replaced must be an integer from 0 to n_context = 6, got 7"),
        ({"w_scale": float("inf")}, "w_scale must be finite"),
        ({"pool": np.zeros((2, 2, 1))}, "pool must be of shape"),
    ],
)
def test_bad_input_is_one_line(fields, message):
    with pytest.raises(BadInput, match=f"^{message}") as raised:
        LinearRegression(**({"d": 3, "n_context": 6, "x_law": Uniform(half_range=1.0)} | fields))
    assert "\n" not in str(raised.value)
