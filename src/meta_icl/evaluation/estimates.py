"""Means with what their uncertainty covers: the draw of prompts, and the draw of seeds where there are several."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array
from scipy import stats

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over prompts and members, its standard error over prompts, the means of the members, and their error.

    `error` says how far the mean would move with other prompts and these very networks; `seeds_error`, the standard
    error of the mean over members, how far it would move with other seeds (NaN for a single predictor).
    """

    mean: float
    error: float
    members: tuple[float, ...]
    seeds_error: float = float("nan")

    @property
    def over_prompts(self) -> tuple[float, float]:
        """The 95 % interval of the mean over prompts."""
        half = float(stats.norm.ppf((1 + LEVEL) / 2)) * self.error
        return self.mean - half, self.mean + half

    @property
    def over_seeds(self) -> tuple[float, float]:
        """The 95 % interval of the mean over seeds, by Student's t; NaN for a single predictor."""
        n = len(self.members)
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * self.seeds_error if n > 1 else float("nan")
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "-"
        known = [high - self.mean for _, high in (self.over_prompts, self.over_seeds) if not np.isnan(high)]
        return f"{self.mean:.4g}" + (f" ± {' | '.join(f'{half:.1g}' for half in known)}" if known else "")


def covered(n_prompts: int, n_seeds: Sequence[int]) -> str:
    """What the intervals of printed estimates cover, for predictors of so many members each."""
    several = sorted({n for n in n_seeds if n > 1})
    seeds = f", after | over {' or '.join(map(str, several))} seeds" if several else ""
    return f"± 95 % over {n_prompts} prompts{seeds}"


def estimate(per_prompt: Sequence[Array]) -> Estimate:
    """Mean over members and prompts; all members share the draws of prompts."""
    if not len(per_prompt):
        return Estimate(float("nan"), float("nan"), ())
    values = np.stack([np.asarray(values, np.float64) for values in per_prompt])
    over_members = values.mean(0)
    error = over_members.std(ddof=1) / np.sqrt(over_members.size)
    return with_members(float(values.mean()), float(error), values.mean(1))


def ratio(losses: Sequence[Array], base: Array) -> Estimate:
    """Ratio of mean losses to that of `base` on the same prompts, with its paired standard error (delta method)."""
    values = np.stack([np.asarray(loss, np.float64) for loss in losses])
    mean_loss, reference = values.mean(0), np.asarray(base, np.float64)
    whole = mean_loss.mean() / reference.mean()
    residual = (mean_loss - whole * reference) / reference.mean()
    error = residual.std(ddof=1) / np.sqrt(residual.size)
    return with_members(float(whole), float(error), values.mean(1) / reference.mean())


def with_members(mean: float, error: float, members: np.ndarray) -> Estimate:
    """An estimate with the standard error over its members."""
    n = len(members)
    over_seeds = float(members.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Estimate(mean, error, tuple(members.tolist()), over_seeds)
