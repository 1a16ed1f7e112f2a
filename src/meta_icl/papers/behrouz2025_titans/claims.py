"""The claims of Behrouz et al. (2025), judged from a finished run."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Converged, absolute, at_least, at_most, is_true, within

from .experiments import ABLATIONS, CHUNKS, HYBRIDS, PLAYED, final_losses, played

LEFT = 0.5  # of the loss of a guess among the values in the context: what has begun to recall is below
FOUND = 0.9  # accuracy at the length of training from which on longer needles mean something
# From timed steps of one core: 35 ms of the LMM on 32 tokens, 105 ms of three layers of memory on 64.
COSTS = {"hard": "50 CPU-minutes", "needle": "25 CPU-minutes", "far": "65 CPU-minutes"}
Arrays = Mapping[str, Mapping[str, np.ndarray]]  # what every mixer of an arena left behind


def claim(id: str, source: str, statement: str, checks: Sequence[Check], cost: str = "", **more: Any) -> Claim:
    """A claim; without checks it is undecided, since only the preset `full` trains for it, at a cost."""
    undecided = None if checks else f"trained by the preset `full` only ({cost})"
    return Claim(f"behrouz2025/{id}", statement, source, tuple(checks), undecided, **more)


def claims(run: Run) -> list[Claim]:
    """T-1 to T-8 of trained memories, F-1 and F-5 of memory rules."""
    sizes = run.load_arrays("sizes")
    return [
        *claims_recall(played(run), pairs=int(sizes["pairs"]), chunk_size=run.config["config"]["chunk_size"]),
        claim_times(run.load_arrays("times")),
        claim_ladder(run.load_arrays("ladder")),
    ]


def begun(pairs: int, *losses: np.ndarray) -> Converged:
    """The guard of losses of recall: the worst of those that are compared has begun to recall."""
    return Converged("training loss / log P", at_most(LEFT), np.max(losses, axis=0) / np.log(pairs))


def found_needles(*arrays: Mapping[str, np.ndarray]) -> Converged:
    """The guard of longer needles: the worst of those that are compared finds those of the length of training."""
    worst = np.min([of["score/1x"] for of in arrays], axis=0)
    return Converged("accuracy at the length of training", at_least(FOUND), worst)


def claims_recall(found: Mapping[str, Arrays], *, pairs: int, chunk_size: int) -> list[Claim]:
    """The claims of trained networks, from the arenas that a preset plays; recall is of `pairs`, in "hard" of twice.

    Chunks are of `chunk_size` tokens where a name says nothing else.
    """
    loss = final_losses(found.get("mqar", {}))
    hard = final_losses(found.get("hard", {}))
    needle, far, overwrite = (found.get(name, {}) for name in ("needle", "far", "overwrite"))
    increase = {name: loss[name] - loss["lmm"] for name in ABLATIONS if loss}
    ablated = [Check(f"{name}: increase of the loss", at_least(0), value) for name, value in increase.items()]
    base = begun(pairs, loss["lmm"]) if loss else None
    deeper = [
        Check(f"{a} - {b}: loss", at_least(0), hard[x] - hard[y], 0.75, begun(2 * pairs, hard[x], hard[y]))
        for x, y, a, b in (("linear", "lmm", "linear", "depth 2"), ("lmm", "depth3", "depth 2", "depth 3"))
        if hard
    ]
    leads = [
        Check(f"accuracy at 4x: LMM - {name}", at_least(-0.1), needle["lmm"]["score/4x"] - of["score/4x"],
              converged=found_needles(needle["lmm"], of))
        for name, of in needle.items() if name != "lmm"
    ]  # fmt: skip
    hybrids = [
        Check(f"accuracy at 4x: {name.upper()} - LMM", at_least(0), of["score/4x"] - far["lmm"]["score/4x"],
              converged=found_needles(far["lmm"], of))
        for name, of in far.items() if name != "lmm"
    ]  # fmt: skip
    gate = [
        Check(f"{name.upper()} - MAG: loss", at_least(-0.02), loss[name] - loss["mag"])
        for name in HYBRIDS
        if loss and name != "mag"
    ]
    sizes = dict(sorted({chunk_size: "lmm", **{b: f"chunk{b}" for b in CHUNKS}}.items()))
    larger = [
        Check(f"chunk {b} - chunk {a}: loss", at_least(-0.02), loss[sizes[b]] - loss[sizes[a]],
              converged=begun(pairs, loss[sizes[b]], loss[sizes[a]]))
        for a, b in pairwise(sizes) if loss
    ]  # fmt: skip
    costs = ", ".join(f"{name.removeprefix('no_')} {np.nanmedian(value):.3f}" for name, value in increase.items())
    told = f"increases of the loss in nats: {costs}; in the published ablation forgetting and momentum matter most"
    latest = []
    if overwrite:
        # Every key is written twice, and there are as many keys as pairs at twice the length.
        delta, linear = (overwrite[name] for name in PLAYED["overwrite"])
        guard = begun(2 * pairs, final_losses(overwrite)["linear_attention"])
        latest = [
            Check("DeltaNet: recall of the latest value", at_least(0.95), delta["score/latest"]),
            Check("linear attention: recall of the latest value", absolute(0.5, 0.1), linear["score/latest"],
                  converged=guard),
        ]  # fmt: skip
    return [
        claim("T-1", "Fig. 7, Tab. 5", "Deeper memories have a lower loss", deeper, COSTS["hard"]),
        claim("T-2", "Tab. 5", "Forgetting, momentum and convolution each lower the loss", ablated[:3], converged=base,
              note=told if loss else None),
        claim("T-3", "Tab. 2", "On needles four times the training length, the LMM leads TTT, Mamba-2 and DeltaNet",
              leads, COSTS["needle"]),
        claim("T-4", "Tabs. 2, 5", "Hybrids with attention find needles at least as well as the LMM", hybrids,
              COSTS["far"]),
        claim("T-5", "Tab. 1", "MAG has the best loss of the hybrids, or ties", gate,
              note="measured on recall; language modelling needs the `paper` preset's scale and a corpus",
              converged=begun(pairs, loss["mag"]) if loss else None),
        claim("T-6", "Di Nepi et al., 2025", "The loss worsens, weakly, with the chunk size", larger),
        claim("T-8", "Tab. 5", "Persistent tokens lower the loss a little", ablated[3:], converged=base),
        claim("F-5", "delta rule", "Overwritten keys: the delta rule recalls the latest value, sums cannot", latest),
    ]  # fmt: skip


def claim_times(arrays: Mapping[str, np.ndarray]) -> Claim:
    seconds = arrays["seconds"]
    flat = [
        Check(f"depth {i + 1}: per token, longest / shortest", within(0.5, 2), [row[-1] / row[0]])
        for i, row in enumerate(seconds)
    ]
    ratio = np.median(seconds, axis=1)
    linear = Check(
        "(depth 3 - depth 1) / 2 (depth 2 - depth 1)",
        within(0.5, 2),
        [(ratio[2] - ratio[0]) / (2 * (ratio[1] - ratio[0]))],
    )
    return claim("T-7", "Fig. 8", "Time per token is flat in length and about linear in depth", [*flat, linear])


def claim_ladder(arrays: Mapping[str, np.ndarray]) -> Claim:
    checks = []
    for name in ("hebbian", "delta", "ridge"):
        off = np.abs(arrays[f"mean/{name}"] - arrays[f"known/{name}"])[:-1] - 4 * arrays[f"error/{name}"][:-1]
        checks.append(
            Check(f"{name}: distance to the closed form beyond 4 standard errors", at_most(0.01), [off.max()])
        )
    below = [
        (arrays[f"mean/{n}"] - arrays["mean/ridge"] + 4 * arrays[f"error/{n}"]).min()
        for n in ("hebbian", "delta", "surprise")
    ]
    checks.append(Check("nothing beats Bayes", is_true(), [float(min(below) >= -1e-3)]))
    recall = [
        Check(f"{name}, N / d = {f}: recall", absolute(expected, 0.05), [measured])
        for name, row in {"hebbian": (1.0, 0.98, 0.83), "delta": (0.98, 0.81, 0.45), "ridge": (1.0, 1.0, 0.98)}.items()
        for f, expected, measured in zip((0.5, 1, 2), row, arrays[f"recall/{name}"], strict=True)
    ]
    statement = "Untrained rules have their closed-form errors; nothing beats Bayes"
    return claim("F-1", "derived", statement, [*checks, *recall])
