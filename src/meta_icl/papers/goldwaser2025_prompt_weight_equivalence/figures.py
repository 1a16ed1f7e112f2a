"""The figures of Goldwaser et al. (2025), drawn from a finished run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_icl.plotting import Bars, Chart, Grid, Heatmaps, Lines, Panel, Series, deciding
from meta_icl.runs import Run, drawn

from .experiments import ANY_WEIGHTS, ONE_BLOCK, PRECISIONS, STACKS


def figures(run: Run) -> dict[str, Chart]:
    """Errors of all blocks and stacks, and how far each kind of patch gets in decoding."""
    makers = {
        "identities": lambda run: identities_figure(
            {name: run.part_arrays(f"identities-{name}") for name in PRECISIONS}
        ),
        "decoding": lambda run: decoding_figure(run.part_arrays("language")),
        "examples": lambda run: examples_figure(run.part_arrays("language")),
    }
    decides = {"identities": "G1 G2 G3 G5", "decoding": "G6"}
    return deciding(drawn(run, makers, decides), decides)


def identities_figure(exact: Mapping[str, Any]) -> Chart:
    names = [*ONE_BLOCK, *(f"{kind} stack" for kind in STACKS)]
    charts = [
        Bars(
            precision,
            "",
            "log10 of the relative error",
            names,
            [np.log10(max(arrays[f"{name}/all"].max(), 1e-18)) for name in names],
        )
        for precision, arrays in exact.items()
    ]
    return Grid(
        "Blocks of every kind without their context",
        tuple(charts),
        2,
        f"Largest error over random blocks. {ANY_WEIGHTS}",
    )


def decoding_figure(language: Mapping[str, np.ndarray]) -> Chart:
    n_new = int(language["trained/every step"].max())
    at = np.arange(1, n_new + 1)
    series = tuple(
        Series(f"patch: {patch}", at, [(language[f"trained/{patch}"] >= i).mean() for i in at], style=style)
        for patch, style in (("every step", "line"), ("first step", "dashed"), ("none", "dotted"))
    )
    return Lines(
        "Greedy decoding without the prompt",
        "generated tokens",
        "share of prompts still identical",
        series,
        caption="A trained two-block model; the patch belongs to one token and has to be recomputed for the next.",
    )


def examples_figure(language: Mapping[str, np.ndarray]) -> Chart:
    sizes, similarity = language["examples/size"][0], language["examples/similarity"][0, -1]
    names = [f"{i + 1}: {token}" for i, token in enumerate(language["examples/tokens"][0][:-1])]
    equal, other = (np.median(language[f"examples/{key}"][:, -1]) for key in ("equal", "other"))
    blocks = [f"block {i + 1}" for i in range(len(sizes))]
    panels = (
        Panel("|dW| / |W| of leaving one token out", sizes, names, blocks),
        Panel("cosine of two tokens' updates, last block", similarity, names, names),
    )
    caption = (
        "One prompt through the trained model. Mean cosine over prompts in the last block: "
        f"{equal:.2f} for two copies of the same token, {other:.2f} for different tokens."
    )
    return Heatmaps("Which tokens move the weights, where, and which move them alike", panels, caption)
