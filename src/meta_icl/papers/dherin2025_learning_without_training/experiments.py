"""The parts of a run: identities on random blocks, trained blocks, thought patches."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from meta_icl.runs import Run
from meta_icl.sweeps import run_parts

from .config import Config
from .identities import PRECISIONS, identities
from .thoughts import random_thoughts
from .trained import train_deep, train_shallow

Exact = Mapping[str, Mapping[str, np.ndarray]]  # errors by precision and name
ANY_WEIGHTS = (
    "An identity: it holds for these random, untrained weights as for any others and says nothing of learning."
)


def run(config: Config, run: Run) -> None:
    """Check the identities on random blocks, and train the blocks of the experiments."""
    shared = asdict(config)
    parts: dict[str, dict[str, Any]] = {
        "deep": {"kind": "deep", "config": shared},
        "recurrent": {"kind": "shallow", "mixer": "recurrent", "config": shared},
        "attention": {"kind": "shallow", "mixer": "attention", "config": shared},
        "thought-random": {"kind": "thought", "config": shared},
    }
    parts |= {f"identities-{name}": {"kind": "identities", "precision": name, "config": shared} for name in PRECISIONS}
    run_parts(run, compute_part, parts)


def compute_part(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part of the run."""
    kinds = {"identities": identities, "shallow": train_shallow, "deep": train_deep, "thought": random_thoughts}
    c = Config(**{name: tuple(value) if isinstance(value, list) else value for name, value in config.items()})
    with jax.default_matmul_precision("highest"):  # identities hold to the precision of the arithmetic
        return kinds[kind](part, c, **arguments)
