"""The sizes that a reproduction of Reddy (2023) is configured by."""

from dataclasses import dataclass
from typing import Any

ABRUPT = {"n_classes": 256, "p_novel": 0.8}
SETTINGS: dict[str, dict[str, Any]] = {
    "abrupt": ABRUPT,
    "L=N": ABRUPT | {"n_labels": 8},
    **{f"B={b}": {"n_classes": 512, "repeats": b} for b in (1, 2, 4)},
    **{f"K={k}": {"n_classes": k, "repeats": 2} for k in (128, 256, 1024, 2048)},
    **{f"eps={e}": {"n_classes": 1024, "eps": e} for e in (0.0, 0.25, 0.5, 0.75)},
    **{f"alpha={a}": {"n_classes": 1024, "alpha": a, "p_bursty": 0.5} for a in (0.0, 0.5, 1.0, 1.5)},
    "long": {"n_classes": 512, "repeats": 2},  # "B=2" until what is learned in weights catches up
}
SWEPT = tuple(name for name in SETTINGS if name not in ("abrupt", "L=N", "long"))
ENDS = ("K=128", "K=2048", "eps=0.0", "eps=0.75", "alpha=1.0")


@dataclass(frozen=True)
class Config:
    """Sizes; `main` are the settings of `seeds` and `steps`, `extra` and `long` others with steps of their own."""

    seeds: int = 2
    steps: int = 40_000
    main: tuple[str, ...] = ("abrupt",)
    extra: tuple[str, ...] = ("B=1", "B=4")
    extra_seeds: int = 1
    extra_steps: int = 20_000
    long: tuple[str, ...] = ()
    long_steps: int = 200_000
    batch: int = 128
    records: int = 80
    n_eval: int = 1_024
    n_traced: int = 256
