"""The prompt as a weight update: which examples move the weights, in which block, and which move them alike.

What is shown. Leaving one example out of the prompt changes the answer exactly as a change of rank one of the matrices
with which every MLP reads the query (Dherin et al., 2025). Its size, relative to those matrices, says how much that
example moves the weights, and the cosine of two such changes whether two examples move them alike.

What it says. That the patched model answers as with the prompt is an identity: it holds for untrained weights as well.
Only differences between trained and untrained weights, in sizes or in similarities, are about learning.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from meta_icl.analysis.implicit import (
    class_similarity,
    example_updates,
    implicit_update,
    replacement_error,
    require_patchable,
)
from meta_icl.errors import require
from meta_icl.models import Network
from meta_icl.plotting import Chart, Heatmaps, Lines, Panel, Series
from meta_icl.probes._subject import Subject


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the model is a stream with blocks whose MLPs can take the prompt's place."""
    network = subject.network
    require(isinstance(network, Network), "network", type(network).__name__, "a stream with blocks")
    require_patchable(network)


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """Sizes and similarities of the examples' updates, "prompts layers m" and "prompts layers m m".

    With them `same` and `other` "prompts layers", the mean similarity of two examples of one class and of different
    classes (NaN where a prompt has no such pair), and `error` "prompts", of the answer without any context but with all
    of its update: rounding, if all is well.
    """
    check(subject)
    network, tokens = subject.network, subject.tokens()
    found: dict[str, list[Any]] = {name: [] for name in ("relative", "similarity", "same", "other", "error")}
    for i, classes in enumerate(subject.classes):
        context = jax.tree.map(lambda leaf, i=i: leaf[i, :-1], tokens)
        query = jax.tree.map(lambda leaf, i=i: leaf[i, -1], tokens)
        each = example_updates(network, context, query, subject.examples)
        none = np.full(network.n_layers, np.nan)
        alike: tuple[Any, Any] = (none, none)
        if 1 < len(set(classes.tolist())) < len(classes):  # two classes, and two examples of one
            alike = class_similarity(each.similarity, classes)
        error = replacement_error(network, context, query, None, implicit_update(network, context, query))
        for name, value in zip(found, (each.relative, each.similarity, *alike, error), strict=True):
            found[name].append(np.asarray(value))
    measured = {name: np.stack(values) for name, values in found.items()}
    return measured | {"names": np.array(subject.names), "classes": subject.classes}


def rows(measured: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per block, averaged over prompts."""
    sizes, names = measured["relative"], measured["names"]
    same, other = (_mean(measured[name]) for name in ("same", "other"))
    return [
        {
            "block": layer + 1,
            "|dW| / |W| (median)": float(np.median(sizes[:, layer])),
            "largest (mean)": float(sizes[:, layer].mean(0).max()),
            "of example": str(names[sizes[:, layer].mean(0).argmax()]),
            "cosine, same class": None if np.isnan(same[layer]) else float(same[layer]),
            "cosine, other class": None if np.isnan(other[layer]) else float(other[layer]),
            "error of the identity": float(measured["error"].max()),
        }
        for layer in range(sizes.shape[1])
    ]


def figures(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Chart]:
    """Heat maps of sizes (blocks by examples) and of similarities, and the similarities by block."""
    sizes, alike, curves = [], [], []
    for label, measured in found.items():
        names = [str(name) for name in measured["names"]]
        blocks = np.arange(1, measured["relative"].shape[1] + 1)
        sizes.append(Panel(label, measured["relative"].mean(0), names, [f"block {i}" for i in blocks]))
        order = np.argsort(measured["classes"][0], kind="stable")
        matrix = measured["similarity"][0, -1][np.ix_(order, order)]
        ordered = [names[i] for i in order]
        alike.append(Panel(label, matrix, ordered, ordered))
        for name, style in (("same", "line"), ("other", "dashed")):
            curves.append(Series(f"{label}: {name} class", blocks, _mean(measured[name]), style=style))
    n = len(next(iter(found.values()))["relative"])
    over = "One prompt." if n == 1 else f"Mean over {n} prompts."
    return {
        "sizes": Heatmaps(
            "Which examples move the weights, and where: |dW| / |W|",
            sizes,
            f"{over} The update of leaving one example out; columns are the examples in their order.",
            diverging=False,
        ),
        "similarities": Heatmaps(
            "Which examples move them alike: cosine of two updates, last block",
            alike,
            "The first prompt; examples sorted by class.",
            shared_scale=True,
        ),
        "classes": Lines(
            "Similarity of two examples' updates, by block",
            "block",
            "cosine",
            curves,
            caption="The identity holds for any weights; what differs from untrained weights has been learned.",
        ),
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over prompts that have a value; NaN where none has."""
    counted = np.isfinite(values)
    return np.where(counted.any(0), np.where(counted, values, 0).sum(0) / np.maximum(counted.sum(0), 1), np.nan)
