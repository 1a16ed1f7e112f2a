"""The claims of Innocenti & Achour (2025), judged from a finished run."""

from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, absolute, at_most

from .experiments import ANY_WEIGHTS, variants_of

ONE, SEVERAL = 1e-5, 1e-4  # what an identity may miss by in float32, in one block and in the worst of several


def claims(run: Run) -> list[Claim]:
    """I1 and I2: identities of any weights, checked on untrained and trained ones."""
    found = variants_of(run)
    i1, i2 = [], []
    for name, arrays in found.items():
        errors = arrays["patched/relative"]  # records seeds blocks
        limit = at_most(SEVERAL if errors.shape[2] > 1 else ONE)
        start = f"{name}: largest relative error, float32, all steps"
        i1.append(Check(start, limit, errors.max((0, 2)), share=1.0))
        for when in ("untrained", "trained"):
            error, start = arrays[f"{when}/relative"].max(1), f"{name}, {when}"
            i1.append(Check(f"{start}: largest relative error, float64", at_most(1e-12), error, share=1.0))
            rank, total = (arrays[f"{when}/{key}"] for key in ("rank", "rank of sum"))
            i2.append(Check(f"{start}: largest rank of one update", absolute(1, 0), rank, share=1.0))
            i2.append(Check(f"{start}: largest rank of the sum over positions", absolute(1, 0), total, share=1.0))
    squared = max(arrays["patched/squared"][-1].max() for arrays in found.values())
    note = (
        f"{ANY_WEIGHTS} Largest mean squared difference at the end, float32: {squared:.1e}. The relative error is that "
        "of the worst of all positions, whose answer, of few numbers, may nearly cancel."
    )
    statement = "Patched and true answers agree at all positions and in all blocks"
    one_row = (
        "the sum is asked for rank one: the patches of a block share their input row, that of the last token alone. At "
        "first it was asked for a rank of at most the width, which every matrix of that shape has"
    )
    ranks = "One update has rank one, and so has the sum over positions"
    revised = (
        f"in float32 the bound of networks of several blocks is {SEVERAL:g}, as for other stacks of blocks (dherin2025/"
        f"D10, goldwaser2025/G5), and not the {ONE:g} of one block, the bound at first: it ignored the rounding of "
        "large changes and that the worst of all blocks counts"
    )
    return [
        Claim("innocenti2025/I1", statement, "main theorem", i1, note=note, revised=revised),
        Claim("innocenti2025/I2", ranks, "spectra", i2, note=ANY_WEIGHTS, revised=one_row),
    ]
