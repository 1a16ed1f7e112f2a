"""The figures of Behrouz et al. (2025), drawn from a finished run."""

import numpy as np

from meta_icl.plotting import Bars, Chart, Lines, Series, deciding, over_seeds
from meta_icl.runs import Run

from .experiments import PLAYED, final_loss, part

WORDS = {
    **{name: name.upper() for name in ("lmm", "ttt", "mac", "mag", "mal")},
    "linear": "linear memory",
    "depth3": "depth 3",
    "no_conv": "no convolution",
    "mamba2": "Mamba-2",
    "deltanet": "DeltaNet",
}


def words(name: str) -> str:
    """A variant as the figures name it."""
    return WORDS.get(name) or name.replace("_", " ").replace("chunk", "chunks of ")


def figures(run: Run) -> dict[str, Chart]:
    """The ladder, the ablation, needles by length, chunk sizes, times."""
    arrays, timed = run.load_arrays("ladder"), run.load_arrays("times")
    t = arrays["t"]
    curves = [Series(n, t, arrays[f"mean/{n}"], style="points") for n in ("hebbian", "delta", "surprise", "ridge")]
    curves += [
        Series(f"{n}, closed form", t, arrays[f"known/{n}"], style="dashed") for n in ("hebbian", "delta", "ridge")
    ]
    names, title = PLAYED["mqar"], "Associative recall: variants of the memory"
    losses = np.stack([final_loss(run, "mqar", name) for name in names])
    lengths = np.array([1, 2, 4])
    needles = [
        over_seeds(words(name), lengths, np.stack([part(run, "needle", name)[f"score/{n}x"] for n in lengths]))
        for name in PLAYED["needle"]
    ]
    per_token = [Series(f"depth {i + 1}", timed["lengths"], 1e6 * row) for i, row in enumerate(timed["seconds"])]
    medians, low, high = np.median(losses, axis=1), losses.min(axis=1), losses.max(axis=1)
    cost = "µs per token, forward and backward"
    return deciding(
        {
            "ladder": Lines("Untrained memory rules on linear regression", "examples", "error / d", tuple(curves)),
            "mqar": Bars(title, "", "final loss, nats", list(map(words, names)), medians, low, high),
            "needle": Lines("Needle by length", "length / training length", "accuracy", tuple(needles), log_x=True),
            "times": Lines("Time of the memory", "tokens", cost, tuple(per_token), log_x=True),
        },
        {
            "ladder": "T-1 T-2 T-5 T-8",
            "needle": "T-3 T-4",
            "times": "T-7",
        },
    )
