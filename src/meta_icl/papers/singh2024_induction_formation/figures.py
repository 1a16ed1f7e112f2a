"""The figures of Singh et al. (2024), drawn from a finished run."""

import numpy as np

from meta_icl.plotting import Bars, Chart, Grid, Lines, Series, over_seeds
from meta_icl.runs import Run, drawn

from .config import HEADS
from .experiments import free_seeds

TESTS = {
    "train": "training",
    "label_pairs": "new pairs of labels",
    "drawings": "new drawings",
    "classes": "new classes",
}
LEVEL = [("ln 2", float(np.log(2)))]
TOY = {"free": "nothing clamped", "c": "c clamped", "bc": "b and c clamped"}


def words(part: str) -> str:
    """A training as the figures name it; of the free one also its numbers of classes and labels, which vary."""
    clamp, classes, labels, _ = part.rsplit("-", 3)
    if clamp == "free":
        return f"free, {classes[1:]} classes, {labels[1:]} labels"
    return clamp.replace("layer1", "layer 1").replace("only_", "only head ").replace("_", " and ")


def figures(run: Run) -> dict[str, Chart]:
    """Losses, heads, clamps and the toy."""
    makers = {"loss": loss_figure, "heads": heads_figure, "clamps": clamps_figure, "toy": toy_figure}
    decides = {"loss": "S1", "heads": "S2 S3 S4 S5", "clamps": "S6 S8 S10", "toy": "S9"}
    return drawn(run, makers, decides)


def loss_figure(run: Run) -> Chart:
    free = free_seeds(run)
    steps = free[0]["step"][1:]
    losses = [over_seeds(TESTS[test], steps, np.stack([a[f"{test}_loss"][1:] for a in free], -1)) for test in TESTS]
    title = "Loss among the context's labels (Fig. 2)"
    return Lines(title, "training step", "loss in nats", losses, True, h_lines=LEVEL)


def heads_figure(run: Run) -> Chart:
    first = free_seeds(run)[0]
    heads = [Series(f"head {h}", first["step"][1:], first["strength"][1:, h]) for h in range(HEADS)]
    charts = (
        Lines("Strength", "training step", "induction strength", heads, True),
        Bars("Accuracy of a head alone", "head", "accuracy", [str(h) for h in range(HEADS)], first["alone"]),
    )
    return Grid("Heads of layer 2, first seed (Fig. 3)", charts, 2)


def clamps_figure(run: Run) -> Chart:
    clamped = [
        Series(words(name), part["step"][1:], part["train_loss"][1:])
        for name in run.parts()
        if name != "toy" and name.endswith("seed0")
        for part in [run.part_arrays(name)]
    ]
    return Lines("Training with clamps (Fig. 7)", "training step", "loss in nats", clamped, True, h_lines=LEVEL)


def toy_figure(run: Run) -> Chart:
    toy = [
        Series(TOY[name], np.arange(losses.shape[1]), np.median(losses / losses[:, :1], 0))
        for name, losses in run.part_arrays("toy").items()
    ]
    return Lines("Rank-one toy (Fig. 6)", "step", "loss / first loss, median", toy, log_y=True)
