"""The claims of Zhang et al. (2025), judged from a finished run; tolerances were fixed before any run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from meta_icl.algorithms import time_course
from meta_icl.analysis import first_below, nearest_plateau, plateaus
from meta_icl.runs import (
    Check,
    Claim,
    Converged,
    Rule,
    Run,
    absolute,
    asked,
    at_least,
    at_most,
    is_true,
    relative,
    within,
)

from .experiments import SPECTRA, covariance


def claims(run: Run) -> list[Claim]:
    """Z1 .. Z11."""
    return asked(run, {f"Z{i}": make for i, make in enumerate((z1, z2, z3, z4, z5, z6, z7, z8, z9, z10, z11), 1)})


# Quantity, rule, measured (a number or one per seed), and the guard, if it has one.
Row = tuple[str, Rule, Any] | tuple[str, Rule, Any, Converged]


def claim(number: str, statement: str, source: str, rows: Sequence[Row], note: str | None = None) -> Claim:
    """A claim of the paper from the rows of its checks."""
    checks = tuple(
        Check(name, rule, tuple(np.atleast_1d(values).astype(float)), None, *guard)
        for name, rule, values, *guard in rows
    )
    undecided = None if checks else "this preset leaves the experiment out"
    return Claim(f"zhang2025/{number}", statement, source, checks, undecided, note)


def z1(run: Run) -> Claim:
    flow_arrays, set_arrays = run.part_arrays("merged"), run.part_arrays("sampled-merged")
    end = float(flow_arrays["levels"][-1])
    rows: list[Row] = []
    for name, arrays, rule in (
        ("population", flow_arrays, absolute(end, 1e-5)),
        ("sampled", set_arrays, relative(end, 0.05)),
    ):
        between = np.isfinite(arrays["plateau_height"]).sum(1)
        rows.append((f"{name}: plateaus between start and end", absolute(0, 0), between))
        rows.append((f"{name}: end loss", rule, arrays["loss"][:, -1]))
    return claim("Z1", "Merged attention learns in one abrupt drop to the best linear map", "merged loss figure", rows)


def z2(run: Run) -> Claim:
    losses = run.part_arrays("mlp")
    gap = np.abs(losses["merged"] - losses["mlp"]).max()
    rows: list[Row] = [("largest difference of the losses at any step, float64", at_most(1e-10), gap)]
    if "answers/merged" in losses:  # which older runs have not recorded
        one, other = losses["answers/merged"], losses["answers/mlp"]
        apart = np.abs(one - other).max() / np.abs(one).max()
        label = "of the answers to prompts, attention on tokens against the MLP, share of the largest"
        rows.append((label, at_most(1e-10), apart))
    return claim("Z2", "Merged attention and an MLP on cubic features learn alike, step by step", "Fig. 1", rows)


def z3(run: Run) -> Claim:
    rows: list[Row] = []
    for d, arrays in run.arrays_of_parts("white-").items():
        errors = np.abs(arrays["loss"] - arrays["closed_form"]).max(-1)  # inits, seeds
        at = int(np.argmin(np.abs(arrays["inits"] - 1e-3)))
        rows.append((f"D = {d}: largest error of the closed form, start 1e-3", at_most(1e-3), errors[at]))
        falls = (np.diff(errors, axis=0) < 0).all(0)
        rows.append((f"D = {d}: the error falls with the start", is_true(), falls.astype(float)))
    return claim("Z3", "The loss of merged attention on white inputs follows the closed form", "time-course eq.", rows)


def z4(run: Run) -> Claim:
    rows: list[Row] = []
    for kind, start, rule, tolerance in (
        ("population", "separate-", absolute, 1e-3),
        ("sampled", "sampled-", relative, 0.02),
    ):
        for name in SPECTRA:
            arrays = run.part_arrays(start + name)
            for m, level in enumerate(arrays["levels"][1:-1], start=1):
                heights = plateau_near(arrays, "height", float(level))
                rows.append((f"{kind}, {name} spectrum: plateau {m}", rule(float(level), tolerance), heights))
            end = rule(float(arrays["levels"][-1]), tolerance)
            rows.append((f"{kind}, {name} spectrum: end", end, arrays["loss"][:, -1]))
    found = {name: run.part_arrays(f"separate-{name}") for name in SPECTRA}
    shares = [f"{n} {np.mean(a['loss'][:, -1] < a['levels'][-1] + 1e-3):g}" for n, a in found.items()]
    note = "share of seeds that reach the end of population flow: " + ", ".join(shares)
    statement = "Separate attention of rank one passes the level of every next eigenvector"
    return claim("Z4", statement, "loss figure", rows, note)


def z5(run: Run) -> Claim:
    rows: list[Row] = []
    for name in SPECTRA:
        arrays = run.part_arrays(f"separate-{name}")
        # Not stuck on the way: the end loss, which Z4 judges, says nothing of the maps at the plateaus before it.
        ended = Converged(f"{name}: end loss / last level", at_most(1.01), arrays["loss"][:, -1] / arrays["levels"][-1])
        for m in range(1, len(arrays["levels"]) - 1):
            share, where = plateau_near(arrays, "share", float(arrays["levels"][m])), f"{name}, plateau {m}: largest"
            learned, others = np.abs(share[:, :m] - 1).max(1), np.abs(share[:, m:]).max(1)
            rows.append((f"{where} |share - 1| of learned directions", at_most(0.02), learned, ended))
            rows.append((f"{where} |share| of others", at_most(0.02), others, ended))
    return claim("Z5", "At plateau m the map is principal component regression with m components", "PCR claim", rows)


def z6(run: Run) -> Claim:
    rows: list[Row] = []
    flows = [
        "merged",
        *(f"separate-{name}" for name in SPECTRA),
        *(name for name in run.parts() if name.startswith("white")),
    ]
    for name in flows:
        drift = np.atleast_1d(run.part_arrays(name)["drift"])
        rows.append((f"{name}, population flow: drift", at_most(1e-10), drift))
    full, half = run.part_arrays("sampled-linear")["drift"], run.part_arrays("sampled-half-rate")["drift"]
    rows.append(
        ("descent: drift at a rate over drift at half the rate, same time (2 if linear)", within(1.5, 2.5), full / half)
    )
    return claim(
        "Z6", "Gradient flow conserves the differences of the weights' inner products", "conservation laws", rows
    )


def z7(run: Run) -> Claim:
    found = {int(r): arrays for r, arrays in run.arrays_of_parts("rank-").items()}
    ranks = sorted(found)
    rows: list[Row] = []
    for name, level in (("loss 0.25", 0.25), ("half-way to the last level", None)):
        times = {}
        for r in ranks:
            middle = float(found[r]["levels"][-2:].mean()) if level is None else level
            times[r] = np.median(first_below(found[r]["times"], found[r]["loss"], middle))
        for low, high in zip(ranks, ranks[1:], strict=False):
            ratio = times[low] / times[high]
            rows.append((f"median time to {name}, rank {low} / rank {high}", at_least(1.0), ratio))
    notes = []
    for r in ranks:
        levels = found[r]["levels"]
        heights = [row[np.isfinite(row)] for row in found[r]["plateau_height"]]
        learned = [int(np.argmin(np.abs(levels - height))) for height in heights[0]]
        notes.append(f"rank {r}: after {', '.join(map(str, learned)) or 'none'}")
        for m in range(r, 8, r):
            near = plateau_near(found[r], "height", float(levels[m]))
            rows.append((f"rank {r}: a plateau after {m} directions", absolute(float(levels[m]), 0.01), near))
    return claim(
        "Z7",
        "Higher rank learns faster, with conspicuous plateaus after multiples of the rank",
        "low-rank figure",
        rows,
        note="plateaus by number of learned directions, first seed: " + "; ".join(notes),
    )


def z8(run: Run) -> Claim:
    """Between the ends of the share both abilities appear, each to less than by its specialist."""
    found = {float(s): arrays for s, arrays in run.arrays_of_parts("mixture-").items()}
    fall = {s: {k: a[k][:, -1] / a[k][:, 0] for k in ("in_context", "in_weights")} for s, a in found.items()}
    rows: list[Row] = []
    for share, falls, stays in ((0.0, "in_weights", "in_context"), (1.0, "in_context", "in_weights")):
        words = falls.replace("_", " "), stays.replace("_", " ")
        rows.append((f"share {share:g}: loss {words[0]}, end / start", at_most(0.5), fall[share][falls]))
        rows.append((f"share {share:g}: loss {words[1]}, end / start", at_least(0.95), fall[share][stays]))
    for share in sorted(set(fall) - {0.0, 1.0}):
        between = [
            fall[0.0]["in_weights"] < fall[share]["in_weights"],
            fall[share]["in_context"] > fall[1.0]["in_context"],
        ]
        label = f"share {share:g}: each ability learned less than by its specialist"
        rows.append((label, is_true(), np.all(between, 0).astype(float)))
        for name in ("in_context", "in_weights"):
            least = found[share][name].min(axis=1) / found[share][name][:, 0]
            rows.append((f"share {share:g}: loss {name.replace('_', ' ')}, least / start", at_most(0.95), least))
    ends = ", ".join(f"{share:g}: {np.median(fall[share]['in_weights']):.2f}" for share in sorted(fall))
    note = (
        "what is learned in weights may be lost again while learning goes on in context, so both are judged by their "
        f"least losses. In-weights loss at the end / at the start, by share: {ends}"
    )
    statement = "The share of new weights decides between learning in context and in weights"
    return claim("Z8", statement, "ICL/IWL figure", rows, note)


def z9(run: Run) -> Claim:
    counts = {}
    for kind in ("merged", "separate"):
        parts = run.arrays_of_parts(f"softmax-{kind}-").values()
        counts[kind] = [1 + len(plateaus(a["step"], a["loss"], min_drop=0.03, max_slowness=0.25)) for a in parts]
    rows: list[Row] = [
        ("merged: number of drops", absolute(1, 0), counts["merged"]),
        ("separate, rank one: number of drops", at_least(2), counts["separate"]),
    ]
    return claim("Z9", "Softmax attention, too, learns in one drop if merged, in several if separate", "appendix", rows)


def z10(run: Run) -> Claim:
    found = {float(name): arrays for name, arrays in run.arrays_of_parts("init-").items()}
    inits = sorted(found, reverse=True)
    middle = {i: first_below(a["times"], a["loss"], (a["levels"][0] + a["levels"][1]) / 2) for i, a in found.items()}
    rows: list[Row] = []
    for large, small in zip(inits, inits[1:], strict=False):
        ratio = middle[small] / middle[large]
        rows.append(
            (f"separate: first plateau, start {small:g} / start {large:g}", relative(large / small, 0.2), ratio)
        )
    merged = {float(name): arrays for name, arrays in run.arrays_of_parts("merged-init-").items()}
    rate = time_course.merged_escape_rate(covariance(SPECTRA["linear"]))
    half = {i: first_below(a["times"], a["loss"], (a["levels"][0] + a["levels"][-1]) / 2) for i, a in merged.items()}
    big, small = sorted(merged, reverse=True)
    added = (half[small] - half[big]) / (2 * np.log(big / small) / rate)
    rows.append(
        (f"merged: added time, start {big:g} to {small:g}, over ln(s0 ratio) / escape rate", relative(1.0, 0.2), added)
    )
    return claim(
        "Z10",
        "Plateaus last as 1 / start for separate attention, and as its logarithm for merged",
        "dynamics eq.",
        rows,
    )


def z11(run: Run) -> Claim:
    rows: list[Row] = []
    for heads, arrays in sorted(run.arrays_of_parts("heads-").items()):
        level = float(arrays["levels"][int(heads)])
        rows.append((f"{heads} heads of rank one, D = 4: end loss", absolute(level, 1e-3), arrays["loss"][:, -1]))
    return claim(
        "Z11",
        "Every head of rank one adds one direction: with H < D heads training ends at level H",
        "derived from the dynamics",
        rows,
    )


def plateau_near(arrays: dict[str, np.ndarray], name: str, level: float) -> np.ndarray:
    """An entry of the plateau table at every seed's plateau nearest to a level; NaN for a seed without any."""
    index = nearest_plateau(arrays["plateau_height"], level)
    return np.stack(
        [
            row[at] if at >= 0 else np.full_like(row[0], np.nan)
            for row, at in zip(arrays[f"plateau_{name}"], index, strict=True)
        ]
    )
