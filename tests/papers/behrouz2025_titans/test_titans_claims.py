"""The claims of Titans on planted losses and scores, and needles of several lengths."""

import jax
import numpy as np
import pytest

from meta_icl.papers.behrouz2025_titans import PRESETS
from meta_icl.papers.behrouz2025_titans.claims import claims_recall
from meta_icl.papers.behrouz2025_titans.experiments import ABLATIONS, CHUNKS, PLAYED, Needles, ground, variant
from meta_icl.tasks import Needle

PAIRS = 4


def left(loss=0.1, **scores):
    return {"losses": np.full((1, 3), loss), "rates": np.array([1e-2]), "rate": np.array(1e-2)} | {
        f"score/{name.removeprefix('at')}": np.full(3, value) for name, value in scores.items()
    }


def as_published():
    worse = {name: left(0.2) for name in ABLATIONS}
    worse |= {f"chunk{b}": left(0.1 + (b - 16) / 1000) for b in CHUNKS}  # the LMM's own chunks are of 16
    needle = {"lmm": left(at1x=1.0, at4x=0.97)} | {n: left(at1x=1.0, at4x=0.9) for n in ("ttt", "mamba2", "deltanet")}
    return {
        "mqar": worse | {"lmm": left(), "mac": left(0.1), "mag": left(0.09), "mal": left(0.3)},
        "hard": {"linear": left(0.5), "lmm": left(0.2), "depth3": left(0.1)},
        "needle": needle,
        "far": {"lmm": needle["lmm"]} | {name: left(at1x=1.0, at4x=0.99) for name in ("mac", "mag", "mal")},
        "overwrite": {"deltanet": left(atlatest=0.99), "linear_attention": left(0.7, atlatest=0.52)},
    }


def test_titans_as_published(verdicts):
    told = verdicts(claims_recall(as_published(), pairs=PAIRS, chunk_size=16))
    assert told == dict.fromkeys(["T-1", "T-2", "T-3", "T-4", "T-5", "T-6", "T-8", "F-5"], "holds")


def test_without_an_arena_its_claims_are_open(verdicts):
    found = {name: arrays for name, arrays in as_published().items() if name in ("mqar", "overwrite")}
    told = verdicts(claims_recall(found, pairs=PAIRS, chunk_size=16))
    assert {id for id, verdict in told.items() if verdict == "not decided"} == {"T-1", "T-3", "T-4"}
    assert {id for id, verdict in told.items() if verdict == "holds"} == {"T-2", "T-5", "T-6", "T-8", "F-5"}


STUCK = 1.2 * np.log(PAIRS)


@pytest.mark.parametrize(
    ("arena", "changed", "id"),
    [
        ("hard", {"linear": left(2 * STUCK)}, "T-1"),  # a linear memory that recalls nothing shows no gain of depth
        ("mqar", {"lmm": left(STUCK)}, "T-2"),
        ("mqar", {"lmm": left(STUCK)}, "T-8"),
        ("needle", {"lmm": left(at1x=0.3, at4x=0.3)}, "T-3"),
        ("far", {"mal": left(at1x=0.3, at4x=0.1)}, "T-4"),
        ("mqar", {"mag": left(STUCK)}, "T-5"),
        ("mqar", {"chunk64": left(STUCK)}, "T-6"),
        ("overwrite", {"linear_attention": left(2 * STUCK, atlatest=0.1)}, "F-5"),
    ],
)
def test_networks_that_are_stuck_decide_nothing(arena, changed, id, verdicts):
    found = as_published()
    found[arena] |= changed
    told = verdicts(claims_recall(found, pairs=PAIRS, chunk_size=16))
    assert told[id] == "not converged"


def test_a_lead_that_is_not_there_fails(verdicts):
    found = as_published()
    found["needle"] |= {"deltanet": left(at1x=1.0, at4x=1.0), "lmm": left(at1x=1.0, at4x=0.5)}
    found["hard"] |= {"depth3": left(0.3)}
    found["mqar"] |= {"chunk1": left(0.14)}
    told = verdicts(claims_recall(found, pairs=PAIRS, chunk_size=16))
    assert told["T-3"] == told["T-1"] == told["T-6"] == "fails"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_arena_of_a_preset_has_its_mixers(preset):
    config = PRESETS[preset]
    for name in config.arenas:
        where, chunk_size = ground(name, config.length, config.chunk_size)
        for mixer in PLAYED[name]:
            where.model(variant(mixer, chunk_size), config.d_model, config.n_layers, 4)
    # What a window of every layer covers does not reach over the haystack.
    where, window = ground("far", config.length, config.chunk_size)
    assert 2 * config.n_layers * window <= where.task.length


def test_needles_of_several_lengths_ask_where_those_of_one_length_do():
    """Each prompt is a needle of one of the lengths, drawn from the same key, with nothing asked behind it."""
    key = jax.random.key(3)
    batch = Needles((8, 12, 16)).sample_batch(32, key=key)
    asked = np.asarray(batch.loss_mask).argmax(1)
    assert set(asked) == {7, 11, 15} and (np.asarray(batch.loss_mask).sum(1) == 1).all()
    one = Needles((8, 16)).sample(key=key)
    length = int(np.asarray(one.loss_mask).argmax()) + 1
    expected = Needle(length=length).sample(key=jax.random.split(key)[1])
    np.testing.assert_array_equal(one.tokens[:length], expected.tokens)
    assert int(one.labels[length - 1]) == int(expected.labels[-1]) and not np.asarray(one.tokens[length:]).any()
