"""The sizes that a reproduction of Innocenti & Achour (2025) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments; `variants` are (name, changes of the setting)."""

    seeds: int = 3
    steps: int = 100
    batch: int = 128
    n_eval: int = 16
    n_context: int = 50
    n_heads: int = 3  # of one block's attention; it divides the width d + 1 of every d here
    variants: tuple[str, ...] = ("default", "1 block", "d = 5", "d = 8", "layer norm")
