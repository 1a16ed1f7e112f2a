"""The claims of Chan et al. (2022), judged from a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, within

from .config import RECURRENT
from .experiments import Seeds, final, load, sweep

LEARNED = 0.6
NOT_TRAINED = "this preset does not train the settings: `full` does, all of them in some 2 CPU-hours"
LONG = 200_000  # steps from which on a missing transience means something


def unlearned(values: Mapping[Any, Seeds], least: int = 2) -> str | None:
    """Why a sweep decides nothing, if so."""
    if len(values) < least:
        return NOT_TRAINED
    below = [f"{value} ({final(seeds, 'train'):.2f})" for value, seeds in values.items()
             if not final(seeds, "train") >= LEARNED]  # fmt: skip
    return f"accuracy on the training law below {LEARNED} at {', '.join(below)}" if below else None


def trend(values: Mapping[Any, Seeds], field: str, margin: float, **signs: int) -> list[Check]:
    """Checks that accuracies rise (1) or fall (-1) over a sweep: between its ends, and nowhere back."""
    checks = []
    for name, sign in signs.items():
        course = sign * np.array([final(seeds, name) for seeds in values.values()])
        word = "rise" if sign > 0 else "fall"
        checks += [
            Check(f"{name.upper()} accuracy, {word} over {field}", at_least(margin), course[-1] - course[0]),
            Check(f"{name.upper()} accuracy, smallest step of the {word}", at_least(-margin), np.diff(course).min()),
        ]
    return checks


def largest_fall(arrays: Mapping[str, np.ndarray]) -> float:
    """How far the IC accuracy has fallen from its peak, over medians of three records; 0 if the peak is below .7."""
    ic = arrays["ic"]
    smooth = np.median([ic[i : len(ic) - 2 + i] for i in range(3)], axis=0) if len(ic) >= 3 else ic
    return float(smooth.max() - smooth[-1]) if smooth.max() >= 0.7 else 0.0


def claim(
    number: int, statement: str, source: str, checks: Sequence[Check], why_not: str | None, note: str | None = None
) -> Claim:
    """A claim; where there is a reason why it is undecided, without checks and note."""
    id = f"chan2022/C{number}"
    return (
        Claim(id, statement, source, (), why_not) if why_not else Claim(id, statement, source, tuple(checks), note=note)
    )


def claims(run: Run) -> list[Claim]:
    """C1 .. C9; tolerances are those set for the reproduction."""
    sizes = run.load_arrays("sizes")
    return judged(load(run), steps=int(sizes["steps"]), n_eval=int(sizes["n_eval"]))


def judged(found: Mapping[str, Seeds], *, steps: int, n_eval: int) -> list[Claim]:
    """The claims from the accuracies of every trained setting."""
    margin = 2 * (0.5 / n_eval) ** 0.5  # two standard errors of a difference of accuracies near a half

    def ordered(number: int, statement: str, source: str, field: str, **signs: int) -> Claim:
        values = sweep(found, "glyphs", field)
        why_not = unlearned(values)
        return claim(number, statement, source, [] if why_not else trend(values, field, margin, **signs), why_not)

    steady = {0.0: seeds} if (seeds := found.get("glyphs p_bursty=0.0")) else {}
    lstm = max((found[name] for name in RECURRENT if name in found), key=lambda s: final(s, "iw"), default=None)
    falls = [max(largest_fall(a) for a in seeds) for name, seeds in found.items() if name not in RECURRENT]
    fall = max(falls, default=0.0)
    zipf = sweep(found, "glyphs", "zipf")
    best = {a: min(2 * final(s, "ic") - 1, final(s, "iw_common")) for a, s in zipf.items()}
    no_zipf = unlearned(zipf, least=3)
    if no_zipf is None and max(final(s, "ic") for s in zipf.values()) < 0.7:
        no_zipf = "no exponent led to in-context learning (IC accuracy below .7)"
    no_lstm = NOT_TRAINED
    if lstm is not None:
        learned = final(lstm, "iw") >= 0.5
        no_lstm = None if learned else "the recurrent network has not learned the labels (IW accuracy below .5)"
    gaussian = {
        "p_bursty": {"ic": 1, "iw": -1}, "n_classes": {"ic": 1, "iw": -1}, "drawings": {"ic": 1}
    }  # fmt: skip
    stand_in = {field: sweep(found, "gaussian", field) for field in gaussian}
    by_exponent = "; ".join(f"{a:g}: {final(s, 'ic'):.2f}, {final(s, 'iw_common'):.2f}" for a, s in zipf.items())
    memorised = "; ".join(
        f"{name.removeprefix('gaussian ')}: {final(s, 'ic'):.2f}, {final(s, 'iw'):.2f}"
        for name, s in found.items()
        if name.startswith("gaussian")
    )
    reasons = [f"{field}: {why}" for field, values in stand_in.items() if (why := unlearned(values))]
    return [
        ordered(1, "Burstiness: IC up, IW down", "Fig. 3", "p_bursty", ic=1, iw=-1),
        claim(2, "Without burstiness no in-context learning", "Fig. 3",
              [Check("IC accuracy", within(0.45, 0.55), [a["ic"][-1] for s in steady.values() for a in s])]
              if steady else [], unlearned(steady, least=1)),
        ordered(3, "Number of classes: IC up, IW down", "Figs. 3, 4", "n_classes", ic=1, iw=-1),
        ordered(4, "Several labels per class: IC up", "Sec. 3", "polysemy", ic=1),
        ordered(5, "Variation within classes (one drawing, noise, all drawings): IC up", "Sec. 3", "drawings", ic=1),
        claim(6, "Skewed classes: IC falls for large exponents; near 1 it stands beside IW", "Sec. 3", [
            Check("fall of the IC accuracy from exponent 0 to the largest", at_least(margin),
                  final(zipf[min(zipf)], "ic") - final(zipf[max(zipf)], "ic")),
            Check("exponent at which the smaller of 2 IC - 1 and IW (common classes) is largest", within(0.8, 1.2),
                  max(best, key=lambda a: best[a])),
        ] if not no_zipf else [], no_zipf, f"IC and IW (common classes) by exponent: {by_exponent}"),
        claim(7, "A recurrent network learns the labels, but not in context", "Sec. 4",
              [Check("IC accuracy", at_most(0.6), [a["ic"][-1] for a in lstm])] if lstm else [], no_lstm),
        claim(8, "In-context learning can be transient", "Sec. 3",
              [Check("largest fall of the IC accuracy from its peak", at_least(0.1), fall)],
              None if fall >= 0.1 or steps >= LONG else f"a fall may come later than {steps} steps"),
        claim(9, "Gaussian vectors in the place of images: the directions of C1, C3 and C5", "Sec. 3",
              [check for field, signs in gaussian.items() for check in trend(stand_in[field], field, margin, **signs)]
              if not reasons else [], "; ".join(reasons) or None, f"IC and IW at the end: {memorised}"),
    ]  # fmt: skip
