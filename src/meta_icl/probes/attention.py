"""Attention: where every head looks, how sharply, and how much of that is the token before or the first one.

What is shown. For every layer and head, on average over readers and prompts: the entropy of its attention in nats, the
share that goes to the token right before, to the first token (a place where language models put attention that has
nothing to do) and to the reader itself. Weights of linear attention, which may be negative, count by their size.

What it says. A map shows what is read, not what is done with it: values and later layers decide that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from meta_icl.plotting import Chart, Heatmaps, Panel
from meta_icl.probes._shared import Measured, head_map, layer_names, over_prompts
from meta_icl.probes._subject import Subject, learner_subject, require_site
from meta_icl.prompt import Ensemble, TokenPrompt

LONGEST_MAP = 64  # tokens of a prompt whose maps are drawn whole
MOST_PANELS = 16


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the network names an attention pattern."""
    require_site(subject, "pattern", "one with attention, or a mixer that offers its pattern")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`entropy`, `previous`, `first`, `self` "prompts layers heads", and the first prompt's `maps` "l h q k"."""
    measured = subject.traced(shares)
    shape = subject.shape_of_trace()
    if shape["pattern"].shape[-2] <= LONGEST_MAP:
        first = jax.tree.map(lambda leaf: leaf[:1], subject.tokens())
        measured["maps"] = subject.traced(_maps, tokens=first)[0]
    return measured | {"layers": np.array(shape.layers_of("pattern"))}


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per layer and head, averaged over prompts, with the standard error of the entropy."""
    mean, error = over_prompts(measured["entropy"])
    means = {name: measured[name].mean(0) for name in ("previous", "first", "self")}
    return [
        {
            "layer": int(measured["layers"][i]) + 1,
            "head": h + 1,
            "entropy (nats)": float(mean[i, h]),
            "+-": float(error[i, h]),
            "previous token": float(means["previous"][i, h]),
            "first token": float(means["first"][i, h]),
            "itself": float(means["self"][i, h]),
        }
        for i in range(mean.shape[0])
        for h in range(mean.shape[1])
    ]


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """Heads by layer for every number, and the maps of the first prompt where it is short."""
    charts: dict[str, Chart] = {
        "entropy": head_map(
            "How spread attention is", found, "entropy", "Entropy in nats, mean over readers, prompts."
        ),
        "previous": head_map("Attention to the token before", found, "previous", "Share, mean over readers, prompts."),
        "first": head_map("Attention to the first token", found, "first", "Share, mean over readers and prompts."),
    }
    panels = []
    for label, measured in found.items():
        if "maps" in measured:
            panels += _panels(measured["maps"], measured["layers"], f"{label}, ")
    if 0 < len(panels) <= MOST_PANELS:
        charts["maps"] = Heatmaps(
            "Attention of the first prompt",
            panels,
            "Rows read, columns are read; tokens in their order.",
            diverging=False,
        )
    return charts


@dataclass(frozen=True)
class AttentionMaps:
    """Attention of models on prompts: `maps` "models prompts layers heads q k" of the `layers` that have any.

    `mean` and `spread` (a standard deviation) are over models and prompts; `show` draws the mean, and says the spread.
    """

    maps: Float[np.ndarray, "models prompts layers heads q k"]
    layers: Int[np.ndarray, " layers"]

    @property
    def mean(self) -> Float[np.ndarray, "layers heads q k"]:
        """The average map of every head."""
        return self.maps.mean((0, 1))

    @property
    def spread(self) -> Float[np.ndarray, "layers heads q k"]:
        """The standard deviation of every weight."""
        return self.maps.std((0, 1))

    def chart(self) -> Heatmaps:
        """A panel per head, of the first layers where they are too many for one picture."""
        panels, (n_models, n_prompts) = _panels(self.mean, self.layers), self.maps.shape[:2]
        over = f"{n_prompts} prompt{'s' * (n_prompts > 1)}, {n_models} model{'s' * (n_models > 1)}"
        about = f"Rows read, columns are read. Mean over {over}; the largest standard deviation is "
        left_out = len(panels) - MOST_PANELS
        more = f" {left_out} more heads are left out." if left_out > 0 else ""
        return Heatmaps(
            "Attention",
            panels[:MOST_PANELS],
            f"{about}{self.spread.max():.2g}.{more}",
            diverging=bool((self.mean < 0).any()),
        )


def attention_maps(model: Any, prompts: Any) -> AttentionMaps:
    """Where every head of a model looks: an in-context learner or a trained ensemble, on one prompt or a batch.

    The query's target is hidden. Raises `BadInput` for a model that names no attention pattern.
    """
    if jax.tree.leaves(prompts)[0].ndim == (1 if isinstance(prompts, TokenPrompt) else 2):
        prompts = jax.tree.map(lambda leaf: leaf[None], prompts)
    models = [model[i] for i in range(len(model))] if isinstance(model, Ensemble) else [model]
    subjects = [learner_subject(one, prompts) for one in models]
    check(subjects[0])
    maps = np.stack([subject.traced(_maps) for subject in subjects])
    return AttentionMaps(maps, np.array(subjects[0].shape_of_trace().layers_of("pattern")))


def _panels(maps: np.ndarray, layers: np.ndarray, label: str = "") -> list[Panel]:
    """A panel per head of maps "layers heads q k"."""
    return [
        Panel(f"{label}{name}, head {h + 1}", head)
        for name, heads in zip(layer_names(layers), maps, strict=True)
        for h, head in enumerate(heads)
    ]


def shares(trace: Any) -> dict[str, Any]:
    """Every number of all heads, on average over readers."""
    size = jnp.abs(trace["pattern"])
    total = size.sum(-1, keepdims=True)
    share = size / jnp.where(total > 0, total, 1)
    q, k = share.shape[-2:]
    readers = jnp.arange(1, q)
    earlier = jnp.minimum(readers - 1, k - 1)
    own = jnp.where(readers < k, share[..., readers, jnp.minimum(readers, k - 1)], 0)
    return {
        "entropy": -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1)), -1)[..., 1:].mean(-1),
        "previous": share[..., readers, earlier].mean(-1),
        "first": share[..., 1:, 0].mean(-1),
        "self": own.mean(-1),
    }


def _maps(trace: Any) -> Any:
    return trace["pattern"]
