"""The figures of Reddy (2023), drawn from a finished run."""

from collections.abc import Sequence

import numpy as np

from meta_icl.plotting import Chart, Grid, Lines, Series, deciding, over_seeds
from meta_icl.runs import Run

from .config import SETTINGS
from .experiments import SETS, seeds_of


def figures(run: Run) -> dict[str, Chart]:
    """The jump and its progress measures, the settings, and the reduced model."""
    seeds = seeds_of(run, "abrupt")

    def lines(title: str, names: Sequence[str]) -> Lines:
        steps = seeds[0]["step"][1:]
        series = [over_seeds(name.upper(), steps, np.stack([a[name][1:] for a in seeds], -1)) for name in names]
        return Lines(title, "training step", "share", series, log_x=True)

    reduced = run.load_arrays("reduced")
    at = np.unique(np.geomspace(1, len(reduced["loss"]) - 1, 300).astype(int))
    out: dict[str, Chart] = {
        "reduced": Lines("Three numbers: a plateau and a cliff", "step", "loss in nats",
                         (Series("loss", at, reduced["loss"][at]),), log_x=True),
    }  # fmt: skip
    if seeds:
        both = lines("Accuracy", SETS), lines("Progress measures", ("cla", "tla", "ila", "tila"))
        out = {"abrupt": Grid("Abrupt learning in context (Fig. 3)", both, 2)} | out
    others = {name: arrays for name in SETTINGS if name != "abrupt" and (arrays := seeds_of(run, name))}
    if others:
        out["settings"] = Grid("Other settings (Fig. 2)", tuple(
            Lines(f"{kind.upper()} accuracy", "training step", "accuracy",
                  [Series(name, a[0]["step"][1:], a[0][kind][1:]) for name, a in others.items()], log_x=True)
            for kind in ("ic", "iw")), 2)  # fmt: skip
    return deciding(out, {"abrupt": "R1 R2", "settings": "R3 R4 R5 R6 R7 R8 R9"})
