"""The sizes that a reproduction of Rossi et al. (2024) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments; an empty tuple leaves an experiment out.

    `stacks` are (attention, layers, context) of the deeper transformers; `lstms` are (layers, bidirectional).
    """

    seeds: int = 3
    n_eval: int = 10_000
    n_final: int = 100_000  # for the final losses: 10,000 prompts leave an error of 1.5 %
    n_rollout: int = 10_000
    contexts: tuple[int, ...] = (2, 10, 20, 50, 100)
    steps: int = 3_000
    batch: int = 512
    wide: tuple[int, ...] = (10, 50)  # contexts at D = 10, for the roll-outs and the rate sweep
    wide_steps: int = 1_600
    wide_batch: int = 2_048
    stacks: tuple[tuple[str, int, int], ...] = ()
    stack_steps: int = 3_000  # per layer
    stack_batch: int = 256
    softmax_steps: int = 5_000
    softmax_batch: int = 64
    softmax_optimiser: str = "adam"
    softmax_rate: float = 1e-3
    lstms: tuple[tuple[int, bool], ...] = ()
    lstm_steps: int = 25_000
    lstm_batch: int = 64
    lstm_optimiser: str = "adam"
    lstm_rate: float = 1e-3
    lstm_decay: bool = False  # whether this rate falls to zero
    d_hidden: int = 64
