"""The figures of Olsson et al. (2022), drawn from a finished run."""

from collections.abc import Callable

import numpy as np

from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds
from meta_icl.runs import Run, drawn

from .experiments import MODELS, scores_of, seeds_of

WORDS = {"two": "two layers", "one": "one layer", "one_smeared": "one layer, smeared keys"}


def figures(run: Run) -> dict[str, Chart]:
    """Scores of in-context learning and of heads while training; heads by prefix matching and copying."""
    makers: dict[str, Callable[[Run], Chart]] = {"change": change_figure}
    if seeds_of(run, "two"):
        makers |= {"heads": heads_figure, "ablation": ablation_figure}
    decides = {"change": "O1 O2 O4", "ablation": "O3", "heads": "O5"}
    return deciding(drawn(run, makers, decides), decides)


def change_figure(run: Run) -> Chart:
    found = {name: seeds for name in MODELS if (seeds := seeds_of(run, name))}
    score = [
        over_seeds(WORDS[name], seeds[0]["step"], np.stack([scores_of(a) for a in seeds], -1))
        for name, seeds in found.items()
    ]
    prefix = [
        over_seeds(WORDS[name], seeds[0]["step"],
                   np.stack([a["prefix"].max((1, 2)) for a in seeds], -1))
        for name, seeds in found.items()
    ]  # fmt: skip
    return Grid("In-context learning and prefix matching", (
        Lines("In-context score", "training step", "score in nats", score),
        Lines("Best head", "training step", "prefix matching", prefix)), 2)  # fmt: skip


def heads_figure(run: Run) -> Chart:
    two = seeds_of(run, "two")
    heads = [Series(f"layer {i + 1}", np.concatenate([a["prefix"][-1, i] for a in two]),
                    np.concatenate([a["copying"][i] for a in two]), style="points") for i in range(2)]  # fmt: skip
    return Lines("Heads of two layers: matching and copying", "prefix matching", "eigenvalue copying", heads)


def ablation_figure(run: Run) -> Chart:
    two = seeds_of(run, "two")
    names = [f"head {h + 1}" for h in range(two[0]["copying"].shape[1])]
    panels = [
        Panel(title, scores_of(two[0])[-1] - two[0][key], names, ["layer 1", "layer 2"])
        for title, key in (("patterns kept", "without_kept"), ("patterns free", "without_free"))
    ]
    return Heatmaps("In-context score with all heads less that without one, first seed", panels)
