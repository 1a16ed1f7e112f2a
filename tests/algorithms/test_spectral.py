"""The spectral oracle against explicit GD and GD++ on basis vectors, and the reference optima."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.algorithms import GradientDescent, GradientDescentPlusPlus, RegressionMoments, best_gd_loss, spectral
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt

RATES, GAMMAS = (2.1, 1.3, 3.2, 0.7, 1.9), (0.05, 0.11, 0.02, 0.07, 0.3)
SETTING = {"n_context": 10, "x_variance": 1 / 12}  # d = N = 10, x ~ U(-1/2, 1/2)


@eqx.filter_jit
def prediction_matrices(predictor, contexts):
    """Entry (j, k) of each context's matrix: the prediction for query e_k when the weights are e_j."""
    basis = jnp.eye(contexts.shape[-1])

    def predict(context, j, k):
        x = jnp.concatenate([context, k[None]])
        return predictor(Prompt(x, (x @ j)[:, None]))[0]

    over_queries = jax.vmap(predict, in_axes=(None, None, 0))
    over_weights = jax.vmap(over_queries, in_axes=(None, 0, None))
    return jax.vmap(over_weights, in_axes=(0, None, None))(contexts, basis, basis)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [4, 9], ids=["singular", "regular"])
@pytest.mark.parametrize("steps", [*(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 3, 4)), 2, 5])
def test_loss_is_that_of_the_explicit_learners_on_the_same_contexts(steps, n):
    """With E w w^T = s_w^2 I and E x_q x_q^T = sigma^2 I the mean loss is sigma^2 s_w^2 |I - P|_F^2 / 2."""
    contexts = jnp.asarray(np.random.default_rng(steps).uniform(-0.9, 0.9, size=(6, n, 5)))
    s = spectral.spectrum(contexts)
    for gammas, predictor in (
        (None, GradientDescent(RATES[:steps])),
        (GAMMAS[:steps], GradientDescentPlusPlus(RATES[:steps], GAMMAS[:steps])),
    ):
        p = np.asarray(prediction_matrices(predictor, contexts))
        expected = np.mean([0.5 * 0.27 * 1.6 * np.linalg.norm(np.eye(5) - m, "fro") ** 2 for m in p])
        loss = spectral.multi_step_loss(RATES[:steps], gammas, s, n_context=n, x_variance=0.27, w_variance=1.6)
        assert abs(float(loss) - expected) < 1e-10 * max(expected, 1)


@pytest.mark.usefixtures("x64")
def test_residual_is_a_matrix_polynomial():
    """r_K(S) by matrices: I - P is symmetric and has the residuals as eigenvalues."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.9, 0.9, size=(7, 3))
    s = x.T @ x
    r, c = np.eye(3), np.eye(3)
    for rate, gamma in zip(RATES[:3], GAMMAS[:3], strict=True):
        r, c = r @ (np.eye(3) - rate / 7 * c @ s @ c), c @ (np.eye(3) - gamma * c @ s @ c)
    ours = spectral.residual(RATES[:3], GAMMAS[:3], spectral.spectrum(jnp.asarray(x)), n_context=7)
    np.testing.assert_allclose(np.sort(ours), np.linalg.eigvalsh((r + r.T) / 2), rtol=0, atol=1e-12)


@given(b=st.integers(1, 4), n=st.integers(1, 4), d=st.integers(1, 4), steps=st.integers(1, 3))
def test_shapes(b, n, d, steps):
    x = jax.ShapeDtypeStruct((b, n, d), jnp.float32)
    s = eqx.filter_eval_shape(spectral.spectrum, x)
    assert s.shape == (b, d)
    loss = eqx.filter_eval_shape(
        lambda s: spectral.multi_step_loss(0.1, 0.01, s, n_context=n, x_variance=1.0, steps=steps), s
    )
    assert loss.shape == ()
    assert eqx.filter_eval_shape(lambda s: spectral.gd_stability_threshold(s, n), s).shape == (b,)


@pytest.mark.usefixtures("x64")
def test_stability_threshold_separates_convergence_from_divergence():
    s = spectral.spectrum(jnp.asarray(np.random.default_rng(1).normal(size=(8, 12, 4))))
    threshold = np.asarray(spectral.gd_stability_threshold(s, 12))
    for share, stable in ((0.99, True), (1.01, False)):
        for eigenvalues, limit in zip(np.asarray(s), threshold, strict=True):
            remaining = np.abs(1 - share * limit / 12 * eigenvalues) ** 2000  # 2000 explicit steps on each direction
            assert (remaining.max() < 1) == stable


@pytest.fixture(scope="module")
def spectra():
    """Sampled spectra to fit on and others to report on."""
    rng = np.random.default_rng(0)
    fitted, held_out = (rng.uniform(-0.5, 0.5, size=(n, 10, 10)) for n in (20_000, 60_000))
    return np.linalg.eigvalsh(np.swapaxes(fitted, 1, 2) @ fitted), np.linalg.eigvalsh(
        np.swapaxes(held_out, 1, 2) @ held_out
    )


def held_out_loss(found, s):
    """Half-MSE on other spectra, by numpy."""
    r = c = np.ones_like(s)
    for rate, gamma in zip(found.rates, found.gammas, strict=True):
        r, c = r * (1 - rate / 10 * c**2 * s), c * (1 - gamma * c**2 * s)
    return 0.5 / 12 * (r**2).sum(1).mean()


# Steps: (shared rate, its loss), loss with a rate per step, (rate, gamma, loss) of GD++ with one pair.
OPTIMA = {
    1: ((6.06, 0.2062), None, None),
    2: ((6.00, 0.1566), 0.1413, (13.5, 0.176, 0.1105)),
    3: ((5.88, 0.1328), 0.1102, (20.2, 0.195, 0.0779)),
    4: ((5.76, 0.1185), 0.0919, (26.0, 0.203, 0.0619)),
    5: ((5.63, 0.1089), 0.0802, (31.3, 0.206, 0.0521)),
}


@pytest.mark.parametrize("steps", [pytest.param(n, marks=pytest.mark.slow) if n > 3 else n for n in OPTIMA])
def test_reference_optima(steps, spectra):
    fitted, held_out = spectra
    (rate, loss), per_step, plus_plus = OPTIMA[steps]
    shared = spectral.fit(fitted, steps=steps, shared=True, **SETTING)
    assert held_out_loss(shared, held_out) == pytest.approx(loss, rel=0.01)
    assert shared.rates == pytest.approx(rate, rel=0.02)
    if per_step is not None:
        found = spectral.fit(fitted, steps=steps, **SETTING)
        assert held_out_loss(found, held_out) == pytest.approx(per_step, rel=0.02)
        assert found.loss < shared.loss
    if plus_plus is not None:
        found = spectral.fit(fitted, steps=steps, shared=True, with_gammas=True, **SETTING)
        assert held_out_loss(found, held_out) == pytest.approx(plus_plus[2], rel=0.02)
        assert found.rates == pytest.approx(plus_plus[0], rel=0.02)
        assert found.gammas == pytest.approx(plus_plus[1], rel=0.02)


def test_two_steps_of_gd_plus_plus_have_several_minima_and_restarts_find_the_best(spectra):
    fitted, held_out = spectra
    found = spectral.fit(fitted, steps=2, with_gammas=True, restarts=4, key=jax.random.key(0), **SETTING)
    assert held_out_loss(found, held_out) == pytest.approx(0.0921, rel=0.01)
    assert found.gammas[-1] == 0.0  # the last has no effect
    assert found.loss == found.restart_losses.min()
    assert found.restart_losses.max() > 1.05 * found.loss  # some starts end at 0.0988 or 0.104


def test_one_step_agrees_with_the_population(spectra):
    found = spectral.fit(spectra[0], steps=1, **SETTING)
    exact = float(best_gd_loss(RegressionMoments(10, 10, 1 / 12, 9 / 5)))
    assert held_out_loss(found, spectra[1]) == pytest.approx(exact, rel=5e-3)


def test_bad_input(spectra):
    with pytest.raises(BadInput, match=r"^steps must be"):
        spectral.fit(spectra[0], steps=0, **SETTING)
    with pytest.raises(BadInput, match=r"^key must be given"):
        spectral.fit(spectra[0], steps=2, restarts=2, **SETTING)
