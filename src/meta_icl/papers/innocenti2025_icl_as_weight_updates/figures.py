"""The figures of Innocenti & Achour (2025), drawn from a finished run."""

import numpy as np

from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, deciding, over_seeds
from meta_icl.runs import Run

from .experiments import ANY_WEIGHTS, variants_of


def figures(run: Run) -> dict[str, Chart]:
    """Training, errors, and the geometry of the updates of the first variant."""
    found = variants_of(run)
    name, first = next(iter(found.items()))
    losses = [over_seeds(variant, arrays["step"], arrays["eval"]) for variant, arrays in found.items()]
    squared, norms = first["patched/squared"], first["trained/norm"]
    errors = [over_seeds(f"block {i + 1}", first["step"], squared[:, :, i]) for i in range(squared.shape[2])]
    positions = np.arange(1, norms.shape[-1] + 1)
    sizes = [over_seeds(f"block {i + 1}", positions, norms[:, i].T) for i in range(norms.shape[1])]
    panels = [Panel(f"block {i + 1}", matrix) for i, matrix in enumerate(first["trained/cosine of positions"][0][:3])]
    training = (
        Lines("Loss", "training step", "half-MSE", losses, log_y=True),
        Lines(f"Patched - true answers, {name}", "training step", "mean square, float32", errors, log_y=True),
    )
    heat = f"Cosine of the updates of two positions, {name}, after training"
    return deciding(
        {
            "training": Grid("Training, and patched against true answers", training, 2, ANY_WEIGHTS),
            "positions": Heatmaps(heat, panels, "Mean over prompts; seed 0.", shared_scale=True),
            "norms": Lines("Size of the update by position, after training", "position", "norm of the update", sizes),
        },
        {
            "training": "I1",
            "norms": "I2",
        },
    )
