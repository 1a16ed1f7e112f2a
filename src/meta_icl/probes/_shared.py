"""What several probes say alike: names of layers and heads, means with their spread over prompts, maps of heads."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from meta_icl.plotting import Heatmaps, Panel

Measured = Mapping[str, np.ndarray]


def over_prompts(values: Float[np.ndarray, "p ..."]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over prompts; the error is NaN for a single prompt."""
    n = values.shape[0]
    error = values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1:], np.nan)
    return values.mean(0), error


def layer_names(layers: Sequence[int] | np.ndarray) -> list[str]:
    """Layers counted from 1, as in the tables."""
    return [f"layer {int(i) + 1}" for i in layers]


def head_map(
    title: str, found: Mapping[str, Measured], name: str, caption: str, *, diverging: bool = False
) -> Heatmaps:
    """One number per layer and head, "prompts layers heads", side by side for several subjects."""
    panels = []
    for label, measured in found.items():
        values = measured[name].mean(0)
        layers = measured.get("layers", np.arange(values.shape[0]))
        panels.append(Panel(label, values, [f"{h + 1}" for h in range(values.shape[1])], layer_names(layers)))
    return Heatmaps(title, panels, caption, diverging=diverging, shared_scale=True)


def strongest(values: Float[np.ndarray, "layers heads"], n: int) -> list[tuple[int, int]]:
    """The n (layer row, head) with the largest values."""
    order = np.argsort(-values, axis=None, kind="stable")[:n]
    return [divmod(int(at), values.shape[1]) for at in order]
