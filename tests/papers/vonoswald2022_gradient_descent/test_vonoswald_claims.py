"""The guards of the claims of von Oswald et al.: what did not reach its reference's loss is recorded, not judged."""

from fnmatch import fnmatchcase

import numpy as np
import pytest

from meta_icl.papers.vonoswald2022_gradient_descent import NEEDS, PRESETS
from meta_icl.papers.vonoswald2022_gradient_descent.claims import claims_deep, claims_shifted
from meta_icl.papers.vonoswald2022_gradient_descent.measures import (
    DEEP_SCALES,
    INPUT_SCALES,
    OTHER_SCALES,
    REPLACED,
    TARGET_SCALES,
    least_read,
    part_of,
)
from meta_icl.papers.vonoswald2022_gradient_descent.training import D

REPLACED_LOSSES = (0.206, 0.257, 0.316, 0.384, 0.460)


def single(stuck):
    """One layer on changed prompts, whose losses are those of gradient descent, twice as high for stuck seeds."""
    times = np.where(stuck, 2.0, 1.0)
    gd = {"inputs": [{0.5: 0.081, 1.0: 0.206, 1.5: 1.20, 2.0: 8.40}.get(a, 0.5) for a in INPUT_SCALES],
          "targets": [s**2 * 0.206 for s in TARGET_SCALES], "laws": [0.3] * len(OTHER_SCALES),
          "replaced": REPLACED_LOSSES[: len(REPLACED)]}  # fmt: skip
    out = {f"{name}/gd": np.array(values) for name, values in gd.items()}
    out |= {f"{name}/trained": np.array(values)[:, None] * times for name, values in gd.items()}
    # What is judged on unchanged prompts has no guard; there even the stuck seed does well.
    out["inputs/trained"][INPUT_SCALES.index(1.0)] = out["targets/trained"][TARGET_SCALES.index(1.0)] = 0.206
    out["replaced/trained"][0] = 0.206
    return out | {"gd": np.array([0.206]), "trained": 0.206 * times}


@pytest.mark.parametrize(("stuck", "verdict"), [((0, 1, 0), "holds"), ((0, 1, 1), "not converged")])
def test_changed_prompts(stuck, verdict):
    claims = claims_shifted(single(np.array(stuck, bool)))
    assert {claim.verdict for claim in claims} == {verdict}
    unguarded = {check.quantity for claim in claims for check in claim.checks if check.converged is None}
    assert {"trained / GD, inputs times 1.0", "trained, w times 1", "trained, 0 replaced labels"} <= unguarded


def test_every_size_is_trained_when_the_claim_about_sizes_is_asked_for_alone():
    parts = {part_of(d) for d in (D, *PRESETS["small"].sizes)}
    assert len(parts) == 5 and all(any(fnmatchcase(part, pattern) for pattern in NEEDS["VO-8"]) for part in parts)


def test_the_least_direction_is_that_of_the_answer_as_a_function_of_the_products():
    """Two examples with equal x and opposite y leave only the term that is odd in y: the map, column by column."""
    rng, d = np.random.default_rng(0), 4
    qk, ov = rng.normal(size=(2, d + 1, d + 1))
    answers = np.zeros((d, d))
    for i, query in enumerate(np.eye(d)):
        for j, x in enumerate(np.eye(d)):
            h, tokens = np.append(query, 0), np.array([[*x, 1], [*x, -1]])
            halves = [(h @ qk @ token) * (token @ ov)[-1] * token[-1] for token in tokens]
            answers[i, j] = sum(halves) / 2
    values = np.linalg.svd(answers, compute_uv=False)
    assert least_read(qk, ov) == pytest.approx(values[-1] / values[0])


def test_a_head_with_y_in_its_keys_reads_one_direction():
    qk, ov = np.zeros((2, 4, 4))
    qk[:3, -1], ov[:3, -1] = (1, 2, 3), (1, -1, 1)
    assert least_read(qk, ov) < 1e-12
    qk[:3, :3], ov[-1, -1] = -np.eye(3), 3  # the construction of a gradient step beside it
    assert least_read(qk, ov) > 0.05


@pytest.mark.parametrize(("ratios", "verdict"), [((1, 3, 1), "holds"), ((1, 3, 3), "not converged")])
def test_deep_networks(ratios, verdict):
    ratios = np.array(ratios, float)
    converged = ratios == 1
    apart = np.array([{2.0: 3.0}.get(scale, 1.0) for scale in DEEP_SCALES])
    out = {}
    for name, gd, plus in (("K2", 0.157, 0.1105), ("K5", 0.109, 0.0521)):
        shift = np.where(converged, apart[:, None], 9.0)
        shift[DEEP_SCALES.index(1.0)] = 1.0
        out |= {f"{name}/gd": np.array([gd]), f"{name}/plus": np.array([plus]), f"{name}/gd_sets": np.full(20, gd),
                f"{name}/plus_sets": np.full(20, plus), f"{name}/trained": plus * ratios,
                f"{name}/shift_ratio": shift}  # fmt: skip
    out |= {"K2/cosine_plus": np.where(converged, 0.999, 0.5), "K2/cosine_gd": np.full(3, 0.9)}
    out["K2/interpolated"] = 0.1105 * np.where(converged, 1, 9)  # five separate layers are not interpolated
    found = {claim.id.rsplit("-", 1)[1]: claim.verdict for claim in claims_deep(out)}
    assert found["14"] == found["16"] == verdict
