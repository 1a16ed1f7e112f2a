"""Exact losses against Wishart moments by brute force, published numbers and Monte Carlo."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn import linear_model

from meta_icl import algorithms, models, tasks
from meta_icl.algorithms import softmax_heads, time_course
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt, answer_batch

ROTATION = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]


def random_covariance(rng, d):
    root = rng.normal(size=(d, d))
    return root @ root.T / d + 0.1 * np.eye(d)


def monte_carlo(u, covariance, prior, n, noise, debiased, n_prompts=200_000, seed=0):
    """Mean and standard error of the squared error of beta^T U x_q, in plain numpy."""
    rng = np.random.default_rng(seed)
    d = len(covariance)
    x = rng.normal(size=(n_prompts, n + 1, d)) @ np.linalg.cholesky(covariance).T
    w = rng.normal(size=(n_prompts, d)) @ np.linalg.cholesky(prior).T
    y = (x * w[:, None]).sum(-1) + np.sqrt(noise) * rng.normal(size=(n_prompts, n + 1))
    seen = x[:, :-1] - x[:, :-1].mean(1, keepdims=True) if debiased else x[:, :-1]
    beta = (y[:, :-1, None] * seen).mean(1)
    errors = ((beta @ u * x[:, -1]).sum(1) - y[:, -1]) ** 2
    return errors.mean(), errors.std() / np.sqrt(n_prompts)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_map_loss_against_monte_carlo(noise, debiased):
    rng = np.random.default_rng(1)
    covariance, prior, u = random_covariance(rng, 3), random_covariance(rng, 3), rng.normal(size=(3, 3))
    loss = algorithms.map_loss(covariance, 4, prior=prior, noise_variance=noise, noisy_query=True, debiased=debiased)
    mean, error = monte_carlo(u, covariance, prior, 4, noise, debiased)
    assert abs(float(loss(u)) - mean) < 4 * error


def test_gram_by_isserlis():
    """E beta beta^T for two context pairs, every fourth moment of a normal vector written out by Isserlis' theorem."""
    rng = np.random.default_rng(2)
    d, n = 2, 2
    lam, s = random_covariance(rng, d), random_covariance(rng, d)
    gram = np.zeros((d, d))
    for a, b, j, k in itertools.product(range(d), repeat=4):
        for first, second in itertools.product(range(n), repeat=2):
            # E[x1_a x1_j x2_b x2_k] S_jk, over context rows 1 and 2
            moment = lam[a, j] * lam[b, k]
            if first == second:
                moment += lam[a, b] * lam[j, k] + lam[a, k] * lam[j, b]
            gram[a, b] += moment * s[j, k] / n**2
    np.testing.assert_allclose(algorithms.map_loss(lam, n, prior=s).gram, gram, rtol=1e-12)


@given(seed=st.integers(0, 10**6), d=st.integers(1, 5), n=st.integers(1, 40))
def test_critical_points(seed, d, n):
    rng = np.random.default_rng(seed)
    loss = algorithms.map_loss(random_covariance(rng, d), n, prior=random_covariance(rng, d), noise_variance=0.3)
    np.testing.assert_allclose(loss.gradient(loss.minimiser()), 0, atol=1e-8)

    def value(u):
        cross = np.trace(loss.cross.T @ u)
        return loss.power - 2 * cross + np.trace(loss.gram @ u @ loss.covariance @ u.T)

    subset = [i for i in range(d) if rng.random() < 0.5]
    point = loss.fixed_point(subset)
    np.testing.assert_allclose(loss.level(subset), value(point), rtol=1e-9)
    # A fixed point of U = sum of outer products: the gradient vanishes on its row and column space.
    gradient = loss.gradient(point)
    np.testing.assert_allclose(gradient @ point.T, 0, atol=1e-8)
    np.testing.assert_allclose(gradient.T @ point, 0, atol=1e-8)
    np.testing.assert_allclose(loss.levels()[-1], value(loss.minimiser()), rtol=1e-9)
    assert loss.best_scale(loss.minimiser()) == pytest.approx(1)


def test_published_levels():
    """Values printed by Zhang et al. (2025) for D = 4, and the formula per eigenvalue for another spectrum."""
    lam = tasks.covariance_from(tasks.linear_spectrum(4), np.eye(4))
    levels = algorithms.map_loss(lam, 31).levels()
    np.testing.assert_allclose(levels, [1, 0.64057971, 0.37737216, 0.20980460, 0.13599507], atol=5e-9)
    eight = algorithms.map_loss(np.diag(tasks.linear_spectrum(8)), 31).levels()
    expected = [1, 0.81126332, 0.64897699, 0.51301208, 0.40317648, 0.31916564, 0.26045352, 0.22600907, 0.21334568]
    np.testing.assert_allclose(eight, expected, atol=5e-9)
    values = np.array([2.0, 0.7, 0.05])
    loss = algorithms.map_loss(ROTATION * values @ ROTATION.T, 7)
    gains = values / (1 + (1 + values.sum() / values) / 7)
    np.testing.assert_allclose(loss.level([0, 2]), values.sum() - gains[0] - gains[2], rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(loss.directions() * ROTATION.T, axis=1)), 1, rtol=1e-10)


@pytest.mark.parametrize(
    ("prior", "expected_step", "expected_loss"),
    [
        ("identity", [0.823, 0.823, 2.336, 4.324, 0.823], 0.682),
        ("inverse", 0.769 / np.array([1, 1, 0.25, 1 / 16, 1]), 1.154),
    ],
)
def test_ahn_one_layer_optimum(prior, expected_step, expected_loss):
    task = tasks.gaussian_regression(np.diag([1, 1, 0.25, 1 / 16, 1]), 20, prior=prior)
    loss = algorithms.map_loss_of(task)
    # Published to three digits; the smallest eigenvalue's to four in a hundred.
    np.testing.assert_allclose(np.diag(loss.minimiser()), expected_step, rtol=0.04 if prior == "identity" else 1e-3)
    lam = np.array([1, 1, 0.25, 1 / 16, 1])
    step = 1 / (21 / 20 * lam + lam.sum() / 20) if prior == "identity" else 20 / 26 / lam
    np.testing.assert_allclose(np.diag(loss.minimiser()), step, rtol=1e-6)
    assert loss.levels()[-1] == pytest.approx(expected_loss, abs=5e-4)
    prior = np.ones(5) if prior == "identity" else 1 / lam
    assert loss.levels()[-1] == pytest.approx(np.sum(prior * lam * (1 - lam * step)), rel=1e-6)


def test_map_loss_of_a_task_is_full_mse_of_linear_map():
    task = tasks.gaussian_regression(np.diag([1.0, 0.3]), 5, prior="inverse", noise=0.5, noisy_query=True)
    loss = algorithms.map_loss_of(task)
    isotropic = tasks.LinearRegression(4, 6, x_law=tasks.Normal())
    eta = 0.37
    # Twice the half-MSE of the other closed form, written for independent entries.
    assert float(algorithms.map_loss_of(isotropic)(eta * np.eye(4))) == pytest.approx(
        2 * float(algorithms.gd_loss(eta, isotropic)), rel=1e-6
    )
    assert float(loss.power) == pytest.approx(2 + 0.25, rel=1e-6)
    with pytest.raises(BadInput):
        algorithms.map_loss_of(tasks.LinearRegression(4, 6))


def test_sample_map_loss_is_the_mean_over_prompts():
    prompts = tasks.gaussian_regression(np.diag([1.0, 0.3]), 5).sample_batch(50, key=jax.random.key(0))
    u = np.array([[0.3, -0.2], [0.1, 0.9]])
    x, y = np.asarray(prompts.x, np.float64), np.asarray(prompts.y, np.float64)[..., 0]
    errors = [(y[b, :-1] @ x[b, :-1] / 5 @ u @ x[b, -1] - y[b, -1]) ** 2 for b in range(50)]
    with jax.enable_x64(True):
        assert float(algorithms.sample_map_loss(prompts)(jnp.asarray(u))) == pytest.approx(np.mean(errors), rel=1e-10)
    along = algorithms.sample_map_loss(prompts).along(np.stack([u, np.zeros((2, 2))]))
    np.testing.assert_allclose(along, [np.mean(errors), np.mean(y[:, -1] ** 2)], rtol=1e-10)


def test_sample_token_loss_is_that_of_the_layer():
    prompts = tasks.gaussian_regression(np.diag([1.0, 0.3]), 5).sample_batch(30, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        v, w = jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=(2, 3, 2)))
        layer = models.OneLayerPredictor(v, w, None, "linear")
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), prompts)
        errors = np.asarray(answer_batch(layer, wide) - wide.y[:, -1]) ** 2
        loss = algorithms.sample_token_loss(prompts)(layer.effective_map())
    assert float(loss) == pytest.approx(errors.mean(), rel=1e-10)


def test_predictors():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    p = rng.normal(size=(2, 3, 3))
    w = np.zeros((3, 2))
    for step in p:
        w = w + step @ (x[:-1].T @ (y[:-1] - x[:-1] @ w)) / 5
    with jax.enable_x64(True):
        prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(algorithms.PreconditionedDescent(jnp.asarray(p))(prompt), x[-1] @ w, rtol=1e-12)
        one = algorithms.PreconditionedDescent(jnp.asarray(p[:1].swapaxes(1, 2)))(prompt)
        np.testing.assert_allclose(algorithms.LinearMap(jnp.asarray(p[0]))(prompt), one, rtol=1e-12)
        centred = x[:-1] - x[:-1].mean(0)
        expected = (y[:-1].T @ centred / 5) @ p[0] @ x[-1]
        np.testing.assert_allclose(algorithms.LinearMap(jnp.asarray(p[0]), debiased=True)(prompt), expected, rtol=1e-12)
        alone = Prompt(prompt.x[-1:], prompt.y[-1:])  # of no example nothing is learned
        for predictor in (
            algorithms.PreconditionedDescent(jnp.asarray(p)),
            algorithms.LinearMap(jnp.asarray(p[0])),
            algorithms.LinearMap(jnp.asarray(p[0]), debiased=True),
        ):
            np.testing.assert_array_equal(predictor(alone), 0)
        heads = algorithms.KernelHeads(jnp.array([0.5, -0.2]), jnp.array([1.0, 2.0]))(prompt)
        scores = x[:-1] @ x[-1]
        first, second = np.exp(0.5 * scores), np.exp(-0.2 * scores)
        np.testing.assert_allclose(heads, first @ y[:-1] / first.sum() + 2 * second @ y[:-1] / second.sum(), rtol=1e-12)


def test_white_course_solves_its_equation():
    d, n, lam = 3, 7, 0.4
    rng = np.random.default_rng(0)
    v, u = 1e-2 * rng.normal(size=2), 1e-2 * rng.normal(size=(2, d, d))
    course = time_course.white_course(v, u, variance=lam, n_context=n, tau=0.5)
    loss = algorithms.map_loss(lam * np.eye(d), n)

    def velocity(t, s):
        # ds/dt of the aligned balanced head: v = a, W = a I / sqrt(d), s = a^2, so U = s I / sqrt(d).
        a = np.sqrt(s[0])
        gradient = np.trace(loss.gradient(s[0] * np.eye(d) / np.sqrt(d))) / np.sqrt(d)
        return [2 * a * (-0.5 / 0.5 * gradient * a)]

    times = np.linspace(0, 120, 13)
    s = integrate.solve_ivp(velocity, (0, 120), [course.start], t_eval=times, rtol=1e-10, atol=1e-14).y[0]
    curve = [float(loss(x * np.eye(d) / np.sqrt(d))) for x in s]
    np.testing.assert_allclose(course.loss(times), curve, atol=2e-6)
    half = (course.loss_start + course.loss_end) / 2
    assert course.loss(np.array([course.half_time()]))[0] == pytest.approx(half, rel=1e-9)
    assert course.loss_end == pytest.approx(loss.levels()[-1])
    assert time_course.merged_escape_rate(lam * np.eye(d), 0.5) == pytest.approx(2 * course.rise / 0.5)


def test_rank_one_head():
    """Velocity from the exact gradient of a balanced head along an eigenvector, and the time at which it escapes."""
    loss, v = algorithms.map_loss(np.diag([0.5, 0.2, 0.3]), 9), 0.7
    e = np.eye(3)[1]
    gradient = e @ loss.gradient(v**3 * np.outer(e, e)) @ e
    assert time_course.rank_one_velocity(v, 0.2, 1.0, 9, tau=2.0) == pytest.approx(-0.5 / 2.0 * gradient * v**2)
    times = integrate.solve_ivp(
        lambda t, x: [0.2**2 * x[0] ** 2],
        (0, 0.99 * time_course.rank_one_escape_time(1e-3, 0.2)),
        [1e-3],
        rtol=1e-8,
        atol=1e-12,
    )
    assert times.y[0, -1] == pytest.approx(1e-3 / 0.01, rel=1e-4)


# Softmax heads


@pytest.mark.parametrize(
    ("omega", "mu", "d", "n", "noise"),
    [
        ([0.13, -0.13], [3.45, -3.45], 5, 10, 0.1),
        pytest.param([0.5, -0.3, 0.9], [1.0, -1.0, 0.4], 3, 4, 0.5, marks=pytest.mark.slow),
        ([1.5], [1.0], 2, 2, 0.0),
    ],
)
def test_exact_heads_loss_against_monte_carlo(omega, mu, d, n, noise):
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(4):
        x, w = rng.normal(size=(50_000, n + 1, d)), rng.normal(size=(50_000, d)) / np.sqrt(d)
        y = (x * w[:, None]).sum(-1) + np.sqrt(noise) * rng.normal(size=(50_000, n + 1))
        scores, answer = (x[:, :-1] * x[:, -1:]).sum(-1), 0.0
        for o, m in zip(omega, mu, strict=True):
            answer = answer + m * (np.exp(o * scores) * y[:, :-1]).sum(1) / np.exp(o * scores).sum(1)
        errors.append((answer - y[:, -1]) ** 2)
    errors = np.concatenate(errors)
    exact = softmax_heads.exact_heads_loss(omega, mu, d=d, n_context=n, noise_variance=noise)
    assert abs(exact - errors.mean()) < 4 * errors.std() / np.sqrt(errors.size)


def test_exact_moments_of_two_context_pairs():
    """With two pairs the pattern is a function of one normal variable, z_1 - z_2: integrate that directly."""
    a, n_out = 0.8, softmax_heads._pattern_moments(0.8, 0.8, 2)
    u = np.linspace(-14, 14, 20_001)
    density = stats.norm.pdf(u, scale=np.sqrt(2)) * (u[1] - u[0])
    p = 1 / (1 + np.exp(-a * u))
    # p.z = (z1 + z2)/2 + (2p - 1) u / 2 with z1 + z2 independent of u, of variance 2.
    first = np.sum(density * (2 * p - 1) * u / 2)
    dot = np.sum(density * (p**2 + (1 - p) ** 2))
    square = 0.5 + np.sum(density * ((2 * p - 1) * u / 2) ** 2)
    np.testing.assert_allclose(n_out, (first, dot, square), rtol=1e-9)


def test_exact_loss_tends_to_the_debiased_step():
    eta, small = 0.8, 1e-3
    exact = softmax_heads.exact_heads_loss(
        [small, -small], [eta / 2 / small, -eta / 2 / small], d=5, n_context=12, noise_variance=0.3
    )
    step = softmax_heads.descent_loss(eta, d=5, n_context=12, noise_variance=0.3, debiased=True)
    assert exact == pytest.approx(float(step), abs=1e-5)


@pytest.mark.parametrize("debiased", [False, True])
def test_descent_loss_is_a_map_loss(debiased):
    d, n, noise, eta = 5, 12, 0.3, 0.7
    loss = algorithms.map_loss(
        np.eye(d), n, prior=np.eye(d) / d, noise_variance=noise, noisy_query=True, debiased=debiased
    )
    given = {"d": d, "n_context": n, "noise_variance": noise, "debiased": debiased}
    assert float(softmax_heads.descent_loss(eta, **given)) == pytest.approx(float(loss(eta * np.eye(d))), rel=1e-6)
    assert softmax_heads.best_descent_rate(**given) == pytest.approx(loss.best_scale(np.eye(d)), rel=1e-12)


def test_published_numbers_of_softmax_regression():
    given = {"d": 5, "n_context": 40, "noise_variance": 0.1}
    one, pair = softmax_heads.single_head_optimum(**given), softmax_heads.pair_limit(**given)
    np.testing.assert_allclose(one, (0.4472, 1.6277, 0.3721), atol=6e-5)
    np.testing.assert_allclose(pair[1:], (0.8791, 0.2209), atol=6e-5)
    assert softmax_heads.ridge_limit(5 / 40, 0.1) == pytest.approx(0.1141, abs=6e-5)
    assert softmax_heads.ridge_limit(0.2, 3.0) == pytest.approx(3.4051, abs=6e-5)
    # The approximate loss at its own optima, minimised by hand over a grid of omega.
    losses = []
    for omega in np.linspace(0.3, 0.6, 61):
        mu = softmax_heads.best_mu([omega], **given)
        losses.append(float(softmax_heads.approximate_heads_loss(jnp.array([omega]), jnp.asarray(mu), **given)))
    assert min(losses) == pytest.approx(one.loss, abs=1e-5)
    assert abs(np.linspace(0.3, 0.6, 61)[np.argmin(losses)] - one.omega) < 0.006


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("pair", (0.604, 0.367, 0.243, 0.164)),
        ("descent", (0.643, 0.371, 0.241, 0.162)),
        ("debiased", (0.614, 0.369, 0.243, 0.163)),
        ("ridge", (0.194, 0.135, 0.115, 0.104)),
        ("kernel", (0.875, 0.586, 0.405, 0.284)),
        ("unnormalised", (0.7345, 0.4695, 0.2414, 1.9707)),
    ],
)
def test_published_losses_at_other_prompt_lengths(name, published):
    """He et al. (2025): omega = +-0.13, mu = +-3.45, so eta = 0.897, and a kernel head of the formula for L = 40."""
    one = softmax_heads.single_head_optimum(d=5, n_context=40, noise_variance=0.1)
    for n, expected in zip((10, 20, 40, 100), published, strict=True):
        given = {"d": 5, "n_context": n, "noise_variance": 0.1}
        loss = {
            "pair": lambda given=given: softmax_heads.exact_heads_loss([0.13, -0.13], [3.45, -3.45], **given),
            "descent": lambda given=given: float(softmax_heads.descent_loss(0.897, **given)),
            "debiased": lambda given=given: float(softmax_heads.descent_loss(0.897, **given, debiased=True)),
            "ridge": lambda given=given: softmax_heads.ridge_loss(**given),
            "kernel": lambda given=given: softmax_heads.exact_heads_loss([one.omega], [one.mu], **given),
            "unnormalised": lambda given=given, n=n: float(softmax_heads.descent_loss(0.897 * n / 40, **given)),
        }[name]()
        assert loss == pytest.approx(expected, rel=0.02), n


def test_published_losses_of_the_proportional_case():
    """d = 20, L = 100, noise variance 3."""
    given = {"d": 20, "n_context": 100, "noise_variance": 3.0}
    assert float(softmax_heads.descent_loss(1 / (1 + 0.2 * 4), **given)) == pytest.approx(3.442, rel=0.01)
    assert softmax_heads.ridge_loss(**given) == pytest.approx(3.404, rel=0.01)


def test_ridge_loss_is_that_of_its_predictions():
    """Squared errors of scikit-learn's ridge on drawn prompts, w and noise included; the query averaged by hand."""
    rng, d, n, noise = np.random.default_rng(1), 3, 6, 0.4
    errors = []
    for _ in range(300):
        w, x = rng.normal(size=(d, 100)) / np.sqrt(d), rng.normal(size=(n, d))
        y = x @ w + np.sqrt(noise) * rng.normal(size=(n, 100))
        fitted = linear_model.Ridge(alpha=noise * d, fit_intercept=False).fit(x, y).coef_
        errors.append(np.mean(np.sum((fitted.T - w) ** 2, axis=0)) + noise)
    expected = softmax_heads.ridge_loss(d=d, n_context=n, noise_variance=noise)
    assert abs(np.mean(errors) - expected) < 4 * np.std(errors) / np.sqrt(len(errors))


@given(omega=st.floats(0.02, 0.9), d=st.integers(1, 8), n=st.integers(2, 100), noise=st.floats(0.01, 2.0))
def test_approximate_pair_loss_is_at_the_best_mu(omega, d, n, noise):
    given = {"d": d, "n_context": n, "noise_variance": noise}
    product = np.outer([omega, -omega], [omega, -omega])
    form = product + (1 + noise) / n * np.exp(d * product)
    signs = np.array([1.0, -1.0])
    mu = 2 * omega / (signs @ form @ signs)  # where the derivative of -4 mu omega + mu^2 signs.form.signs vanishes
    loss = 1 + noise - 4 * mu * omega + mu**2 * (signs @ form @ signs)
    assert softmax_heads.approximate_pair_loss(omega, **given) == pytest.approx(loss, rel=1e-9)


def test_ridge_limit_is_what_ridge_reaches():
    rng, d, n, noise = np.random.default_rng(0), 60, 300, 0.5
    risks = []
    for _ in range(20):
        x = rng.normal(size=(n, d))
        risks.append(noise + noise * np.trace(np.linalg.inv(x.T @ x + noise * d * np.eye(d))))
    assert np.mean(risks) == pytest.approx(softmax_heads.ridge_limit(d / n, noise), rel=2e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: algorithms.map_loss(np.ones((2, 3)), 4),
        lambda: algorithms.map_loss(np.eye(2), 1, debiased=True),
        lambda: algorithms.map_loss(np.eye(2), 4).level([2]),
        lambda: softmax_heads.exact_head_moments([0.1], d=2, n_context=1, noise_variance=0.0),
        lambda: algorithms.PreconditionedDescent(jnp.ones((2, 2))),
        lambda: time_course.rank_one_escape_time(0.0, 1.0),
        lambda: softmax_heads.approximate_pair_loss(0.0, d=2, n_context=4, noise_variance=0.1),
        lambda: softmax_heads.ridge_loss(d=2, n_context=4, noise_variance=0.0),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
