"""Decodability: from which layer on the class of an example, and of the answer, can be read off the stream.

What is shown. States of the residual stream are given to a vote of nearest neighbours among other prompts: the class of
every example at its own label's token, and the right answer's class at the query (for labels), by layer; the share that
is right, beside chance.

What it says. What can be decoded need not be used; what cannot be decoded by neighbours may still be there
(Han et al., 2024).
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis import decodability_by_layer
from meta_icl.errors import BadInput
from meta_icl.plotting import Chart, Lines, Series
from meta_icl.probes._shared import Measured
from meta_icl.probes._subject import Subject, require_site

NEIGHBOURS = 5
MOST = 2_000  # states whose neighbours are looked for


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the blocks name their stream and the examples are of two classes or more."""
    require_site(subject, "resid_post", "one whose blocks name their residual stream")
    classes = np.unique(subject.classes)
    if subject.is_language and subject.n_prompts * len(subject.labels_at) > MOST:
        raise BadInput(f"there are more than {MOST} examples, all tokens of a text: give one with examples")
    if len(classes) < 2 or subject.classes.size <= 2 * NEIGHBOURS or len(classes) > subject.classes.size // 2:
        raise BadInput("the examples are not of two or more classes with several examples each, so nothing is decoded")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`example` "layers", the share of examples whose class is decoded; `answer` "layers" for labels; `chance`."""
    states = subject.traced(_States(tuple(int(at) for at in subject.labels_at)))
    own = np.moveaxis(states["own"], 1, 0)  # layers prompts m d
    layers, prompts, m, d = own.shape
    keep = slice(MOST)
    found = {
        "example": _decoded(own.reshape(layers, prompts * m, d)[:, keep], subject.classes.reshape(-1)[keep]),
        "chance": np.array(_largest_share(subject.classes.reshape(-1)[keep])),
    }
    labels = not subject.is_language and jnp.issubdtype(subject.prompts.y.dtype, jnp.integer)
    if labels and prompts > NEIGHBOURS:
        answers = np.asarray(subject.prompts.y)[:, -1]
        found["answer"] = _decoded(np.moveaxis(states["query"], 1, 0), answers)
    return found


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per layer."""
    return [
        {
            "after layer": i + 1,
            "class of an example": float(share),
            "class of the answer": float(measured["answer"][i]) if "answer" in measured else None,
            "largest class": float(measured["chance"]),
        }
        for i, share in enumerate(measured["example"])
    ]


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """The shares by layer."""
    series = []
    for label, measured in found.items():
        layers = np.arange(1, len(measured["example"]) + 1)
        series.append(Series(f"{label}: example", layers, measured["example"]))
        if "answer" in measured:
            series.append(Series(f"{label}: answer", layers, measured["answer"], style="dashed"))
    chance = float(next(iter(found.values()))["chance"])
    return {
        "by_layer": Lines(
            "What can be decoded after every layer",
            "layer",
            "share decoded",
            series,
            h_lines=[("largest class", chance)],
            caption=f"Votes of {NEIGHBOURS} nearest neighbours among all other examples.",
        )
    }


def _decoded(states: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The share decoded, "layers", weighted by the sizes of the classes."""
    names, numbers = np.unique(classes, return_inverse=True)
    shares = decodability_by_layer(
        jnp.asarray(states), jnp.asarray(numbers), n_tasks=len(names), n_neighbours=min(NEIGHBOURS, len(numbers) - 1)
    )
    return np.asarray(shares) @ (np.bincount(numbers) / len(numbers))


def _largest_share(classes: np.ndarray) -> float:
    return float(np.unique(classes, return_counts=True)[1].max() / len(classes))


class _States(eqx.Module):
    """The stream after every layer at the examples' labels, and at the query."""

    labels: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, trace: Any) -> dict[str, Any]:
        stream = trace["resid_post"]
        return {"own": stream[:, jnp.asarray(self.labels)], "query": stream[:, -1]}
