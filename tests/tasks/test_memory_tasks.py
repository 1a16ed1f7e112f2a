"""The token tasks against their definitions, sample by sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.tasks import Mqar, Needle, Overwrite, RandomAutomata, SelectiveCopying, SparseParity, legal_share

N = 200


def batch(task):
    return jax.tree.map(np.asarray, jax.jit(lambda key: task.sample_batch(N, key=key))(jax.random.key(0)))


@pytest.mark.parametrize("random_filler", [False, True])
def test_mqar(random_filler):
    task = Mqar(vocabulary=64, length=32, n_pairs=4, random_filler=random_filler)
    prompts, gaps = batch(task), []
    assert prompts.tokens.shape == (N, 31)
    for tokens, asked, labels in zip(prompts.tokens, prompts.loss_mask, prompts.labels, strict=True):
        keys, values = tokens[:8:2], tokens[1:8:2]
        assert len(set(keys)) == len(set(values)) == 4
        assert keys.min() >= 1 and keys.max() < 32 and values.min() >= 32 and values.max() < 64
        places = np.flatnonzero(asked)
        assert len(places) == 4 and (places >= 8).all() and (places % 2 == 0).all()
        stored = dict(zip(keys, values, strict=True))
        assert all(labels[p] == stored[tokens[p]] for p in places)
        assert sorted(tokens[places]) == sorted(keys)
        if not random_filler:
            assert np.count_nonzero(tokens[8:]) == 4
        gaps.append((places - 8) // 2)
    # The first of four draws without replacement is the smallest with a chance between its own weight and all four.
    weights = np.arange(1, 13) ** (task.power - 1)
    rng = np.random.default_rng(0)
    drawn = [rng.choice(12, 4, replace=False, p=weights / weights.sum()) for _ in range(4000)]
    expected = np.bincount(np.concatenate(drawn), minlength=12) / 4000
    measured = np.bincount(np.concatenate(gaps), minlength=12) / N
    assert (np.abs(measured - expected) < 5 * np.sqrt(expected * (1 - expected) / N) + 0.03).all()


def test_overwrite():
    for tokens, asked, labels in zip(*_leaves(batch(Overwrite(n_keys=3, n_writes=2))), strict=True):
        written = {}
        for key, value in tokens[:12].reshape(6, 2):
            written[key] = value
        assert asked.sum() == 3 and asked[12:].all()
        assert labels[12:].tolist() == [written[key] for key in tokens[12:]]
        assert (np.bincount(tokens[:12:2])[tokens[12:]] == 2).all()


@pytest.mark.parametrize("haystack", ["cycle", "chain"])
def test_needle(haystack):
    task, depths = Needle(length=40, n_values=3, haystack=haystack), []
    for tokens, asked, labels in zip(*_leaves(batch(task)), strict=True):
        place = int(np.flatnonzero(tokens == 0)[0])
        depths.append(place)
        assert np.flatnonzero(asked).tolist() == [37, 38, 39]
        assert labels[37:].tolist() == tokens[place + 2 : place + 5].tolist()
        assert tokens[36] == 1 and tokens[37] == tokens[place + 1]
        assert tokens[38:].tolist() == labels[37:39].tolist()
        filler = np.delete(tokens[:36], np.arange(place, place + 5))
        assert filler.min() >= 2 and filler.max() < 27
    assert min(depths) == 0 and max(depths) == 31


def test_selective_copying():
    for tokens, asked, labels in zip(*_leaves(batch(SelectiveCopying(length=12, n_copied=3))), strict=True):
        assert labels[asked].tolist() == tokens[:12][tokens[:12] > 0].tolist()
        assert tokens[12:].tolist() == [1, 1, 1]


def test_sparse_parity():
    x = np.random.default_rng(0).choice([-1.0, 1.0], (20, 6)).astype(np.float32)
    task = SparseParity(d=6, n_active=2)
    masks = np.asarray(task.draw(300, key=jax.random.key(0)))
    assert (masks.sum(axis=1) == 2).all() and (masks.sum(axis=0) > 50).all()
    for mask in masks[:5]:
        np.testing.assert_array_equal(task.evaluate(jnp.asarray(mask), jnp.asarray(x)), x[:, mask > 0].prod(axis=1))


def test_automata_speak_their_language():
    task = RandomAutomata(length=120)
    sample = jax.jit(lambda key: task.sample_with_automaton(key=key))
    for seed in range(10):
        prompt, automaton, nodes = jax.tree.map(np.asarray, sample(jax.random.key(seed)))
        node, run, runs = 0, 0, []
        edges = [dict(zip(s[:n], t[:n], strict=True)) for n, s, t in zip(*automaton, strict=True)]
        assert all(len(e) == n for e, n in zip(edges, automaton.n_edges, strict=True))  # different symbols
        assert all(len(set(e.values())) == len(e) and i not in e.values() for i, e in enumerate(edges[:4]))
        for token, after in zip(prompt.tokens, nodes, strict=True):
            if token == 0:
                runs.append(run)
                node, run = 0, 0
            else:
                node, run = edges[node][token], run + 1
            assert node == after
        assert runs and min(runs) >= 1 and max(runs) <= 49
        legal = np.asarray(task.legal(jax.tree.map(jnp.asarray, automaton), jnp.asarray(nodes)))
        spoken = prompt.tokens[1:] > 0
        assert legal[:-1][spoken, prompt.tokens[1:][spoken] - 1].all()
        assert (legal.sum(axis=1) == automaton.n_edges[nodes]).all()
        logits = jnp.concatenate([jnp.zeros((120, 1)), legal], axis=1)
        assert (
            float(legal_share(logits, jnp.asarray(legal))) == 1.0
            and float(legal_share(-logits, jnp.asarray(legal))) == 0.0
        )


def _leaves(prompts):
    return prompts.tokens, prompts.loss_mask, prompts.labels


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Mqar(n_pairs=30), "n_pairs"),
        (lambda: Mqar(length=63), "length"),
        (lambda: Mqar(vocabulary=60), "vocabulary"),
        (lambda: Overwrite(n_keys=0), "n_keys"),
        (lambda: Needle(length=5), "length"),
        (lambda: Needle(haystack="hay"), "haystack"),
        (lambda: SelectiveCopying(n_copied=99), "n_copied"),
        (lambda: SparseParity(d=3, n_active=4), "n_active"),
        (lambda: RandomAutomata(n_symbols=3), "n_symbols"),
    ],
)
def test_bad_input_is_one_line(make, field):
    with pytest.raises(BadInput, match=f"^{field} must be"):
        make()
