"""The sizes that a reproduction of Ahn et al. (2023) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments. `raw_steps` is the number of Adam steps in the given skewed coordinates, 0 for none."""

    seeds: int = 5
    one_layer_steps: int = 3_000
    one_layer_batch: int = 256
    contexts: int = 4_000
    contexts_without_b: int = 100_000
    contexts_first: int = 12_000
    held_out: int = 40_000
    validation: int = 40_000  # contexts by which a restart is picked, neither trained on nor reported
    iterations: int = 400
    depths: tuple[int, ...] = (1, 2, 3, 4)
    contexts_lengths: tuple[int, ...] = (2, 5, 10, 20)
    length_seeds: int = 5
    adam_steps: int = 11_500
    adam_batch: int = 256
    adam_seeds: int = 5
    gradient_contexts: int = 40_000
    raw_steps: int = 0
    raw_batch: int = 0
