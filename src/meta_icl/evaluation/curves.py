"""Curves with bands that say what they cover: loss by context length, and what a training recorded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Key

from meta_icl.errors import choose, require
from meta_icl.evaluation.by_position import Band
from meta_icl.evaluation.compare import drawn, losses_of, named, points_apart
from meta_icl.evaluation.estimates import Estimate, covered, estimate, with_members
from meta_icl.prompt import Task, truncated


class Curves(dict[str, list[Estimate]]):
    """An estimate for every name and every point `x`, with the labels of a figure; `meta_icl.show` draws them.

    `interval` names what the bands of `band` cover.
    """

    def __init__(
        self,
        estimates: Mapping[str, list[Estimate]],
        *,
        x: Sequence[float] | np.ndarray,
        x_label: str,
        y_label: str,
        interval: str,
    ):
        super().__init__(estimates)
        self.x, self.x_label, self.y_label, self.interval = np.asarray(x, float), x_label, y_label, interval

    def band(self, name: str) -> Band:
        """Mean and ends of the 95 % interval of one curve, over seeds where there are several, else over prompts."""
        curve = self[choose("curve", name, self)]
        ends = [point.over_seeds if len(point.members) > 1 else point.over_prompts for point in curve]
        low, high = np.array(ends).T
        return Band(np.array([point.mean for point in curve]), low, high)

    def __str__(self) -> str:
        lines = [f"{self.x_label}: {', '.join(f'{x:g}' for x in self.x)}"]
        lines += [f"{name}: {', '.join(map(str, curve))}" for name, curve in self.items()]
        return "\n".join([*lines, self.interval])


def loss_by_context(
    predictors: Mapping[str, Any] | Sequence[Any] | Callable[[int], Mapping[str, Any]],
    task: Task,
    contexts: Sequence[int],
    *,
    key: Key[Array, ""] | int,
    n_prompts: int = 10_000,
) -> Curves:
    """The loss of every predictor for prompts cut to each context length, the same prompts throughout.

    `predictors` may be a function of the context length, for algorithms whose best rate depends on it.
    """
    prompts = drawn(task, n_prompts, key)
    longest = prompts.x.shape[1] - 1
    require(all(1 <= c <= longest for c in contexts), "contexts", list(contexts), f"between 1 and {longest}")
    curves: dict[str, list[Estimate]] = {}
    for n_context in contexts:
        cut = truncated(prompts, n_context)
        chosen = predictors(n_context) if callable(predictors) else predictors
        for name, predictor in points_apart(named(chosen)).items():
            curves.setdefault(name, []).append(estimate(losses_of(predictor, cut)))
    return _of_losses(curves, contexts, "examples in the context", n_prompts)


def loss_by_task(
    predictors: Any,
    tasks: Sequence[Task],
    *,
    key: Key[Array, ""] | int,
    n_prompts: int = 10_000,
) -> Curves:
    """The loss of every predictor, as it is, on prompts of each task: how it fares out of distribution.

    All tasks are sampled with the same key, so where they differ in a scale only, their prompts do too.
    """
    chosen = points_apart(named(predictors))
    curves: dict[str, list[Estimate]] = {name: [] for name in chosen}
    for task in tasks:
        prompts = drawn(task, n_prompts, key)
        for name, predictor in chosen.items():
            curves[name].append(estimate(losses_of(predictor, prompts)))
    return _of_losses(curves, range(len(tasks)), "task", n_prompts)


def learning_curves(trained: Any, name: str = "loss") -> Curves:
    """What a training recorded under `name`, a curve per point of its sweep; means over seeds with their intervals.

    Step 0 is left out where nothing was measured at it, as of the training loss.
    """
    record = trained.history[choose("record", name, [n for n in trained.history if n != "step"])]
    require(record.ndim == 2, "record", name, "one number per step and replica")
    known = ~np.isnan(record).all(axis=1)
    curves = {
        label or name: [with_members(float(row.mean()), float("nan"), row) for row in record[known][:, members]]
        for label, members in trained.points().items()
    }
    seeds = {len(members) for members in trained.points().values()}
    interval = f"95 % over {max(seeds)} seeds" if max(seeds) > 1 else "one seed, no interval"
    return Curves(curves, x=trained.history["step"][known], x_label="step", y_label=name, interval=interval)


def _of_losses(curves: dict[str, list[Estimate]], x: Sequence[float], x_label: str, n_prompts: int) -> Curves:
    members = [len(point.members) for curve in curves.values() for point in curve]
    return Curves(curves, x=x, x_label=x_label, y_label="loss", interval=covered(n_prompts, members))
