"""The sizes that a reproduction of He et al. (2025) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments. `rate` falls linearly to zero over `steps` if `decays`."""

    heads: tuple[int, ...] = (1, 2, 4, 8)
    seeds: int = 5
    steps: int = 12_000
    batch: int = 128
    rate: float = 0.01
    decays: bool = True
    n_eval: int = 50_000
    eval_sets: int = 5
    flow_heads: tuple[int, ...] = (1, 2, 4)
    flow_seeds: int = 5
    flow_end: float = 100_000.0
    task_heads: tuple[int, ...] = (3, 4)
    task_seeds: int = 2
    task_steps: int = 8_000
    skewed_seeds: int = 2
