"""The sizes that a reproduction of Minegishi et al. (2025) is configured by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One experiment: deviations of the world and of the network from `default`, and a circuit mask."""

    world: Mapping[str, Any] = field(default_factory=dict)
    stack: Mapping[str, Any] = field(default_factory=dict)
    positions: str = "item"  # or "window"
    project: bool = True  # W_O
    n_hidden: int = 1
    labels: str = (
        "table"  # trained vectors of the stream's width; "content", of the items' width; "fixed", those untrained
    )
    circuit: str | None = None
    all_labels: bool = False
    learning_rate: float = 0.01
    share: float = 1.0  # of the preset's steps


def _theory(k: int, share: float) -> Setting:
    world = {"n_tasks": 2, "n_classes": k, "n_labels": k, "assign": "bijection", "distinct_query": True}
    return Setting(world, circuit="scc", share=share)


def _worlds(name: str, values: Sequence[Any], **more: Any) -> dict[str, Setting]:
    short = {"n_tasks": "T", "n_classes": "K", "p_bursty": "p_B", "n_context": "N", "repeats": "B"}.get(name, name)
    return {f"{short}={value}": Setting({name: value, **more}) for value in values}


SETTINGS: dict[str, Setting] = {
    "default": Setting(),
    "public code": Setting(project=False, n_hidden=2),
    "published text": Setting({"assign": "random"}, positions="window", labels="fixed"),
    # A prompt of nine tokens in nine places has a single offset: every token stands at a place of its own.
    "abs": Setting({"n_positions": 9}, positions="window", labels="content"),
    "only ncc": Setting(circuit="ncc", share=0.4),  # it rests long before the others
    **{f"only {circuit}": Setting(circuit=circuit) for circuit in ("scc", "fcc")},
    **{f"theory K={k}": _theory(k, share) for k, share in ((8, 0.4), (16, 0.6), (32, 1.5))},
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
    "standard": Setting(stack={"norm": "post", "d_mlp": 512, "scaled": True}, n_hidden=0),
    "all labels": Setting(all_labels=True),
}
FULL_STEPS = 300_000  # of every setting in the preset `full`, at most
# Milliseconds a step on one core: measured for the default; for others by their CPU time beside the default's.
MILLISECONDS = {"default": 4.3, "heads=2": 6.3, "heads=4": 6.8, "heads=8": 9.5, "heads=16": 15.5, "layers=3": 7.7,
                "layers=4": 10.0, "layers=5": 12.4, "standard": 17.0, "all labels": 13.4, "N=8": 7.0, "N=16": 13.7,
                "N=32": 30.0}  # fmt: skip


def full_minutes(names: Sequence[str]) -> int:
    """CPU-minutes that some settings take in the preset `full`, at most, one seed each."""
    each = [SETTINGS[name].share * MILLISECONDS.get(name, MILLISECONDS["default"]) for name in names]
    return round(FULL_STEPS * sum(each) / 60_000)


VARIANTS = ("default", "public code", "published text", "abs")


@dataclass(frozen=True)
class Config:
    """Sizes; `extra` are settings beyond the default, with `extra_seeds` seeds; without seeds the default is left out.

    A training ends before its last step when its loss stays below `stop_below`.
    """

    seeds: int = 4
    steps: int = 200_000
    extra: tuple[str, ...] = ()
    extra_seeds: int = 1
    extra_steps: int = 100_000
    batch: int = 128
    records: int = 120
    n_eval: int = 4_096
    stop_below: float = 0.005
    n_shuffled: int = 1_024
    n_removed: int = 2_048
    n_traced: int = 256
    n_ceiling: int = 20_000
