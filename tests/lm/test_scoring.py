"""Scores of answers, against loops and scikit-learn."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from meta_icl.errors import BadInput
from meta_icl.lm.scoring import (
    answer_log_probabilities,
    auc,
    auc_band,
    calibrated,
    calibrated_by_prior,
    correct,
    label_losses,
)


def test_the_whole_answer_counts():
    """The probability of an answer is the product over its tokens, each predicted by the row before it."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), size=7)
    tokens = np.array([0, 3, 1, 4, 2, 2, 1])
    found = answer_log_probabilities(np.log(p), tokens, [(1, 2), (3, 6), (6, 7)])
    wanted = [p[0, 3], p[2, 4] * p[3, 2] * p[4, 2], p[5, 1]]
    np.testing.assert_allclose(np.exp(found), wanted)
    for span in ((0, 1), (2, 2), (3, 8)):
        with pytest.raises(BadInput, match=r"span of an answer must be within 1 \.\. 7"):
            answer_log_probabilities(np.log(p), tokens, [span])


def test_calibration_cancels_a_liking():
    """If p(label | prompt) is proportional to truth times liking, what is left is the truth."""
    rng = np.random.default_rng(0)
    truth, liking = rng.dirichlet(np.ones(3), size=6), np.array([0.7, 0.2, 0.1])
    seen = truth * liking / (truth * liking).sum(1, keepdims=True)
    left = np.exp(calibrated(np.log(seen), np.broadcast_to(np.log(liking), seen.shape)))
    np.testing.assert_allclose(left / left.sum(1, keepdims=True), truth)


def test_calibration_by_the_prior():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(9, 3)) + 5
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(calibrated_by_prior(scores)), p / p.mean(0))


def test_accuracy_and_loss():
    scores = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.1, 0.1, 0.8], [1, 1, 1]]))
    targets = np.array([0, 2, 1, 0])
    np.testing.assert_allclose(correct(scores, targets), [1, 0.5, 0, 1 / 3])
    np.testing.assert_allclose(label_losses(scores, targets), -np.log([0.5, 0.4, 0.1, 1 / 3]))
    # over shots as well: "prompts shots labels"
    np.testing.assert_allclose(correct(scores[:, None], targets[:, None])[:, 0], correct(scores, targets))


def test_auc_of_two_labels():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 40)
    scores = rng.normal(size=(40, 2)).round(1) + 0.5 * np.eye(2)[targets]  # rounding makes ties
    margins = scores[:, 1] - scores[:, 0]
    pairs = itertools.product(margins[targets == 1], margins[targets == 0])
    wanted = np.mean([float(a > b) + 0.5 * float(a == b) for a, b in pairs])
    assert auc(scores, targets) == pytest.approx(wanted)
    assert auc(scores, targets) == pytest.approx(roc_auc_score(targets, margins))
    assert np.isnan(auc(scores, np.zeros(40, int)))


def test_auc_of_more_labels():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 60)
    p = rng.dirichlet(np.ones(4), size=60) + np.eye(4)[targets]
    p /= p.sum(1, keepdims=True)
    assert auc(np.log(p) + 3, targets) == pytest.approx(roc_auc_score(targets, p, multi_class="ovr"))


def test_the_interval_of_an_auc_has_its_coverage():
    """Normal scores d apart have the area Phi(d / sqrt 2); 90 % of the intervals should hold it."""
    rng, held = np.random.default_rng(0), 0
    for seed in range(40):
        targets = np.arange(60) % 2
        scores = np.stack([np.zeros(60), rng.normal(size=60) + targets], 1)
        band = auc_band(scores, targets, resamples=100, seed=seed)
        held += bool(band.low <= 0.7602 <= band.high)
    assert 40 * 0.9 - 4 * np.sqrt(40 * 0.09) <= held
    assert band.low < band.mean < band.high
    with pytest.raises(BadInput, match="level must be between 0 and 1, got 1"):
        auc_band(scores, targets, level=1.0)
