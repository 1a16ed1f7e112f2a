"""What claims and figures read of a finished run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_icl.analysis import improvement, learning_phase
from meta_icl.runs import Run

from .config import Training
from .experiments import ENDS

Found = dict[Training, dict[str, np.ndarray]]


def trainings_of(run: Run) -> Found:
    """What every training left behind."""
    parts = [part for part in run.parts().values() if part.config["arguments"]["kind"] == "training"]
    return {Training(**part.config["arguments"]["training"]): part.load_arrays("result") for part in parts}


def of_study(found: Found, *studies: str, **fields: Any) -> Found:
    """The trainings of some studies with the given settings."""
    return {
        t: a for t, a in found.items()
        if t.study in studies and all(getattr(t, name) == value for name, value in fields.items())
    }  # fmt: skip


def end(curve: np.ndarray) -> float:
    """The mean accuracy at the last positions."""
    return float(curve[-min(ENDS, max(1, len(curve) // 2)) :].mean())


def gains(a: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The improvement within the sequence, by set."""
    window = min(ENDS, max(1, len(a["curve_seen"]) // 2))
    names = [key for key in a if key.startswith("curve_")]
    # One position at the start, where nothing has been seen yet; several at the end.
    return {n.removeprefix("curve_"): improvement(np.append(a[n][:1], a[n][-window:].mean())) for n in names}


def phase(t: Training, a: Mapping[str, np.ndarray]) -> str:
    """The phase of a training by the published definitions."""
    found = gains(a)
    return learning_phase(found["seen"], found["unseen"], chance=1 / t.n_labels)
