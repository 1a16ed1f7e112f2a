"""The guard of the claims of He et al.: pairs of heads that rest at the one-head solution are not judged."""

import importlib

import numpy as np
import pytest

from meta_icl.papers.he2025_softmax_regression.experiments import LENGTHS, D, L

# The package itself shows the function of that name.
claims = importlib.import_module("meta_icl.papers.he2025_softmax_regression.claims")


def pair(stuck):
    """Two opposite heads that do a gradient step, or two alike whose weights are no multiples of the identity."""
    kq = 0.13 * np.eye(D + 1)[None] * np.array([1, -1])[:, None, None]
    ov = np.eye(D + 1)[[-1, -1]]
    if stuck:
        kq, ov = np.ones_like(kq), np.ones_like(ov)
    omega, mu = (np.array([[0.3, 0.3]]), np.array([[1.0, 1.0]])) if stuck else ([[0.13, -0.13]], [[3.45, -3.45]])
    loss = 0.405 if stuck else 0.243
    losses = np.where(np.array(LENGTHS) == L, loss, 0.5)
    return {"kq": kq, "ov": ov, "omega": np.array(omega), "mu": np.array(mu), "by_length": losses,
            "test": np.array([1.1, loss])}  # fmt: skip


@pytest.mark.parametrize(
    ("stuck", "verdict"), [((0, 0, 0), "holds"), ((0, 1, 0), "holds"), ((1, 1, 0), "not converged")]
)
def test_pairs_of_heads(run, monkeypatch, stuck, verdict):
    monkeypatch.setattr(claims, "seeds_of", lambda run, start: [pair(one) for one in stuck])
    found = claims.pair_claims(run)
    assert [claim.verdict for claim in found] == [verdict] * 3
    assert found[0].remarks["Converged"] == (
        f"{3 - sum(stuck)} of 3 seeds converged (2 heads: test loss, L = 40 at most 0.324)"
    )


@pytest.mark.parametrize(("stuck", "verdict"), [((0, 1, 0), "holds"), ((1, 1, 0), "not converged")])
def test_the_loss_of_pairs_is_judged_by_their_signs(run, stuck, verdict):
    for seed, one in enumerate(stuck):
        with run.part(f"heads-2-{seed}") as part:
            part.save_arrays("result", {name: np.asarray(values) for name, values in pair(one).items()})
            part.finish()
    (h7,) = (claim for claim in claims.head_claims(run) if claim.id == "he2025/H7")
    assert h7.verdict == verdict
    assert h7.checks[0].measured == tuple(0.405 if one else 0.243 for one in stuck)  # all are recorded
