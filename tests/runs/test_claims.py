import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.errors import BadInput
from meta_icl.runs import Check, Claim, Run, absolute, at_least, at_most, is_true, relative, within
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
