"""M32 on planted scores, and the three scores of a random model by loops over its attention."""

import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.lm.loaded import language_model
from meta_icl.lm.prompts import draw_prompt, tokenize
from meta_icl.lm.task_files import read_task
from meta_icl.papers.minegishi2025_multi_phase_circuits import language
from meta_icl.plotting import draw


def planted(**peaks):
    """Scores "prompts layers heads" of 8 prompts and 6 layers, each highest in one layer."""
    found = {}
    for name in language.CIRCUITS:
        scores = np.full((8, 6, 2), 0.1)
        scores[:, peaks.get(name, 0)] = 0.5
        found |= {name: scores, f"{name}_corrected": scores}
    return found


@pytest.mark.parametrize(("label", "chunk", "verdict"), [(4, 1, "holds"), (2, 2, "fails"), (1, 4, "fails")])
def test_m32(label, chunk, verdict):
    claim = language.claim_m32(planted(label=label, chunk=chunk), "a model")
    assert claim.verdict == verdict
    assert f"label attention {label + 1}, chunk-example {chunk + 1}" in claim.note
    assert language.claim_m32(planted(label=4, chunk=1), "tiny").verdict == "not decided"


def test_what_is_measured(run, monkeypatch):
    monkeypatch.setenv("META_ICL_WORKERS", "0")
    language.run_language(language.LanguageConfig("tiny", "sentiment", prompts=2, shots=2), run)
    found, own, task = run.part_arrays("language"), language_model("tiny"), read_task("sentiment")
    drawn = draw_prompt(task, 2, rng=np.random.default_rng((0, 1)))
    cut = tokenize(drawn, own.tokenizer, separator=task.separator, opening=own.opening)
    pattern = np.asarray(own.network(jnp.asarray(cut.tokens))[1]["pattern"], float)
    last = len(cut.tokens) - 1
    labels = [segment.stop - 1 for segment in cut.of("answer")]
    for layer in range(pattern.shape[0]):
        for head in range(pattern.shape[1]):
            p = pattern[layer, head]
            chunk = [np.mean([p[label, t] for t in range(q.start, q.stop)])
                     for label, q in zip(labels, cut.of("question"), strict=False)]  # fmt: skip
            assert found["bigram"][1, layer, head] == pytest.approx(p[last, last], rel=1e-3, abs=1e-6)
            assert found["label"][1, layer, head] == pytest.approx(np.mean(p[last, labels]), rel=1e-3, abs=1e-6)
            assert found["chunk"][1, layer, head] == pytest.approx(np.mean(chunk), rel=1e-3, abs=1e-6)
            kept = [value / (1 - p[label, 0]) for value, label in zip(chunk, labels, strict=True)]
            assert found["chunk_corrected"][1, layer, head] == pytest.approx(np.mean(kept), rel=1e-3, abs=1e-6)
    for chart in language.language_figures(run).values():
        draw(chart)
