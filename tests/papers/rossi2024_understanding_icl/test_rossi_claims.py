"""The guard of the claims of Rossi et al.: layers that did not reach the loss of gradient descent are not judged."""

import numpy as np
import pytest

from meta_icl.papers.rossi2024_understanding_icl.claims import claim_alignment, claims_lstm, claims_rollouts, trained
from meta_icl.papers.rossi2024_understanding_icl.experiments import DAMPENINGS, LOOPS


def layer(ratios, error=1e-5):
    """A seed whose loss is off by more than 1 % has a tenth of the alignment."""
    off = np.where(np.array(ratios) > 1.01, 0.1, error)
    return {"final/loss": 0.2 * np.array(ratios), "final/gd_loss": np.array(0.2), "final/prediction_error": off,
            "final/gradient_error": off, "final/cosine": 1 - off}  # fmt: skip


def test_alignment_is_judged_on_converged_layers():
    two_of_three = claim_alignment({2: layer((1.0, 1.0, 1.0)), 10: layer((1.0, 1.5, 1.001))})
    assert two_of_three.verdict == "holds"
    assert [check.measured_text.endswith("(2 of 3 seeds)") for check in two_of_three.checks] == [False] * 3 + [True] * 3
    assert claim_alignment({10: layer((1.0, 1.5, 1.5))}).verdict == "not converged"
    assert claim_alignment({10: layer((1.0, 1.0, 1.0), error=0.1)}).verdict == "fails"


def test_the_looped_layer_is_judged_where_it_converged():
    losses = np.ones((3, len(DAMPENINGS), LOOPS))
    losses[:, np.array(DAMPENINGS) > 0.7, -1] = np.inf
    stuck = losses.copy()
    stuck[0, :, -1] = np.inf  # the seed that did not converge diverges at every dampening
    rollouts = {"dampening": np.array(DAMPENINGS), "gd": losses, "trained": stuck, "trained_few": losses,
                "trained_y": losses}  # fmt: skip
    _, looped = claims_rollouts(rollouts, trained(layer((2.0, 1.0, 1.0))))
    assert looped.verdict == "holds" and looped.checks[0].measured == (0.0, 0.7, 0.7)
    assert claims_rollouts(rollouts, trained(layer((2.0, 2.0, 1.0))))[1].verdict == "not converged"


@pytest.mark.parametrize(("cosine", "verdict"), [(0.78, "holds"), (0.6, "fails")])
def test_forward_lstms_are_compared_where_they_pass_the_published_loss(run, cosine, verdict):
    """The second seed goes past 1.12 and is nearer to gradient descent at its end; the third has not learned."""
    with run.part("lstm-uni-1") as part:
        arrays = {"eval": [[1.7, 1.7, 1.7], [1.3, 1.11, 1.6], [1.12, 1.0, 1.5]], "gd_loss": 0.82,
                  "to_gd/cosine": [[0, 0, 0], [0.5, cosine, 0], [cosine, 0.9, 0]],
                  "final/cosine": [cosine, 0.9, 0]}  # fmt: skip
        part.save_arrays("result", {name: np.asarray(values) for name, values in arrays.items()})
        part.finish()
    forward, close, beyond = claims_lstm(run)
    assert forward.verdict == verdict and (close.verdict, beyond.verdict) == ("not decided",) * 2
    assert forward.checks[-1].judged == (cosine, cosine)
    assert "loss 1.120, cosine" in forward.note
