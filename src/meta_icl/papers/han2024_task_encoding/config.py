"""The sizes that a reproduction of Han et al. (2024) is configured by."""

from dataclasses import dataclass

MIXTURES = ("blocks", "six", "overlapping", "families")


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments; `mixtures` are the training distributions."""

    seeds: int = 3
    d: int = 4
    rank: int = 1
    rows: int = 6
    noise_variance: float = 0.01  # the paper writes N(0, 0.01) and does not say whether that is a variance
    width: int = 64
    layers: int = 4
    heads: int = 4
    mixtures: tuple[str, ...] = ("blocks",)
    steps: int = 24_000
    batch: int = 32
    optimiser: str = "muon"
    learning_rate: float = 3e-3
    b2: float = 0.999
    decay: bool = True
    init_std: float = 0.125  # 1 / sqrt(64); GPT-2's 0.02 is for wider networks
    per_task: int = 100  # prompts per task for decodability
    per_task_patched: int = 30
    n_eval: int = 4_000
    n_baseline: int = 20_000
