"""The claims of Minegishi et al. (2025), judged from a finished run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from meta_icl.algorithms import semi_context_theory
from meta_icl.analysis.circuits import accuracy_plateaus, onset, rises, uniform_circuit_scores
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Converged, Rule, absolute, at_least, at_most, is_true, within

from .config import full_minutes
from .experiments import CIRCUITS, NEAR, Course, Seeds, costs, course, load

BIGRAM, LABEL = range(2)
DEFAULT = (*range(1, 10), 11, 12)  # claims about the default setting
RAW = (
    "judged by what the accuracy loses when attention is removed in evaluation, nothing retrained; at first by raw "
    "attention above 0.6, which no source has: an independent trainer (gradients by hand) has the published course at "
    "label attention of .25 to .30 in layer 1 in phase 2 and chunk-example of .2 to .5 at the end, since labels read "
    "labels too, and the first label sees one item only"
)
LEARNED = 0.9  # final accuracy from which on the absence of plateaus, or an order of times, means something


PHASES = (
    "phases are the plateaus from the ceiling of the query alone upwards; at first all plateaus in their order, where "
    "a shoulder at half of that ceiling, before any circuit, was phase 1 of one kept seed, and the NCC its phase 2"
)


FIRST = (
    "the accuracy of phase 1, at first of the first plateau of any kind: by that a run with four maps, which rests at "
    ".126, half of the ceiling of the query alone, and then at that ceiling, had failed M13, as one seed of four did M2"
    "; no phase lies more than .05 below that ceiling, so that it is mostly the upper bound that judges"
)


def heights(arrays: Mapping[str, np.ndarray]) -> list[float]:
    """The accuracies of all plateaus, of whatever circuit or none."""
    return [plateau.height for plateau in accuracy_plateaus(arrays["step"], arrays["accuracy"])]


def jumps(arrays: Mapping[str, np.ndarray]) -> int:
    """How often the accuracy rises by at least a tenth from its start, a plateau, to the next plateau or its end."""
    levels = [float(arrays["accuracy"][0]), *heights(arrays), float(arrays["accuracy"][-1])]
    return int((np.diff(levels) >= 0.1).sum())


def last_rise(arrays: Mapping[str, np.ndarray]) -> float:
    """The step of the steepest rise above the SCC ceiling's half way to 1."""
    level = 0.5 * (1 + arrays["ceilings"][1])
    above = np.flatnonzero(arrays["accuracy"] >= level)
    return float(arrays["step"][above[0]]) if above.size else np.nan


def second_rise(arrays: Mapping[str, np.ndarray]) -> float:
    """The step at which the accuracy comes half way from the NCC ceiling to the SCC ceiling."""
    above = np.flatnonzero(arrays["accuracy"] >= arrays["ceilings"][:2].mean())
    return float(arrays["step"][above[0]]) if above.size else np.nan


def claims(run: Run) -> list[Claim]:
    """M1 .. M32; tolerances are those set for the reproduction."""
    return judged(load(run))


def judged(found: Mapping[str, Seeds]) -> list[Claim]:
    """The claims from what was recorded of every trained setting."""
    default = default_claims(found["default"]) if "default" in found else untrained_claims()
    return [*default, *setting_claims(found)]


def untrained_claims() -> list[Claim]:
    """The claims about the default, of a preset that does not train it."""
    return [claim(number, "About the default setting", "Sections 3 and 4", []) for number in DEFAULT]


def claim(
    number: int,
    statement: str,
    source: str,
    checks: list[Check],
    revised: str | None = None,
    converged: Converged | None = None,
    names: Sequence[str] = ("default",),
) -> Claim:
    """A claim; without checks, what it would take to decide it: the settings `names`."""
    told = f"at most {full_minutes(names)} CPU-min a seed in the preset `full`"
    why_not = None if checks else f"this preset does not train {', '.join(names)}: {told}"
    guard = converged if checks else None
    return Claim(f"minegishi2025/M{number}", statement, source, checks, why_not, converged=guard, revised=revised)


def unlearned(found: Mapping[str, Seeds], names: Sequence[str]) -> str | None:
    """Why settings decide nothing, if so: the median final accuracy of one of them is below `LEARNED`."""
    finals = {name: float(np.median([a["accuracy"][-1] for a in found[name]])) for name in names if name in found}
    below = ", ".join(f"{name} ({value:.2f})" for name, value in finals.items() if not value >= LEARNED)
    return f"final accuracy below {LEARNED}: {below}" if below else None


def full_circuit(courses: Sequence[Course], of: str = "") -> list[Check]:
    """The full-context circuit by its causes: labels read their own item and hardly others, the query reads them."""
    own, others, last = (
        tuple(c.cost(removal, -1) for c in courses) for removal in ("no own", "only own", "L2 no labels")
    )
    return [
        Check(f"{of}end: cost if labels do not read their own item", at_least(0.25), own),
        Check(f"{of}end: cost if labels read no other item, less half of that", at_most(0.0),
              [b - a / 2 for a, b in zip(own, others, strict=True)]),
        Check(f"{of}end: cost if the query of layer 2 reads no labels", at_least(0.1), last),
    ]  # fmt: skip


def default_claims(seeds: Seeds) -> list[Claim]:
    """M1 .. M9, M11, M12: the default setting, every seed against its own world."""
    courses = [course(arrays) for arrays in seeds]

    def check(quantity: str, rule: Rule, values: Sequence[float], share: float | None = None) -> Check:
        return Check(quantity, rule, tuple(values), share=share)

    resting = Converged("number of phases before the end", at_least(2), [len(c.levels) for c in courses])
    n = 4
    untrained = [
        check(f"layer {layer + 1}, {name}", absolute(value, 0.03), [a["scores"][0, i, layer].mean() for a in seeds])
        for i, (name, value) in enumerate(zip(("bigram", "label", "chunk"), uniform_circuit_scores(n), strict=True))
        for layer in range(2)
    ]
    both = [
        check(f"phase 1, layer {layer + 1}: bigram", at_least(0.5), [c.at(1, BIGRAM, layer) for c in courses])
        for layer in range(2)
    ]
    second = [
        check("phase 2: accuracy if the query of layer 1 reads no labels", at_most(1 / 3 + 0.1),
              [c.level(2) - c.cost("L1 query no labels", 2) for c in courses]),
        check("phase 2: cost if the query of layer 2 reads no labels", absolute(0, 0.05),
              [c.cost("L2 no labels", 2) for c in courses]),
        check("phase 2, layer 1: label attention", at_least(0.2), [c.at(2, LABEL, 0) for c in courses]),
        check("layer 1: label attention of phase 2 less that of phase 1", at_least(0.0),
              [c.at(2, LABEL, 0) - c.at(1, LABEL, 0) for c in courses]),
        check("phase 2, layer 2: bigram", at_least(0.9), [c.at(2, BIGRAM, 1) for c in courses]),
        check("layer 1: bigram of phase 2 less that of phase 1", at_most(0.0),
              [c.at(2, BIGRAM, 0) - c.at(1, BIGRAM, 0) for c in courses]),
    ]  # fmt: skip
    total = np.log10(seeds[0]["step"][-1])
    changes = {"no own": ("last", last_rise), "L1 query no labels": ("second", second_rise)}
    apart = [
        check(f"log10 of step, onset of the cost of '{removal}' to the {name} jump", at_most(0.1 * total),
              [abs(np.log10(onset(a["step"], costs(a, removal))) - np.log10(jump(a))) for a in seeds])
        for removal, (name, jump) in changes.items()
    ]  # fmt: skip
    most = [check(f"largest cost of '{removal}'", at_least(0.25), [costs(a, removal).max() for a in seeds])
            for removal in changes]  # fmt: skip
    permuted = [c.value("permutation", 2) - c.value("permutation", 1) for c in courses]
    return [
        claim(1, "Untrained attention is uniform over visible tokens", "Table 2", untrained),
        claim(2, "The first plateau is at 30 to 40 %", "Fig. 2",
              [check("accuracy of phase 1", within(1 / 3 - 0.03, 1 / 3 + 0.05), [c.level(1) for c in courses])],
              FIRST),
        claim(3, "The second plateau is near 75 %: the best that the labels as a set allow in this world", "Fig. 2",
              [check("second plateau less own SCC ceiling", within(-0.10, 0.03),
                     [c.level(2) - c.arrays["ceilings"][1] for c in courses], share=0.5)],
              revised="at least half of the seeds have to rest there, at first the median seed: an independent trainer "
              "(gradients by hand) also has worlds that go from the first plateau to the end without a rest; "
              + PHASES),
        claim(4, "The final accuracy is 100 %", "Fig. 2",
              [check("final accuracy", at_least(0.98), [c.value("accuracy", -1) for c in courses])]),
        claim(5, "The accuracy jumps three times", "Fig. 3",
              [check("rises of at least 0.1 between plateaus", absolute(3, 0), [jumps(a) for a in seeds], share=0.5)],
              revised="jumps are counted over the logarithm of the step, between plateaus; at first as stretches with "
              "a rise above 0.025 per 100 steps, of which the smoothed course of such a network has at most 0.009"),
        claim(6, "Phase 1: bigram attention in both layers", "Fig. 4", both, PHASES),
        claim(7, "Phase 2: label attention in layer 1, bigram in layer 2", "Fig. 4", second,
              f"{RAW}; {PHASES}", resting),
        claim(8, "End: chunk-example in layer 1, label attention in layer 2", "Fig. 4", full_circuit(courses), RAW),
        claim(9, "Circuits change where the accuracy jumps", "Fig. 4",
              [*apart, *most], RAW),
        claim(11, "The accuracy with permuted labels rises with phase 2", "Fig. 6",
              [check("phase 2: permuted less clean accuracy", absolute(0, 0.05),
                     [c.value("permutation", 2) - c.level(2) for c in courses]),
               check("accuracy with permuted labels, phase 2 less phase 1", at_least(0.2), permuted)],
              revised="asked of seeds that rest in a second phase, as M7 is; a run in which one of four had none, and "
              "so no number to judge, showed that this was left out; " + PHASES, converged=resting),
        claim(12, "At the end the accuracy with permuted labels falls below the clean one", "Fig. 6",
              [check("end: accuracy with permuted labels less own SCC ceiling", at_most(0.03),
                     [c.value("permutation", -1) - c.arrays["ceilings"][1] for c in courses]),
               check("end: clean less permuted accuracy", at_least(0.1),
                     [c.value("accuracy", -1) - c.value("permutation", -1) for c in courses])],
              revised="bounded by the best that the labels as a set allow in the seed's own world, as the second "
              "plateau is (M3); at first by 0.5 to 0.8, which is read off a single published world"),
    ]  # fmt: skip


def setting_claims(found: Mapping[str, Seeds]) -> list[Claim]:
    """M10 and M13 .. M32: variations of the setting, where the preset trained them."""

    def values(name: str, what: Callable[[Mapping[str, np.ndarray]], float]) -> tuple[float, ...]:
        return tuple(what(arrays) for arrays in found.get(name, []))

    def checks(quantity: str, rule: Rule, names: Sequence[str], what: Callable[..., float]) -> list[Check]:
        return [Check(f"{name}: {quantity}", rule, values(name, what)) for name in names if name in found]

    def final(a: Mapping[str, np.ndarray]) -> float:
        return float(a["accuracy"][-1])

    def n_plateaus(a: Mapping[str, np.ndarray]) -> float:
        return float(len(heights(a)))

    def near(a: Mapping[str, np.ndarray], i: int) -> float:
        """Whether there is a plateau near a ceiling."""
        return float(any(abs(height - a["ceilings"][i]) < NEAR for height in heights(a)))

    def steepest(a: Mapping[str, np.ndarray]) -> float:
        return float(rises(a["step"], a["accuracy"]).max())

    def hidden(a: Mapping[str, np.ndarray]) -> float:
        inside = costs(a, "L2 no labels") <= 0.05
        return float(np.where(inside, costs(a, "L1 query no labels"), 0).max())

    def ordered(quantity: str, names: Sequence[str], what: Callable[..., float], sign: int) -> list[Check]:
        medians = [np.median(values(name, what)) for name in names if name in found]
        pairs = sign * np.diff(medians) > 0
        return [Check(quantity, is_true(), (float(pairs.all()),))] if len(medians) > 1 else []

    def learned(
        number: int,
        statement: str,
        source: str,
        names: Sequence[str],
        checks: Sequence[Check],
        revised: str | None = None,
    ) -> Claim:
        """A claim that is left open where a network has not learned: it has no plateaus, and its order is noise."""
        why_not = unlearned(found, names)
        if checks and why_not:
            return Claim(f"minegishi2025/M{number}", statement, source, (), why_not, revised=revised)
        missing = ", ".join(name for name in names if name not in found)
        note = f"judged by what this preset trains, without {missing}" if missing and checks else None
        return replace(claim(number, statement, source, list(checks), revised, names=names), note=note)

    def few(names: Sequence[str], most: int = 0) -> list[Check]:
        return checks("plateaus", at_most(most), names, n_plateaus)

    def absent(names: Sequence[str], i: int) -> list[Check]:
        return checks(f"plateau at the {CIRCUITS[i]} ceiling", at_most(0), names, lambda a: near(a, i))

    def same_end(names: Sequence[str]) -> list[Check]:
        return [
            check
            for name in names
            if name in found
            for check in full_circuit([course(arrays) for arrays in found[name]], f"{name}, ")
        ]

    theory = [
        Check(f"K = {k}: plateau", absolute(semi_context_theory(k, 4), 0.02), values(f"theory K={k}", final))
        for k in (8, 16, 32)
        if f"theory K={k}" in found
    ]
    levels = [
        Check(
            f"T = {t}: accuracy of phase 1",
            within(1 / t - 0.03, 1 / t + 0.05),
            values(name, lambda a: course(a).level(1)),
        )
        for t, name in ((2, "T=2"), (3, "default"), (4, "T=4"))
        if name in found
    ]
    # A mask's own ceiling stands at another place than the full network's for FCC only: 1.
    masks = [
        Check(f"{circuit}: final accuracy less own ceiling", absolute(0, 0.05), values(
            f"only {circuit}", lambda a, i=i: final(a) - float(a["ceilings"][i])))
        for i, circuit in enumerate(("ncc", "scc", "fcc")) if f"only {circuit}" in found
    ]  # fmt: skip
    if "only fcc" in found and "default" in found:
        times = [np.median([last_rise(a) for a in group]) for group in (found["default"], found["only fcc"])]
        masks.append(Check("steps to learn: full network over FCC alone", at_least(2), (times[0] / times[1],)))
    by_task = [
        Check(f"{name}: the first map is learned before the last", is_true(), values(
            name, lambda a: float(onset(a["step"], a["by_task"][:, 0]) <= onset(a["step"], a["by_task"][:, -1]))))
        for name in ("beta=1.0",) if name in found
    ]  # fmt: skip
    every = [
        Check("all labels: mean accuracy over items", within(0.82, 0.93), values(
            "all labels", lambda a: float(a["by_item"][-1].mean())))
    ] if "all labels" in found else []  # fmt: skip
    large, noisy, long = ("K=128", "K=256"), ("eps=0.5", "eps=0.75"), ("N=16", "N=32")
    bursty, repeated = [f"p_B={p}" for p in (0.25, 0.5, 0.75, 1.0)], ("B=2, p_B=0.25", "p_B=0.25")
    maps, heads = ("default", "T=6", "T=9", "T=12"), ("heads=4", "heads=8", "heads=16")
    deep = ("layers=3", "layers=4", "layers=5")
    return [
        claim(10, "The plateau of the semi-context circuit follows theory", "Fig. 5", theory,
              names=[f"theory K={k}" for k in (8, 16, 32)]),
        learned(13, "The first plateau is at 1/T", "Fig. 7a", ("T=2", "default", "T=4"), levels, FIRST),
        learned(14, "A single map is learned in one jump", "Fig. 7a", ("T=1",), few(("T=1",))),
        learned(15, "K = 32 has no first phase", "Fig. 7b", ("K=32",), absent(("K=32",), 0)),
        learned(16, "K = 128 and 256 have no second phase", "Fig. 7b", large, absent(large, 1)),
        learned(17, "Noise of .5 and .75 removes the second phase", "Fig. 7c", noisy, absent(noisy, 1)),
        learned(18, "Noise of 1 removes both", "Fig. 7c", ("eps=1.0",), few(("eps=1.0",))),
        learned(19, "Skewed classes remove phases", "Fig. 7d", ("alpha=1.25",), few(("alpha=1.25",), 1)),
        learned(20, "With skewed maps the frequent one is learned first", "Fig. 7e", ("beta=1.0",), by_task),
        learned(21, "Burstiness smooths the course", "Fig. 15", bursty,
                ordered("the steepest rise falls with p_B", bursty, steepest, -1)),
        learned(22, "Repeated classes shorten the first phase", "Fig. 15", repeated,
                ordered("end of phase 1: B = 2 before B = 1", repeated,
                        lambda a: onset(a["step"], a["accuracy"]), 1)),
        learned(23, "One map and a bursty query give an induction head", "Fig. 12", ("induction",),
                [*few(("induction",)), *same_end(("induction",))], RAW),
        claim(24, "Pruned to one circuit, the network stays at that phase's level", "Fig. 13", masks,
              "FCC alone has to learn in half of the full network's steps; at first in a tenth, which no source has",
              names=[f"only {circuit}" for circuit in ("ncc", "scc", "fcc")]),
        learned(25, "More heads, no plateaus", "Figs. 8, 16", heads, few(heads)),
        claim(26, "Two heads pass a hidden semi-context state", "Fig. 9",
              checks("largest cost if the query of layer 1 reads no labels, while labels cost nothing in layer 2",
                     at_least(0.1), ("heads=2",), hidden), RAW, names=("heads=2",)),
        learned(27, "More maps, later jumps", "Fig. 18", maps,
                ordered("last jump by T", maps if {"default", "T=6"} <= set(found) else [], last_rise, 1)),
        learned(28, "Long contexts are learned in one phase, by the same circuit", "Fig. 19", long,
                [*few(long), *same_end(long)], RAW),
        learned(29, "Three layers show phases, four and five do not", "Figs. 22, 23", deep,
                [*checks("plateaus", at_least(1), deep[:1], n_plateaus), *few(deep[1:])]),
        learned(30, "A standard transformer ends with the same circuit", "Fig. 20", ("standard",),
                same_end(("standard",)), RAW),
        claim(31, "With all labels as targets the accuracy stays below 1", "Fig. 21", every, names=("all labels",)),
        Claim("minegishi2025/M32", "In GPT-2 XL chunk-example peaks in earlier layers than label attention", "Fig. 10",
              (), "asked of a language model by the preset `language`"),
    ]  # fmt: skip
