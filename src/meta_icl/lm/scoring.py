"""What a language model's probabilities say about answers: scores of labels, calibration, accuracy, AUC, losses.

Everything here is of arrays: log-probabilities row by row, where row i is the distribution of token i + 1. Logarithms
are natural, losses in nats. Intervals are over prompts.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata

from meta_icl.errors import require
from meta_icl.evaluation.by_position import Band


def answer_log_probabilities(
    log_probabilities: Float[np.ndarray, "t v"], tokens: Int[np.ndarray, " t"], spans: Sequence[tuple[int, int]]
) -> Float[np.ndarray, " answers"]:
    """The log-probability of each whole answer in a prompt: the sum over its tokens start .. stop - 1.

    Raises `BadInput` for an answer that is empty, or begins the prompt and so is predicted by nothing.
    """
    for start, stop in spans:
        require(1 <= start < stop <= len(tokens), "span of an answer", (start, stop), f"within 1 .. {len(tokens)}")
    steps = log_probabilities[np.arange(len(tokens) - 1), tokens[1:]]
    return np.array([steps[start - 1 : stop - 1].sum(dtype=np.float64) for start, stop in spans])


def calibrated(
    scores: Float[np.ndarray, "... labels"], without_content: Float[np.ndarray, "... labels"]
) -> Float[np.ndarray, "... labels"]:
    """Scores of labels less those for a question without content, so that a liking for a label cancels.

    softmax(result) is proportional to p(label | prompt) / p(label | the same context, no content): contextual
    calibration (Zhao et al., 2021).
    """
    return scores - without_content


def calibrated_by_prior(scores: Float[np.ndarray, "prompts labels"]) -> Float[np.ndarray, "prompts labels"]:
    """Scores of labels less the logarithm of each label's mean probability over the prompts, normalised over labels."""
    normalised = log_softmax(scores, axis=-1)
    return normalised - (logsumexp(normalised, axis=0) - np.log(len(scores)))[None]


def correct(
    scores: Float[np.ndarray, "*prompts labels"], targets: Int[np.ndarray, "*prompts"]
) -> Float[np.ndarray, "*prompts"]:
    """One where the target has the highest score, a share of one where it ties with others, else zero."""
    own = np.take_along_axis(scores, targets[..., None], -1)
    best = scores >= scores.max(-1, keepdims=True)
    return (own[..., 0] >= scores.max(-1)) / best.sum(-1)


def label_losses(
    scores: Float[np.ndarray, "*prompts labels"], targets: Int[np.ndarray, "*prompts"]
) -> Float[np.ndarray, "*prompts"]:
    """Minus the log-probability of the target among the labels; log(number of labels) for one that knows nothing."""
    return -np.take_along_axis(log_softmax(scores, axis=-1), targets[..., None], -1)[..., 0]


def auc(scores: Float[np.ndarray, "prompts labels"], targets: Int[np.ndarray, " prompts"]) -> float:
    """The area under the curve of true against false positives; ties count half, and NaN where a class is missing.

    With two labels: the probability that a prompt of label 1 has a greater score of 1 less score of 0 than one of label
    0. With more: the mean over labels of each against the rest, by its log-probability among the labels.
    """
    return float(_areas(scores, targets))


def _areas(
    scores: Float[np.ndarray, "*sets prompts labels"], targets: Int[np.ndarray, "*sets prompts"]
) -> Float[np.ndarray, "*sets"]:
    """The areas of several sets of prompts at once."""
    if scores.shape[-1] == 2:
        return _in_order(scores[..., 1] - scores[..., 0], targets == 1)
    among = log_softmax(scores, axis=-1)
    each = [_in_order(among[..., label], targets == label) for label in range(scores.shape[-1])]
    return np.asarray(np.mean(each, axis=0))


def _in_order(
    values: Float[np.ndarray, "*sets n"], positive: Bool[np.ndarray, "*sets n"]
) -> Float[np.ndarray, "*sets"]:
    """The share of pairs of a positive and a negative that are in order, by the sum of ranks (Mann and Whitney)."""
    n = positive.sum(-1)
    pairs = np.asarray(n * (positive.shape[-1] - n), np.float64)
    ranks = np.where(positive, rankdata(values, axis=-1), 0).sum(-1)
    return np.asarray((ranks - n * (n + 1) / 2) / np.where(pairs > 0, pairs, np.nan))


def auc_band(
    scores: Float[np.ndarray, "prompts labels"],
    targets: Int[np.ndarray, " prompts"],
    *,
    resamples: int = 1000,
    level: float = 0.9,
    seed: int = 0,
) -> Band:
    """The area with its percentile interval over resampled prompts; resamples without one of the classes are left out.

    For means over prompts (accuracy, losses) see `evaluation.bootstrap`.
    """
    require(0 < level < 1, "level", level, "between 0 and 1")
    rng, n = np.random.default_rng(seed), len(targets)
    drawn = rng.integers(n, size=(resamples, n))
    areas = _areas(scores[drawn], targets[drawn])
    areas = areas[~np.isnan(areas)]
    ends = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2]) if len(areas) else [np.nan, np.nan]
    return Band(np.array(auc(scores, targets)), np.array(ends[0]), np.array(ends[1]))
