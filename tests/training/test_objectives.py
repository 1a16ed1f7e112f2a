"""Objectives of labels and tokens against sums written out in numpy, and what they must not look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from meta_icl.errors import BadInput
from meta_icl.evaluation import correct_by_position, up_to
from meta_icl.models import gpt2
from meta_icl.prompt import Prompt, Task, TokenPrompt, TokenTask, truncated
from meta_icl.tasks import Overwrite
from meta_icl.training import cross_entropy, every_position_cross_entropy, next_token_cross_entropy, train


class Labels(Task):
    """Normal inputs of width 2 with one of three labels each."""

    def sample(self, *, key):
        x_key, y_key = jax.random.split(key)
        return Prompt(jax.random.normal(x_key, (5, 2)), jax.random.randint(y_key, (5,), 0, 3))


class Tokens(TokenTask):
    """Seven of four tokens, scored at odd positions."""

    def sample(self, *, key):
        return TokenPrompt(jax.random.randint(key, (7,), 0, 4), jnp.arange(7) % 2 == 1)


def logits_of(x):
    return jnp.stack([x[..., 0], 2 * x[..., 1], x[..., 0] * x[..., 1]], axis=-1)


KEY = jax.random.key(3)
PROMPTS = Labels().sample_batch(6, key=KEY)


def expected_losses() -> np.ndarray:
    x, y = np.asarray(PROMPTS.x, np.float64), np.asarray(PROMPTS.y)
    logits = np.stack([x[..., 0], 2 * x[..., 1], x[..., 0] * x[..., 1]], axis=-1)
    return -np.take_along_axis(log_softmax(logits, axis=-1), y[..., None], axis=-1)[..., 0]


def test_cross_entropy_is_that_of_the_query():
    loss = cross_entropy(lambda prompt: logits_of(prompt.query.x), Labels(), 6, KEY)
    np.testing.assert_allclose(loss, expected_losses()[:, -1].mean(), rtol=1e-6)


def test_cross_entropy_over_positions():
    loss = every_position_cross_entropy(lambda prompt: logits_of(prompt.x), Labels(), 6, KEY)
    np.testing.assert_allclose(loss, expected_losses().mean(), rtol=1e-6)


def test_next_token_cross_entropy_scores_the_successors_of_marked_positions():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
    loss = next_token_cross_entropy(lambda prompt: table[prompt.tokens], Tokens(), 6, KEY)
    tokens = np.asarray(Tokens().sample_batch(6, key=KEY).tokens)
    rows = log_softmax(np.asarray(table, np.float64), axis=-1)
    expected = -np.mean([rows[row[i], row[i + 1]] for row in tokens for i in (1, 3, 5)])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_cross_entropy_never_shows_the_label_of_the_query():
    """A predictor that copies the label it finds at the query finds class 0 there, whatever the label is."""
    copy = lambda prompt: 50.0 * jax.nn.one_hot(prompt.y[-1], 3)  # noqa: E731
    wrong = np.mean(np.asarray(PROMPTS.y)[:, -1] != 0)
    np.testing.assert_allclose(cross_entropy(copy, Labels(), 6, KEY), 50.0 * wrong, rtol=1e-5)


def test_correct_by_position():
    right = correct_by_position(lambda prompt: logits_of(prompt.x), PROMPTS)
    np.testing.assert_array_equal(right, np.argmax(np.asarray(logits_of(PROMPTS.x)), -1) == np.asarray(PROMPTS.y))
    cut = correct_by_position(lambda prompt: logits_of(prompt.query.x), PROMPTS, positions=[1, 4])
    np.testing.assert_array_equal(cut, np.asarray(right)[:, [1, 4]])
    np.testing.assert_array_equal(correct_by_position(lambda prompt: jnp.nan * logits_of(prompt.x), PROMPTS), 0)


@pytest.mark.parametrize("batched", [False, True])
def test_prompts_of_labels_are_cut_by_rows(batched):
    prompts = PROMPTS if batched else jax.tree.map(lambda leaf: leaf[0], PROMPTS)
    first, last = up_to(prompts, 2), truncated(prompts, 2)
    np.testing.assert_array_equal(first.y, prompts.y[..., :3])
    np.testing.assert_array_equal(last.y, prompts.y[..., -3:])
    np.testing.assert_array_equal(last.x, prompts.x[..., -3:, :])


def test_a_network_needs_a_logit_for_every_token():
    task = Overwrite(n_keys=2, n_writes=2, vocabulary=32)
    with pytest.raises(BadInput, match=r"logits must be at least 32, as tokens, got '20 per answer'"):
        train(task, gpt2(20, 8, n_layers=1, n_heads=1, n_positions=64), steps=1, key=0, batch=2)
