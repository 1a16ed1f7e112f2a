"""The sizes that a reproduction of Dherin et al. (2025) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments."""

    seeds: int = 3  # of the trainings
    n_blocks: int = 20  # random blocks per identity
    d_model: int = 32
    d_mlp: int = 128
    n_heads: int = 4
    n_context: int = 50
    depth: int = 10
    steps: int = 1_500
    batch: int = 128
    n_eval: int = 100  # prompts of every measurement, as published
    deep_steps: int = 150
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    calibration: tuple[int, ...] = (1, 2, 3, 5, 10, 25, 50)
    n_contexts: int = 20  # prompts for which thought patches are fitted
