"""The sizes that a reproduction of Mazzawi et al. (2025) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments."""

    seeds: int = 3
    steps: int = 1_500
    batch: int = 64
    n_context: int = 20
    n_contexts: int = 20  # prompts for which patches are fitted
    n_test: int = 100  # held-out queries per prompt
    calibration: tuple[int, ...] = (1, 4, 16, 64, 256)
    ridge: float = 0.01
