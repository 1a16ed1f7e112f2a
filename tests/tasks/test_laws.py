"""Laws against scipy's distributions, and the exact scales that they promise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from meta_icl.errors import BadInput
from meta_icl.tasks import Exponential, Laplace, Normal, NormalisedMixture, Uniform


@eqx.filter_jit
def draw(law, n, d, batch, seed):
    return law.rows(n, d, batch, key=jax.random.key(seed))


INDEPENDENT = {
    "uniform": (Uniform(half_range=0.5), stats.uniform(-0.5, 1.0)),
    "normal": (Normal(std=2.0), stats.norm(0, 2.0)),
    "laplace": (Laplace(scale=0.7), stats.laplace(0, 0.7)),
    "exponential": (Exponential(scale=1.5), stats.expon(0, 1.5)),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_entries_follow_the_law(name):
    law, reference = INDEPENDENT[name]
    x = np.asarray(draw(law, 4, 5, 2000, 0))
    assert x.shape == (2000, 4, 5)
    assert stats.kstest(x.ravel(), reference.cdf).pvalue > 1e-3
    mean, variance, excess = reference.stats("mvk")
    assert law.independent_zero_mean == (mean == 0)
    assert float(law.variance) == pytest.approx(float(variance), rel=1e-6)
    assert law.kurtosis == pytest.approx(float(excess) + 3, rel=1e-6)
    np.testing.assert_allclose(law.second_moment(3), variance * np.eye(3) + mean**2, rtol=1e-6)
    flat = x.reshape(2000, 20)
    off_diagonal = np.corrcoef(flat.T)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(2000)


def test_normal_has_any_covariance_even_a_singular_one():
    root = np.random.default_rng(0).normal(size=(4, 3))
    covariance = root @ root.T  # rank 3 of 4
    law = Normal(covariance=covariance, std=2.0)
    n = 200_000
    with jax.enable_x64(True):
        x = np.asarray(draw(Normal(covariance=covariance, std=2.0), 1, 4, n, 1))[:, 0]
    sampled = x.T @ x / n
    error = np.sqrt((np.outer(np.diag(sampled), np.diag(sampled)) + sampled**2) / n)  # of a normal law's covariance
    assert np.all(np.abs(sampled - 4 * covariance) < 4.5 * error)
    null = np.linalg.svd(root)[0][:, 3]
    assert np.abs(x @ null).max() < 1e-6  # the matrix leaf may be float32
    np.testing.assert_allclose(law.covariance_matrix(4), 4 * covariance, rtol=1e-6)
    assert not law.independent_zero_mean
    with pytest.raises(BadInput, match="covariance"):
        _ = law.variance


def test_mixture_normalises_by_the_context_and_scales_everything():
    x = np.asarray(draw(NormalisedMixture(scale=2.0), 31, 10, 2000, 2))
    context, query = x[:, :-1], x[:, -1]
    np.testing.assert_allclose(np.sqrt((context**2).sum((1, 2))), 2.0, rtol=1e-5)
    # E|query|^2 = scale^2 / N E[N E|row|^2 / |X|^2], above 1 by the relative variance of |X|^2: at most 5 / (N d).
    relative = (query**2).sum(1).mean() / (4.0 / 30)
    assert 0.99 < relative < 1.04
    once = np.asarray(draw(NormalisedMixture(scale=1.0), 31, 10, 2000, 2))
    np.testing.assert_allclose(x, 2 * once, rtol=1e-5)


def test_mixture_picks_each_family_a_third_of_the_time():
    n = 2000
    x = np.asarray(draw(NormalisedMixture(), 101, 10, n, 3))[:, :-1].reshape(n, -1)
    exponential = (x >= 0).all(1)
    kurtosis = stats.kurtosis(x, axis=1, fisher=False)
    laplace = ~exponential & (kurtosis > 4.2)  # of 1000 draws: a normal law's is 3 +- 0.16, a Laplace law's 6 +- 0.9
    counts = [exponential.sum(), laplace.sum(), (~exponential & ~laplace).sum()]
    assert stats.chisquare(counts).pvalue > 1e-3


@given(n=st.integers(2, 5), d=st.integers(1, 4), batch=st.integers(1, 6), which=st.integers(0, 4))
def test_shapes(n, d, batch, which):
    law = (Uniform(), Normal(), Laplace(), Exponential(), NormalisedMixture())[which]
    x = jax.eval_shape(lambda key: law.rows(n, d, batch, key=key), jax.random.key(0))  # traced only: compiles nothing
    assert x.shape == (batch, n, d)


def test_scales_are_swept_by_vmap():
    scales = jnp.array([0.5, 1.0, 3.0])
    key = jax.random.key(4)
    swept = eqx.filter_vmap(lambda h: Uniform(half_range=h).rows(3, 2, 7, key=key))(scales)
    for scale, x in zip(scales, swept, strict=True):
        np.testing.assert_allclose(x, Uniform(half_range=float(scale)).rows(3, 2, 7, key=key), rtol=1e-6)


def test_double_precision_follows_the_mode():
    with jax.enable_x64(True):
        assert Uniform(half_range=0.5).rows(2, 2, 2, key=jax.random.key(0)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Uniform(half_range=0.0), "half_range"),
        (lambda: Normal(std=-1.0), "std"),
        (lambda: Laplace(scale=-0.1), "scale"),
        (lambda: Exponential(scale=0), "scale"),
        (lambda: NormalisedMixture(scale=float("nan")), "scale"),
        (lambda: Normal(covariance=np.eye(3)[:2]), "covariance"),
        (lambda: Normal(covariance=np.diag([1.0, -1.0])), "covariance"),
        (lambda: Normal(covariance=np.array([[1.0, 0.5], [0.0, 1.0]])), "covariance"),
        (lambda: Normal(covariance=np.eye(3)).rows(2, 4, 1, key=jax.random.key(0)), "covariance"),
    ],
)
def test_bad_numbers_are_named_in_one_line(make, field):
    with pytest.raises(BadInput, match=f"^{field} must be") as raised:
        make()
    assert "\n" not in str(raised.value)
