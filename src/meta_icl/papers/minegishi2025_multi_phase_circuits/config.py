"""The sizes that a reproduction of Minegishi et al. (2025) is configured by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One experiment: deviations of the world and of the network from the public code's, and a circuit mask."""

    world: Mapping[str, Any] = field(default_factory=dict)
    stack: Mapping[str, Any] = field(default_factory=dict)
    positions: str = "item"
    n_hidden: int = 2
    content_labels: bool = False  # fixed label vectors of the items' width, as the text has them
    circuit: str | None = None
    all_labels: bool = False
    learning_rate: float = 0.01
    share: float = 1.0  # of the preset's steps


def _theory(k: int) -> Setting:
    world = {"n_tasks": 2, "n_classes": k, "n_labels": k, "assign": "bijection", "distinct_query": True}
    return Setting(world, circuit="scc", share=0.5)


def _worlds(name: str, values: Sequence[Any], **more: Any) -> dict[str, Setting]:
    short = {"n_tasks": "T", "n_classes": "K", "p_bursty": "p_B", "n_context": "N", "repeats": "B"}.get(name, name)
    return {f"{short}={value}": Setting({name: value, **more}) for value in values}


SETTINGS: dict[str, Setting] = {
    "default": Setting(),
    "item, W_O, 1 hidden": Setting(stack={"project": True}, n_hidden=1),
    "window": Setting(positions="window"),
    "published text": Setting({}, {"project": True}, "window", 1, content_labels=True),
    **{f"only {circuit}": Setting(circuit=circuit, share=0.5) for circuit in ("ncc", "scc", "fcc")},
    **{f"theory K={k}": _theory(k) for k in (8, 16, 32)},
    **_worlds("n_tasks", (1, 2, 4, 6, 9, 12)),
    **_worlds("n_classes", (32, 128, 256, 512)),
    **_worlds("eps", (0.25, 0.5, 0.75, 1.0)),
    **_worlds("alpha", (0.5, 1.0, 1.25)),
    **_worlds("beta", (0.5, 1.0)),
    **_worlds("p_bursty", (0.25, 0.5, 0.75, 1.0)),
    **_worlds("n_context", (1, 2, 8, 16, 32)),
    "B=2, p_B=0.25": Setting({"repeats": 2, "p_bursty": 0.25}),
    "induction": Setting({"n_tasks": 1, "p_bursty": 1.0}),
    **{f"heads={h}": Setting(stack={"n_heads": h}) for h in (2, 4, 8, 16)},
    **{f"layers={n}": Setting(stack={"n_layers": n}) for n in (3, 4, 5)},
    "standard": Setting(stack={"norm": "post", "d_mlp": 512, "project": True, "scaled": True}),
    "all labels": Setting(all_labels=True),
}
VARIANTS = ("default", "item, W_O, 1 hidden", "window", "published text")


@dataclass(frozen=True)
class Config:
    """Sizes; `extra` are settings beyond the default, with `extra_seeds` seeds."""

    seeds: int = 4
    steps: int = 210_000
    extra: tuple[str, ...] = ()
    extra_seeds: int = 1
    extra_steps: int = 100_000
    batch: int = 128
    records: int = 120
    n_eval: int = 4_096
    n_shuffled: int = 1_024
    n_traced: int = 256
    n_ceiling: int = 20_000
