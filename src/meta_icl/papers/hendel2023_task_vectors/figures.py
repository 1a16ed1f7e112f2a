"""The figures of Hendel et al. (2023), drawn from a finished run."""

import numpy as np

from meta_icl.evaluation.by_position import bootstrap
from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding
from meta_icl.runs import Run

from .experiments import Found, common_layer, conflicts_of, tasks_of

BAND = "90% interval over prompts"


def figures(run: Run) -> dict[str, Chart]:
    """Accuracy by layer, with examples and without; how vectors lie; tasks in conflict."""
    found, conflicts = tasks_of(run), conflicts_of(run)
    charts: dict[str, Chart] = {
        "layers": Grid("Accuracy with a task vector by layer (Fig. 3)", tuple(
            by_layer(name, arrays) for name, arrays in found.items()), 2),
        "loss": Lines("Loss of the answer with a task vector by layer", "layer", "nats", [
            Series(name, arrays["layers"] + 1, arrays["loss by layer"].mean(1)) for name, arrays in found.items()]),
        "kept": kept(found),
    }  # fmt: skip
    if len(found) > 1:
        charts["similarity"] = similarity(found)
    if conflicts:
        charts["conflicts"] = in_conflict(conflicts)
    deciders = {"layers": "T-2", "kept": "T-1 T-5", "similarity": "T-3", "conflicts": "T-4"}
    return deciding(charts, {name: ids for name, ids in deciders.items() if name in charts})


def by_layer(name: str, arrays: dict[str, np.ndarray]) -> Lines:
    """One task's accuracy with the vector of every layer, beside that with examples and without."""
    layers, band = arrays["layers"] + 1, bootstrap(arrays["by layer"].T.astype(float))
    lines = [(told, float(arrays[key].mean())) for told, key in (("examples", "with examples"), ("alone", "alone"))]
    series = [Series("vector", layers, band.mean, band.low, band.high, band=BAND)]
    return Lines(name, "layer", "share right", series, h_lines=lines)


def kept(found: Found) -> Heatmaps:
    """Accuracy of every task in the four ways of asking."""
    ways = {"with examples": "examples", "vector": "vector", "alone": "alone", "control": "bare dummy"}
    values = np.array([[arrays[way].mean() for way in ways] for arrays in found.values()])
    panel = Panel("share right", values, list(ways.values()), list(found))
    return Heatmaps("What one state keeps of the examples (Fig. 4)", [panel], "At the layer chosen on other prompts.",
                    diverging=False)  # fmt: skip


def similarity(found: Found) -> Heatmaps:
    """Mean cosine of vectors, of two tasks each, less their common mean."""
    layer = common_layer(found)
    each = [arrays["vectors"][:, layer].astype(np.float64) for arrays in found.values()]
    mean = np.concatenate(each).mean(0)
    unit = [(v - mean) / np.linalg.norm(v - mean, axis=1, keepdims=True) for v in each]
    values = np.array([[cosine(a, b, a is b) for b in unit] for a in unit])
    caption = f"Mean cosine of two vectors of layer {layer + 1}, the mean of all vectors subtracted."
    return Heatmaps("How task vectors lie (Fig. 5)", [Panel("cosine", values, list(found), list(found))], caption)


def cosine(a: np.ndarray, b: np.ndarray, same: bool) -> float:
    """The mean over pairs of different vectors."""
    products = a @ b.T
    return float(products[~np.eye(len(a), dtype=bool)].mean() if same else products.mean())


def in_conflict(conflicts: Found) -> Heatmaps:
    """Accuracy on both tasks, plain and with the vector."""
    ways = {"plain A": "A, plain", "vector A": "A, vector", "plain B": "B, plain", "vector B": "B, vector"}
    values = np.array([[arrays[way].mean() for way in ways] for arrays in conflicts.values()])
    panel = Panel("share right", values, list(ways.values()), [pair.replace(">", " > ") for pair in conflicts])
    caption = "Prompts with examples of A; the vector of B is put in place at the last token."
    return Heatmaps("Examples of one task, vector of another (Table 2)", [panel], caption, diverging=False)
