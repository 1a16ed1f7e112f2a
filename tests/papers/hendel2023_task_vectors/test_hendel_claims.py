"""What a vector keeps is judged on the tasks that the model learns in context, and on enough of them."""

import numpy as np

from meta_icl.papers.hendel2023_task_vectors.claims import judged


def left_behind(icl: float, vector: float, alone: float = 0.0, best: int = 4):
    """What a task leaves behind whose shares are these, of 20 prompts; the vector works at layer `best` alone."""
    answers = {"with examples": icl, "vector": vector, "alone": alone, "control": alone}
    by_layer = np.zeros((10, 20))
    by_layer[best] = np.arange(20) < 20 * vector
    rng = np.random.default_rng(int(100 * icl))
    return {name: np.arange(20) < round(20 * share) for name, share in answers.items()} | {
        "by layer": by_layer,
        "best": np.array(best),
        "n_layers": np.array(10),
        "vectors": rng.normal(size=(20, 10, 4)) + 10 * icl,
    }


GOOD = {"a": left_behind(0.9, 0.8), "b": left_behind(0.8, 0.7), "c": left_behind(0.5, 0.5)}
BAD = {"d": left_behind(0.2, 0.0, alone=0.2, best=9)}  # not learned: it would fail T-1, and T-2 by its last layer


def verdicts(found, model="a model"):
    return {claim.id.partition("/")[2]: claim for claim in judged(found, {}, model)}


def test_tasks_that_are_not_learned_do_not_count():
    for found in (GOOD, GOOD | BAD, BAD | GOOD):
        claims = verdicts(found)
        assert [claims[id].verdict for id in ("T-1", "T-2", "T-5")] == ["holds"] * 3
        np.testing.assert_allclose(sorted(claims["T-1"].checks[0].measured), [0.875, 16 / 18, 1])
        assert "Judged: a, b, c (" in claims["T-1"].note


def test_a_vector_that_keeps_little_fails():
    lost = {name: left_behind(0.9, 0.3) for name in ("a", "b", "c")}
    assert verdicts(lost)["T-1"].verdict == "fails" and verdicts(lost)["T-2"].verdict == "holds"
    late = {name: left_behind(0.9, 0.9, best=9) for name in ("a", "b", "c")}
    assert verdicts(late)["T-1"].verdict == "holds" and verdicts(late)["T-2"].verdict == "fails"


def test_two_tasks_are_too_few_and_a_random_model_decides_nothing():
    few = verdicts({"a": GOOD["a"], "b": GOOD["b"]} | BAD)["T-1"]
    assert few.verdict == "not decided" and "2 of 3 tasks are learned" in few.undecided
    assert all(claim.verdict == "not decided" for claim in verdicts(GOOD, "tiny").values())
