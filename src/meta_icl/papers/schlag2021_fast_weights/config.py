"""The sizes that a reproduction of Schlag et al. (2021) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes: `d` inputs and 2 d pairs for one layer; `length` tokens of recall; `style_steps` for linear functions.

    `single_steps` are those of one layer with and without convolution; every one of `widths` meets all of `lengths`.
    Every mixer has the best of `rates`, on linear functions of `style_rates`.
    """

    seeds: int = 3
    d: int = 10
    rule_steps: int = 15_000
    rule_batch: int = 64
    rule_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    rule_eval: int = 20_000
    steps: int = 2_500
    single_steps: int = 600
    style_steps: int = 800
    batch: int = 32
    rates: tuple[float, ...] = (1e-2,)
    style_rates: tuple[float, ...] = (3e-3, 1e-2)
    d_model: int = 32
    length: int = 32
    chunk_size: int = 16
    n_eval: int = 500
    widths: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
