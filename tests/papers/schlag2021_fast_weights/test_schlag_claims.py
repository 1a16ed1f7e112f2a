"""The claims of fast-weight programmers on planted results: what stuck seeds decide, and widths by lengths."""

import numpy as np
import pytest

from meta_icl.papers.schlag2021_fast_weights.claims import (
    claim_convolution,
    claim_recall,
    claim_steps,
    claim_widths,
    claims_rules,
    claims_styles,
)
from meta_icl.papers.schlag2021_fast_weights.experiments import RECALL, SINGLE, STYLES

D, PAIRS = 10, 4
T = np.array([5, 10, 15, 20])


def rule(*last, at_15=0.0):
    """A layer with an error over d "seeds" after 20 examples; half of the squared error is what it was trained on."""
    errors = np.stack([[1.0, 0.5, at_15 or e, e] for e in last])
    return {"losses": 0.5 * D * errors[:, -1][None], "t": T, "errors": errors}


def plant(run, parts):
    for name, arrays in parts.items():
        with run.part(name, {}) as part:
            part.save_arrays("result", {key: np.asarray(value) for key, value in arrays.items()})
            part.finish()
    return run


def rules(mesa):
    return {"rule-linear_attention": rule(0.355, 0.35, 0.36), "rule-deltanet": rule(0.2, 0.2, 0.2), "rule-mesa": mesa}


@pytest.mark.parametrize(
    ("mesa", "verdict"),
    [
        (rule(0.003, 0.003, 0.003), "holds"),
        (rule(0.003, 0.01, 0.5), "holds"),  # one seed is worse than a gradient step: stuck
        (rule(0.003, 0.5, 0.5), "not converged"),
        (rule(0.05, 0.05, 0.05), "fails"),
    ],
)
def test_single_layers(mesa, verdict, run, verdicts):
    told = verdicts(claims_rules(plant(run, rules(mesa)), D))
    assert told == {"F-2": "holds", "F-3": verdict, "F-4": "holds"}


def recalled(score, loss=0.02):
    return {"score/1x": [score] * 3, "losses": [[loss] * 3], "rates": [1e-2], "rate": 1e-2}


def recall(**changed):
    parts = {f"recall-{name}": recalled(0.99) for name in RECALL}
    parts["recall-mesa"] |= {"cg": np.array([[1.0, 0.5, 0.1, 0.1, 0.1, 0.1]] * 3)}
    for name in SINGLE:
        parts |= {f"single-{name}-conv=True": recalled(0.98), f"single-{name}-conv=False": recalled(0.2, 2.0)}
    return {name: arrays | changed.get(name, {}) for name, arrays in parts.items()}


def claims_recall(run):
    return [make(run, PAIRS) for make in (claim_recall, claim_convolution, claim_steps)]


def test_recall(run, verdicts):
    assert verdicts(claims_recall(plant(run, recall()))) == dict.fromkeys(("Q-1", "Q-3", "M-1"), "holds")


def test_recall_of_stuck_networks_is_not_judged(run, verdicts):
    stuck = recalled(0.25, np.log(PAIRS))
    parts = recall() | {"recall-attention": stuck, "single-deltanet-conv=True": stuck}
    parts["recall-mesa"] |= stuck
    told = verdicts(claims_recall(plant(run, parts)))
    assert told == dict.fromkeys(("Q-1", "Q-3", "M-1"), "not converged")


def styles(learned=0.3, longer=0.4):
    return {f"style-{name}": {"score/2d": [0.5] * 3, "score/1x": [learned] * 3, "score/4x": [longer] * 3}
            for name in STYLES}  # fmt: skip


def test_architectures_that_have_not_learned_stay_nowhere(run, verdicts):
    assert verdicts(claims_styles(plant(run, styles())))["L-2"] == "holds"


def test_unlearned_and_ever_better_styles(run, verdicts):
    assert verdicts(claims_styles(plant(run, styles(1.0, 1.0))))["L-2"] == "not converged"


def test_widths():
    widths = np.array([16, 32, 64])
    all_tokens = np.full((3, 3), 0.95)
    state = np.array([[0.95, 0.5, 0.2], [0.99, 0.95, 0.5], [0.99, 0.99, 0.8]])  # "widths lengths"
    learned = np.full((3, 3), 0.1)
    found = {"attention": (all_tokens, learned), "linear_attention": (state, 1 - state)}
    assert claim_widths(found, widths).verdict == "holds"
    assert claim_widths(found | {"linear_attention": (all_tokens, learned)}, widths).verdict == "fails"
    assert claim_widths(found | {"attention": (state, learned)}, widths).verdict == "not decided"
    stuck = np.where(state < 0.5, 1.2, 1 - state)  # a narrow network that does worse than guess
    assert claim_widths(found | {"linear_attention": (state, stuck)}, widths).verdict == "not converged"
    assert claim_widths({}, widths).verdict == "not decided"
