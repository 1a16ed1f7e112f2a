"""What claims read of a finished run, and the form that they share."""

from collections.abc import Mapping

import numpy as np

from meta_icl.runs.claims import Check, Claim, Converged

from .config import Training

Trained = Mapping[str, tuple[Training, dict[str, np.ndarray]]]  # by the name of the part
OURS = 8  # up to this d, trainings belong to this laboratory's small forms of ladders published from d = 10 on


def claim(
    id: str,
    statement: str,
    source: str,
    checks: list[Check],
    undecided: str | None = None,
    converged: Converged | None = None,
    revised: str | None = None,
) -> Claim:
    """A claim; without checks it is undecided for the reason given."""
    why, id = None if checks else undecided, f"garg2022/{id}"
    return Claim(id, statement, source, tuple(checks), undecided=why, converged=converged, revised=revised)


def first_step(arrays: Mapping[str, np.ndarray], d: int) -> np.ndarray:
    """For every seed the first recorded step with e < 0.1 at 2d examples (infinite if none)."""
    low = arrays["error"][:, :, 2 * d] < 0.1
    return np.where(low.any(0), arrays["step"][low.argmax(0)], np.inf)
