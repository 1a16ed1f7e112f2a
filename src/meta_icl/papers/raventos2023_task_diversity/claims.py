"""The claims of Raventós et al. (2023), judged from a finished run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from meta_icl.evaluation import closest_approach, crossing
from meta_icl.runs import Run, asked
from meta_icl.runs.claims import Check, Claim, Converged, absolute, at_least, at_most, is_true, within

from .config import Training
from .experiments import main_ladder, trainings_of


def claim(
    id: str,
    statement: str,
    source: str,
    checks: list[Check],
    undecided: str,
    converged: Converged | None = None,
    revised: str | None = None,
    note: str | None = None,
) -> Claim:
    """A claim; without checks it is undecided for the reason given."""
    why, id = None if checks else undecided, f"raventos2023/{id}"
    return Claim(id, statement, source, tuple(checks), why, note=note, converged=converged, revised=revised)


def pretrained(*found: Mapping[str, np.ndarray]) -> Converged:
    """The guard: on the tasks of pretraining, error over that of dMMSE, which is Bayes there; of the worst training."""
    ratios = [arrays["mse_pool"][-1] / arrays["mse_dmmse_pool"] for arrays in found]
    return Converged("error / dMMSE error on the pool", at_most(1.25), np.max(ratios, axis=0))


def learned(*found: Mapping[str, np.ndarray]) -> Converged:
    """The guard of ladders: on its own pool the worst training is no worse than ridge by more than the same quarter.

    Between the ends of a ladder a network is what neither learner is, so that dMMSE is no measure there.
    """
    ratios = [arrays["mse_pool"][-1] / arrays["mse_ridge_pool"] for arrays in found]
    return Converged("error / ridge error on the pool, worst training", at_most(1.25), np.max(ratios, axis=0))


def claims(run: Run) -> list[Claim]:
    """V-1 .. V-13, B-1 about the scale of the errors, and T-1, T-2; tolerances were set before the run."""
    found = trainings_of(run)
    return asked(
        run,
        {
            "B-1": baseline_claim,
            "V-1 V-2 V-8": lambda run: ends_claims(found),
            "V-3 V-4 V-5 V-6 V-9 V-10 V-11 V-12": lambda run: threshold_claims(found),
            "V-7 V-13": lambda run: shape_claims(found),
            "T-1 T-2": lambda run: narrow_claims(found),
        },
    )


def baseline_claim(run: Run) -> Claim:
    ridge = run.part_arrays("baseline")["ridge"]
    check = Check("error over D at the first position", absolute(1 + 0.25 / 8, 0.02), ridge[0])
    return claim("B-1", "Before any example the error over D is that of zero", "Fig. 2", [check], "")


def ends_claims(found: Mapping[Training, dict[str, np.ndarray]]) -> list[Claim]:
    """V-1, V-2 and V-8: both ends of the ladder."""
    rungs = main_ladder(found)
    published = any(t.model == "base" for t in found)
    small = [m for m in rungs if m <= 2**6] if published else [min(rungs)]
    large = [m for m in rungs if m >= 2**15] if published else [max(rungs)]
    one, two = [], []
    for m in small:
        a = rungs[m]
        one.append(
            Check(f"M = {m}: error / dMMSE error on the pool", at_most(1.1), a["mse_pool"][-1] / a["mse_dmmse_pool"])
        )
        closer = a["to_dmmse_true"][-1] < a["to_ridge_true"][-1]
        one.append(Check(f"M = {m}: closer to dMMSE than to ridge on new tasks", is_true(), closer.astype(float)))
    for m in large:
        a = rungs[m]
        two.append(
            Check(
                f"M = {m}: error / ridge error on new tasks",
                within(0.95, 1.05),
                a["mse_true"][-1] / a["mse_ridge_true"],
            )
        )
    late = []
    for m in large:
        course = np.median(rungs[m]["mse_true"], axis=1) / rungs[m]["mse_ridge_true"]
        before = course[-1 - len(course) // 4]
        late.append(
            f"M = {m}: error / ridge error {before:.3f} after three quarters of the steps, {course[-1]:.3f} at the end"
        )
    still = "; ".join(late)
    ms = sorted(rungs)
    few, middle, many = (2**5, 2**10, 2**15) if published else (ms[0], ms[len(ms) // 2], ms[-1])
    eight = []
    if all("arc_mse" in rungs[m] for m in (few, middle, many)):
        own, dmmse, ridge = (
            {m: rungs[m][f"arc_mse{end}"][:, 2] for m in (few, middle, many)} for end in ("", "_dmmse", "_ridge")
        )
        as_dmmse = np.abs(own[few] - dmmse[few]) < np.abs(own[few] - ridge[few])
        low, high = (f(ridge[middle], dmmse[middle]) for f in (np.minimum, np.maximum))
        between = (low < own[middle]) & (own[middle] < high)
        eight = [
            Check(f"M = {few}: error closer to that of dMMSE than to that of ridge", is_true(), as_dmmse * 1.0),
            Check(f"M = {many}: error / ridge error", within(0.95, 1.05), own[many] / ridge[many]),
            Check(f"M = {middle}: error between those of ridge and dMMSE", is_true(), between * 1.0),
        ]
    half_way = "Half-way between two tasks: dMMSE for few, ridge for many tasks"
    no_errors = "errors on the arc were not recorded by this run; a run of today records them"
    by_error = (
        "the errors half-way are compared, as the figure does, that for many tasks by the bounds of V-2, that for some "
        "with those of ridge and dMMSE on the same prompts; at first the share of the distance to ridge in both was, "
        "which tends to 1/2 as ridge and dMMSE merge for many tasks, and then networks of different pools, whose "
        "tasks differ"
    )
    guard = pretrained(*(rungs[m] for m in (few, middle, many)))
    return [
        claim("V-1", "Few tasks: dMMSE on the pool, and poor on new tasks", "Fig. 2", one, ""),
        claim("V-2", "Many tasks: ridge on new tasks", "Fig. 2", two, "", note=still),
        claim("V-8", half_way, "Fig. 5", eight, no_errors, guard, by_error, still),
    ]


def threshold(found: Mapping[Training, dict[str, np.ndarray]], **fixed: Any) -> np.ndarray | None:
    """M* of every seed: where the larger of two batches stops being further from ridge on new tasks."""
    same = [t for t in found if all(getattr(t, name) == value for name, value in fixed.items())]
    batches = sorted({t.batch for t in same})
    if len(batches) < 2:
        return None
    less, more = ({t.m: found[t]["to_ridge_true"][-1] for t in same if t.batch == b} for b in (batches[0], batches[-1]))
    pools = np.array(sorted(set(less) & set(more)), float)
    columns = zip(*[[less[int(m)] for m in pools], [more[int(m)] for m in pools]], strict=True)
    a, b = (np.stack(side) for side in zip(*columns, strict=True))
    return np.array([crossing(pools, a[:, seed], b[:, seed]) for seed in range(a.shape[1])])


def ladder(found: Mapping[Training, dict[str, np.ndarray]], *models: str) -> Converged | None:
    """The guard of claims about ladders of these networks; None where there are none."""
    of = [arrays for t, arrays in found.items() if t.model in models]
    return learned(*of) if of else None


def threshold_claims(found: Mapping[Training, dict[str, np.ndarray]]) -> list[Claim]:
    """V-3 to V-6 and V-9 to V-12: what needs a ladder of pools at two batches."""
    plain = {"weight_decay": 0.0, "steps": 500_000}
    base = threshold(found, model="base", d=8, **plain)
    small = threshold(found, model="small", d=8, **plain)
    by_d = {d: threshold(found, model="large", d=d, **plain) for d in (8, 16, 32)}
    decays = sorted({t.weight_decay for t in found})
    by_decay = {w: threshold(found, model="base", d=8, steps=500_000, weight_decay=w) for w in decays}
    checks: dict[str, list[Check]] = {name: [] for name in ("V-3", "V-4", "V-5", "V-6", "V-9", "V-10", "V-11", "V-12")}
    if base is not None:
        checks["V-3"].append(Check("M*", within(2**13, 2**16), base))
        longer = {t.m: found[t]["to_ridge_true"][-1] for t in found if t.model == "base" and t.steps == 1_000_000}
        usual = {t.m: found[t]["to_ridge_true"][-1] for t in found if t == Training(t.m)}
        shared = sorted(set(longer) & set(usual))
        if shared:
            pools = np.array(shared, float)
            a, b = (np.stack([side[m] for m in shared]) for side in (usual, longer))
            moved = [crossing(pools, a[:, s], b[:, s]) for s in range(a.shape[1])]
            checks["V-4"].append(Check("M* by twice the steps / M* by twice the batch", within(0.5, 2), moved / base))
    if small is not None:
        checks["V-5"].append(Check("M*", within(2**10, 2**13), small))
        few = [t for t in found if t.model == "small" and t.m <= 2**10 and t.batch == 512]
        times = {
            t.m: closest_approach(found[t]["step"], np.median(found[t]["to_ridge_true"], 1), window=3) for t in few
        }
        inside = {m: step for m, (step, turned) in times.items() if turned and step > 0}
        if len(inside) >= 3:
            slope = np.polyfit(np.log(list(inside)), np.log(list(inside.values())), 1)[0]
            checks["V-6"].append(Check("slope of log t* against log M", absolute(0.47, 0.1), slope))
        for label, model in (("twice as wide", "small-wide"), ("twice as deep", "small-deep")):
            other = threshold(found, model=model, d=8, **plain)
            if other is not None:
                checks["V-12"].append(Check(f"the small network, {label}: M* rises", is_true(), (other > small) * 1.0))
        wide = threshold(found, model="base-wide", d=8, **plain)
        if base is not None and wide is not None:
            checks["V-12"].append(Check("the base network, twice as wide: M* / M*", within(0.5, 2), wide / base))
    if all(value is not None for value in by_d.values()):
        values = [np.asarray(by_d[d]) for d in by_d]
        checks["V-9"] += [
            Check(f"D = {d}: M* / 2^{e}", within(0.5, 2), v / 2.0**e)
            for d, e, v in zip(by_d, (14, 15, 16), values, strict=True)
        ]
        checks["V-9"].append(
            Check("M* rises with D", is_true(), ((values[0] < values[1]) & (values[1] < values[2])) * 1.0)
        )
        most = {t.d: found[t] for t in found if t.model == "large" and t.m == 2**20 and t.batch == 256}
        spread = [most[d]["mse_dmmse_true"] - most[d]["mse_ridge_true"] for d in sorted(most)]
        own = [np.median(most[d]["to_ridge_true"][-1]) for d in sorted(most)]
        if len(spread) == 3:
            checks["V-10"] += [
                Check("dMMSE's excess over ridge grows with D", is_true(), float(spread[0] < spread[1] < spread[2])),
                Check(
                    "the network's distance to ridge grows by a smaller factor",
                    is_true(),
                    float(own[2] / own[0] < spread[2] / spread[0]),
                ),
            ]
    decayed = [np.median(v) for v in by_decay.values() if v is not None]
    if len(decayed) >= 3:
        checks["V-11"].append(Check("M* falls with weight decay", is_true(), float(np.all(np.diff(decayed) <= 0))))
        strongest = max((t for t in found if t.weight_decay == decays[-1]), key=lambda t: (t.m, -t.batch))
        levels = [float(np.median(found[replace(strongest, weight_decay=w)]["mse_true"][-1])) for w in decays]
        rises = float(np.all(np.diff(levels) >= 0))
        checks["V-11"].append(Check(f"M = {strongest.m}: the error on new tasks rises with it", is_true(), rises))
    need = "a ladder of pools, each pretrained for 500,000 steps at two batches: the `paper` preset, on a GPU"
    told = {
        "V-3": ("The threshold of the base network lies between 2^14 and 2^15 tasks", "Figs. 2, 3"),
        "V-4": ("Twice the steps move the network as twice the batch does", "Figs. 2, 3"),
        "V-5": ("The threshold of the small network lies between 2^11 and 2^12 tasks", "Fig. 4, App. E"),
        "V-6": ("Below it, the step closest to ridge grows as M^0.47", "Fig. 4"),
        "V-9": ("The threshold rises with D at a fixed ratio of signal to noise", "Fig. 6"),
        "V-10": ("With 2^20 tasks dMMSE moves away from ridge as D grows, the network does not", "Fig. 6"),
        "V-11": ("Weight decay lowers the threshold", "Fig. 7"),
        "V-12": ("Depth and width raise the threshold of small networks, width not that of the base one", "Fig. 7"),
    }
    models = {
        **dict.fromkeys(("V-3", "V-4", "V-11"), ("base",)),
        **dict.fromkeys(("V-5", "V-6"), ("small",)),
        **dict.fromkeys(("V-9", "V-10"), ("large",)),
        "V-12": ("base", "base-wide", "small", "small-wide", "small-deep"),
    }
    guards = {id: ladder(found, *models[id]) if checks[id] else None for id in told}
    return [claim(id, statement, source, checks[id], need, guards[id]) for id, (statement, source) in told.items()]


def narrow_claims(found: Mapping[Training, dict[str, np.ndarray]]) -> list[Claim]:
    """T-1 and T-2, of this laboratory: the threshold in small, of a narrow network at two D."""
    ds = sorted({t.d for t in found if t.model == "narrow"})
    at = {d: m for d in ds if (m := threshold(found, model="narrow", d=d)) is not None}
    one = [
        Check(f"D = {d}: there is a threshold M* ({np.median(m):.3g})", is_true(), np.isfinite(m) * 1.0)
        for d, m in at.items()
    ]
    two = []
    if len(at) == 2:
        (low, less), (high, more) = at.items()
        two = [Check(f"M* at D = {high} / at D = {low}", at_least(1.0), more / less)]
    need, guard = "ladders of pools for a narrow network: the `full` preset", ladder(found, "narrow")
    exists = "More training moves a narrow network away from ridge with few tasks and towards it with many"
    return [
        claim("T-1", exists, "this laboratory", one, need, guard if one else None),
        claim("T-2", "The number of tasks at which that turns is larger for larger D", "this laboratory", two, need,
              guard if two else None),
    ]  # fmt: skip


def shape_claims(found: Mapping[Training, dict[str, np.ndarray]]) -> list[Claim]:
    """V-7 (of the small network, where it was trained) and V-13."""
    rungs = main_ladder(found)
    of_small = {t.m: a for t, a in found.items() if t.model == "small" and t.batch == 512}
    falling = of_small or rungs
    most = falling[max(falling)]["to_ridge_true"]
    window = 5
    smooth = np.stack([np.convolve(column, np.full(window, 1 / window), mode="valid") for column in most.T], axis=1)
    seven = [
        Check(
            f"M = {max(falling)}: running mean of 5 records never rises",
            is_true(),
            np.all(np.diff(smooth, axis=0) <= 0, axis=0) * 1.0,
        )
    ]
    middle = sorted(m for m in rungs if min(rungs) < m < max(rungs) and "smoothed_true" in rungs[m])
    thirteen, no_middle = [], "no middle M"
    if middle:
        m, a = middle[-1], rungs[middle[-1]]
        best = a["smoothed_true"].min()
        room = float(best / a["ridge_on_few"]) - 1
        no_middle = (
            f"M = {m}: the best smoothing is within {max(room, 0):.1%} of ridge, which nothing beats on new tasks: "
            "less than the 5 % to which V-2 knows ridge; nor is there more room at the published D = 8: 2.8, 1.7 and "
            "0.2 % for 64, 256 and 1,024 tasks (exact predictors, 300 prompts)"
        )
        if room >= 0.05:
            ratio = a["network_on_few"] / best
            label = f"M = {m}: error / best smoothed dMMSE error on new tasks"
            thirteen = [Check(label, at_most(1.0), ratio, converged=pretrained(a))]
    beyond, guard = (
        "Beyond the threshold the distance to ridge falls throughout training",
        pretrained(falling[max(falling)]),
    )
    return [
        claim("V-7", beyond, "Fig. 4", seven, "", guard),
        claim("V-13", "At middle M no smoothing of dMMSE does as well on new tasks", "Fig. 12", thirteen, no_middle),
    ]
