"""H-12 to H-19 on planted decodability and accuracy, and what is asked of a random model."""

import numpy as np
import pytest
import tiny_decoder

from meta_icl.lm.loaded import language_model
from meta_icl.lm.states import states_at
from meta_icl.papers.han2024_task_encoding import language
from meta_icl.plotting import draw

SHOTS = (1, 4, 10)


def planted(depth=0.42, named=0.05, positive=0.1, null=-0.2, told=True):
    """Shares decoded "32 layers, tasks", and right answers of 20 prompts a task, more where more is decoded."""
    found = {}
    for family, tasks in language.FAMILIES.items():
        layers, n = np.arange(1, 33) / 32, len(tasks)
        for k in SHOTS:
            best = np.linspace(0.3, 0.6, n) + 0.03 * k
            decoded = best[None] - np.abs(layers - depth)[:, None]
            right = best if told else 0.5 + 0.2 * (-1.0) ** np.arange(n)
            found[f"{family}-{k}"] = {"decoded": decoded, "right": answers(right)}
        four = found[f"{family}-4"]
        plain = four["right"].mean(1)
        found[f"{family}-named"] = {"decoded": four["decoded"] + named, "right": answers(plain + named)}
        four |= {"positive": answers(plain + positive), "null": answers(plain + null)}
    return found


def answers(shares, n=20):
    return np.arange(n)[None] < np.round(np.asarray(shares) * n)[:, None]


@pytest.mark.parametrize(
    ("otherwise", "failing"),
    [
        ({}, set()),
        ({"depth": 0.9}, {"H-12"}),
        ({"told": False}, {"H-13", "H-14"}),
        ({"positive": -0.1}, {"H-15"}),
        ({"null": 0.1}, {"H-15"}),
        ({"named": -0.1}, {"H-18"}),
    ],
)
def test_verdicts(otherwise, failing, verdicts):
    told = verdicts(language.judged_language(planted(**otherwise), SHOTS, "a model"))
    expected = dict.fromkeys(("H-12", "H-13", "H-14", "H-15", "H-18"), "holds") | dict.fromkeys(failing, "fails")
    assert told == expected | dict.fromkeys(("H-16", "H-17", "H-19"), "not decided")


def test_a_model_that_answers_nothing_is_not_judged_by_interventions(verdicts):
    found = planted()
    for one in found.values():
        one["right"] = np.zeros_like(one["right"])
    told = verdicts(language.judged_language(found, SHOTS, "a model"))
    assert {told[id] for id in ("H-13", "H-14", "H-15")} == {"not converged"}
    assert set(verdicts(language.judged_language(found, SHOTS, "tiny")).values()) == {"not decided"}


def test_means_of_the_others_that_were_right():
    states, right = np.arange(8.0).reshape(4, 2) ** 2, np.array([True, False, True, False])
    found = language.replacement(states, right)
    np.testing.assert_array_equal(found, [states[2], states[[0, 2]].mean(0), states[0], states[[0, 2]].mean(0)])
    alone = language.replacement(states[:3], np.array([True, False, False]))
    np.testing.assert_array_equal(alone, [states[1:3].mean(0), states[0], states[0]])  # of none else: of all others


@pytest.mark.slow  # many programs
def test_what_is_measured(run, monkeypatch):
    """Losses by float64 passes; interventions at the best layer, with means of other prompts of the same task."""
    monkeypatch.setitem(language.FAMILIES, "pairs", ["capitalize", "antonym"])
    monkeypatch.setitem(language.FAMILIES, "bitwise", ["bitwise_and", "bitwise_or"])
    asked = []

    def recorded(network, wanted):
        asked.append(wanted)
        return kept(network, wanted)

    kept = language.replaced_answers
    monkeypatch.setattr(language, "replaced_answers", recorded)
    monkeypatch.setenv("META_ICL_WORKERS", "0")
    config = language.LanguageConfig("tiny", per_task=3, shots=(1, 4))
    language.run_language(config, run)
    own, found = language_model("tiny"), run.part_arrays("pairs-4")
    prompts = {n: language.prompts_of(own, language.task_named(n), 4, 3) for n in language.FAMILIES["pairs"]}
    one = prompts["antonym"][2]
    losses = tiny_decoder.token_losses([*one.before, *one.answer])[-len(one.answer) :]
    assert found["losses"][1, 2] == pytest.approx(losses.sum(), abs=1e-3)
    assert not found["right"].any()  # by a random model
    best = int(found["decoded"].mean(1).argmax())
    positive, null = asked[2:]
    states = states_at(own.network, [p.before for p in prompts["antonym"]])[:, best]
    assert {(w.layer, w.asked) for w in positive[3:]} == {(best, p) for p in prompts["antonym"]}
    np.testing.assert_allclose(positive[5].state, states[:2].mean(0), atol=1e-5)
    assert all(np.array_equal(w.state, null[0].state) for w in null)
    (named,) = language.prompts_of(own, language.task_named("antonym"), 1, 1, named="A:")
    line = own.tokenizer.decode(named.before[1:])
    assert line.startswith("A:\n") and line.count("\n") == 2
    for chart in _figures(run, config):
        draw(chart)


def _figures(run, config):
    run.config["config"] = {"shots": list(config.shots), "model": config.model}
    return language.language_figures(run).values()
