"""Comparison of predictors: distances against their definitions, plain functions, ensembles, leaks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from meta_icl.algorithms import GradientDescent, LeastSquares, ZeroPredictor, best_rate, gd_loss
from meta_icl.errors import BadInput
from meta_icl.evaluation import (
    alignment,
    compare,
    learning_curves,
    loss_by_context,
    loss_by_task,
    reads_hidden_target,
    sensitivities,
)
from meta_icl.models import Learner, von_oswald
from meta_icl.prompt import Ensemble, Prompt, answer_batch
from meta_icl.tasks import LinearRegression, RandomPoints, RepeatedTokens, Uniform
from meta_icl.training import train

TASK = LinearRegression(d=3, n_context=5, x_law=Uniform(half_range=1.0))
KEY = jax.random.key(0)
RATE = float(best_rate(TASK))


def with_jax(prompt):
    return RATE / 5 * (prompt.context.y.T @ prompt.context.x) @ prompt.query.x


def with_numpy(prompt):
    x, y = np.asarray(prompt.context.x), np.asarray(prompt.context.y)
    return np.array([RATE / 5 * (y[:, 0] @ x) @ np.asarray(prompt.query.x)], np.float32)


def test_a_plain_function_joins_every_comparison():
    predictors = {
        "jax": with_jax,
        "numpy": with_numpy,
        "least squares": LeastSquares(),
        "gd": GradientDescent(rate=RATE),
    }
    table = compare(predictors, TASK, key=KEY, n_prompts=200)
    for name in ("jax", "numpy"):
        assert table[name]["loss_ratio"].mean == pytest.approx(1, abs=1e-5)
        assert table[name]["prediction_difference"].mean < 1e-5
    assert table["jax"]["sensitivity_cosine"].mean == pytest.approx(1, abs=1e-5)
    assert np.isnan(table["numpy"]["sensitivity_cosine"].mean)
    assert table["least squares"]["loss_ratio"].mean < 0.2
    assert "numpy" in str(table) and "±" in str(table)


def test_loss_agrees_with_the_closed_form_within_its_interval():
    table = compare({"gd": GradientDescent(rate=RATE)}, TASK, key=KEY, n_prompts=20_000)
    loss = table["gd"]["loss"]
    assert abs(loss.mean - float(gd_loss(RATE, TASK))) < 4 * loss.error


def test_an_ensemble_is_its_members():
    members = eqx.filter_vmap(lambda key: Learner(von_oswald(4, init_scale=1.0))(key=key))(jax.random.split(KEY, 3))
    ensemble = Ensemble(members)
    prompts = TASK.sample_batch(4, key=KEY)
    answers = answer_batch(ensemble, prompts)
    assert answers.shape == (3, 4, 1)
    np.testing.assert_allclose(answers[1], answer_batch(ensemble[1], prompts), rtol=1e-6)
    table = compare({"trained": ensemble, "gd": GradientDescent(rate=RATE)}, TASK, key=KEY, n_prompts=50)
    assert len(table["trained"]["loss"].members) == 3
    with pytest.raises(IndexError):
        ensemble[3]


def test_alignment_is_the_published_measures():
    a, b = GradientDescent(rate=1.0), GradientDescent(rate=0.5)
    prompts = TASK.sample_batch(30, key=KEY)
    measured = alignment(a, b, prompts)
    f = [np.asarray(answer_batch(p, prompts))[:, 0] for p in (a, b)]
    w = [np.asarray(jnp.einsum("bno,bnd->bd", prompts.y[:, :-1], prompts.x[:, :-1])) * rate / 5 for rate in (1.0, 0.5)]
    expected = {
        "prediction_difference": np.abs(f[0] - f[1]).mean(),
        "model_difference": np.linalg.norm(w[0] - w[1], axis=1).mean(),
        "prediction_error": 0.5 * ((f[0] - f[1]) ** 2).mean(),
        "gradient_error": 0.5 * ((w[0] - w[1]) ** 2).mean(),
        "cosine": 1.0,
    }
    for name, value in expected.items():
        assert float(measured[name]) == pytest.approx(value, rel=1e-4), name
    np.testing.assert_allclose(sensitivities(a, prompts)[:, 0], w[0], rtol=1e-4, atol=1e-6)


def test_loss_by_context_cuts_the_same_prompts():
    curves = loss_by_context(lambda n: {"gd": GradientDescent(rate=1.0)}, TASK, [1, 5], key=KEY, n_prompts=100)
    prompts = TASK.sample_batch(100, key=KEY)
    whole = 0.5 * np.square(np.asarray(answer_batch(GradientDescent(rate=1.0), prompts) - prompts.y[:, -1])).mean()
    assert curves["gd"][1].mean == pytest.approx(float(whole), rel=1e-5)
    with pytest.raises(BadInput, match="contexts"):
        loss_by_context({"gd": GradientDescent(rate=1.0)}, TASK, [6], key=KEY, n_prompts=10)


def test_loss_out_of_distribution():
    """Of one gradient step at a frozen rate: exactly scale^2 for weights, the closed form for inputs."""
    shifts = [{}, {"w_scale": 3.0}, {"x_scale": 1.5}, {"n_replaced": 2}]
    tasks = [LinearRegression(d=3, n_context=5, x_law=Uniform(half_range=1.0), **shift) for shift in shifts]
    predictors = {"gd": GradientDescent(rate=RATE), "mine": with_jax}
    curves = loss_by_task(predictors, tasks, key=KEY, n_prompts=4000)
    base, weights, inputs, replaced = curves["gd"]
    assert weights.mean == pytest.approx(9 * base.mean, rel=1e-5)
    for estimate, task in ((base, tasks[0]), (inputs, tasks[2]), (replaced, tasks[3])):
        assert abs(estimate.mean - float(gd_loss(RATE, task))) < 4 * estimate.error
    np.testing.assert_allclose([e.mean for e in curves["mine"]], [e.mean for e in curves["gd"]], rtol=1e-5)


def test_leaks_are_seen():
    prompt = TASK.sample(key=KEY)
    assert not reads_hidden_target(GradientDescent(rate=1.0), prompt)
    assert reads_hidden_target(lambda p: p.query.y, prompt)
    assert np.all(np.asarray(answer_batch(lambda p: p.query.y, TASK.sample_batch(3, key=KEY))) == 0)
    labels = Prompt(jnp.ones((3, 2)), jnp.array([4, 4, 4]))
    assert reads_hidden_target(lambda p: jax.nn.one_hot(p.query.y, 5), labels)
    assert not reads_hidden_target(lambda p: jax.nn.one_hot(p.y[0], 5), labels)


def test_bad_input():
    with pytest.raises(BadInput, match="reference"):
        compare({"gd": GradientDescent(rate=1.0)}, TASK, key=KEY, reference="ridge")
    with pytest.raises(BadInput, match="at least one"):
        compare({}, TASK, key=KEY)
    with pytest.raises(BadInput, match="predictor 'ridge' must be callable on a prompt, got 'str'"):
        compare({"ridge": "ridge"}, TASK, key=KEY)
    with pytest.raises(BadInput, match=r"predictor 'wide' does not fit LinearRegression: .*got"):
        compare({"wide": lambda prompt: jnp.ones(7) @ prompt.query.x}, TASK, key=KEY, n_prompts=8)


class Scaled(eqx.Module):
    """Answers w.x of the query."""

    w: jax.Array

    def __init__(self, key):
        self.w = jax.random.normal(key, (3,))

    def __call__(self, prompt):
        return self.w @ prompt.query.x


@pytest.fixture(scope="module")
def swept():
    sweep = {"optimiser.learning_rate": (1e-3, 0.1)}
    return train(TASK, Scaled, steps=4, key=0, batch=8, seeds=3, sweep=sweep, record=1)


def test_points_of_a_sweep_are_compared_apart(swept):
    table = compare({"net": swept, "zero": ZeroPredictor()}, TASK, key=1, n_prompts=50)
    names = ["net, optimiser.learning_rate=0.001", "net, optimiser.learning_rate=0.1"]
    assert list(table.rows) == [*names, "zero"]
    for name, rate in zip(names, (1e-3, 0.1), strict=True):
        alone = compare({"net": swept.select(**{"optimiser.learning_rate": rate})}, TASK, key=1, n_prompts=50)
        assert table[name]["loss"].members == pytest.approx(alone["net"]["loss"].members, rel=1e-6)
    with pytest.raises(BadInput, match="unknown predictor 'nett'"):
        table["nett"]


def test_intervals_say_what_they_cover(swept):
    table = compare({"net": swept[:3], "zero": ZeroPredictor()}, TASK, key=1, n_prompts=50)
    loss = table["net"]["loss"]
    prompts = TASK.sample_batch(50, key=jax.random.key(1))
    x, y = np.asarray(prompts.x[:, -1], float), np.asarray(prompts.y[:, -1, 0], float)
    losses = 0.5 * (np.asarray(swept.stacked.w, float)[:3] @ x.T - y) ** 2  # members, prompts
    low, high = stats.t.interval(0.95, 2, losses.mean(), stats.sem(losses.mean(1)))
    assert loss.over_seeds == pytest.approx((low, high), rel=1e-4)
    low, high = stats.norm.interval(0.95, losses.mean(), stats.sem(losses.mean(0)))
    assert loss.over_prompts == pytest.approx((low, high), rel=1e-4)
    assert np.isnan(table["zero"]["loss"].seeds_error)
    assert "± 95 % over 50 prompts, after | over 3 seeds" in str(table) and " | " in str(loss)
    assert "seeds" not in str(compare([ZeroPredictor()], TASK, key=1, n_prompts=50))


def test_labels_are_compared_by_cross_entropy_and_accuracy():
    task = RandomPoints(d=2, n_context=3, n_labels=3)
    logits = np.array([0.5, -1.0, 2.0])
    table = compare({"fixed": lambda p: jnp.asarray(logits), "numpy": lambda p: logits}, task, key=0, n_prompts=40)
    y = np.asarray(task.sample_batch(40, key=jax.random.key(0)).y)[:, -1]
    expected = (np.log(np.exp(logits).sum()) - logits[y]).mean()
    for name in ("fixed", "numpy"):
        assert table[name]["loss"].mean == pytest.approx(expected, rel=1e-5)
        assert table[name]["accuracy"].mean == pytest.approx((y == 2).mean())
    assert "accuracy" in str(table) and "accuracy" not in str(compare([ZeroPredictor()], TASK, key=0, n_prompts=4))
    with pytest.raises(BadInput, match=r"shape \(\), wanted \(classes,\)"):
        compare({"mine": lambda p: p.query.x[0]}, task, key=0, n_prompts=4)
    with pytest.raises(BadInput, match="targets must be real numbers for ZeroPredictor"):
        compare({"zero": ZeroPredictor()}, task, key=0, n_prompts=4)
    with pytest.raises(BadInput, match="its prompts are TokenPrompt"):
        compare({"zero": ZeroPredictor()}, RepeatedTokens(n_tokens=5, period=3), key=0, n_prompts=4)


def test_shapes_are_checked_before_anything_is_measured():
    for answer, shape in ((lambda p: p.query.x, r"\(3,\)"), (lambda p: p.query.x[:2], r"\(2,\)")):
        with pytest.raises(BadInput, match=rf"shape {shape}, wanted \(1,\)"):
            compare({"mine": answer}, TASK, key=0, n_prompts=10)
    table = compare({"number": lambda p: p.query.x[0], "row": lambda p: p.query.x[:1]}, TASK, key=0, n_prompts=10)
    assert table["number"]["loss"].mean == pytest.approx(table["row"]["loss"].mean)


def test_a_list_of_predictors_is_named_by_their_classes():
    table = compare([GradientDescent(rate=1.0), GradientDescent(rate=0.5), with_jax], TASK, key=0, n_prompts=10)
    assert list(table.rows) == ["GradientDescent", "GradientDescent 2", "with_jax"]
    with pytest.raises(BadInput, match="predictors must be a dictionary"):
        compare(with_jax, TASK, key=0)


def test_curves_carry_their_bands(swept):
    curves = loss_by_context({"net": swept[:3], "gd": with_jax}, TASK, [2, 5], key=3, n_prompts=30)
    assert curves.x.tolist() == [2, 5] and curves.x_label == "examples in the context"
    assert curves.interval == "± 95 % over 30 prompts, after | over 3 seeds"
    for name, ends in (("net", "over_seeds"), ("gd", "over_prompts")):
        band = curves.band(name)
        assert band.mean.tolist() == [point.mean for point in curves[name]]
        assert (band.low[0], band.high[0]) == getattr(curves[name][0], ends)
    assert next(iter(loss_by_context({"net": swept}, TASK, [2], key=3, n_prompts=10))).startswith("net, optimiser")


def test_learning_curves_are_means_over_seeds(swept):
    curves = learning_curves(swept)
    assert list(curves) == ["optimiser.learning_rate=0.001", "optimiser.learning_rate=0.1"]
    assert curves.x.tolist() == [1, 2, 3, 4] and curves.interval == "95 % over 3 seeds"
    values = swept.history["loss"][1:, 3:]
    band = curves.band("optimiser.learning_rate=0.1")
    np.testing.assert_allclose(band.mean, values.mean(1))
    ends = [stats.t.interval(0.95, 2, row.mean(), stats.sem(row)) for row in values.astype(float)]
    np.testing.assert_allclose(np.stack([band.low, band.high], 1), ends, rtol=1e-5)
    half = (ends[-1][1] - ends[-1][0]) / 2
    assert str(curves).splitlines()[2].endswith(f", {values[-1].mean():.4g} ± {half:.1g}")
    with pytest.raises(BadInput, match="unknown record 'los'"):
        learning_curves(swept, "los")
