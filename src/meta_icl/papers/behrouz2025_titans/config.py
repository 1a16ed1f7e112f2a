"""The sizes that a reproduction of Behrouz et al. (2025) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments: `length` tokens of a training prompt, `lengths` of the sequences that are timed.

    `arenas` are of `experiments.PLAYED`. `steps` are those of "mqar" and, twice as many, of "overwrite"; `long_steps`
    those of the others.
    """

    arenas: tuple[str, ...] = ("mqar", "overwrite")
    seeds: int = 3
    steps: int = 600
    long_steps: int = 2_000
    batch: int = 32
    rates: tuple[float, ...] = (1e-2,)
    d_model: int = 32
    n_layers: int = 2
    length: int = 32
    chunk_size: int = 16
    n_eval: int = 500
    n_ladder: int = 1_000
    d_ladder: int = 20
    lengths: tuple[int, ...] = (256, 512, 1024, 2048)
