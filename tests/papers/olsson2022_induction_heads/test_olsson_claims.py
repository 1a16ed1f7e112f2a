"""The claims of Olsson et al. on planted losses of four copies, and the heads at the end."""

import numpy as np
import pytest

from meta_icl.papers.olsson2022_induction_heads.claims import judged
from meta_icl.papers.olsson2022_induction_heads.experiments import MODELS, matching_heads


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


def test_olsson_as_published(verdicts):
    found = {"two": copier(-3.0) * 2, "one": copier(0.0) * 2, "one_smeared": copier(-2.0) * 2}
    assert verdicts(judged(found)) == {f"O{i}": "holds" for i in range(1, 6)}
    assert verdicts(judged(found | {"two": copier(-3.0, heads_matter=False) * 2}))["O3"] == "fails"
    (one,) = copier(-3.0)
    everywhere = one | {"without_kept": one["without_kept"] * 0.5}  # other heads matter as much
    assert verdicts(judged(found | {"two": [everywhere] * 2}))["O3"] == "fails"
    assert matching_heads(np.array([[0.1, 0.2]])).tolist() == [[False, True]]


@pytest.mark.parametrize("score", [0.0, -0.1, np.nan])
def test_models_of_olsson_without_the_change_decide_nothing(score, verdicts):
    told = verdicts(judged({name: copier(score) * 2 for name in MODELS}))
    assert told == {"O1": "fails", "O2": "not decided", "O3": "not decided", "O4": "fails", "O5": "not decided"}
