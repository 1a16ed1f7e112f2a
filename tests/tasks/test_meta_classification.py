"""The in-context meta-learning task against the law it claims; ceilings against enumeration; theory by Monte Carlo."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.algorithms import every_item_ceiling, label_ceilings, semi_context_theory
from meta_icl.errors import BadInput
from meta_icl.tasks import MetaClassification, meta_classification


def draw(n=4_000, seed=0, **options):
    """A world and prompts of it with their classes, in one program."""

    @eqx.filter_jit
    def both(world_key, key):
        task = meta_classification(key=world_key, **options)
        return task, task.sample_with_classes(n, key=key)

    return both(jax.random.key(3), jax.random.key(seed))


def test_law_of_the_default():
    task, drawn = draw()
    classes, tasks = np.asarray(drawn.classes), np.asarray(drawn.tasks)
    assert drawn.prompts.x.shape == (4_000, 5, 63) and task.labels.shape == (3, 64)
    np.testing.assert_array_equal(drawn.prompts.y, np.asarray(task.labels)[tasks[:, None], classes])
    assert all(len(set(row[:4])) == 4 for row in classes)
    present = (classes[:, :4] == classes[:, 4:]).any(1).mean()
    assert abs(present - 4 / 64) < 4 * np.sqrt(4 / 64 / 4_000)
    for counts, n in ((np.bincount(tasks, minlength=3), 3), (np.bincount(classes[:, :4].ravel(), minlength=64), 64)):
        share = counts / counts.sum()
        assert np.abs(share - 1 / n).max() < 5 * np.sqrt(1 / n / 4_000)
    offset = np.asarray(drawn.prompts.offset)
    assert offset.min() == 0 and offset.max() == 65 - 9
    residual = np.asarray(drawn.prompts.x) * np.sqrt(1.01) - np.asarray(task.means)[classes]
    assert abs(residual.std() - 0.1 / np.sqrt(63)) < 1e-3
    np.testing.assert_array_equal(np.asarray(task.labels[1] - task.labels[0]) % 32, 1)


def test_every_knob_moves_the_law():
    task, drawn = draw(n_tasks=2, n_classes=8, n_labels=8, d=4, assign="bijection", distinct_query=True, n_context=4)
    classes = np.asarray(drawn.classes)
    assert not (classes[:, :4] == classes[:, 4:]).any()
    assert all(sorted(row) == list(range(8)) for row in np.asarray(task.labels).tolist())
    _, drawn = draw(n_context=4, repeats=2, p_bursty=1.0)
    classes = np.asarray(drawn.classes)
    assert (classes[:, :4] == classes[:, 4:]).sum(1).tolist() == [2] * 4_000
    places = [tuple(np.argsort(row[:4], kind="stable")) for row in classes[:500]]
    assert len(set(places)) > 5  # shuffled
    _, drawn = draw(alpha=1.0, beta=1.0, n_classes=32, n_labels=4)
    query = np.bincount(np.asarray(drawn.classes)[:, 4], minlength=32) / 4_000
    law = 1 / np.arange(1, 33)
    assert np.abs(query - law / law.sum()).max() < 0.03
    tasks = np.bincount(np.asarray(drawn.tasks)) / 4_000
    assert np.abs(tasks - np.array([6, 3, 2]) / 11).max() < 0.03
    context = np.asarray(drawn.classes)[:, :4]
    # The most frequent class stands at every place equally often, although it is mostly drawn first.
    assert (context == 0).mean(0).std() < 0.02


def test_one_prompt_and_bad_worlds():
    task = meta_classification(key=jax.random.key(0))
    prompt = task.sample(key=jax.random.key(1))
    assert prompt.x.shape == (5, 63) and prompt.y.shape == (5,) and prompt.offset.shape == ()
    with pytest.raises(BadInput, match="bijection"):
        meta_classification(key=jax.random.key(0), assign="bijection")
    with pytest.raises(BadInput, match="repeats"):
        MetaClassification(jnp.zeros((5, 2)), jnp.zeros((1, 5), int), repeats=3)


def enumerated(labels, n, prior, p_bursty, distinct):
    """The three ceilings by going through every context, query and map."""
    t, k = labels.shape
    joint = {"ncc": {}, "scc": {}, "fcc": {}}
    contexts = list(itertools.permutations(range(k), n))
    for task in range(t):
        for context in contexts:
            for query in range(k):
                if query in context:
                    p = p_bursty / n + (0 if distinct else (1 - p_bursty) / k)
                else:
                    p = (1 - p_bursty) / (k - n if distinct else k)
                mass = prior[task] * p / len(contexts)
                shown = tuple((c, int(labels[task, c])) for c in context)
                answer = int(labels[task, query])
                for name, seen in (
                    ("ncc", ()), ("scc", tuple(sorted(label for _, label in shown))), ("fcc", tuple(sorted(shown)))
                ):  # fmt: skip
                    of = joint[name].setdefault((query, seen), {})
                    of[answer] = of.get(answer, 0) + mass
    return [sum(max(answers.values()) for answers in table.values()) for table in joint.values()]


@pytest.mark.parametrize(
    ("tasks", "n", "prior", "p_bursty", "distinct"),
    [(2, 2, (0.5, 0.5), 0.0, False), (3, 2, (0.6, 0.3, 0.1), 0.0, True), (2, 1, (0.5, 0.5), 0.7, False)],
)
def test_ceilings_against_enumeration(tasks, n, prior, p_bursty, distinct):
    labels = np.random.default_rng(tasks).integers(0, 3, (tasks, 6))
    found = label_ceilings(
        labels, n, task_law=prior, p_bursty=p_bursty, distinct_query=distinct, n_samples=40_000, seed=1
    )
    expected = enumerated(labels, n, prior, p_bursty, distinct)
    if p_bursty == 0:  # the query alone says nothing else
        assert abs(found.ncc - expected[0]) < 1e-12
    np.testing.assert_allclose(found, expected, atol=0.008)


def test_theory_of_the_semi_context_circuit():
    """The published values, and the Bayes ceiling of the same process sampled and inferred in another way."""
    for k, expected in ((8, 0.7857), (16, 0.6333), (32, 0.5645)):
        assert abs(semi_context_theory(k, 4) - expected) < 5e-5
        assert abs(semi_context_theory(k, 4) - (0.5 + 4 / (2 * (k - 1)))) < 1e-12
        labels = np.asarray(meta_classification(
            2, k, k, 3, key=jax.random.key(k), assign="bijection").labels)  # fmt: skip
        rng = np.random.default_rng(0)
        right = 0.0
        n = 60_000
        for row in rng.permuted(np.broadcast_to(np.arange(k), (n, k)), axis=1)[:, :5]:
            candidates = set(labels[:, row[4]].tolist())
            left = candidates - set(labels[0, row[:4]].tolist())
            right += 1 / len(left)
        assert abs(right / n - semi_context_theory(k, 4)) < 0.005
    assert abs(semi_context_theory(32, 4, 3) - 0.381) < 0.001


def test_ceilings_of_the_default_process():
    """The reference table: exact NCC, SCC of five worlds' mean, and the mean over items of all-label loss."""
    for options, ncc, low, high in (({}, 1 / 3, 0.72, 0.90), ({"n_tasks": 2}, 0.5, 0.80, 0.95)):
        worlds = [meta_classification(key=jax.random.key(seed), **options) for seed in range(5)]
        found = [label_ceilings(np.asarray(world.labels), 4, n_samples=4_000) for world in worlds]
        assert all(abs(one.ncc - ncc) < 1e-9 and one.fcc > 0.999 for one in found)
        assert low < np.mean([one.scc for one in found]) < high
    task = meta_classification(key=jax.random.key(5))
    assert abs(every_item_ceiling(np.asarray(task.labels), 4, n_samples=2_000).mean() - 0.867) < 0.001
