"""Pictures of what a network does inside: attention while it trains, attention to explore, products of its weights."""

from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from meta_icl.errors import require
from meta_icl.plotting.chart import Chart, Grid, Heatmaps, Lines, Numbers, Panel, Series, Slider, Widget

MOST = 400_000  # weights that an explorer holds: some 2.5 MB of a page


def attention_film(
    steps: Numbers,
    patterns: Numbers,
    course: Lines | None = None,
    *,
    labels: Sequence[str] | None = None,
    chosen: Sequence[int] = (),
    title: str = "Attention while training",
    caption: str = "",
    decides: Sequence[str] = (),
) -> Slider:
    """Attention maps by training step: `patterns` is "steps layers heads q k", one panel per head of every layer.

    `course` is drawn above every frame with a line at its step: a loss or an accuracy, whose `spans` name the phases
    of the training. `labels` name the tokens; on paper the frames of the indices `chosen` stand below each other
    (default: the first, the last, and two between). Raises `BadInput` for a wrong shape.
    """
    named, maps = np.array(steps), np.array(patterns, np.float64)
    require(maps.ndim == 5, "patterns", maps.shape, "of shape (steps, layers, heads, queries, keys)")
    require(len(maps) == len(named) > 0, "steps", named.shape, f"one per frame, {maps.shape[:1]}")
    frames = []
    for step, layers in zip(named.tolist(), maps, strict=True):
        panels = _panels(layers, labels)
        shown: Chart = Heatmaps(f"Attention at step {step}", panels, diverging=False, shared_scale=True)
        if course is not None:
            here = Lines(
                course.title,
                course.x_label,
                course.y_label,
                course.series,
                course.log_x,
                course.log_y,
                h_lines=course.h_lines,
                v_lines=(*course.v_lines, ("", float(step))),
                spans=course.spans,
            )
            shown = Grid(f"Step {step}", (here, shown), 1)
        frames.append((step, shown))
    last = len(frames) - 1
    kept = list(chosen) or list(dict.fromkeys((0, last // 3, 2 * last // 3, last)))
    for index in kept:
        require(0 <= index <= last, "chosen", index, f"indices from 0 to {last}")
    below: list[Chart] = [] if course is None else [course]
    for index in kept:
        panels = [
            Panel(f"step {named[index]}, {panel.name}", panel.matrix, panel.x_labels, panel.y_labels)
            for panel in _panels(maps[index], labels)
        ]
        below.append(Heatmaps(f"step {named[index]}", panels, diverging=False, shared_scale=True))
    static = Grid(title, below, 1, caption)
    return Slider(title, "training step", frames, last, caption, static, decides=decides)


def attention_explorer(
    patterns: Numbers,
    *,
    steps: Sequence[int] = (),
    prompts: Sequence[Sequence[str]] = (),
    title: str = "Attention: choose a layer, a head, a prompt and a step",
    caption: str = "",
    decides: Sequence[str] = (),
) -> Widget:
    """One attention map at a time of "steps prompts layers heads q k"; a click on a row shows where that token looks.

    `steps` are the training steps of the first axis, `prompts` the texts of the tokens of every prompt. On paper the
    last step of the first prompt stands, every head of every layer. Raises `BadInput` for a wrong shape, or for more
    weights than a page can hold.
    """
    maps = np.array(patterns, np.float64)
    require(maps.ndim == 6, "patterns", maps.shape, "of shape (steps, prompts, layers, heads, queries, keys)")
    require(maps.size <= MOST, "patterns", f"{maps.size} weights", f"{MOST} at most; take fewer steps or prompts")
    named = list(steps) or list(range(len(maps)))
    require(len(named) == len(maps), "steps", len(named), f"one per map of the first axis, {len(maps)}")
    tokens = [list(map(str, prompt)) for prompt in prompts] or [[str(i) for i in range(maps.shape[-1])]] * maps.shape[1]
    fits = len(tokens) == maps.shape[1] and all(len(prompt) == maps.shape[-1] for prompt in tokens)
    require(fits, "prompts", [len(prompt) for prompt in tokens], f"{maps.shape[1]} prompts of {maps.shape[-1]} tokens")
    data = {"patterns": np.round(maps, 3), "steps": named, "tokens": tokens}
    static = Heatmaps(title, _panels(maps[-1, 0], tokens[0]), caption, diverging=False, shared_scale=True)
    return Widget(title, _asset("explorer.html"), _asset("explorer.js"), data, caption, static, decides=decides)


def weight_products(
    products: Mapping[str, Numbers],
    *,
    labels: Sequence[str] | None = None,
    title: str = "Products of the weights and their eigenvalues",
    caption: str = "",
    decides: Sequence[str] = (),
) -> Grid:
    """Square products such as W_Q W_K^T and W_V W_O, {name: "d d" or "seeds d d"}, and their eigenvalues.

    Of several seeds the first one's matrix is shown, and the eigenvalues of all. Raises `BadInput` for a matrix that is
    not square.
    """
    charts: list[Chart] = []
    for name, product in products.items():
        matrices = np.array(product, np.float64)
        square = matrices.ndim in (2, 3) and matrices.shape[-1] == matrices.shape[-2]
        require(square, f"product {name}", matrices.shape, "a square matrix, or one per seed")
        matrices = matrices.reshape(-1, *matrices.shape[-2:])
        charts.append(Heatmaps(name, (Panel(name, matrices[0], labels, labels),)))
        found = [(f"seed {i}", np.linalg.eigvals(matrix)) for i, matrix in enumerate(matrices)]
        points = [Series(seed, values.real, values.imag, style="points") for seed, values in found]
        charts.append(Lines(f"Eigenvalues of {name}", "real part", "imaginary part", points))
    return Grid(title, charts, 2, caption, decides=decides)


def _panels(layers: np.ndarray, labels: Sequence[str] | None) -> list[Panel]:
    """A panel per head of "layers heads q k"; `labels` name the keys, of which the queries are the last."""
    queries = None if labels is None else list(labels)[-layers.shape[2] :]
    return [
        Panel(f"layer {i + 1}, head {j + 1}", head, labels, queries)
        for i, heads in enumerate(layers)
        for j, head in enumerate(heads)
    ]


def _asset(name: str) -> str:
    return (resources.files("meta_icl.plotting") / "assets" / name).read_text(encoding="utf-8")
