"""The claims of Singh, Reddy and Olsson et al. on planted arrays: what confirms, and what untrained networks leave."""

import numpy as np
import pytest

from meta_icl.papers import olsson2022_induction_heads as olsson
from meta_icl.papers import reddy2023_abrupt_icl as reddy
from meta_icl.papers import singh2024_induction_formation as singh

LN2 = np.log(2)


def verdicts(claims):
    return {claim.id.split("/")[1]: claim.verdict for claim in claims}


def held(claims):
    return {name for name, verdict in verdicts(claims).items() if verdict == "holds"}


# Singh et al.: losses that drop from ln 2 at a step, and the heads of the free network.


def dropping(at, **heads):
    step = np.array([0, *np.unique(np.geomspace(10, 30_000, 80).astype(int))])
    loss = np.where(step < at, LN2, 0.001)
    tests = ("train", "label_pairs", "drawings")
    return {"step": step, "train_loss": loss} | {f"{t}_right": np.where(loss > 0.5, 0.5, 1.0) for t in tests} | heads


def heads(alone, strength, whole=1.0, without=0.98, direct=0.999, fixed=0.6):
    return {"final_strength": np.array(strength), "alone": np.array(alone), "without": np.full(8, without),
            "fixed": np.array([0, 0.1, 0.1, 0.2, fixed, fixed + 0.1]), "whole": np.array(whole),
            "layer1_direct": np.array(direct)}  # fmt: skip


def toy(free=450, c=125, bc=60):
    below = {"free": free, "c": c, "bc": bc}
    return {name: np.where(np.arange(1_000) < at, 1.0, 0.001)[None].repeat(8, 0) for name, at in below.items()}


def singh_as_published():
    strength = [0.42, 0.74, 0.71, 0.85, 0.29, 0.55, 0.10, 0.57]
    alone = heads([0.40, 0.77, 0.75, 0.98, 0.43, 0.65, 0.29, 0.59], strength)
    found = {f"free-K50-L5-seed{seed}": dropping(5_000, **alone) for seed in range(3)}
    found |= {"free-K100-L5-seed0": dropping(9_000, **alone), "free-K50-L10-seed0": dropping(7_000, **alone)}
    times = {"layer1": 1_000, "match": 700, "layer1_copy": 6_000, "only_0": 9_000, "only_3": 7_000}
    return found | {f"{name}-K50-L5-seed0": dropping(at) for name, at in times.items()} | {"toy": toy()}


def test_singh_as_published():
    found = singh_as_published()
    assert held(singh.judged(found)) == {f"S{i}" for i in range(1, 11)}
    # With copying clamped only one head is left: later than one head alone is too late, whatever the free network does.
    assert verdicts(singh.judged(found | {"layer1_copy-K50-L5-seed0": dropping(9_500)}))["S8"] == "fails"
    assert verdicts(singh.judged(found | {"free-K50-L10-seed0": dropping(4_000)}))["S10"] == "fails"
    assert verdicts(singh.judged(found | {"free-K50-L10-seed0": dropping(np.inf)}))["S10"] == "holds"
    assert verdicts(singh.judged(found | {"toy": toy(free=1_000)}))["S9"] == "fails"


@pytest.mark.parametrize("number", [0.0, np.nan])
def test_untrained_networks_of_singh_decide_nothing(number):
    found = {"toy": toy()}
    rng = np.random.default_rng(0)
    for name, arrays in singh_as_published().items():
        if name != "toy":
            # Small numbers throughout: removing heads costs nothing, and heads repair as much as they break.
            small = {key: number + 0.01 * rng.random(value.shape) for key, value in arrays.items() if key != "step"}
            found[name] = {"step": arrays["step"], **small, "train_loss": LN2 + small["train_loss"]}
            if "fixed" in arrays:
                found[name] |= {"fixed": np.full(6, 0.9), "alone": small["final_strength"]}
    judged = verdicts(singh.judged(found))
    assert {name for name, verdict in judged.items() if verdict == "holds"} == {"S9"}  # the toy is no network
    assert {judged[name] for name in ("S3", "S4", "S5", "S6", "S7", "S8", "S10")} == {"not decided"}


# Reddy: curves on a logarithmic axis.


def curve(end, at, start=0.03):
    return np.where(at > REDDY_STEPS, start, end)


REDDY_STEPS = np.array([0, *np.unique(np.geomspace(100, 40_000, 80).astype(int))])


def trained(ic=1.0, iw=0.1, test=0.95, peak=None, waits=0.125):
    course = np.where(REDDY_STEPS < 1_000, 0.03, np.where(REDDY_STEPS < 10_000, waits, ic))
    if peak is not None:
        course = np.where((REDDY_STEPS > 11_000) & (REDDY_STEPS < 20_000), peak, course)
    rises = {"cla": curve(1.0, 2_000), "ila": curve(0.9, 10_000), "tila": curve(0.9, 10_000)}
    return [
        {"step": REDDY_STEPS, "ic": course, "ic2": course, "iw": curve(iw, 500), "test": curve(test, 10_000), **rises}
    ]


def reddy_as_published():
    found = {"abrupt": trained() * 2, "L=N": trained(ic=0.125), "alpha=1.0": trained(0.9, 0.9)}
    found |= {f"B={b}": trained(0.5 + b / 10, 0.9 - b / 10) for b in (1, 2, 4)}
    found["B=2"] = trained(0.7, 0.7, peak=0.95)
    found |= {f"K={k}": trained(i / 4, 1 - i / 4) for i, k in enumerate((128, 256, 1024, 2048))}
    return found | {f"eps={e}": trained(0.8, 0.9 - e) for e in (0.0, 0.25, 0.5, 0.75)}


def test_reddy_as_published():
    found = reddy_as_published()
    assert held(reddy.judged(found)) == {f"R{i}" for i in range(1, 10)}
    assert verdicts(reddy.judged(found | {"B=4": trained(0.9, 0.5, test=0.5)}))["R4"] == "not decided"
    assert verdicts(reddy.judged(found | {"B=4": trained(0.3, 0.9)}))["R4"] == "fails"
    # A peak at the level of copying any label of the context is no learning in context.
    low = {name: trained(0.02, 0.9, waits=0.125) for name in ("B=1", "B=2", "alpha=0.0")}
    assert verdicts(reddy.judged(found | low))["R8"] == "not decided"


@pytest.mark.parametrize("level", [0.03, np.nan])
def test_untrained_networks_of_reddy_decide_nothing(level):
    rng = np.random.default_rng(0)
    found = reddy_as_published()
    for seeds in found.values():
        for arrays in seeds:
            for key in set(arrays) - {"step"}:
                arrays[key] = level + 0.01 * rng.random(len(REDDY_STEPS))
    judged = verdicts(reddy.judged(found))
    assert not {name for name, verdict in judged.items() if verdict == "holds"}
    assert {name for name, verdict in judged.items() if verdict == "fails"} == {"R1", "R7"}


# Olsson et al.: losses of four copies, and the heads at the end.


def copier(score, prefix=0.9, heads_matter=True):
    """Losses fall by `score` nats on the last copy; the matching of heads (2, 1) and (2, 2) rises with it."""
    step = np.arange(0, 4_001, 100)
    share = (step >= 2_000).astype(float)
    losses = np.concatenate([np.full((len(step), 75), 4.0), (4.0 + score * share)[:, None].repeat(25, 1)], 1)
    matching = np.zeros((len(step), 2, 4))
    matching[:, 1, :2] = (0.02 + (prefix - 0.02) * share)[:, None]
    without = np.full((2, 4), float(score))  # each of the two stands in for the other
    arrays = {"step": step, "losses": losses, "prefix": matching, "copying": matching[-1], "without_kept": without}
    return [arrays | {"without_matching_kept": np.asarray(score * (1.0 - heads_matter))}]


def test_olsson_as_published():
    found = {"two": copier(-3.0) * 2, "one": copier(0.0) * 2, "one_smeared": copier(-2.0) * 2}
    assert held(olsson.judged(found)) == {f"O{i}" for i in range(1, 6)}
    assert verdicts(olsson.judged(found | {"two": copier(-3.0, heads_matter=False) * 2}))["O3"] == "fails"
    (one,) = copier(-3.0)
    everywhere = one | {"without_kept": one["without_kept"] * 0.5}  # other heads matter as much
    assert verdicts(olsson.judged(found | {"two": [everywhere] * 2}))["O3"] == "fails"
    assert olsson.matching_heads(np.array([[0.1, 0.2]])).tolist() == [[False, True]]


@pytest.mark.parametrize("score", [0.0, -0.1, np.nan])
def test_models_of_olsson_without_the_change_decide_nothing(score):
    judged = verdicts(olsson.judged({name: copier(score) * 2 for name in olsson.MODELS}))
    assert judged == {"O1": "fails", "O2": "not decided", "O3": "not decided", "O4": "fails", "O5": "not decided"}
