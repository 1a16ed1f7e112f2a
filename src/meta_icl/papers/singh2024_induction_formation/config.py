"""The sizes that a reproduction of Singh et al. (2024) is configured by."""

from dataclasses import dataclass

HEADS = 8
CLAMPS: dict[str, tuple[tuple[str, ...], tuple[int, ...] | None]] = {
    "free": ((), None),
    "layer1": (("layer1",), None),
    "match": (("match",), None),
    "layer1+copy": (("layer1", "copy"), (0,)),
    **{f"only {h}": ((), (h,)) for h in range(HEADS)},
}


@dataclass(frozen=True)
class Config:
    """Sizes; `conditions` are of `CLAMPS`, `classes` and `labels` the sweeps of S10."""

    seeds: int = 3
    steps: int = 31_250
    batch: int = 32
    learning_rate: float = 1e-5
    conditions: tuple[str, ...] = ("layer1", "match", "layer1+copy", "only 0", "only 3")
    classes: tuple[int, ...] = (100,)
    labels: tuple[int, ...] = (10,)
    n_classes: int = 50
    records: int = 80
    n_eval: int = 1_024
    n_final: int = 8_192
    toy_seeds: int = 8
