"""Garg et al. in small: T-2 to T-5 on planted results, and the bound of so many layers against closed forms."""

import jax
import numpy as np
import pytest

from meta_icl import Prompt
from meta_icl.algorithms import GradientDescentPlusPlus
from meta_icl.evaluation import errors_by_position
from meta_icl.papers.garg2022_function_classes import PRESETS
from meta_icl.papers.garg2022_function_classes.bound import TunedDescent, best_descent
from meta_icl.papers.garg2022_function_classes.experiments import rows_of
from meta_icl.papers.garg2022_function_classes.small_forms import small_claims
from meta_icl.tasks import FunctionRegression, Linear

D, ROWS = 2, 5


@pytest.fixture(scope="module")
def drawn():
    return FunctionRegression(Linear(D), ROWS - 1).sample_batch(4_000, key=jax.random.key(0))


def test_one_tuned_step_has_its_closed_error(drawn):
    """E (f - prediction)^2 / d of the best single step on k Gaussian examples is (d + 1) / (k + d + 1)."""
    errors = np.asarray(errors_by_position(TunedDescent(ROWS, 1), drawn)) / D
    expected = (D + 1) / (np.arange(ROWS) + D + 1)
    assert np.all(np.abs(errors.mean(0) - expected) <= 4 * errors.std(0) / len(errors) ** 0.5)


def test_every_row_is_the_descent_on_the_rows_before_it(drawn):
    tuned = TunedDescent(ROWS, 2)
    prompt = jax.tree.map(lambda leaf: leaf[0], drawn)
    answers = tuned(prompt)
    shorter = tuned(jax.tree.map(lambda leaf: leaf[:3], prompt))  # rows do not depend on those that follow
    np.testing.assert_allclose(answers[:3], shorter, rtol=1e-4, atol=1e-5)
    for k in range(1, ROWS):
        unit = 1 / (k + D + 1)
        alone = GradientDescentPlusPlus(tuned.rates[k] * unit * k, tuned.gammas[k] * unit)
        np.testing.assert_allclose(
            answers[k], alone(Prompt(prompt.x[: k + 1], prompt.y[: k + 1])), rtol=1e-4, atol=1e-5
        )


def test_tuning_lowers_the_error(drawn):
    tuned = best_descent(D, ROWS, 2, n_spectra=1_000, key=jax.random.key(1))
    before, after = (np.asarray(errors_by_position(p, drawn)).mean(0) for p in (TunedDescent(ROWS, 2), tuned))
    assert np.all(after[2:] < before[2:])


GOOD = {"sparse": 0.5, "shift": 1.0, "taught": 600, "pool": 0.02}


def planted(t, world):
    """Errors by position that fall with size and rise with d, with and without curriculum, and on pools."""
    k = np.arange(rows_of(t.family, t.d))
    level = {"mini": 0.3, "slim": 0.1, "tiny": 0.01, "deep": 0.01}[t.size] * (1 + world["shift"] * t.d / 8)
    level += world["pool"] if t.functions else 0.0
    error = np.maximum(1 - k / t.d, level)
    if t.family == "sparse":
        error = np.where(k < 6, world["sparse"], 0.01)
    step = np.arange(0, 6_001, 300)
    low = step >= (world["taught"] if t.curriculum else 3_000)
    found = {"step": step, "error": np.where(low[:, None], error[None], 1.0)[:, None]}
    return found | {"lasso": np.array([0.55, 0.0]), "squares": np.array([0.6, 0.0])}


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, set()),
        ({"sparse": 0.62}, {"T-2"}),  # as near to the Lasso as asked, but no better than least squares
        ({"sparse": 0.7}, {"T-2"}),
        ({"shift": -0.5}, {"T-3"}),
        ({"taught": 2_400}, {"T-4"}),
        ({"pool": 0.2}, {"T-5"}),
    ],
    ids=str,
)
def test_small_forms(changed, failing, verdicts):
    trained = {t.name: (t, planted(t, GOOD | changed)) for t in PRESETS["full"].trainings}
    assert len(trained) == len(PRESETS["full"].trainings)  # no two trainings share a name
    told = verdicts(small_claims(trained))
    assert told == {f"T-{i}": "fails" if f"T-{i}" in failing else "holds" for i in range(2, 6)}


def test_a_preset_without_these_networks_decides_none(verdicts):
    trained = {t.name: (t, {}) for t in PRESETS["small"].trainings}
    assert set(verdicts(small_claims(trained)).values()) == {"not decided"}
