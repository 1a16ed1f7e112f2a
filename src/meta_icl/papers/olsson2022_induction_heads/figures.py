"""The figures of Olsson et al. (2022), drawn from a finished run."""

import numpy as np

from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding, over_seeds
from meta_icl.runs import Run

from .experiments import MODELS, scores_of, seeds_of

TOLD = {"two": "two layers", "one": "one layer", "one_smeared": "one layer, smeared keys"}


def figures(run: Run) -> dict[str, Chart]:
    """Scores of in-context learning and of heads while training; heads by prefix matching and copying."""
    found = {name: seeds_of(run, name) for name in MODELS}
    two = found["two"]
    score = [
        over_seeds(TOLD[name], seeds[0]["step"], np.stack([scores_of(a) for a in seeds], -1))
        for name, seeds in found.items()
    ]
    prefix = [
        over_seeds(TOLD[name], seeds[0]["step"],
                   np.stack([a["prefix"].max((1, 2)) for a in seeds], -1))
        for name, seeds in found.items()
    ]  # fmt: skip
    heads = [Series(f"layer {i + 1}", np.concatenate([a["prefix"][-1, i] for a in two]),
                    np.concatenate([a["copying"][i] for a in two]), style="points") for i in range(2)]  # fmt: skip
    names = [f"head {h + 1}" for h in range(two[0]["copying"].shape[1])]
    panels = [
        Panel(title, scores_of(two[0])[-1] - two[0][key], names, ["layer 1", "layer 2"])
        for title, key in (("patterns kept", "without_kept"), ("patterns free", "without_free"))
    ]
    return deciding({
        "change": Grid("In-context learning and prefix matching", (
            Lines("In-context score", "training step", "score in nats", score),
            Lines("Best head", "training step", "prefix matching", prefix)), 2),
        "heads": Lines("Heads of two layers: matching and copying", "prefix matching", "eigenvalue copying", heads),
        "ablation": Heatmaps("In-context score with all heads less that without one, first seed", panels),
    }, {"change": "O1 O2 O4", "ablation": "O3", "heads": "O5",})  # fmt: skip
