"""The sizes that a reproduction of Chan et al. (2022) is configured by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One training: the data set and its law, and the network's body."""

    data: str = "glyphs"
    p_bursty: float = 0.9
    n_classes: int = 1_600
    polysemy: int = 1
    drawings: str = "all"
    zipf: float = 0.0
    body: str = "transformer"


FAMILIES: dict[str, tuple[Any, ...]] = {
    "p_bursty": (0.0, 0.5, 0.9, 1.0),
    "n_classes": (100, 400, 1_600, 12_800),
    "polysemy": (1, 2, 5, 10),
    "drawings": ("one", "noise", "all"),
    "zipf": (0.0, 0.5, 1.0, 1.5, 2.0),
}


MANY = 12_800  # classes of a base at which few steps lead to learning in context; 1,600 published


def name_of(data: str, field: str, value: Any, n_classes: int = 1_600) -> str:
    """The name of a setting; the published value of a field is the base's own setting."""
    base = data if n_classes == 1_600 else f"{data} n_classes={n_classes}"
    return base if getattr(Setting(), field) == value else f"{base} {field}={value}"


def around(n_classes: int) -> dict[str, Setting]:
    """All settings whose base has this number of classes."""
    return {
        name_of(data, field, value, n_classes): replace(Setting(data, n_classes=n_classes), **{field: value})
        for data in ("glyphs", "gaussian")
        for field, values in FAMILIES.items()
        for value in values
        if n_classes == 1_600 or field != "n_classes"
    }


PUBLISHED = around(1_600) | {"glyphs lstm": Setting(body="lstm")}
SETTINGS = PUBLISHED | around(MANY) | {"glyphs n_classes=400 lstm": Setting(body="lstm", n_classes=400)}
RECURRENT = {name: setting for name, setting in SETTINGS.items() if setting.body == "lstm"}


@dataclass(frozen=True)
class Config:
    """Sizes; `settings` are of `SETTINGS`, `encoder` of images is "affine" or "residual" (of vectors affine)."""

    settings: Sequence[str] = tuple(PUBLISHED)
    seeds: int = 1
    steps: int = 500_000
    batch: int = 32
    records: int = 60
    n_eval: int = 1_024
    encoder: str = "residual"
    side: int = 105
    channels: Sequence[int] = (16, 32, 32, 64)
    blocks: int = 2
    large_stem: bool = True
    d_model: int = 64
    n_layers: int = 12
    n_heads: int = 8
    label_std: float = 0.02
    learning_rate: float = 3e-4
    warmup_steps: int = 4_000
    hold_steps: int = 0
