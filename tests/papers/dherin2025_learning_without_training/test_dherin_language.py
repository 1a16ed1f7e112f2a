"""D14 to D16 on planted updates, and on a random model, whose MLPs are patched in place of examples."""

import numpy as np
import pytest

from meta_icl.papers.dherin2025_learning_without_training import language
from meta_icl.plotting import draw


def planted(patched=1e-6, bare=0.5, last=0.2, more=0.3, mixed=0.0):
    """Errors and updates of 3 prompts, 4 blocks and 8 examples for a model's own weights and shuffled ones."""
    along = np.geomspace(1, last, 7)  # from the second example on
    one = {
        "patched": np.full(3, patched),
        "bare": np.full(3, bare),
        "appended": np.tile(np.concatenate([[2.0], along]), (3, 4, 1)),
        "removed": np.ones((3, 4, 8)),
        "other": np.full((3, 4), 0.1),
    }
    return {"trained": one | {"same": one["other"] + more}, "shuffled": one | {"same": one["other"] + mixed}}


@pytest.mark.parametrize(
    ("otherwise", "failing"),
    [
        ({}, set()),
        ({"patched": 1e-2}, {"D14"}),
        ({"bare": 1e-3}, {"D14"}),
        ({"last": 0.7}, {"D15"}),
        ({"more": -0.1}, {"D16"}),
        ({"mixed": 0.4}, {"D16"}),
    ],
)
def test_verdicts(otherwise, failing, verdicts):
    told = verdicts(language.judged_language(planted(**otherwise), "a model"))
    assert told == {id: "fails" if id in failing else "holds" for id in language.IDS}


@pytest.mark.slow  # many programs
def test_of_a_random_model(run, verdicts, monkeypatch):
    """The identity holds for it in float32, since it holds for any weights; and nothing is decided by it."""
    monkeypatch.setenv("META_ICL_WORKERS", "0")
    language.run_language(language.LanguageConfig("tiny", "symbols", prompts=1, shots=3), run)
    for weights in language.WEIGHTS:
        found = run.part_arrays(weights)
        assert found["patched"].max() < 1e-5 < 1e-3 < found["bare"].min()
        assert found["appended"].shape == found["removed"].shape == (1, 3, 3)
    assert not np.allclose(run.part_arrays("trained")["removed"], run.part_arrays("shuffled")["removed"], rtol=1e-2)
    told = language.judged_language({w: run.part_arrays(w) for w in language.WEIGHTS}, "tiny")
    assert set(verdicts(told).values()) == {"not decided"}
    for chart in language.language_figures(run).values():
        draw(chart)
