"""Circuits: the three ways to answer from labelled examples, head by head (Minegishi et al., 2025).

What is shown. Bigram: what the query gives to itself. Label attention: what it gives to all labels of the context.
Chunk-example: what a label gives to its own item, on average over examples. The same after leaving out what goes to the
very first token, where language models put attention that has nothing to do.

What it says. Which circuit a head could serve. Whether the answer hangs on it is a matter of ablation: heads may look
where nothing is taken from.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from meta_icl.errors import BadInput
from meta_icl.plotting import Chart
from meta_icl.probes._shared import Measured, head_map, over_prompts, strongest
from meta_icl.probes._subject import Subject, require_site

SCORES = {"bigram": "bigram", "label": "label attention", "chunk": "chunk-example"}
SHOWN = 12


def check(subject: Subject) -> None:
    """Raise `BadInput` unless there is attention, over examples whose labels are tokens beside their items."""
    require_site(subject, "pattern", "one with attention, or a mixer that offers its pattern")
    shape = subject.shape_of_trace()["pattern"].shape
    if shape[-1] != shape[-2]:
        raise BadInput("the query is no key of this network, so that no circuit of three tokens can be scored")
    if not _items(subject):
        raise BadInput("the prompts have no labels beside items as tokens of their own (labels, or texts of examples)")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`bigram`, `label`, `chunk` "prompts l h", and the same without the first token as `.._corrected`."""
    items = tuple((label, tuple(own)) for label, own in _items(subject))
    scores = _Scores(tuple(int(at) for at in subject.labels_at), items)
    return subject.traced(scores) | {"layers": np.array(subject.shape_of_trace().layers_of("pattern"))}


class _Scores(eqx.Module):
    """The scores of all heads for prompts whose labels and items stand at these places."""

    labels: tuple[int, ...] = eqx.field(static=True)
    items: tuple[tuple[int, tuple[int, ...]], ...] = eqx.field(static=True)

    def __call__(self, trace: Any) -> dict[str, Any]:
        pattern = trace["pattern"]
        found = self.of(pattern, jnp.ones_like(pattern[..., 0]))
        if not any(0 in own for _, own in self.items):  # the first token is none of the examples'
            rest = jnp.maximum(1 - pattern[..., 0], 1e-6)
            found |= {f"{name}_corrected": value for name, value in self.of(pattern, rest).items()}
        return found

    def of(self, pattern: Any, rest: Any) -> dict[str, Any]:
        """The scores as shares of the attention that is left."""
        chunks = [pattern[..., label, jnp.asarray(own)].sum(-1) / rest[..., label] for label, own in self.items]
        return {
            "bigram": pattern[..., -1, -1] / rest[..., -1],
            "label": pattern[..., -1, jnp.asarray(self.labels)].sum(-1) / rest[..., -1],
            "chunk": sum(chunks) / len(chunks),
        }


def _items(subject: Subject) -> list[tuple[int, list[int]]]:
    """The label of every example with the tokens of the example before it; none where a label stands alone."""
    found = []
    for i, label in enumerate(subject.labels_at):
        own = [int(at) for at in np.flatnonzero(subject.examples == i) if at < label]
        if own:
            found.append((int(label), own))
    return found


def rows(measured: Measured) -> list[dict[str, Any]]:
    """The strongest heads of every score, with standard errors over prompts."""
    found = []
    for name, title in SCORES.items():
        mean, error = over_prompts(measured[name])
        corrected = measured[f"{name}_corrected"].mean(0) if f"{name}_corrected" in measured else None
        for i, h in strongest(mean, max(1, SHOWN // 3)):
            found.append(
                {
                    "circuit": title,
                    "layer": int(measured["layers"][i]) + 1,
                    "head": h + 1,
                    "attention": float(mean[i, h]),
                    "+-": float(error[i, h]),
                    "without the first token": None if corrected is None else float(corrected[i, h]),
                }
            )
    return found


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """Heads by layer for every circuit."""
    captions = {
        "bigram": "What the query gives to itself.",
        "label": "What the query gives to all labels of the context.",
        "chunk": "What a label gives to its own item, mean over examples.",
    }
    return {
        name: head_map(f"Circuits: {title}", found, name, f"{captions[name]} Mean over prompts.")
        for name, title in SCORES.items()
    }
