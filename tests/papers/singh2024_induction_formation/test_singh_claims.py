"""The claims of Singh et al. on planted losses that drop from ln 2, and the heads at the end."""

import numpy as np
import pytest

from meta_icl.papers.singh2024_induction_formation.claims import judged

LN2 = np.log(2)


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


def test_singh_as_published(verdicts):
    found = singh_as_published()
    assert verdicts(judged(found)) == {f"S{i}": "holds" for i in range(1, 11)}
    # With copying clamped only one head is left: later than one head alone is too late, whatever the free network does.
    assert verdicts(judged(found | {"layer1_copy-K50-L5-seed0": dropping(9_500)}))["S8"] == "fails"
    assert verdicts(judged(found | {"free-K50-L10-seed0": dropping(4_000)}))["S10"] == "fails"
    assert verdicts(judged(found | {"free-K50-L10-seed0": dropping(np.inf)}))["S10"] == "holds"
    assert verdicts(judged(found | {"toy": toy(free=1_000)}))["S9"] == "fails"


@pytest.mark.parametrize("number", [0.0, np.nan])
def test_untrained_networks_of_singh_decide_nothing(number, verdicts):
    found = {"toy": toy()}
    rng = np.random.default_rng(0)
    for name, arrays in singh_as_published().items():
        if name != "toy":
            # Small numbers throughout: removing heads costs nothing, and heads repair as much as they break.
            small = {key: number + 0.01 * rng.random(value.shape) for key, value in arrays.items() if key != "step"}
            found[name] = {"step": arrays["step"], **small, "train_loss": LN2 + small["train_loss"]}
            if "fixed" in arrays:
                found[name] |= {"fixed": np.full(6, 0.9), "alone": small["final_strength"]}
    told = verdicts(judged(found))
    assert {name for name, verdict in told.items() if verdict == "holds"} == {"S9"}  # the toy is no network
    assert {told[name] for name in ("S3", "S4", "S5", "S6", "S7", "S8", "S10")} == {"not decided"}
