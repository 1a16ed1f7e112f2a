"""The figures of Han et al. (2024), drawn from a finished run."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series
from meta_icl.runs import Run, drawn

from .config import MIXTURES
from .readings import LEARNERS, moments, published, seeds_of

WORDS = {"known": "block known", "bayes": "block inferred (Bayes)", "ridge": "no block (ridge)"}
TITLES = {"blocks": "Blocks", "six": "Six blocks", "overlapping": "Overlapping bases", "families": "Four families"}


def figures(run: Run) -> dict[str, Chart]:
    """Errors and decodability of every block while training, curves at the end, interventions and heads."""
    makers: dict[str, Callable[[Run], Chart]] = {
        "optimal_curves": lambda run: optimal_figure(run.part_arrays("baseline"))
    }
    decides = {"optimal_curves": "B-1", "end": "H-2 H-3", "interventions": "H-6 H-7", "heads": "H-11"}
    of_mixtures = {"blocks": "H-1 H-3 H-4 H-5", "six": "H-8", "overlapping": "H-9", "families": "H-10"}
    for mixture in MIXTURES:
        for seed, arrays in enumerate(seeds_of(run, mixture)):
            name = f"{mixture}_seed{seed}"
            makers[name] = lambda _, of=mixture, seed=seed, arrays=arrays: training_figure(of, seed, arrays)
            decides[name] = of_mixtures[mixture]
    seeds = seeds_of(run, "blocks")
    if seeds:
        makers["end"] = lambda run: end_figure(seeds, run.part_arrays("baseline"))
        makers["interventions"] = lambda run: matrix_figure(seeds, run.part_arrays("baseline"))
        makers["heads"] = lambda run: heads_figure(seeds[0])
    return drawn(run, makers, decides)


def optimal_figure(optimal: Mapping[str, np.ndarray]) -> Chart:
    k = np.arange(20)
    known = published()["errors"]
    series = [Series(WORDS[name], k, optimal[f"published_{name}"]) for name in LEARNERS]
    series += [
        Series(f"{WORDS[name]}, table", known[name]["k"], known[name]["value"], published=True) for name in LEARNERS
    ]
    return Lines("Optimal learners (D = 16, r = 4)", "examples k", "error over r", tuple(series), log_y=True)


def training_figure(mixture: str, seed: int, arrays: Mapping[str, np.ndarray]) -> Chart:
    steps, layer = arrays["step"], int(arrays["td"][-1].mean(1).argmax())
    tasks = range(arrays["error"].shape[1])
    errors = tuple(Series(f"task {i + 1}", steps, arrays["error"][:, i].mean(1)) for i in tasks)
    found = tuple(Series(f"task {i + 1}", steps, arrays["td"][:, layer, i]) for i in tasks)
    layers = tuple(Series(f"layer {i + 1}", steps, arrays["td"][:, i].mean(1)) for i in range(arrays["td"].shape[1]))
    charts = (
        Lines("error (Fig. 2)", "training step", "error, mean over k", errors),
        Lines(f"decodability, layer {layer + 1} (Fig. 9)", "training step", "task decodability", found),
        Lines("decodability by layer (Fig. 10)", "training step", "task decodability", layers),
    )
    return Grid(f"{TITLES[mixture]}, seed {seed}", charts, 3)


def end_figure(seeds: Sequence[Mapping[str, np.ndarray]], optimal: Mapping[str, np.ndarray]) -> Chart:
    k = np.arange(len(optimal["own_bayes"]))
    series = [Series(WORDS[name], k, optimal[f"own_{name}"], style="dashed") for name in LEARNERS]
    series += [Series(f"decoder, seed {i}", k, a["final_error"].mean(0)) for i, a in enumerate(seeds)]
    return Lines("Error by position at the end (Fig. 2)", "examples k", "error over r", tuple(series), log_y=True)


def matrix_figure(seeds: Sequence[Mapping[str, np.ndarray]], optimal: Mapping[str, np.ndarray]) -> Chart:
    names = [f"block {i + 1}" for i in range(seeds[0]["patch"].shape[1])]
    panels = [Panel(f"seed {i}, end", a["patch"][-1], names, names) for i, a in enumerate(seeds)]
    for i, a in enumerate(seeds):
        between = moments(a, optimal).between
        if between is not None:
            panels.append(Panel(f"seed {i}, half-way", a["patch"][between], names, names))
    caption = "Rise of the error of prompts of a block (rows) whose state is that of another (columns)."
    return Heatmaps("Interventions (Fig. 7)", tuple(panels), caption)


def heads_figure(arrays: Mapping[str, np.ndarray]) -> Chart:
    layers, heads, tasks = arrays["pruned"].shape
    rows = [f"layer {i + 1}, head {j + 1}" for i in range(layers) for j in range(heads)]
    columns = [f"block {i + 1}" for i in range(tasks)]
    panel = Panel("rise of the error", arrays["pruned"].reshape(-1, tasks), columns, rows)
    return Heatmaps("Pruning single heads, seed 0 (Fig. 18)", (panel,))
