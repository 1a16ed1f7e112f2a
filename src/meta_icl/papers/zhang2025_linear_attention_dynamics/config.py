"""The sizes that a reproduction of Zhang et al. (2025) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments; an empty tuple leaves an experiment out. Times are in units of tau."""

    seeds: int = 6
    points: int = 3_000
    separate_init: float = 0.02
    separate_end: float = 200_000.0
    white: tuple[int, ...] = (2, 4)
    ranks: tuple[int, ...] = (1, 2, 4, 8)
    rank_seeds: int = 6
    rank_init: float = 0.05
    rank_end: float = 1_000_000.0
    few_heads: tuple[int, ...] = (1, 2, 3)
    few_heads_end: float = 50_000.0
    inits: tuple[float, ...] = (0.08, 0.04, 0.02)
    n_prompts: int = 80_000
    sampled_steps: int = 100_000
    merged_prompts: int = 5_000
    merged_steps: int = 6_000
    mlp_steps: int = 600
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    mixture_steps: int = 4_000
    softmax_steps: int = 6_000
    softmax_prompts: int = 600
    softmax_seeds: int = 5
