"""The figures of Behrouz et al. (2025), drawn from a finished run."""

import numpy as np

from meta_icl.plotting import Bars, Chart, Lines, Series, deciding, over_seeds
from meta_icl.runs import Run

from .experiments import final_losses, played

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
    found, lengths = played(run), np.array([1, 2, 4])
    out: dict[str, Chart] = {
        "ladder": Lines("Untrained memory rules on linear regression", "examples", "error / d", tuple(curves))
    }
    for arena, title in (("mqar", "Associative recall: variants of the memory"), ("hard", "More pairs: depths")):
        if arena in found:
            losses = final_losses(found[arena])
            of = np.stack(list(losses.values()))
            # A seed that has diverged is left out, unless all have.
            names, middle, low, high = (
                tuple(map(words, losses)),
                *(f(of, 1) for f in (np.nanmedian, np.nanmin, np.nanmax)),
            )
            out[arena] = Bars(title, "", "final loss, nats", names, middle, low, high)
    for arena, title in (("needle", "Needles by length"), ("far", "Needles by length: hybrids")):
        if arena in found:
            series = [
                over_seeds(words(name), lengths, np.stack([of[f"score/{n}x"] for n in lengths]))
                for name, of in found[arena].items()
            ]
            out[arena] = Lines(title, "length / training length", "accuracy", tuple(series), log_x=True)
    per_token = [Series(f"depth {i + 1}", timed["lengths"], 1e6 * row) for i, row in enumerate(timed["seconds"])]
    cost = "µs per token, forward and backward"
    out["times"] = Lines("Time of the memory", "tokens", cost, tuple(per_token), log_x=True)
    return deciding(
        out,
        {"ladder": "F-1", "mqar": "T-2 T-5 T-6 T-8", "hard": "T-1", "needle": "T-3", "far": "T-4", "times": "T-7"},
    )
