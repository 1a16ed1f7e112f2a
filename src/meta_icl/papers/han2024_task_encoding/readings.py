"""What claims and figures read of a finished run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.runs import Run, read_json

LEARNERS = ("known", "bayes", "ridge")  # of the optimal curves: who knows the block, infers it, knows of none


def seeds_of(run: Run, mixture: str) -> list[dict[str, np.ndarray]]:
    """What every seed on a mixture left behind."""
    return [part.load_arrays("result") for name, part in run.parts().items() if name.startswith(f"{mixture}-seed")]


def published() -> dict[str, Any]:
    """The tabulated numbers of the optimal learners, `known`, `bayes` and `ridge`."""
    return read_json(Path(__file__).with_name("published.json"))


@dataclass(frozen=True)
class Moments:
    """Records of one seed: the first at which every task is learned (-1: never), a before the first, b, and the end."""

    learned: np.ndarray
    before: int | None
    between: int | None
    lead: float  # share of training by which the first task leads the second


def moments(arrays: Mapping[str, np.ndarray], optimal: Mapping[str, np.ndarray], size: str = "own") -> Moments:
    """When the tasks of one seed are learned; b lies half-way between the first and the second task."""
    half = (optimal[f"{size}_ridge"].mean() + optimal[f"{size}_bayes"].mean()) / 2
    low = arrays["error"].mean(2) < half
    learned = np.where(low.any(0), low.argmax(0), -1)
    order = np.sort(learned[learned >= 0])
    if not len(order):
        return Moments(learned, None, None, 0.0)
    second = order[1] if len(order) > 1 else len(low) - 1
    between = int(order[0] + second) // 2
    before = int(order[0]) - 1 if order[0] > 0 else None
    lead = float(arrays["step"][second] - arrays["step"][order[0]]) / float(arrays["step"][-1])
    return Moments(learned, before, between if second - order[0] >= 2 else None, lead)
