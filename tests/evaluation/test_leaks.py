"""Predictors that read the query's target or later rows are found, by values; honest ones are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.algorithms import (
    Averaging,
    DiscreteMmse,
    EveryPosition,
    GradientDescent,
    Hebbian,
    LeastSquares,
    NearestCentroid,
    NearestNeighbours,
    RecursiveRidge,
    Ridge,
    bayes_over_bases,
    lasso,
)
from meta_icl.evaluation import compare, leaks, reads_hidden_target, reads_later_rows
from meta_icl.models import Interleaved, Learner, von_oswald
from meta_icl.prompt import PlacedPrompt, Prompt
from meta_icl.tasks import LinearRegression, RandomPoints

TASK = LinearRegression(d=2, n_context=4)
KEY = jax.random.key(0)
PROMPT = TASK.sample(key=KEY)
LABELS = RandomPoints(d=2, n_context=5, n_labels=3).sample(key=KEY)

READS_TARGET = {
    "its place": lambda p: p.query.y,
    "by numpy": lambda p: np.asarray(p.y)[-1],
    "rounded": lambda p: jnp.round(p.query.y),
    "its sign": lambda p: jnp.sign(p.query.y),
    "beside something large": lambda p: 100 * p.query.x[:1] + p.query.y,
    "a mean over all targets": lambda p: p.y.mean(0),
    "at every position": lambda p: p.y,
}


@pytest.mark.parametrize("name", READS_TARGET)
def test_reading_the_hidden_target_is_found(name):
    assert reads_hidden_target(READS_TARGET[name], PROMPT)


READS_LATER = {
    "its own target": lambda p: p.y,
    "the next row": lambda p: jnp.roll(p.x[:, :1], -1, axis=0),
    "a mean over all rows": lambda p: jnp.broadcast_to(p.x.mean(0)[:1], p.y.shape),
    "by numpy": lambda p: np.cumsum(np.asarray(p.y)[::-1], axis=0)[::-1],
    "the least squares of everything": lambda p: p.x @ jnp.linalg.lstsq(p.x, p.y)[0],
    "the last input only": lambda p: jnp.broadcast_to(p.query.x[:1], p.y.shape),
}


@pytest.mark.parametrize("name", READS_LATER)
def test_reading_later_rows_is_found(name):
    assert reads_later_rows(READS_LATER[name], PROMPT)


def test_the_first_row_that_looks_ahead_is_named():
    """Row 2 reads the target of row 3, and no other row does."""
    assert leaks(lambda p: p.x[:, :1].at[2].add(p.y[3]), PROMPT).row == 2


HONEST = [
    GradientDescent(0.1, 2), LeastSquares(), Ridge(0.1), Averaging(), NearestNeighbours(2), Hebbian(), RecursiveRidge(),
    EveryPosition(Ridge(0.1)), DiscreteMmse(np.eye(2), 0.5), bayes_over_bases(np.eye(2), 0.1), lasso(0.1),
    lambda p: np.asarray(p.context.y).mean(0), lambda p: p.x[:, :1] + jnp.cumsum(p.y, 0) - p.y,
]  # fmt: skip


@pytest.mark.parametrize("predictor", HONEST, ids=lambda p: getattr(p, "__name__", type(p).__name__))
def test_honest_predictors_are_left_alone(predictor):
    assert leaks(predictor, PROMPT) == (False, None)


def test_networks_are_judged_as_predictors():
    causal = Learner(von_oswald(2, n_layers=1, init_scale=1.0), Interleaved())(key=KEY)
    assert leaks(causal, PROMPT).row is not None  # von Oswald's attention sees all rows
    assert leaks(Learner(von_oswald(3, init_scale=1.0))(key=KEY), PROMPT) == (False, None)


def test_labels_are_judged_too():
    assert reads_hidden_target(lambda p: jax.nn.one_hot(p.query.y, 3), LABELS)
    assert reads_later_rows(lambda p: jax.nn.one_hot(p.y, 3), LABELS)
    assert leaks(NearestCentroid(3), LABELS) == (False, None)
    assert leaks(lambda p: jax.nn.one_hot(p.y[0], 3), LABELS) == (False, None)


def test_places_of_prompts_are_kept():
    placed = PlacedPrompt(PROMPT.x, PROMPT.y, 7)
    assert leaks(lambda p: p.query.x[:1] * p.offset, placed) == (False, None)


def test_chance_is_no_leak():
    rng = np.random.default_rng(0)
    assert leaks(lambda p: rng.normal(size=1), PROMPT) == (False, None)


def test_compare_tells_of_leaks():
    table = compare(
        {"copy": READS_TARGET["its place"], "ahead": READS_LATER["the next row"], "gd": GradientDescent(0.1)},
        TASK, key=0, n_prompts=20,
    )  # fmt: skip
    assert len(table.notes) == 2
    assert table.notes[0].startswith("note: copy reads the place of the query's target")
    assert table.notes[1].startswith("note: ahead answers row 0 from")
    assert str(table).endswith(table.notes[1])


def test_a_single_row_has_no_later_ones():
    assert leaks(lambda p: p.x[:, :1], Prompt(np.ones((1, 2)), np.ones((1, 1)))) == (False, None)
