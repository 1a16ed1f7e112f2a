"""The figures of Reddy (2023), drawn from a finished run."""

from collections.abc import Mapping

import numpy as np

from meta_icl.plotting import Chart, Grid, Lines, Series, deciding, over_seeds
from meta_icl.runs import Run

from .config import SETTINGS
from .experiments import seeds_of

ACCURACIES = {
    "test": "prompts as in training",
    "ic": "in context: new classes",
    "ic2": "in context: labels exchanged",
    "iw": "in weights: nothing to read",
}
PROGRESS = {
    "cla": "answer is a label of the context",
    "tla": "query attends to labels, layer 2",
    "ila": "labels attend to their items, layer 1",
    "tila": "query attends to the right label, layer 2",
}
LETTERS = {
    "B": "copies of the query's class: ",
    "K": "classes: ",
    "eps": "noise of items: ",
    "alpha": "Zipf exponent: ",
}


def words(setting: str) -> str:
    """A setting as the figures name it."""
    letter, _, value = setting.partition("=")
    if setting == "L=N":
        return "as many labels as pairs"
    return (
        f"{LETTERS[letter]}{value}" if value else {"long": "copies of the query's class: 2, longer"}.get(letter, letter)
    )


def figures(run: Run) -> dict[str, Chart]:
    """The jump and its progress measures, the settings, and the reduced model."""
    seeds = seeds_of(run, "abrupt")

    def lines(title: str, y_label: str, named: Mapping[str, str]) -> Lines:
        steps = seeds[0]["step"][1:]
        series = [over_seeds(told, steps, np.stack([a[name][1:] for a in seeds], -1)) for name, told in named.items()]
        return Lines(title, "training step", y_label, series, log_x=True)

    reduced = run.load_arrays("reduced")
    at = np.unique(np.geomspace(1, len(reduced["loss"]) - 1, 300).astype(int))
    out: dict[str, Chart] = {
        "reduced": Lines("Three numbers: a plateau and a cliff", "step", "loss in nats",
                         (Series("loss", at, reduced["loss"][at]),), log_x=True),
    }  # fmt: skip
    if seeds:
        both = (
            lines("Accuracy", "accuracy", ACCURACIES),
            lines("Progress measures", "share of answers or of attention", PROGRESS),
        )
        caption = (
            "Labels exchanged: every class has the label after its own. Nothing to read: the query's class is not in "
            "the context. The progress measures are those of prompts of new classes."
        )
        out = {"abrupt": Grid("Abrupt learning in context (Fig. 3)", both, 2, caption)} | out
    others = {name: arrays for name in SETTINGS if name != "abrupt" and (arrays := seeds_of(run, name))}
    if others:
        out["settings"] = Grid("Other settings (Fig. 2)", tuple(
            Lines(title, "training step", "accuracy",
                  [Series(words(name), a[0]["step"][1:], a[0][kind][1:]) for name, a in others.items()], log_x=True)
            for kind, title in (("ic", "In context: new classes"), ("iw", "In weights: nothing to read"))), 2,
            "First seed. Noise of items: its deviation beside that of the means of classes; Zipf exponent: 0 makes all "
            "classes as frequent.")  # fmt: skip
    return deciding(out, {"abrupt": "R1 R2", "settings": "R3 R4 R5 R6 R7 R8 R9"})
