"""The claims of Behrouz et al. (2025), judged from a finished run."""

import numpy as np

from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, absolute, at_least, at_most, is_true, within

from .experiments import ABLATIONS, CHUNKS, PLAYED, final_loss, part


def claim(id: str, source: str, statement: str, checks: list[Check], note: str = "") -> Claim:
    return Claim(f"behrouz2025/{id}", statement, source, tuple(checks), note=note or None)


def claims(run: Run) -> list[Claim]:
    """T-1 to T-8 of trained memories, F-1 and F-5 of memory rules."""
    base = final_loss(run, "mqar", "lmm")
    increase = {name: final_loss(run, "mqar", name) - base for name in ("linear", "depth3", *ABLATIONS)}
    deeper = [
        Check("linear - depth 2: loss", at_least(0), increase["linear"], share=0.75),
        Check("depth 2 - depth 3: loss", at_least(0), -increase["depth3"], share=0.75),
    ]
    ablated = [Check(f"{name}: increase of the loss", at_least(0), increase[name]) for name in ABLATIONS]
    four = {name: part(run, "needle", name)["score/4x"] for name in PLAYED["needle"]}
    needle = [
        Check(f"accuracy at 4x: LMM - {name}", at_least(-0.1), four["lmm"] - four[name])
        for name in ("ttt", "mamba2", "deltanet")
    ]
    hybrids = [
        Check(f"accuracy at 4x: {name.upper()} - LMM", at_least(0), four[name] - four["lmm"])
        for name in ("mac", "mag", "mal")
    ]
    losses = {name: final_loss(run, "mqar", name) for name in ("mac", "mag", "mal")}
    gate = [
        Check(f"{name.upper()} - MAG: loss", at_least(-0.02), losses[name] - losses["mag"]) for name in ("mac", "mal")
    ]
    chunks = [final_loss(run, "mqar", f"chunk{b}") for b in CHUNKS]
    larger = [
        Check(f"chunk 64 - chunk {b}: loss", at_least(-0.02), chunks[-1] - c)
        for b, c in zip(CHUNKS, chunks[:-1], strict=False)
    ]
    undecided_language = "measured on recall; language modelling needs the `paper` preset's scale and a corpus"
    return [
        claim("T-1", "Fig. 7, Tab. 5", "Deeper memories have a lower loss", deeper),
        claim("T-2", "Tab. 5", "Forgetting, momentum and convolution each lower the loss", ablated[:3]),
        claim(
            "T-3",
            "Tab. 2",
            "On needles four times the training length, the LMM leads TTT, Mamba-2 and DeltaNet",
            needle,
        ),
        claim("T-4", "Tabs. 2, 5", "Hybrids with attention find needles at least as well as the LMM", hybrids),
        claim("T-5", "Tab. 1", "MAG has the best loss of the hybrids, or ties", gate, undecided_language),
        claim("T-6", "Di Nepi et al., 2025", "The loss worsens, weakly, with the chunk size", larger),
        claim_times(run.load_arrays("times")),
        claim("T-8", "Tab. 5", "Persistent tokens lower the loss a little", ablated[3:]),
        *claims_ladder(run),
    ]


def claim_times(arrays: dict[str, np.ndarray]) -> Claim:
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


def claims_ladder(run: Run) -> list[Claim]:
    arrays = run.load_arrays("ladder")
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
    delta, linear = (part(run, "overwrite", name)["score/latest"] for name in ("deltanet", "linear_attention"))
    latest = [
        Check("DeltaNet: recall of the latest value", at_least(0.95), delta),
        Check("linear attention: recall of the latest value", absolute(0.5, 0.1), linear),
    ]
    return [
        claim(
            "F-1", "derived", "Untrained rules have their closed-form errors; nothing beats Bayes", [*checks, *recall]
        ),
        claim("F-5", "delta rule", "Overwritten keys: the delta rule recalls the latest value, sums cannot", latest),
    ]
