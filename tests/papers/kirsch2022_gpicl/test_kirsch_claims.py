"""The guard of the claims of Kirsch et al.: a training that stays on the plateau of chance is not judged."""

from dataclasses import replace

import numpy as np
import pytest

from meta_icl.papers.kirsch2022_gpicl.claims import phase_claim, plateau_claims, state_claims, transfer_claims
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


@pytest.mark.parametrize(
    ("on_glyphs", "back", "verdict"),
    [(0.92, 0.80, "holds"), (0.98, 0.80, "fails"), (0.92, 0.60, "fails")],  # a gap on glyphs; much lost on digits
)
def test_training_on_other_data_is_compared_on_both_sets(on_glyphs, back, verdict):
    def curve(level):
        return np.append(0.2, np.full(29, level))

    def trained(data, unseen, other):
        return meta_trained(True) | {"curve_unseen": curve(unseen), f"curve_{data}": curve(other)}

    found = {
        Training("main"): trained("glyphs", 0.9, 0.9),
        Training("data", data="glyphs"): trained("digits", on_glyphs, back),
    }
    known = {f"{name}/unseen": np.full(30, 0.98) for name in LEARNERS}
    assert transfer_claims(found, known)[2].verdict == verdict
    assert transfer_claims({Training("main"): found[Training("main")]}, known)[2].verdict == "not decided"


def pooled(gain):
    """Curves of a training on a pool that improves on unseen tasks by so much."""
    return {"curve_seen": np.full(16, 0.9), "curve_unseen": np.append(1 / 3, np.full(15, 1 / 3 + gain))}


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "holds"),
        ({(4, 128): 0.3}, "fails"),
        ({(64, 128): 0.0}, "fails"),
        ({(64, 16): 0.3}, "fails"),
        ({(999, 16): 0.3}, "fails"),
    ],
)
def test_phases_by_batch_and_pool(changed, verdict):
    gain = {(n, b): 0.4 if (n, b) == (64, 128) else 0.0 for n in (4, 64, 999) for b in (16, 128)} | changed
    found = {Training("phase", bias=0.0, n_tasks=n, batch=b): pooled(value) for (n, b), value in gain.items()}
    assert phase_claim(found).verdict == verdict


@pytest.mark.parametrize(
    ("lengths", "verdict"), [((1_000, 1_500, np.inf), "holds"), ((np.inf, np.inf, 900), "not converged")]
)
def test_seeds_that_stay_on_the_plateau_do_not_tell_how_it_ends(lengths, verdict):
    short = Training("bias", n_labels=3, rows=16, steps=3_000, bias=0.0, optimiser="muon")
    found = {replace(short, seed=seed): plateau_of(steps) for seed, steps in enumerate(lengths)}
    told = {claim.id.rsplit("/", 1)[1]: claim.verdict for claim in plateau_claims(found)}
    assert told["G9"] == verdict


def test_networks_at_chance_do_not_tell_of_states():
    kinds = ("lstm", "fast_weights", "linear", "transformer")
    found = {
        Training("state", kind, seed=i): meta_trained(i > 2) | {"state_size": np.array(i), "n_parameters": np.array(-i)}
        for i, kind in enumerate(kinds)
    }
    assert state_claims(found)[0].verdict == "not converged"
    for a in found.values():
        a["loss"] = meta_trained(True)["loss"]
    assert state_claims(found)[0].verdict == "holds"
