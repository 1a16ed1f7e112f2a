"""The sizes that a reproduction of Olsson et al. (2022) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the task, the models and the training."""

    seeds: int = 3
    steps: int = 4_000
    batch: int = 32
    learning_rate: float = 1e-3
    n_tokens: int = 64
    period: int = 25
    shortest: int = 13
    width: int = 64
    heads: int = 4
    records: int = 80
    n_eval: int = 64
