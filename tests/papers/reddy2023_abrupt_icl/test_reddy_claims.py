"""The claims of Reddy on planted curves over a logarithmic axis."""

import numpy as np
import pytest

from meta_icl.papers.reddy2023_abrupt_icl.claims import judged

STEPS = np.array([0, *np.unique(np.geomspace(100, 200_000, 80).astype(int))])


def curve(end, at, start=0.03):
    return np.where(at > STEPS, start, end)


def trained(ic=1.0, iw=0.1, test=0.95, peak=None, waits=0.125):
    course = np.where(STEPS < 1_000, 0.03, np.where(STEPS < 10_000, waits, ic))
    if peak is not None:
        course = np.where((STEPS > 11_000) & (STEPS < 20_000), peak, course)
    rises = {"cla": curve(1.0, 2_000), "ila": curve(0.9, 10_000), "tila": curve(0.9, 10_000)}
    return [{"step": STEPS, "ic": course, "ic2": course, "iw": curve(iw, 500), "test": curve(test, 10_000), **rises}]


def reddy_as_published():
    found = {"abrupt": trained() * 2, "L=N": trained(ic=0.125), "alpha=1.0": trained(0.9, 0.9)}
    found |= {f"B={b}": trained(0.5 + b / 10, 0.9 - b / 10) for b in (1, 2, 4)}
    found["long"] = trained(0.7, 0.7, peak=0.95)
    found |= {f"K={k}": trained(i / 4, 1 - i / 4) for i, k in enumerate((128, 256, 1024, 2048))}
    return found | {f"eps={e}": trained(0.8, 0.9 - e) for e in (0.0, 0.25, 0.5, 0.75)}


def test_reddy_as_published(verdicts):
    found = reddy_as_published()
    assert verdicts(judged(found)) == {f"R{i}": "holds" for i in range(1, 10)}
    assert verdicts(judged(found | {"B=4": trained(0.9, 0.5, test=0.5)}))["R4"] == "not decided"
    assert verdicts(judged(found | {"B=4": trained(0.3, 0.9)}))["R4"] == "fails"
    assert verdicts(judged(found | {"L=N": trained(ic=0.125) + trained(ic=1.0)}))["R3"] == "fails"
    # A peak at the level of copying any label of the context is no learning in context.
    low = {name: trained(0.02, 0.9, waits=0.125) for name in found if name[:2] in ("B=", "K=", "al", "ep", "lo")}
    assert verdicts(judged(found | low))["R8"] == "not decided"


def shortened(found):
    return {name: [{k: v[STEPS <= 20_000] for k, v in a.items()} for a in seeds] for name, seeds in found.items()}


def test_short_trainings_of_reddy_do_not_deny_a_fall():
    (r8,) = (claim for claim in judged(shortened(reddy_as_published())) if claim.id.endswith("R8"))
    assert r8.verdict == "not decided" and "200,000 steps" in r8.undecided


def test_the_sweeps_of_reddy_alone_decide_their_claims(verdicts):
    sweeps = [name for name in reddy_as_published() if name[:2] in ("K=", "al", "ep")]
    told = verdicts(judged({name: shortened(reddy_as_published())[name] for name in sweeps}))
    assert {id for id, verdict in told.items() if verdict == "holds"} == {"R5", "R6", "R7"}
    assert "fails" not in told.values()


def test_levels_of_reddy_are_asked_of_settled_seeds(verdicts):
    rising = trained(0.5, 0.5)
    rising[0]["test"] = np.interp(STEPS, [0, 200_000], [0.0, 0.9])
    assert verdicts(judged(reddy_as_published() | {"alpha=1.0": rising}))["R7"] == "not converged"
    assert verdicts(judged(reddy_as_published() | {"alpha=1.0": trained(0.5, 0.9)}))["R7"] == "fails"


@pytest.mark.parametrize("level", [0.03, np.nan])
def test_untrained_networks_of_reddy_decide_nothing(level, verdicts):
    rng = np.random.default_rng(0)
    found = reddy_as_published()
    for seeds in found.values():
        for arrays in seeds:
            for key in set(arrays) - {"step"}:
                arrays[key] = level + 0.01 * rng.random(len(STEPS))
    told = verdicts(judged(found))
    assert not {name for name, verdict in told.items() if verdict in ("holds", "fails")}
    assert told["R1"] == "not converged"


def test_a_seed_that_has_not_learned_its_law_does_not_count_for_the_jump(verdicts):
    slow = trained(ic=0.1, test=0.2)
    assert verdicts(judged(reddy_as_published() | {"abrupt": trained() + slow}))["R1"] == "holds"
    assert verdicts(judged(reddy_as_published() | {"abrupt": trained() + slow * 2}))["R1"] == "not converged"
    assert verdicts(judged(reddy_as_published() | {"abrupt": trained(ic=0.5) * 2}))["R1"] == "fails"
