"""The claims and figures of Minegishi et al. on planted courses: what confirms, what leaves open, what is drawn."""

import numpy as np
import pytest

from meta_icl.algorithms import semi_context_theory
from meta_icl.analysis.circuits import log_spaced
from meta_icl.papers.minegishi2025_multi_phase_circuits import PRESETS
from meta_icl.papers.minegishi2025_multi_phase_circuits.claims import DEFAULT, judged
from meta_icl.papers.minegishi2025_multi_phase_circuits.config import SETTINGS, VARIANTS
from meta_icl.papers.minegishi2025_multi_phase_circuits.experiments import held
from meta_icl.papers.minegishi2025_multi_phase_circuits.figures import drawn, sweep, told
from meta_icl.plotting import draw, tree

STEPS = np.array([0, *log_spaced(100_000, 120, first=100)])
LOGS = np.log10(np.maximum(STEPS, 1))
UNIFORM = (1 / 9, 4 / 9, 0.26)  # bigram, label, chunk
# Scores (bigram, label, chunk) of the two layers before learning and in the three phases, as published.
CIRCUITS = [(UNIFORM, UNIFORM), ((0.9, 0.05, 0.26), (0.9, 0.05, 0.26)), ((0.1, 0.8, 0.26), (0.9, 0.05, 0.26)),
            ((0.1, 0.8, 0.9), (0.1, 0.9, 0.26))]  # fmt: skip
# What removals cost: a semi-context circuit needs labels in layer 1, a full one its own items, and labels in layer 2.
COSTS = [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.01, 0.43), (0.6, 0.02, 0.4, 0.05)]


def planted(*jumps, scc=0.79, ncc=1 / 3, heads=1, layers=2, last=3):
    """One seed whose accuracy jumps to `level` at `time` (log10 of the step) for every (level, time) of `jumps`.

    The circuits of phase `last` and of those before it come with the last jumps.
    """
    accuracy, phase = np.full(len(STEPS), 1 / 32), np.zeros(len(STEPS), int)
    for i, (level, time) in enumerate(jumps):
        before = jumps[i - 1][0] if i else 1 / 32
        accuracy = accuracy + (level - before) / (1 + np.exp(-60 * (LOGS - time)))
        phase[time <= LOGS] = last - len(jumps) + 1 + i
    scores = np.array(CIRCUITS)[phase]  # "records layers 3"
    scores = np.repeat(np.swapaxes(scores, 1, 2)[..., None], heads, -1)
    removed = accuracy[:, None] - np.array(COSTS)[phase]
    permuted = np.where(phase == 3, 0.71, accuracy)
    patterns = np.zeros((len(STEPS), layers, heads, 9, 9)) + phase[:, None, None, None, None]
    return [{"step": STEPS, "accuracy": accuracy, "scores": scores, "permutation": permuted, "derangement": permuted,
             "iid": permuted, "intact": accuracy, "removed": removed, "trained": STEPS[-1],
             "ceilings": np.array([ncc, scc, 1.0]), "patterns": patterns,
             "by_task": np.stack([accuracy, accuracy], -1), "by_item": np.full((len(STEPS), 5), 0.867)}]  # fmt: skip


def as_published():
    three, one = ((0.34, 2.6), (0.77, 3.0), (1.0, 3.4)), ((1.0, 3.0),)
    late = {t: ((1 / t, 2.6), (0.6, 3.0), (1.0, 3.4 + t / 20)) for t in (2, 4, 6, 9, 12)}
    found = {name: planted(*three) for name in ("default", *VARIANTS[1:], "layers=3")}
    found |= {f"T={t}": planted(*jumps, ncc=1 / t) for t, jumps in late.items()} | {"T=1": planted(*one)}
    found |= {"K=32": planted((0.93, 2.6), (1.0, 3.4), scc=0.935), "p_B=0.25": planted((0.5, 2.8), (1.0, 3.0))}
    found |= {name: planted((0.33, 2.6), (1.0, 3.4), scc=0.65) for name in ("K=128", "K=256", "eps=0.5", "eps=0.75")}
    found |= {f"heads={h}": planted((0.77, 3.0), (1.0, 3.0), heads=h) for h in (4, 8, 16)}
    found["heads=2"] = planted((0.6, 2.8), (1.0, 3.2), heads=2)
    found |= {name: planted(*one) for name in
              ("eps=1.0", "alpha=1.25", "induction", "N=16", "N=32", "layers=4", "layers=5", "standard")}  # fmt: skip
    found |= {f"p_B={p}": planted((1.0, 3.0 + p)) for p in (0.5, 0.75, 1.0)}
    found |= {"B=2, p_B=0.25": planted((1.0, 2.5)), "beta=1.0": planted(*one), "all labels": planted((0.9, 3.0))}
    found["beta=1.0"][0]["by_task"] = 1 / (1 + np.exp(-20 * (LOGS[:, None] - [2.5, 3.0])))
    found |= {f"theory K={k}": planted((semi_context_theory(k, 4), 3.0), last=2) for k in (8, 16, 32)}
    masks = {"ncc": 1 / 3, "scc": 0.79, "fcc": 1.0}
    return found | {f"only {name}": planted((level, 2.2)) for name, level in masks.items()}


def verdicts(found):
    return {claim.id.removeprefix("minegishi2025/M"): claim.verdict for claim in judged(found)}


def test_published_courses_confirm():
    assert verdicts(as_published()) == {str(i): "holds" for i in range(1, 32)} | {"32": "not decided"}


@pytest.mark.parametrize("level", [1 / 32, np.nan])
def test_networks_that_have_learned_nothing_confirm_nothing(level):
    found = as_published()
    rng = np.random.default_rng(0)
    for seeds in found.values():
        for arrays in seeds:
            for name in ("accuracy", "permutation", "derangement", "iid", "by_task", "by_item", "intact", "removed"):
                arrays[name] = level + 0.003 * rng.normal(size=arrays[name].shape)
            uniform = np.broadcast_to(np.array(UNIFORM)[:, None, None], arrays["scores"].shape)
            arrays["scores"] = uniform + 0.001 * rng.normal(size=uniform.shape)
    assert {id for id, verdict in verdicts(found).items() if verdict == "holds"} == {"1"}  # about untrained networks
    assert draw(drawn(found)["phases"])


def test_a_network_that_stays_in_the_second_phase():
    """It answers alike with permuted labels, and whether labels read their own items costs it nothing."""
    found = as_published() | {"default": planted((0.34, 2.6), (0.79, 3.0), last=2)}
    assert {verdicts(found)[id] for id in ("3", "4", "8", "9", "12")} == {"fails"}
    assert {verdicts(found)[id] for id in ("7", "11")} == {"not converged"}  # what comes last is no plateau
    assert verdicts(found)["13"] == "not decided"


def test_a_second_phase_that_needs_every_label_in_its_place_does_not_confirm():
    found = as_published()
    found["default"][0]["permutation"] = np.minimum(found["default"][0]["permutation"], 0.34)
    assert {id for id, verdict in verdicts(found).items() if verdict == "fails"} == {"11"}


def test_a_shoulder_of_the_first_rise_is_a_plateau_but_no_phase():
    """The published course, but for a rest at half of what the query alone allows: circuits are those of the phases."""
    found = as_published() | {"default": planted((0.165, 2.2), (0.34, 2.6), (0.77, 3.0), (1.0, 3.4))}
    assert {id for id, verdict in verdicts(found).items() if verdict == "fails"} == {"5"}
    skipped = as_published() | {"default": planted((0.77, 3.0), (1.0, 3.4))}
    assert {verdicts(skipped)[id] for id in ("2", "13")} == {"fails"}  # what comes first is the second phase
    (phases,) = drawn(found)["phases"].charts
    assert [series.name for series in phases.series] == ["before", "phase 1", "phase 2", "phase 3"]


def test_a_seed_without_a_second_phase_decides_nothing_about_it():
    found = as_published()
    found["default"] = found["default"] + planted((0.34, 2.6), (1.0, 3.4))
    assert {verdicts(found)[id] for id in ("7", "11")} == {"holds"}


@pytest.mark.parametrize(
    ("costs", "failing"),
    [
        ([(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0.05), (0.6, 0.02, 0.4, 0.05)], {"7", "9", "26"}),
        ([(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0.2, 0.43), (0.6, 0.02, 0.4, 0.05)], {"7", "26"}),
        ([(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0.43), (0.6, 0.4, 0.4, 0.05)], {"8", "23", "28", "30"}),
        ([(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0.43), (0.6, 0.02, 0.02, 0.05)], {"8", "23", "28", "30"}),
        ([(0, 0, 0, 0), (0.6, 0, 0, 0), (0.6, 0, 0, 0.43), (0.6, 0.02, 0.4, 0.05)], {"9"}),
    ],
    ids=["not the labels", "layer 2 too early", "any item", "not the labels at the end", "own items from the start"],
)
def test_the_same_course_by_other_circuits_does_not_confirm(costs, failing, monkeypatch):
    """Accuracies and raw attention as published: what removals cost decides."""
    monkeypatch.setattr(f"{__name__}.COSTS", costs)
    assert {id for id, verdict in verdicts(as_published()).items() if verdict == "fails"} == failing


def test_an_early_end_holds_the_last_record():
    ended = {"step": np.array([0, 1, 10]), "accuracy": np.array([0.1, 0.2, 1.0]), "planned": np.array([0, 1, 10, 100])}
    found = held(ended | {"ceilings": np.ones(3), "scores": np.arange(6.0).reshape(3, 2)})
    np.testing.assert_array_equal(found["step"], ended["planned"])
    np.testing.assert_array_equal(found["accuracy"], [0.1, 0.2, 1.0, 1.0])
    np.testing.assert_array_equal(found["scores"][2:], [[4, 5], [4, 5]])
    assert found["trained"] == 10 and found["ceilings"].shape == (3,)


def test_without_the_default_its_claims_are_open():
    found = as_published()
    del found["default"]
    by = verdicts(found)
    assert {id for id, verdict in by.items() if verdict == "not decided"} == {*map(str, DEFAULT), "27", "32"}
    (open_claim,) = (claim for claim in judged({"T=1": found["T=1"]}) if claim.id.endswith("/M28"))
    assert open_claim.undecided.endswith("train N=16, N=32: at most 218 CPU-min a seed in the preset `full`")
    assert "accuracy" not in drawn(found) and "variants" in drawn(found)


def test_figures_show_what_was_planted():
    found = as_published()
    shown = drawn(found)
    for chart in shown.values():
        assert tree(chart)
    (phases,) = shown["phases"].charts
    assert [series.name for series in phases.series] == ["before", "phase 1", "phase 2", "phase 3"]
    assert [name for name, _ in phases.h_lines] == ["query alone", "labels as a set", "items with labels"]
    (removals,) = shown["removals"].charts
    assert [name for name, _, _ in removals.spans] == ["before", "phase 1", "phase 2", "phase 3"]
    for series, last, most in zip(removals.series, COSTS[3], np.max(COSTS, 0), strict=True):
        assert abs(series.y[-1] - last) < 1e-9 and abs(series.y.max() - most) < 1e-9
    for series, time in zip(phases.series, (2.6, 3.0, 3.4), strict=False):
        assert abs(np.log10(series.x[-1]) - time) < 0.06
    # The phases 1 and 2, and the end, which is phase 3; two layers each.
    rows = shown["patterns"].charts
    assert [[float(panel.matrix[0, 0]) for panel in row.panels] for row in rows] == [[1, 1], [2, 2], [3, 3]]
    assert [chart.title for chart in shown["circuits"].charts] == ["Layer 1", "Layer 2"]
    assert len(shown["circuits_heads_2"].charts) == 4 and shown["circuits_heads_4"].columns == 4
    accuracy, circuits, lost = shown["variants"].panels
    assert len(accuracy.y_labels) == len(VARIANTS)
    np.testing.assert_allclose(accuracy.matrix[0], [0.34, 0.77, 0.79, 1], atol=0.01)
    np.testing.assert_allclose(circuits.matrix[0, :6], [0.1, 0.8, 0.9, 0.1, 0.9, 0.26], atol=1e-9)
    np.testing.assert_allclose(lost.matrix[0], COSTS[3], atol=1e-9)
    maps, classes, noise, bursty = (chart.panels[0] for chart in shown["phase_diagrams"].charts)
    assert maps.y_labels == ["1", "2", "3", "4", "6", "9", "12"] and maps.x_labels[-1] == "100k"
    columns = [maps.x_labels.index(name) for name in ("100", "500", "2k", "100k")]
    np.testing.assert_allclose(maps.matrix[2, columns], [1 / 32, 0.34, 0.77, 1], atol=0.02)
    assert [len(panel.y_labels) for panel in (classes, noise, bursty)] == [4, 4, 5]


def test_the_story_tells_what_the_phases_hang_on():
    once = planted((0.34, 2.6), (1.0, 3.4))
    answer = told({"default": planted((0.34, 2.6), (0.77, 3.0), (1.0, 3.4)) + once})["answer"]
    assert answer.startswith("1 of 2 seeds rest") and "layer 1 are worth 0.43" in answer and "layer 2 0.01" in answer
    assert "own item is worth 0.60 and the labels of layer 2 0.40" in answer
    assert told({"default": once})["answer"].startswith("0 of 1 seeds rest") and told({}) == {}


def test_every_preset_names_known_settings():
    for preset, config in PRESETS.items():
        assert preset == "language" or set(config.extra) < set(SETTINGS)
    assert next(iter(sweep("p_bursty").items())) == (0.0, "default")
    assert "induction" not in sweep("n_tasks").values()
