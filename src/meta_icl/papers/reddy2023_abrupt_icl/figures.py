"""The figures of Reddy (2023), drawn from a finished run."""

from collections.abc import Sequence

import numpy as np

from meta_icl.plotting import Chart, Grid, Lines, Series, deciding, over_seeds
from meta_icl.runs import Run

from .config import SETTINGS
from .experiments import SETS, seeds_of

TOLD = {
    "test": "prompts as trained",
    "ic": "new classes",
    "ic2": "shifted labels",
    "iw": "in the weights",
    "cla": "answers among the labels of the context",
    "tla": "query, to labels",
    "ila": "label, to its own item",
    "tila": "query, to the right label",
}
SYMBOLS = {"L=N": "as many labels as pairs", "alpha": "Zipf exponent", "eps": "noise", "K": "classes", "B": "copies"}


def figures(run: Run) -> dict[str, Chart]:
    """The jump and its progress measures, the settings, and the reduced model."""
    seeds = seeds_of(run, "abrupt")

    def lines(title: str, label: str, names: Sequence[str]) -> Lines:
        steps = seeds[0]["step"][1:]
        series = [over_seeds(TOLD[name], steps, np.stack([a[name][1:] for a in seeds], -1)) for name in names]
        return Lines(title, "training step", label, series, log_x=True)

    reduced = run.load_arrays("reduced")
    at = np.unique(np.geomspace(1, len(reduced["loss"]) - 1, 300).astype(int))
    out: dict[str, Chart] = {
        "reduced": Lines("Three numbers: a plateau and a cliff", "step", "loss in nats",
                         (Series("loss", at, reduced["loss"][at]),), log_x=True),
    }  # fmt: skip
    if seeds:
        charts = (
            lines("Accuracy", "accuracy", SETS),
            lines("Choice among labels (CLA)", "share of answers", ("cla",)),
            lines("Attention (TLA, ILA, TILA)", "attention", ("tla", "ila", "tila")),
        )
        out = {"abrupt": Grid("Abrupt learning in context (Fig. 3)", charts, 3)} | out
    others = {name: arrays for name in SETTINGS if name != "abrupt" and (arrays := seeds_of(run, name))}
    if others:
        out["settings"] = Grid("Other settings (Fig. 2)", tuple(
            Lines(f"Accuracy, {TOLD[kind]}", "training step", "accuracy",
                  [Series(told(name), a[0]["step"][1:], a[0][kind][1:]) for name, a in others.items()], log_x=True)
            for kind in ("ic", "iw")), 2)  # fmt: skip
    return deciding(out, {"abrupt": "R1 R2", "settings": "R3 R4 R5 R6 R7 R8 R9"})


def told(setting: str) -> str:
    """A setting in words."""
    symbol, _, value = setting.partition("=")
    return SYMBOLS.get(setting) or (f"{SYMBOLS[symbol]}: {value}" if value else setting)
