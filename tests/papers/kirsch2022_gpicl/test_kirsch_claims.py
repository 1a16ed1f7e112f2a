"""The guard of the claims of Kirsch et al.: a training that stays on the plateau of chance is not judged."""

from dataclasses import replace

import numpy as np
import pytest

from meta_icl.papers.kirsch2022_gpicl.claims import plateau_claims, transfer_claims
from meta_icl.papers.kirsch2022_gpicl.config import RANDOM, Training

LEARNERS = ("1-NN", "3-NN", "centroid", "ridge", "logistic", "SGD", "MAML")


def meta_trained(learns):
    """The curves of one seed at 30 positions; without learning all stay at chance, and so does the loss."""
    step = np.arange(0, 6_001, 150)
    loss = np.where(step < 2_000, np.log(5), 0.4 if learns else np.log(5))
    curve = np.minimum(np.linspace(0.2, 2, 30), 1) if learns else np.full(30, 0.2)
    return {"step": step, "loss": loss} | {f"curve_{name}": curve for name in ("seen", "unseen", "wine", RANDOM)}


@pytest.mark.parametrize(
    ("learns", "verdict"),
    [((True, True, True), "holds"), ((True, False, True), "holds"), ((False, False, True), "not converged")],
)
def test_transfer_is_judged_where_the_plateau_is_left(learns, verdict):
    found = {Training("main", seed=seed): meta_trained(one) for seed, one in enumerate(learns)}
    known = {f"{name}/unseen": np.full(30, 0.98) for name in LEARNERS}
    first = transfer_claims(found, known)[0]
    assert first.verdict == verdict and first.converged.seeds == learns
    assert {len(check.measured) for check in first.checks} == {3}  # all seeds are recorded


def plateau_of(steps):
    """A training whose loss rests at chance for so many steps."""
    step = np.arange(0, 3_001, 50)
    return {"step": step, "loss": np.where(step < steps, np.log(3), 0.2), "curve_unseen": np.full(16, 0.9)}


@pytest.mark.parametrize(
    ("lengths", "verdict"),
    [
        ({1e-2: 2_000, 1e-8: 1_000}, "holds"),
        ({1e-2: 1_000, 1e-8: 2_000}, "fails"),  # below the gradient nothing is judged
        ({1e-8: 2_000}, "not decided"),
    ],
)
def test_epsilon_is_judged_where_it_reaches_the_gradient(lengths, verdict):
    short = Training("bias", n_labels=3, rows=16, steps=3_000, bias=0.9)
    found = {short: plateau_of(1_000)}
    found |= {replace(short, study="epsilon", eps=eps): plateau_of(steps) for eps, steps in lengths.items()}
    told = {claim.id.rsplit("/", 1)[1]: claim for claim in plateau_claims(found)}["G12"]
    assert told.verdict == verdict and "1e-08: " in told.note
