"""The sizes that a reproduction of von Oswald et al. (2022) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes; `steps_*` and `batch_*` by experiment. Defaults are those of the released code."""

    seeds: int = 5
    n_eval: int = 10_000
    n_spectra: int = 200_000  # for the losses of GD and GD++: few contexts with large eigenvalues weigh much
    steps: int = 5_000
    batch: int = 2_048
    sizes: tuple[int, ...] = (2, 5, 20, 40)  # further N = d
    steps_sizes: int = 5_000
    batch_sizes: int = 2_048
    steps_two: int = 5_000
    batch_two: int = 2_048
    steps_five: int = 50_000
    batch_five: int = 2_048
    steps_softmax: int = 5_000
    batch_softmax: int = 2_048
    steps_sine: int = 20_000
    batch_sine: int = 2_048
    steps_separate: int = 10_000
    batch_separate: int = 2_048
    rate_two: float = 1e-3
    rate_five: float = 5e-4
    rates_sine: tuple[float, float] = (1e-3, 3e-4)  # transformer; MLP before a fixed gradient step
    optimiser_sizes: str = "adam"
    rate_sizes: float = 1e-3
    optimiser_softmax: str = "adam"
    rate_softmax: float = 1e-3
    optimiser_separate: str = "adam"
    rate_separate: float = 1e-3
    init_separate: float = 0.02
    decay: bool = False  # whether these rates fall to zero
