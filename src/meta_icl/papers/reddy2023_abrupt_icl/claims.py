"""The claims of Reddy (2023), judged from a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.analysis.circuits import onset
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Converged, absolute, at_least, at_most, is_true, within

from .config import SETTINGS, SWEPT
from .experiments import seeds_of

NOT_TRAINED = "this preset does not train the settings: `sweeps` does in part (12 CPU-min), `full` wholly (2 CPU-hours)"
LEARNED = 0.6  # accuracy on the training law from which on a sweep means something
MARGIN = 0.05  # two standard errors of the difference of two accuracies of 1,024 prompts
LONG = 200_000  # steps from which on a missing competition means something
Seeds = Sequence[Mapping[str, np.ndarray]]  # what every seed of a setting left behind


def claim(
    number: int,
    statement: str,
    source: str,
    checks: list[Check],
    reason: str = NOT_TRAINED,
    converged: Converged | None = None,
    revised: str | None = None,
) -> Claim:
    """A claim; without checks it is undecided for the reason given."""
    undecided = None if checks else reason
    id = f"reddy2023/R{number}"
    return Claim(id, statement, source, tuple(checks), undecided, converged=converged, revised=revised)


def unlearned(settings: Mapping[str, Seeds]) -> str | None:
    """Why settings decide nothing, if so."""
    test = {name: float(np.median([a["test"][-1] for a in seeds])) for name, seeds in settings.items()}
    below = ", ".join(f"{name} ({value:.2f})" for name, value in test.items() if not value >= LEARNED)
    return f"accuracy on the training law below {LEARNED}: {below}" if below else None


def on_law(seeds: Seeds) -> Converged | None:
    """The guard of what comes with time: the training law has been learned."""
    law = [float(a["test"][-1]) for a in seeds]
    return Converged("accuracy on the training law", at_least(LEARNED), law) if seeds else None


def settled(seeds: Seeds) -> Converged | None:
    """The guard of levels of accuracy: the training law is no longer being learned."""
    late = [float(a["test"][-1] - np.median(a["test"][a["step"] >= 0.5 * a["step"][-1]])) for a in seeds]
    rule = at_most(MARGIN)
    return Converged("rise of the accuracy on the training law in the last half", rule, late) if seeds else None


def plateau(arrays: Mapping[str, np.ndarray]) -> float:
    """The median IC accuracy over the quarter of records before it first exceeds .5 (or the last quarter)."""
    above = np.flatnonzero(arrays["ic"] > 0.5)
    end = int(above[0]) if above.size else len(arrays["ic"])
    return float(np.median(arrays["ic"][max(0, end - max(1, len(arrays["ic"]) // 4)) : max(end, 1)]))


def claims(run: Run) -> list[Claim]:
    """R1 .. R9; tolerances are those set for the reproduction."""
    return judged({name: seeds for name in SETTINGS if (seeds := seeds_of(run, name))})


def judged(found: Mapping[str, Seeds]) -> list[Claim]:
    """The claims from what was recorded of every trained setting."""
    abrupt = found.get("abrupt", [])
    learned = [a for a in abrupt if a["ic"][-1] > 0.9]
    nobody = "no seed learned in context" if abrupt else NOT_TRAINED

    def when(arrays: Mapping[str, np.ndarray], name: str) -> float:
        return onset(arrays["step"], arrays[name])

    def trend(number: int, statement: str, source: str, family: str, values: Sequence[Any], **signs: int) -> Claim:
        """Accuracies rise (1) or fall (-1) over a sweep: between its ends, and nowhere back."""
        seeds = {name: found[name] for value in values if (name := f"{family}={value}") in found}
        if len(seeds) < 2:
            return claim(number, statement, source, [])
        checks = []
        for kind, sign in signs.items():
            course = sign * np.array([np.median([a[kind][-1] for a in group]) for group in seeds.values()])
            label = f"{kind.upper()} accuracy, {'rise' if sign > 0 else 'fall'} with {family}"
            checks += [Check(label, at_least(MARGIN), course[-1] - course[0]),
                       Check(f"{label}, smallest step", at_least(-MARGIN), np.diff(course).min())]  # fmt: skip
        why_not = unlearned(seeds)
        return claim(number, statement, source, [] if why_not else checks, why_not or NOT_TRAINED)

    tracks = [a["ic2"][-1] - a["ic"][-1] for a in learned]
    equal = found.get("L=N", [])
    alpha = found.get("alpha=1.0", [])
    no_alpha = unlearned({"alpha=1.0": alpha}) if alpha else NOT_TRAINED
    long = [a for name in ("long", *SWEPT) for a in found.get(name, []) if a["step"][-1] >= LONG]
    peaks = [(float(a["ic"].max()), float(a["ic"][-1])) for a in long]
    falls = [peak - end for peak, end in peaks if peak >= 0.7]
    return [
        claim(1, "IC accuracy waits near 1/N, then jumps to 1", "Fig. 3", [
            Check("plateau of the IC accuracy", within(0.08, 0.2), [plateau(a) for a in abrupt]),
            Check("final IC accuracy", at_least(0.95), [a["ic"][-1] for a in abrupt])] if abrupt else [],
            converged=on_law(abrupt)),
        claim(2, "The choice among context labels comes first, the induction head with the jump", "Fig. 3", [
            Check("CLA before IC accuracy", is_true(), [float(when(a, "cla") < when(a, "ic")) for a in learned]),
            *(Check(f"{name} later than CLA", is_true(), [float(when(a, name) > when(a, "cla")) for a in learned])
              for name in ("ila", "tila"))] if learned else [], nobody),
        claim(3, "With L = N in-context learning does not come", "Fig. A.5", [
            Check("share of seeds that learn", at_most(1 / 6), (float(np.mean([a["ic"][-1] > 0.5 for a in equal])),)),
        ] if equal and learned else [],
              "asked only where seeds of L > N learn in context" if equal else NOT_TRAINED,
              revised="a share of the seeds; at first it was one seed of however many, while the source has none of "
              "six and one of six was allowed"),
        trend(4, "Burstiness: ICL up, IWL down", "Fig. 2a", "B", (1, 2, 4), ic=1, iw=-1),
        trend(5, "Classes: ICL up, IWL down", "Fig. 2a", "K", (128, 256, 1024, 2048), ic=1, iw=-1),
        trend(6, "Noise within classes favours ICL", "Fig. 2b", "eps", (0.0, 0.25, 0.5, 0.75), iw=-1),
        claim(7, "At alpha = 1 both are learned", "Fig. 2c", [
            Check(f"{name.upper()} accuracy", at_least(0.8), [a[name][-1] for a in alpha])
            for name in ("ic", "iw")] if not no_alpha else [], no_alpha or NOT_TRAINED, settled(alpha)),
        claim(8, "ICL may fade while IWL grows", "competition", [
            Check("largest fall of IC accuracy from a peak above .7", at_least(0.1), max(falls))] if falls else [],
              "no long training without novel classes reaches an IC accuracy of .7" if long else
              f"trained for {LONG:,} steps only by the presets `full` and `paper` (20 CPU-minutes)"),
        claim(9, "Shifted labels are followed when ICL is used", "Fig. 2",
              [Check("final IC2 less IC accuracy", absolute(0, 0.1), tracks)] if tracks else [], nobody),
    ]  # fmt: skip
