"""The claims of Mazzawi et al. (2025), judged from a finished run."""

from itertools import pairwise

import numpy as np

from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Converged, at_most, within

from .experiments import WIDTH


def claims(run: Run) -> list[Claim]:
    """M1, on trained blocks; untrained ones are in the note."""
    arrays = run.part_arrays("regression")
    sizes = [int(k) for k in arrays["sizes"]]
    held = arrays["trained/test"] / arrays["trained/none"][:, None]
    exact = arrays["trained/exact"] / arrays["trained/test"][:, -1]
    checks = [
        Check(f"K = {k}: error on new queries / no patch", at_most(1.0), held[:, i])
        for i, k in enumerate(sizes)
        if k >= WIDTH
    ]
    checks.append(Check(f"K = {sizes[-1]}: exact patches / thought patch", within(0.0, 1.0), exact))
    checks += [
        Check(f"error on new queries at K = {k} / at K = {before}", at_most(1.0), held[:, i + 1] / held[:, i])
        for i, (before, k) in enumerate(pairwise(sizes))
    ]

    def shares(name: str) -> str:
        kind = name.split("/")[0]
        medians = np.median(arrays[name] / arrays[f"{kind}/none"][:, None], axis=0)
        return ", ".join(f"{k}: {share:.3g}" for k, share in zip(sizes, medians, strict=True))

    note = (
        f"Errors as shares of no patch by K, trained: {shares('trained/test')}; thought vector alone: "
        f"{shares('trained/vector')}; untrained blocks: {shares('untrained/test')}. What attention adds to the "
        "residual stream depends on the query, and the last bias adds its mean alone; with the last matrix fitted to "
        f"it as well, trained: {shares('trained/test through the last matrix')}; untrained: "
        f"{shares('untrained/test through the last matrix')}. The paper's arithmetic and translation prompts need a "
        "pretrained language model and are not run here."
    )
    statement = "One averaged patch lies between no patch and exact ones, and improves with calibration"
    undecided = (
        "the form of the patches, least squares with what attention adds carried by the last bias, was derived from "
        "the abstract; whether it is the paper's shows its text, which has not been read"
    )
    revised = "at first this was judged; what is measured depends on the form of the patches, which no source states"
    # The zero predictor's loss is half of E (w.x)^2 = d = 2; that of training is the mean of its last twentieth.
    guard = Converged("training loss / zero predictor's", at_most(0.5), arrays["loss"][-1])
    return [Claim("mazzawi2025/M1", statement, "abstract", checks, undecided, note, guard, revised)]
