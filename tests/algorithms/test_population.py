"""Population losses against Monte Carlo in numpy, published values and exact parabolas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.algorithms import (
    GradientDescent,
    RegressionMoments,
    best_gd_loss,
    best_rate,
    best_rate_for,
    gd_loss,
    line_search,
    linear_map_loss,
    sample_best_rate,
    zero_loss,
)
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt
from meta_icl.tasks import Laplace, LinearRegression, Normal, Uniform

LAWS = {  # a sampler of numpy's with variance and kurtosis
    "uniform": (lambda rng, shape: rng.uniform(-0.8, 0.8, shape), 0.64 / 3, 1.8),
    "normal": (lambda rng, shape: 0.9 * rng.standard_normal(shape), 0.81, 3.0),
    "laplace": (lambda rng, shape: rng.laplace(0, 0.5, shape), 0.5, 6.0),
}
TEN = RegressionMoments(d=10, n_context=10, x_variance=1 / 12, x_kurtosis=9 / 5)  # x ~ U(-1/2, 1/2)


def monte_carlo(law, task, matrix, n=60_000, seed=0):
    """Mean and standard error of 1/2 (y^T X A x_q / N - y_q)^2 over numpy's own draws of everything."""
    rng = np.random.default_rng(seed)
    draw, _, _ = LAWS[law]
    x = draw(rng, (n, task.n_context + 1, task.d))
    w = np.sqrt(task.w_variance) * rng.standard_normal((n, task.d))
    y = (x * w[:, None]).sum(-1)
    y[:, : task.n_context + task.noisy_query] += task.noise * rng.standard_normal(
        (n, task.n_context + task.noisy_query)
    )
    y[:, : task.n_replaced] = rng.standard_normal((n, task.n_replaced))  # which rows does not matter: they are alike
    moment = (y[:, :-1, None] * x[:, :-1]).mean(1)
    losses = 0.5 * ((moment @ matrix * x[:, -1]).sum(1) - y[:, -1]) ** 2
    return losses.mean(), losses.std() / np.sqrt(n)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"noise": 0.7, "w_variance": 2.0},
        {"noise": 0.4, "noisy_query": True},
        {"n_replaced": 2, "noise": 0.3},
    ],
    ids=["plain", "noise", "noisy-query", "replaced"],
)
def test_losses_are_the_mean_over_prompts(law, extra):
    task = RegressionMoments(4, 6, *LAWS[law][1:], **extra)
    rate = 0.8 * float(best_rate(task))
    mean, error = monte_carlo(law, task, rate * np.eye(4))
    assert abs(float(gd_loss(rate, task)) - mean) < 4 * error
    mean, error = monte_carlo(law, task, np.zeros((4, 4)), seed=1)
    assert abs(float(zero_loss(task)) - mean) < 4 * error
    matrix = rate * (np.eye(4) + 0.3 * np.random.default_rng(5).standard_normal((4, 4)))
    mean, error = monte_carlo(law, task, matrix, seed=2)
    assert abs(float(linear_map_loss(jnp.asarray(matrix, jnp.float32), task)) - mean) < 4 * error


@pytest.mark.parametrize(
    ("law", "rate", "zero", "best"),
    [
        (Uniform(half_range=1.0), 1.5152, 1.6667, 0.82492),
        (Uniform(half_range=0.5), 6.0606, 0.41667, 0.20623),
        (Normal(), 0.47619, 5.0, 2.61905),
    ],
    ids=["U(-1,1)", "U(-.5,.5)", "N(0,1)"],
)
def test_values_for_ten_inputs_and_ten_pairs(law, rate, zero, best):
    task = LinearRegression(d=10, n_context=10, x_law=law)
    assert float(best_rate(task)) == pytest.approx(rate, rel=5e-5)
    assert float(best_rate_for(10, 10, task.x_variance, task.x_kurtosis)) == pytest.approx(rate, rel=5e-5)
    assert float(zero_loss(task)) == pytest.approx(zero, rel=5e-5)
    assert float(best_gd_loss(task)) == pytest.approx(best, rel=5e-5)


def test_published_losses_by_context_length():
    """Rossi et al. (2024), Fig. 9, d = 5 and x ~ U(-1, 1), in their closed form."""
    published = {2: 0.5882, 4: 0.4545, 6: 0.3704, 10: 0.2703, 20: 0.1613, 50: 0.0730, 100: 0.0382}
    for n, loss in published.items():
        assert float(best_gd_loss(LinearRegression(5, n, x_law=Uniform(half_range=1.0)))) == pytest.approx(
            loss, abs=6e-5
        )


def test_published_losses_out_of_distribution():
    """Von Oswald et al. (2022): a frozen rate on scaled inputs, scaled weights and replaced labels."""
    rate = best_rate(TEN)
    trained_on = LinearRegression(10, 10, x_law=Uniform(half_range=0.5))
    for scale, loss in {0.5: 0.081, 1.0: 0.206, 1.5: 1.20, 2.0: 8.40}.items():
        shifted = eqx.tree_at(lambda task: task.x_scale, trained_on, jnp.asarray(scale))
        assert float(gd_loss(rate, shifted)) == pytest.approx(loss, rel=5e-3)
    for scale in (0.5, 3.0):
        shifted = LinearRegression(10, 10, x_law=Uniform(half_range=0.5), w_scale=scale)
        assert float(gd_loss(rate, shifted)) == pytest.approx(scale**2 * float(best_gd_loss(TEN)), rel=1e-5)
    for k, loss in {0: 0.206, 2: 0.257, 4: 0.316, 6: 0.384, 8: 0.460}.items():
        task = LinearRegression(10, 10, x_law=Uniform(half_range=0.5), n_replaced=k)
        assert float(gd_loss(rate, task)) == pytest.approx(loss, abs=6e-4)


@pytest.mark.parametrize("extra", [{}, {"noise": 0.5}, {"n_replaced": 3}])
def test_the_best_rate_is_the_vertex_of_the_loss(extra):
    task = RegressionMoments(4, 6, 0.3, 2.2, **extra)
    with jax.enable_x64(True):
        rates = np.array([0.5, 1.0, 2.0])
        a, b, _ = np.polyfit(rates, [float(gd_loss(rate, task)) for rate in rates], 2)
        assert float(best_rate(task)) == pytest.approx(-b / (2 * a), rel=1e-10)
        assert float(linear_map_loss(1.7 * jnp.eye(4), task)) == pytest.approx(float(gd_loss(1.7, task)), rel=1e-12)


def test_tasks_and_closed_forms_agree():
    """The sampled loss of the predictor on the task's own prompts, for the task with everything switched on."""
    task = LinearRegression(
        3, 5, 2, x_law=Laplace(scale=0.6), x_scale=1.2, w_scale=0.8, noise=0.3, noisy_query=True, n_replaced=1
    )
    n, rate = 40_000, best_rate(task)

    @jax.jit
    def losses(key):
        prompts = task.sample_batch(n, key=key)
        answers = jax.vmap(GradientDescent(rate))(prompts)
        return 0.5 * jnp.square(answers - prompts.y[:, -1]).mean(1)

    sampled = np.asarray(losses(jax.random.key(0)), np.float64)
    assert abs(sampled.mean() - float(best_gd_loss(task))) < 4 * sampled.std() / np.sqrt(n)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("start", ["zero", "given"])
def test_rates_fitted_to_given_prompts(start):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 6, 3)), rng.normal(size=(20, 6, 2))
    y += x @ rng.normal(size=(20, 3, 2))
    w0 = rng.normal(size=(2, 3)) if start == "given" else np.zeros((2, 3))

    def loss(rate, steps=1):
        total = 0.0
        for xs, ys in zip(x, y, strict=True):
            w = w0
            for _ in range(steps):
                w = w - rate * ((w @ xs[:-1].T - ys[:-1].T) @ xs[:-1]) / 5
            total += 0.5 * np.mean((w @ xs[-1] - ys[-1]) ** 2)
        return total / 20

    prompts = Prompt(jnp.asarray(x), jnp.asarray(y))
    given_w0 = None if start == "zero" else jnp.asarray(w0)
    a, b, _ = np.polyfit([0.0, 0.5, 1.0], [loss(0.0), loss(0.5), loss(1.0)], 2)  # exactly a parabola
    assert float(sample_best_rate(prompts, given_w0)) == pytest.approx(-b / (2 * a), rel=1e-9)
    rates = np.linspace(0.02, 0.6, 30)
    for steps in (1, 3):
        best, losses = line_search(prompts, jnp.asarray(rates), steps, given_w0)
        expected = [loss(rate, steps) for rate in rates]
        np.testing.assert_allclose(losses, expected, rtol=1e-10)
        assert float(best) == rates[np.argmin(expected)]


def test_bad_input():
    with pytest.raises(BadInput, match=r"^d must be a positive integer, got 0"):
        RegressionMoments(0, 4, 1.0, 3.0)
    with pytest.raises(BadInput, match=r"^n_replaced must be"):
        RegressionMoments(2, 4, 1.0, 3.0, n_replaced=5)
