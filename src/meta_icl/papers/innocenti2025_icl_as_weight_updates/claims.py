"""The claims of Innocenti & Achour (2025), judged from a finished run."""

from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_most

from .experiments import ANY_WEIGHTS, variants_of


def claims(run: Run) -> list[Claim]:
    """I1 and I2: identities of any weights, checked on untrained and trained ones."""
    found = variants_of(run)
    i1, i2 = [], []
    for name, arrays in found.items():
        error = arrays["patched/relative"].max((0, 2))
        i1.append(Check(f"{name}: largest relative error, float32, all steps", at_most(1e-5), error, share=1.0))
        for when in ("untrained", "trained"):
            error, start = arrays[f"{when}/relative"].max(1), f"{name}, {when}"
            i1.append(Check(f"{start}: largest relative error, float64", at_most(1e-12), error, share=1.0))
            rank, total = (arrays[f"{when}/{key}"] for key in ("rank", "rank of sum"))
            i2.append(Check(f"{start}: largest rank of one update", at_most(1), rank, share=1.0))
            limit = at_most(float(arrays["width"]))
            i2.append(Check(f"{start}: largest rank of the sum over positions", limit, total, share=1.0))
    squared = max(arrays["patched/squared"][-1].max() for arrays in found.values())
    note = (
        f"{ANY_WEIGHTS} Largest mean squared difference at the end, float32: {squared:.1e}. The relative error is that "
        "of the worst of all positions, whose answer, of few numbers, may nearly cancel."
    )
    statement = "Patched and true answers agree at all positions and in all blocks"
    rank_note = (
        "The patches of a block share their input row, that of the last token alone: their sum has rank one here."
    )
    ranks = "One update has rank one, the sum over positions at most the width"
    return [
        Claim("innocenti2025/I1", statement, "main theorem", i1, note=note),
        Claim("innocenti2025/I2", ranks, "spectra", i2, note=f"{ANY_WEIGHTS} {rank_note}"),
    ]
