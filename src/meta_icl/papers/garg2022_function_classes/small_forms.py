"""T-2 to T-5, of this laboratory: small forms of F-12 and F-16 to F-18, which are published at d = 20 and more."""

import numpy as np

from meta_icl.runs.claims import Check, Claim, at_least, at_most, is_true

from .experiments import SIZES
from .readings import OURS, Trained, claim, first_step

NEED = "the preset `full` trains these networks"


def small_claims(trained: Trained) -> list[Claim]:
    """Sparse functions against the Lasso; size and d; a curriculum; pools of functions."""
    return [sparse_claim(trained), size_claim(trained), curriculum_claim(trained), pool_claim(trained)]


def sparse_claim(trained: Trained) -> Claim:
    """T-2: the tolerances of F-12, one-sided, at the same shares of d."""
    checks = []
    for t, a in trained.values():
        if t.family == "sparse" and t.d <= OURS:
            at = {t.d // 2: 0.1, t.d: 0.05}
            error = a["error"][-1]
            checks += [
                Check(f"e - e of the Lasso, k = {k}", at_most(tolerance), error[:, k] - lasso)
                for (k, tolerance), lasso in zip(at.items(), a["lasso"], strict=True)
            ]
            checks.append(
                Check(f"e / e of least squares, k = {t.d // 2}", at_most(1), error[:, t.d // 2] / a["squares"][0])
            )
    statement = "Three of d = 6 coordinates: as good as the Lasso at its best weight, better than least squares"
    return claim("T-2", statement, "this laboratory, after Fig. 5a", checks, NEED)


def plain_of(trained: Trained) -> list:
    """The small linear trainings without label noise, which are put to plain prompts alone."""
    return [(t, a) for t, a in trained.values() if t.family == "linear" and not (t.noise or t.changed) and t.d <= OURS]


def size_claim(trained: Trained) -> Claim:
    """T-3: orders of the error at 2d."""
    full = {
        (t.size, t.d): float(np.median(a["error"][-1][:, 2 * t.d]))
        for t, a in plain_of(trained)
        if not (t.curriculum or t.functions or t.prompts)
    }
    sizes, ds, checks = [s for s in SIZES if any(s == size for size, _ in full)], sorted({d for _, d in full}), []
    if len(sizes) >= 2 and len(ds) >= 3:
        for small, large in zip(sizes, sizes[1:], strict=False):
            checks += [
                Check(f"d = {d}: e at 2d, {large} / {small}", at_most(1), full[large, d] / full[small, d]) for d in ds
            ]
        for size in sizes:
            rises = bool(np.all(np.diff([full[size, d] for d in ds]) >= 0))
            checks.append(Check(f"{size}: e at 2d rises with d = {', '.join(map(str, ds))}", is_true(), float(rises)))
    statement = "In small, too, the error at 2d falls with the size of the network and rises with d"
    return claim("T-3", statement, "this laboratory, after Fig. 6a", checks, NEED)


def curriculum_claim(trained: Trained) -> Claim:
    """T-4: the speed-up that F-17 asks for."""
    plain = [(t, a) for t, a in plain_of(trained) if not (t.functions or t.prompts)]
    taught = {(t.d, t.size): a for t, a in plain if t.curriculum}
    checks = []
    for t, a in plain:
        if not t.curriculum and (t.d, t.size) in taught:
            never = float(t.steps)  # a network that did not come so low took at least as long as it was trained
            ratio = np.minimum(first_step(a, t.d), never) / first_step(taught[t.d, t.size], t.d)
            checks.append(Check(f"d = {t.d}: steps without / with curriculum to e < 0.1 at 2d", at_least(1.5), ratio))
    statement = "In small, too, a curriculum speeds training up"
    return claim("T-4", statement, "this laboratory, after Fig. 12", checks, NEED)


def pool_claim(trained: Trained) -> Claim:
    """T-5: the numbers of functions of F-18, at d = 5."""
    plain = plain_of(trained)
    free = {
        (t.d, t.size, t.steps): float(np.median(a["error"][-1][:, 2 * t.d]))
        for t, a in plain
        if not (t.curriculum or t.functions or t.prompts)
    }
    checks = []
    for t, a in plain:
        level = free.get((t.d, t.size, t.steps))
        if t.functions >= 1_000 and level is not None:
            error, label = a["error"][-1][:, 2 * t.d], f"e at 2d, {t.functions:,} functions"
            checks.append(Check(label, at_most(0.5), error))
            if t.functions >= 10_000:
                checks.append(Check(f"{label} - that of all functions", at_most(0.05), error - level))
    statement = "In small, too, 1,000 functions are enough to learn from, and 10,000 nearly as good as all"
    return claim("T-5", statement, "this laboratory, after Fig. 14", checks, NEED)
