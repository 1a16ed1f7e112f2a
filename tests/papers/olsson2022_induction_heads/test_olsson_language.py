"""O6 to O10 on planted losses and heads, and what is measured, on a random model against float64 passes."""

import numpy as np
import pytest
import tiny_decoder

from meta_icl.papers.olsson2022_induction_heads import language
from meta_icl.plotting import draw


def planted(score=-0.5, lost=0.8, lost_at_random=0.1, prefix=0.7, before=1, copying=0.9, spread=False):
    """Losses of four windows "a b c .. a b c" that fall by `score`; head 2.1 matches prefixes, another one does not."""
    n = 64
    tokens = np.tile([*range(32), *range(100, 116), *range(16)], (4, 1))  # the last 15 tokens stood there before
    losses = np.full((4, n - 1), 3.0)
    losses[:, -15:] += score
    harm = np.zeros_like(losses)
    harm[:, -15:] = -score
    even = np.full_like(losses, -score * 15 / (n - 1))
    shape = (2, 4, 3)  # sequences, layers, heads
    heads = {"prefix": np.zeros(shape), "previous": np.full(shape, 0.1), "prefix_corrected": np.zeros(shape)}
    heads["prefix"][:, 2, 1], heads["previous"][:, before, 0] = prefix, 0.8
    matching = heads["prefix"].mean(0) >= min(0.3, prefix)
    return heads | {
        "tokens": tokens,
        "matching": matching,
        "copying": np.where(matching, copying, 0.0),
        "losses": losses,
        "without": losses + lost * (even if spread else harm),
        "without random": (losses + lost_at_random * harm)[None],
        "repeated": np.full((2, 20), 2.0),
        "repeated without": np.full((2, 20), 5.0),
        "repeated without random": np.full((1, 2, 20), 2.0),
    }


def test_as_published(verdicts):
    told = verdicts(language.judged_language(planted(), "a model"))
    assert told == {f"O{i}": "holds" for i in range(6, 11)}
    assert set(verdicts(language.judged_language(planted(), "tiny")).values()) == {"not decided"}


@pytest.mark.parametrize(
    ("otherwise", "failing"),
    [
        ({"score": -0.1}, {"O6"}),
        ({"before": 3}, {"O7"}),
        ({"prefix": 0.4}, {"O7"}),
        ({"lost": 0.4}, {"O8"}),
        ({"lost_at_random": 0.5}, {"O8", "O9"}),
        ({"spread": True}, {"O8", "O9"}),
        ({"copying": 0.2}, {"O10"}),
    ],
)
def test_what_is_otherwise_fails(otherwise, failing, verdicts):
    told = verdicts(language.judged_language(planted(**otherwise), "a model"))
    assert {id for id, verdict in told.items() if verdict == "fails"} == failing


def test_tokens_that_stood_behind_an_earlier_copy():
    tokens = np.array([[1, 2, 1, 2, 3, 1, 2], [1, 1, 1, 1, 2, 1, 2], [5, 6, 5, 7, 5, 6, 6]])
    found = language.seen_before(tokens)
    for row, window in enumerate(tokens):
        for i in range(1, 7):
            earlier = [(window[j - 1], window[j]) for j in range(1, i)]
            assert found[row, i - 1] == ((window[i - 1], window[i]) in earlier)


def test_what_is_measured(run, tmp_path, monkeypatch):
    """Losses with and without the heads that match prefixes, by float64 passes, and figures."""
    monkeypatch.setenv("META_ICL_WORKERS", "0")
    (tmp_path / "text.txt").write_text("abcd" * 40)
    config = language.LanguageConfig(
        "tiny", str(tmp_path / "text.txt"), windows=2, length=40, period=8, sequences=2, draws=1
    )
    language.run_language(config, run)
    found = run.part_arrays("language")
    heads = list(zip(*np.nonzero(found["matching"]), strict=True))
    prefix = found["prefix"].mean(0)
    assert heads == [tuple(map(int, np.unravel_index(prefix.argmax(), prefix.shape)))]  # none comes near 0.3
    assert found["tokens"].shape == (2, 40) and (found["tokens"][:, 0] == 0).all()
    window = found["tokens"][1].tolist()
    np.testing.assert_allclose(found["losses"][1], tiny_decoder.token_losses(window), atol=2e-4)
    without = tiny_decoder.token_losses(window, heads)
    assert np.abs(without - found["losses"][1]).max() > 1e-2
    np.testing.assert_allclose(found["without"][1], without, atol=2e-4)
    ((layer, head),) = heads
    np.testing.assert_allclose(
        found["without random"][0, 1], tiny_decoder.token_losses(window, [(layer, 1 - head)]), atol=2e-4
    )
    for chart in language.language_figures(run).values():
        draw(chart)
