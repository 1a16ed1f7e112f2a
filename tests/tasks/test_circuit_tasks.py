"""Reddy's, Chan's, Singh's and Olsson's tasks against the laws they claim."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import Learner, TokenLayout, olsson
from meta_icl.prompt import TokenPrompt, answer_tokens
from meta_icl.tasks import (
    BurstyImages,
    FewShot,
    NoSupport,
    RepeatedTokens,
    TwoPairs,
    bursty_gaussian,
    every_two_pairs,
    split_label_pairs,
)

N = 2_000


def classes_of(task, prompts):
    """The class of every item by the nearest mean (there is no noise here), and how far it is."""
    x, means = np.asarray(prompts.x), np.asarray(task.means)
    distances = ((x[:, :, None] - means[None, None]) ** 2).sum(-1)
    return distances.argmin(-1), distances.min(-1)


def test_reddy_bursty_contexts():
    task = bursty_gaussian(16, 8, key=jax.random.key(0), n_labels=8, repeats=2, eps=0.0)
    prompts = task.sample_batch(N, key=jax.random.key(1))
    classes, far = classes_of(task, prompts)
    assert far.max() < 1e-8
    np.testing.assert_array_equal(prompts.y, classes % 8)
    counts = np.stack([np.bincount(row, minlength=16) for row in classes[:, :8]])
    assert sorted(set(counts.ravel().tolist())) == [0, 2]
    labels = np.stack([np.bincount(row % 8, minlength=8) for row in classes[:, :8]])
    assert labels.max() == 2  # distinct labels
    assert (classes[:, :8] == classes[:, 8:]).sum(1).tolist() == [2] * N
    share = np.bincount(classes[:, 8], minlength=16) / N
    assert np.abs(share - 1 / 16).max() < 5 * np.sqrt(1 / 16 / N)
    assert int(prompts.offset.min()) == 0 and int(prompts.offset.max()) == 65 - 17


def test_reddy_evaluation_sets():
    task = bursty_gaussian(16, 8, key=jax.random.key(0), n_labels=8, eps=0.0, alpha=1.0, p_novel=0.5)
    drawn = {name: task.evaluation(name).sample_batch(N, key=jax.random.key(2)) for name in ("test", "ic", "ic2", "iw")}
    known = {name: classes_of(task, prompts) for name, prompts in drawn.items()}
    assert known["ic"][1].min() > 1e-4  # all classes are new
    y = np.asarray(drawn["ic"].y)
    matches = np.isclose(np.asarray(drawn["ic"].x[:, :8]), np.asarray(drawn["ic"].x[:, 8:])).all(-1)
    np.testing.assert_array_equal(matches.sum(1), 1)
    np.testing.assert_array_equal(y[:, :8][matches], y[:, 8])
    np.testing.assert_array_equal(drawn["ic2"].y, (known["ic2"][0] + 1) % 8)
    law = 1 / np.arange(1, 17)
    share = np.bincount(known["iw"][0].ravel(), minlength=16) / (9 * N)
    np.testing.assert_allclose(share, law / law.sum(), atol=0.02)
    assert abs((known["test"][1].max(1) > 1e-4).mean() - 0.5) < 0.05
    with pytest.raises(BadInput, match="evaluation"):
        task.evaluation("icl")


def images(classes, drawings=3):
    """Images that say which class and drawing they are."""
    grid = np.stack(np.meshgrid(np.arange(classes), np.arange(drawings), indexing="ij"), -1)
    return jnp.asarray(grid, float)


def test_chan_sequences():
    task = BurstyImages(images(20), p_bursty=1.0, polysemy=2)
    prompts = task.sample_batch(N, key=jax.random.key(0))
    classes, y = np.asarray(prompts.x[..., 0], int), np.asarray(prompts.y)
    np.testing.assert_array_equal(y // 2, classes)
    assert (y % 2 == y[:, :1] % 2).all() and 0.4 < (y[:, 0] % 2).mean() < 0.6
    shots = (classes[:, :8] == classes[:, 8:]).sum(1)
    assert shots.min() == 3 and (shots > 3).mean() < 0.2
    assert set(np.asarray(prompts.x[..., 1]).ravel().tolist()) == {0, 1, 2}
    single = BurstyImages(images(20), p_bursty=0.0, zipf=1.0).sample_batch(N, key=jax.random.key(0))
    law = 1 / np.arange(1, 21)
    share = np.bincount(np.asarray(single.x[..., 0], int).ravel(), minlength=20) / (9 * N)
    np.testing.assert_allclose(share, law / law.sum(), atol=0.015)
    noisy = BurstyImages(images(20), noise=jnp.asarray(0.1)).sample_batch(200, key=jax.random.key(0))
    residual = np.asarray(noisy.x) - np.round(np.asarray(noisy.x))
    assert abs(residual.std() - 0.1) < 0.01


@pytest.mark.parametrize("replacement", [False, True])
def test_few_shot_prompts(replacement):
    prompts = FewShot(images(10), replacement=replacement).sample_batch(N, key=jax.random.key(0))
    classes, y = np.asarray(prompts.x[..., 0], int), np.asarray(prompts.y)
    assert (y[:, :8].sum(1) == 4).all() and abs(y[:, 8].mean() - 0.5) < 0.05
    same = np.array([len(set(row)) == 1 for row in classes])
    assert abs(same.mean() - 0.1) < 0.03 if replacement else not same.any()
    for row, labels in zip(classes[:50], y[:50], strict=True):
        for label in (0, 1):
            assert len(set(row[labels == label])) == 1


def test_chan_few_shot_ceiling():
    """Knowing every image, but not which of two labels a class shown under both has: .95 with replacement of 10."""
    for replacement, ceiling in ((True, 0.95), (False, 1.0)):
        prompts = FewShot(images(10), replacement=replacement).sample_batch(N, key=jax.random.key(3))
        classes, y = np.asarray(prompts.x[..., 0], int), np.asarray(prompts.y)
        votes = ((classes[:, :8] == classes[:, 8:]) * (2 * y[:, :8] - 1)).sum(1)
        right = np.where(votes == 0, 0.5, (votes > 0) == y[:, 8]).mean()
        assert abs(right - ceiling) < 5 * np.sqrt(0.05 / N) * replacement + 1e-12


def test_chan_no_support():
    law = 1 / np.arange(1, 7)
    law /= law.sum()
    prompts = NoSupport(images(6), zipf=1.0, polysemy=2).sample_batch(N, key=jax.random.key(0))
    classes, y = np.asarray(prompts.x[..., 0], int), np.asarray(prompts.y)
    context, query = classes[:, :8], classes[:, 8]
    assert not (context == query[:, None]).any()
    np.testing.assert_array_equal(y // 2, classes)
    np.testing.assert_allclose(np.bincount(query, minlength=6) / N, law, atol=0.05)
    for q in range(3):  # given the query, the law without it
        share = np.bincount(context[query == q].ravel(), minlength=6) / (8 * (query == q).sum())
        np.testing.assert_allclose(share, law * (np.arange(6) != q) / (1 - law[q]), atol=0.04)
    common = NoSupport(images(6), zipf=1.0, n_common=2).sample_batch(N, key=jax.random.key(0))
    query = np.asarray(common.x[:, 8, 0], int)
    assert abs(query.mean() - 0.5) < 0.05 and query.max() == 1
    with pytest.raises(BadInput, match="n_common"):
        NoSupport(images(6), n_common=7)


def test_two_pairs():
    pairs, held_out = split_label_pairs(5, 2, key=jax.random.key(0))
    assert pairs.shape == (8, 2) and held_out.shape == (2, 2) and len(np.unique(pairs)) == 5
    assert not {tuple(p) for p in pairs.tolist()} & {tuple(p) for p in held_out.tolist()}
    task = TwoPairs(images(6), pairs)
    prompts = task.sample_batch(N, key=jax.random.key(1))
    classes, y = np.asarray(prompts.x[..., 0], int), np.asarray(prompts.y)
    assert (classes[:, 0] != classes[:, 1]).all()
    asked = (classes[:, 1] == classes[:, 2]).astype(int)
    assert (classes[np.arange(N), asked] == classes[:, 2]).all()
    np.testing.assert_array_equal(y[np.arange(N), asked], y[:, 2])
    allowed = {tuple(sorted(p)) for p in pairs.tolist()}
    assert {tuple(sorted(row)) for row in y[:, :2].tolist()} == allowed
    assert abs(asked.mean() - 0.5) < 0.05 and abs((y[:, 0] < y[:, 1]).mean() - 0.5) < 0.05
    every = every_two_pairs(images(6)[:, 0], pairs)
    assert every.x.shape[0] == 6 * 5 * 8 * 2 * 2 and 50 * 49 * 8 * 2 * 2 == 78_400
    rows = {(*x, *labels) for x, labels in zip(every.x[..., 0].tolist(), every.y.tolist(), strict=True)}
    assert len(rows) == every.x.shape[0]


def test_repeated_tokens_and_their_model():
    task = RepeatedTokens(9, period=4, repeats=3)
    prompts = task.sample_batch(50, key=jax.random.key(0))
    tokens = np.asarray(prompts.tokens)
    assert tokens.shape == (50, 13) and not tokens[:, 0].any()
    blocks = tokens[:, 1:].reshape(50, 3, 4)
    assert (blocks == blocks[:, :1]).all() and all(len(set(row)) == 4 for row in blocks[:, 0].tolist())
    assert blocks.min() == 1 and blocks.max() == 8
    model = Learner(olsson(9, 13, 8, n_heads=2), TokenLayout())(key=jax.random.key(0))
    answers = eqx.filter_jit(answer_tokens)
    logits = answers(model, prompts)
    assert logits.shape == (50, 13, 9)
    other = TokenPrompt(prompts.tokens.at[:, 7:].set(1), prompts.loss_mask)
    np.testing.assert_allclose(answers(model, other)[:, :7], logits[:, :7], atol=1e-5)
    with pytest.raises(BadInput, match="period"):
        RepeatedTokens(4, period=4)
    with pytest.raises(BadInput, match="shortest"):
        RepeatedTokens(9, period=4, shortest=5)


def test_every_prompt_has_a_period_of_its_own():
    tokens = np.asarray(
        RepeatedTokens(9, period=5, repeats=4, shortest=3).sample_batch(N, key=jax.random.key(0)).tokens
    )
    assert tokens.shape == (N, 21) and not tokens[:, 0].any()
    rest = tokens[:, 1:]
    periods = np.array([next(p for p in range(1, 21) if (row[p:] == row[:-p]).all()) for row in rest])
    assert all(len(set(row[:p])) == p for row, p in zip(rest.tolist(), periods, strict=True))
    assert np.abs(np.bincount(periods, minlength=6)[3:] / N - 1 / 3).max() < 5 * np.sqrt(2 / 9 / N)
