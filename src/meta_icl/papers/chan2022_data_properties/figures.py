"""The figures of Chan et al. (2022), drawn from a finished run."""

from collections.abc import Mapping

import numpy as np

from meta_icl.plotting import Bars, Chart, Grid, Lines, Series, deciding, over_seeds
from meta_icl.runs import Run

from .config import FAMILIES, RECURRENT
from .experiments import Seeds, final, load, sweep

KINDS = {"ic": "in context", "iw": "in weights", "iw_common": "in weights, common classes"}
DATA = {"glyphs": "glyphs", "gaussian": "Gaussian vectors"}
DRAWINGS = {"one": "one", "noise": "one with noise", "all": "all"}


def figures(run: Run) -> dict[str, Chart]:
    """Accuracies over training, and at the end of it against every property that was varied."""
    found = load(run)
    out: dict[str, Chart] = {
        "training": Grid(
            "While it learns",
            [over_training(found, kind) for kind in ("ic", "ic_published", "iw")],
            3,
            "In context: classes that were never trained, with examples in the context. In weights: trained classes "
            "that the context does not show.",
        )
    }
    ends = [chart for field in FAMILIES for chart in at_the_end(found, field)]
    if ends:
        out["properties"] = Grid("At the end of training", ends, 2)
    return deciding(
        out,
        {
            "training": "C1 C2 C7 C8",
            "properties": "C1 C3 C4 C5 C6 C9",
        },
    )


def over_training(found: Mapping[str, Seeds], kind: str) -> Lines:
    """One accuracy over training: burstiness, and the recurrent network."""
    shown = {f"{float(value):.0%} bursty": seeds for value, seeds in sweep(found, "glyphs", "p_bursty").items()}
    shown |= {f"recurrent, {RECURRENT[name].n_classes} classes": found[name] for name in RECURRENT if name in found}
    series = [
        over_seeds(name, seeds[0]["step"][1:], np.stack([a[kind][1:] for a in seeds], -1))
        for name, seeds in shown.items()
    ]
    titles = {"ic": "In context, distinct classes", "ic_published": "In context, classes with replacement",
              "iw": "In weights"}  # fmt: skip
    levels = [] if kind == "iw" else [("chance", 0.5)]
    return Lines(titles[kind], "training step", "accuracy", series, log_x=True, h_lines=levels)


def at_the_end(found: Mapping[str, Seeds], field: str) -> list[Chart]:
    """IC and IW accuracy against one property, where two values of it were trained."""
    sweeps = {data: v for data in ("glyphs", "gaussian") if len(v := sweep(found, data, field)) > 1}
    of = {data: f", {DATA[data]}" if len(sweeps) > 1 else "" for data in sweeps}
    if field == "drawings":
        return [
            Bars(f"Variation within classes, {KINDS[kind]}{of[data]}", "drawings of a class", "accuracy",
                 [DRAWINGS[value] for value in v], [final(seeds, kind) for seeds in v.values()])
            for data, v in sweeps.items() for kind in ("ic", "iw")
        ]  # fmt: skip
    kinds = ("ic", "iw", "iw_common") if field == "zipf" else ("ic", "iw")
    series = [
        Series(KINDS[kind] + of[data], list(v),
               [final(seeds, kind) for seeds in v.values()])
        for data, v in sweeps.items() for kind in kinds
    ]  # fmt: skip
    titles = {"p_bursty": "Burstiness", "n_classes": "Number of classes", "polysemy": "Labels per class",
              "zipf": "Exponent of the Zipf law"}  # fmt: skip
    units = {"p_bursty": "share of bursty sequences", "n_classes": "classes", "polysemy": "labels per class",
             "zipf": "exponent"}  # fmt: skip
    return [Lines(titles[field], units[field], "accuracy", series, log_x=field == "n_classes")] if series else []
