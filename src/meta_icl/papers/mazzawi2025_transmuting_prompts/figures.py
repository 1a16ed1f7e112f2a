"""The figures of Mazzawi et al. (2025), drawn from a finished run."""

from meta_icl.plotting import Chart, Grid, Lines, over_seeds
from meta_icl.runs import Run


def figures(run: Run) -> dict[str, Chart]:
    """Errors against the number of calibration queries, and the training."""
    arrays = run.part_arrays("regression")
    shown = (
        ("new queries", "test", "line"),
        ("calibration queries", "calibration", "dotted"),
        ("thought vector", "vector", "dashed"),
        ("new queries, last matrix fitted too", "test through the last matrix", "line"),
    )
    charts = []
    for name in ("trained", "untrained"):
        none = arrays[f"{name}/none"][:, None]
        series = [
            over_seeds(label, arrays["sizes"], (arrays[f"{name}/{key}"] / none).T, style) for label, key, style in shown
        ]
        title, y_label = f"{name.capitalize()} blocks", "squared error / without a patch"
        charts.append(Lines(title, "calibration queries K", y_label, series, log_x=True, log_y=True))
    losses = (over_seeds("evaluation prompts", arrays["step"], arrays["eval"]),)
    return {
        "thought": Grid("A prompt as one patch for all queries", charts, 2),
        "training": Lines("Training", "training step", "half-MSE", losses),
    }
