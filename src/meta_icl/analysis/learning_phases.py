"""What a meta-trained learner has become: memory, task identification, or a general learner (Kirsch et al., 2022)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from meta_icl.errors import require

Numbers = Num[np.ndarray, "..."]
FAILED, MEMORISATION = "failed", "memorisation"
IDENTIFICATION, GENERAL = "task identification", "general learning to learn"
PHASES = (FAILED, MEMORISATION, IDENTIFICATION, GENERAL)
MARGIN = 0.05  # of improvements, as published
ABOVE_CHANCE = 0.1  # how far the first accuracy of a memoriser is above chance ("well above", no number published)


class Improvement(NamedTuple):
    """The accuracy without and at the end of the context; the difference is the within-sequence improvement."""

    start: float
    end: float

    @property
    def gain(self) -> float:
        """end - start."""
        return self.end - self.start


def improvement(accuracy: Numbers, window: int = 1) -> Improvement:
    """Of an accuracy by number of examples, "n": the means of the first and of the last `window` positions."""
    curve = np.asarray(accuracy, np.float64)
    require(curve.ndim == 1 and len(curve) >= 2, "accuracy", curve.shape, "at least two positions")
    require(1 <= window <= len(curve) // 2, "window", window, f"from 1 to half of {len(curve)} positions")
    return Improvement(float(curve[:window].mean()), float(curve[-window:].mean()))


def learning_phase(seen: Improvement, unseen: Improvement, *, chance: float) -> str:
    """The phase by the published definitions, with I the gain on seen and unseen tasks.

    General learning: I(unseen) > 0.05. Task identification: I(seen) > 0.05 only. Memorisation: neither, but a first
    accuracy on seen tasks well above chance. Else: failed.
    """
    require(0 < chance < 1, "chance", chance, "between 0 and 1")
    if unseen.gain > MARGIN:
        return GENERAL
    if seen.gain > MARGIN:
        return IDENTIFICATION
    return MEMORISATION if seen.start > chance + ABOVE_CHANCE else FAILED


def learns_in_general(seen: Improvement, unseen: Improvement, other: Improvement) -> bool:
    """The full sense of general learning: also another data set improves, and seen and unseen tasks do so alike."""
    return unseen.gain > MARGIN and other.gain > MARGIN and abs(seen.gain - unseen.gain) < MARGIN


def plateau_length(steps: Numbers, losses: Numbers, n_labels: int, *, delta: float = 0.05) -> float:
    """The first step at which the loss is below ln(n_labels) - delta nats; infinite if it never is."""
    below = np.flatnonzero(np.asarray(losses) < np.log(n_labels) - delta)
    return float(np.asarray(steps)[below[0]]) if len(below) else float("inf")


class PowerLaw(NamedTuple):
    """log y = slope log x + intercept by least squares, and the share of the variance of log y that it explains."""

    slope: float
    intercept: float
    r_squared: float


def power_law(x: Numbers, y: Numbers) -> PowerLaw:
    """The power law through positive points of which at least two differ in x."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    good = a.shape == b.shape and bool((a > 0).all() and (b > 0).all() and np.isfinite([a, b]).all())
    require(good and len(set(a.tolist())) >= 2, "x and y", "others", "positive, finite, and at least two different x")
    slope, intercept = np.polyfit(np.log(a), np.log(b), 1)
    residual = np.log(b) - slope * np.log(a) - intercept
    total = np.square(np.log(b) - np.log(b).mean()).sum()
    return PowerLaw(float(slope), float(intercept), float(1 - np.square(residual).sum() / total) if total else 1.0)
