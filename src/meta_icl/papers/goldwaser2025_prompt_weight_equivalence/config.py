"""The sizes that a reproduction of Goldwaser et al. (2025) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments."""

    seeds: int = 3  # of the trained language model
    n_blocks: int = 20  # random blocks per identity
    d_model: int = 32
    d_mlp: int = 128
    n_heads: int = 4
    n_context: int = 50
    depth: int = 10
    steps: int = 1_500
    batch: int = 64
    n_prompts: int = 50
    n_new: int = 16  # generated tokens
    n_tokens: int = 16
    length: int = 8  # of the sequence that is repeated
