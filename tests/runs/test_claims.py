import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.errors import BadInput
from meta_icl.runs import Check, Claim, Converged, Run, absolute, at_least, at_most, is_true, relative, within
from meta_icl.runs.claims import number

NAN = math.nan


@pytest.mark.parametrize(
    ("rule", "text", "inside", "outside"),
    [
        (within(0.1, 0.3), "0.1 to 0.3", (0.1, 0.2, 0.3), (0.0999, 0.3001, NAN)),
        (relative(0.27, 0.02), "0.27 ± 2 %", (0.27, 0.265, 0.275), (0.264, 0.276, -0.27, NAN)),
        (relative(-2.0, 0.5), "-2 ± 50 %", (-1.0, -3.0), (-0.9, -3.1, 2.0)),
        (absolute(1.0, 0.25), "1 ± 0.25", (0.75, 1.25), (0.74, 1.26, NAN)),
        (at_most(1.01), "at most 1.01", (1.01, -5.0, -math.inf), (1.0101, math.inf, NAN)),
        (at_least(0.9), "at least 0.9", (0.9, math.inf), (0.8999, NAN)),
        (is_true(), "true", (1.0,), (0.0, 0.5, NAN)),
    ],
)
def test_rules(rule, text, inside, outside):
    assert rule.text == text
    assert all(rule.accepts(value) for value in inside)
    assert not any(rule.accepts(value) for value in outside)


@pytest.mark.parametrize(
    "build", [lambda: within(2, 1), lambda: absolute(1, -0.1), lambda: relative(1, -1), lambda: at_most(NAN)]
)
def test_impossible_rules(build):
    with pytest.raises(BadInput):
        build()


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=12))
def test_median_and_spread(values):
    check = Check("q", at_least(0), tuple(values))
    # numpy's own mean of the two middle values may overflow or round differently by an ulp
    np.testing.assert_allclose(check.median, np.median(values), rtol=1e-15)
    assert check.spread == (np.min(values), np.max(values))
    assert min(values) <= check.median <= max(values)


def test_checks_over_seeds():
    assert Check("q", at_most(1), (0.0, 0.5, 9.0)).holds  # the median counts
    assert not Check("q", at_most(1), (0.0, 2.0, 9.0)).holds
    assert not Check("q", at_most(1), (0.0, 0.5, NAN)).holds  # a seed without a number spoils the median
    assert Check("q", at_most(1), (0.0, 0.5, NAN), share=2 / 3).holds  # but counts as one seed in a share
    assert not Check("q", at_most(1), (0.0, 0.5, NAN), share=0.7).holds
    assert Check("q", is_true(), (1.0,) * 7 + (0.0,) * 3, share=0.7).holds
    assert Check("q", at_most(1), (0.5,), share=0.9).expected == "at most 1 in 90 % of seeds"
    assert Check("q", at_most(1), 0.5).measured == (0.5,)
    assert Check("q", is_true(), (True, True)).measured_text == "true"
    assert Check("q", is_true(), (0,)).measured_text == "false"
    assert Check("q", at_most(1), np.array([0.25, 0.5, 1.0])).measured_text == "0.5 [0.25, 1]"
    for bad in ({"measured": ()}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(BadInput):
            Check(**{"quantity": "q", "rule": at_most(1), "measured": (1.0,)} | bad)


def test_verdicts():
    good, bad = Check("a", at_most(1), (0.5,)), Check("b", at_most(1), (2.0,))
    assert Claim("p/1", "s", "Fig. 1", (good, good)).verdict == "holds"
    assert Claim("p/1", "s", "Fig. 1", (good, bad)).verdict == "fails"
    assert Claim("p/1", "s", "Fig. 1", (good,), undecided="needs a GPU").verdict == "not decided"
    assert Claim("p/1", "s", "Fig. 1", undecided="needs a GPU").verdict == "not decided"
    with pytest.raises(BadInput, match="neither checks nor a reason"):
        Claim("p/1", "s", "Fig. 1")


# Ratios of four seeds to the best possible loss; seeds 1 and 3 are stuck.
RATIO = (1.001, 1.4, 1.009, NAN)


def test_only_converged_seeds_are_judged():
    guard = Converged("loss / Bayes", at_most(1.01), RATIO)
    assert guard.seeds == (True, False, True, False) and guard.holds
    assert guard.text == "2 of 4 seeds converged (loss / Bayes at most 1.01)"
    check = Check("cosine", at_least(0.9), (0.95, 0.1, 0.97, NAN), converged=guard)
    assert check.measured[1] == 0.1 and len(check.measured) == 4  # all are recorded
    assert check.judged == (0.95, 0.97) and check.median == 0.96 and check.spread == (0.95, 0.97)
    assert check.verdict == "holds" and check.measured_text == "0.96 [0.95, 0.97] (2 of 4 seeds)"
    assert Check("cosine", at_least(0.96), (0.95, 9, 0.97, 9), share=0.6, converged=guard).verdict == "fails"
    # What converged seeds measured counts, however bad.
    assert Check("cosine", at_least(0.9), (0.2, 0.95, NAN, 0.95), converged=guard).verdict == "fails"
    assert Check("order", is_true(), (1, 0, 1, 0), converged=guard).measured_text == "true (2 of 4 seeds)"


def test_too_few_converged_seeds_judge_nothing():
    guard = Converged("loss / Bayes", at_most(1.005), RATIO)
    check = Check("cosine", at_least(0.9), (0.95, 0.1, 0.1, 0.1), converged=guard)
    assert not guard.holds and check.verdict == "not converged" and not check.holds
    assert check.judged == check.measured and check.measured_text == "0.1 [0.1, 0.95]"
    assert Converged("q", at_most(1.01), RATIO, share=0.75).text.endswith("at most 1.01 in 75 % of seeds)")
    assert not Converged("q", at_most(1.01), RATIO, share=0.75).holds
    for bad in ({"share": 0.4}, {"share": 1.1}, {"measured": ()}):
        with pytest.raises(BadInput):
            Converged(**{"quantity": "q", "rule": at_most(1), "measured": (1.0,)} | bad)
    with pytest.raises(BadInput, match="number of seeds of 'loss / Bayes' must be 1, as measured of 'cosine', got 4"):
        Check("cosine", at_least(0.9), 0.95, converged=guard)


def test_verdicts_of_guarded_claims():
    some, few = (Converged("loss / Bayes", at_most(limit), RATIO) for limit in (1.01, 1.005))
    good, bad = Check("a", at_most(1), (0.5, 7.0, 0.5, 7.0)), Check("b", at_most(1), (2.0, 0.0, 2.0, 0.0))
    once = Check("of all seeds together", at_most(1), 0.5)
    whole = Claim("p/1", "s", "Fig. 1", (good, once), converged=some)
    assert whole.verdict == "holds" and whole.guards == (some,)
    assert [check.converged for check in whole.checks] == [some, None]
    assert Claim("p/1", "s", "Fig. 1", (good, bad), converged=some).verdict == "fails"
    assert Claim("p/1", "s", "Fig. 1", (good, bad), converged=few).verdict == "not converged"
    assert Claim("p/1", "s", "Fig. 1", (once,), converged=few).verdict == "not converged"
    assert Claim("p/1", "s", "Fig. 1", (good,), undecided="needs a GPU", converged=few).verdict == "not decided"
    # A check may have a guard of its own; one of another training then decides for itself.
    own = Check("c", at_most(1), (0.5, 7.0, 0.5, 7.0), converged=few)
    assert Claim("p/1", "s", "Fig. 1", (good, own), converged=some).verdict == "not converged"
    assert Claim("p/1", "s", "Fig. 1", (good, own), converged=some).guards == (some, few)
    assert Claim("p/1", "s", "Fig. 1", (once, own)).verdict == "not converged"
    assert Claim("p/1", "s", "Fig. 1", (Check("d", at_most(1), 2.0), own)).verdict == "fails"


def test_remarks():
    guard = Converged("loss / Bayes", at_most(1.01), RATIO)
    claim = Claim("p/1", "s", "Fig. 1", (Check("a", at_most(1), RATIO),), None, "n", guard, "erratum: 1, not 2")
    assert claim.remarks == {"Converged": guard.text, "Revised": "erratum: 1, not 2", "Note": "n"}
    assert Claim("p/1", "s", "Fig. 1", undecided="needs a GPU").remarks == {"Not decided": "needs a GPU"}


def test_guards_and_revisions_are_kept(tmp_path):
    guard = Converged("loss / Bayes", at_most(1.01), (1.0, NAN, 1.0), 2 / 3)
    other = Converged("loss / zero", at_most(0.5), (0.1, 0.2))
    checks = (Check("a", at_most(1), (0.5, 2.0, NAN)), Check("b", at_most(1), (0.5, 0.5), converged=other))
    claims = [Claim("p/1", "s", "Fig. 1", checks, converged=guard, revised="erratum")]
    with Run.open(tmp_path / "r", {}) as run:
        run.save_claims(claims)
        told = json.loads((tmp_path / "r" / "claims.json").read_text())["claims"][0]
        assert repr(run.load_claims()) == repr(claims)
    assert told["revised"] == "erratum" and told["converged"]["seeds"] == [True, False, True]
    assert told["checks"][0]["converged"]["text"].startswith("2 of 3 seeds converged (loss / Bayes")
    assert told["checks"][1]["verdict"] == "holds" and told["verdict"] == "fails"


def test_claims_are_kept(tmp_path):
    claims = [
        Claim("p/1", "A ≥ B", "Fig. 1", (Check("ratio", relative(1.5, 0.02), (1.5, NAN, math.inf), 0.5),), note="n"),
        Claim("p/2", "needs more", "Fig. 2", [Check("loss", at_least(-math.inf), (1,))], undecided="needs a GPU"),
    ]
    with Run.open(tmp_path / "r", {}) as run:
        assert run.load_claims() == []
        run.save_claims(claims)
        with pytest.raises(BadInput, match="given once"):
            run.save_claims([claims[0], claims[0]])
    kept = Run.load(tmp_path / "r").load_claims()
    assert repr(kept) == repr(claims) and [claim.verdict for claim in kept] == ["fails", "not decided"]
    told = json.loads((tmp_path / "r" / "claims.json").read_text())["claims"][0]["checks"][0]
    assert told["expected"] == "1.5 ± 2 % in 50 % of seeds" and told["median"] == "NaN" and told["holds"] is False
    (tmp_path / "r" / "claims.json").write_text('{"format": 1, "claims": [{"id": "x"}]}')
    with pytest.raises(BadInput, match=r"claims\.json does not hold claims"):
        Run.load(tmp_path / "r").load_claims()


def test_numbers_are_short():
    assert [number(x) for x in (1.0, 0.5882, 123456.0, 1e-9, NAN, -math.inf)] == [
        "1", "0.5882", "1.235e+05", "1e-09", "NaN", "-∞",
    ]  # fmt: skip
