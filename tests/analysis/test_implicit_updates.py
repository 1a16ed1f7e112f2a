"""The implicit update is exact for every kind of block, and fails where it must."""

import zlib
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from update_cases import compiled, off, random_rows

from meta_icl.analysis.implicit import answer, implicit_update, in_float64, position_updates, random_network
from meta_icl.errors import BadInput
from meta_icl.models import (
    ARRANGEMENTS,
    Attention,
    Concatenated,
    Learner,
    LowRank,
    Lstm,
    Network,
    Patch,
    Rotary,
    contextual,
)
from meta_icl.tasks import LinearRegression
from meta_icl.training import Optimiser, train

EXACT = {"float64": 1e-12, "float32": 1e-5}


class DeltaRule(eqx.Module):
    """A memory in its step form, as a user would write one: S <- S - 1/2 k^T (k S - v), read by q S."""

    w: Array  # "3 d d": queries, keys, values

    def initial_state(self):
        return jnp.zeros(self.w.shape[1:], self.w.dtype)

    def step(self, memory, x):
        q, k, v = (x @ w for w in self.w)
        k = k / jnp.linalg.norm(k)
        memory = memory - 0.5 * jnp.outer(k, k @ memory - v)
        return memory, q @ memory


def delta_rule(d_model, *, key):
    return DeltaRule(jax.random.normal(key, (3, d_model, d_model)) / d_model**0.5)


MIXERS = {
    "softmax": Attention(n_heads=2),
    "grouped, rotary, biased": Attention(4, 4, 2, rotary=Rotary(100.0), biases=True, bias_out=True),
    "linear": Attention(2, kind="linear", causal=False),
    "without query": Attention(causal=False, query_is_key=False),
    "recurrent": Lstm(5, project=True),
    "delta rule": delta_rule,
}
# Every kind with softmax attention, every contextual layer in a pre-LN block; stacks of up to ten.
CASES = {kind: (kind, "softmax", "weights") for kind in ARRANGEMENTS}
CASES |= {mixer: ("pre-LN", mixer, "weights") for mixer in MIXERS if mixer != "softmax"}
CASES |= {"norm scale": ("Llama", "softmax", "norm_scale")}
DEEP = ("pre-LN", "Gemma", "experts", "linear")
# One of every way to compensate and every way to remember in every run; the others on demand.
ALWAYS = ("no skip", "Gemma", "experts", "linear", "delta rule", "norm scale")
FLOAT32 = ("no skip", "skip around", "residual", "pre-LN", "Llama", "experts", "recurrent")


class Drawn(NamedTuple):
    network: Network
    context: Array
    query: Array


def drawn(kind, mixer="softmax", *, d=8, f=12, n=6, seed=0, n_blocks=1):
    network = random_network(contextual(d, f, n_blocks, kind, MIXERS[mixer]), seed)
    if mixer == "linear":  # not normalised: a stack of it grows with every block, which is no question of the update
        network = eqx.tree_at(lambda net: net.blocks[0].mixer.w_o, network, network.blocks[0].mixer.w_o / n)
    return Drawn(network, *random_rows(n, d, seed, network.blocks[0].feed_forward.w_out.dtype))


def case_of(name, seed):
    """A case in a shape of its own, drawn by its name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    d, f, n = 2 * int(rng.integers(2, 7)), int(rng.integers(3, 20)), int(rng.integers(2, 10))
    kind, mixer, _ = CASES[name]
    return drawn(kind, mixer, d=d, f=f, n=n, seed=seed, n_blocks=10 if name in DEEP else int(rng.integers(1, 4)))


def errors(network, context, query, subset, through="weights", floor=0.0):
    """Errors of the patched answer without the subset and of the unpatched one."""
    n = context.shape[0]
    removed = np.ones(n, bool) if subset is None else np.isin(np.arange(n), subset)
    outputs, patched, without, _ = compiled(through, floor)(network, context, query, jnp.asarray(removed))
    return off(patched, outputs[-1]), off(without, outputs[-1])


@pytest.mark.variants("Gemma", "delta rule")
@pytest.mark.parametrize("name", CASES)
def test_blocks_agree_with_numpy(x64, name):
    """Values and the meaning of `visible`: masked rows are as good as removed."""
    _, mixer, through = CASES[name]
    network, context, query = case_of(name, 0)
    n = context.shape[0]
    removed = np.arange(n) % 2 == 0
    outputs, _, without, _ = compiled(through, 0.0)(network, context, query, jnp.asarray(removed))
    rows = np.concatenate([context, query[None]])
    wanted, kept = rows, rows[np.append(~removed, True)]
    for i in range(network.n_layers):
        wanted, kept = oracle.run(network.block(i), wanted), oracle.run(network.block(i), kept)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-10, atol=1e-11)
    if getattr(MIXERS[mixer], "rotary", None) is None:  # rotary positions stay, those of removed rows move up
        np.testing.assert_allclose(without, kept[-1], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "precision"),
    [pytest.param(name, "float64", marks=[] if name in ALWAYS else pytest.mark.slow) for name in CASES]
    + [pytest.param(name, "float32", marks=[] if name == "pre-LN" else pytest.mark.slow) for name in FLOAT32],
)
@given(seed=st.integers(0, 2**31), mask=st.integers(0, 2**9 - 1))
@settings(max_examples=6)
def test_any_block_is_replaced_exactly(name, precision, seed, mask):
    """Random weights, contexts and subsets, also empty ones and all of the context; stacks of one to ten."""
    with jax.enable_x64(precision == "float64"):
        network, context, query = case_of(name, seed)
        subset = [i for i in range(context.shape[0]) if mask >> i & 1]
        assert errors(network, context, query, subset, CASES[name][2])[0] < EXACT[precision]


@pytest.mark.slow
@pytest.mark.parametrize("precision", EXACT)
@given(data=st.data())
@settings(max_examples=20)
def test_blocks_of_any_shape_are_replaced_exactly(precision, data):
    """Kind, contextual layer, sizes, depth, weights, context and subset all drawn."""
    kind, mixer = data.draw(st.sampled_from(sorted(ARRANGEMENTS))), data.draw(st.sampled_from(sorted(MIXERS)))
    if mixer == "without query":  # without any context it reads nothing: a case of its own
        mixer = "softmax"
    d, f, n = 2 * data.draw(st.integers(1, 10)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 30))
    # Linear attention multiplies three numbers of the stream: after some blocks without a norm it is beyond all floats.
    depth, seed = data.draw(st.integers(1, 2 if mixer == "linear" else 10)), data.draw(st.integers(0, 2**31))
    subset = data.draw(st.sets(st.integers(0, n - 1)))
    with jax.enable_x64(precision == "float64"):
        network, context, query = drawn(kind, mixer, d=d, f=f, n=n, seed=seed, n_blocks=depth)
        # A norm behind the MLP is divided by entries that may be tiny, which float32 does not forgive.
        floor = 0.05 if kind == "Gemma" and precision == "float32" else 0.0
        # Every block rounds anew.
        assert errors(network, context, query, sorted(subset), floor=floor)[0] < EXACT[precision]


@pytest.fixture(scope="module")
def trained():
    """Three pre-LN blocks after sixty steps of in-context regression, and as drawn."""
    model = Learner(contextual(4, 8, 3, "pre-LN", Attention(2)), Concatenated(sign=1.0))
    task = LinearRegression(d=3, n_context=6)
    how = {"steps": 60, "batch": 32, "record": 30, "optimiser": Optimiser(learning_rate=0.02)}
    ensemble = train(task, model, **how, key=jax.random.key(0))
    assert ensemble.history["loss"][2, 0] < ensemble.history["loss"][1, 0]
    return ensemble[0].network, np.asarray(ensemble[0].layout.encode(task.sample(key=jax.random.key(2))))


@pytest.mark.slow
@pytest.mark.parametrize("precision", EXACT)
def test_trained_weights_are_weights(trained, precision):
    """The identity holds for trained weights as for any others."""
    network, tokens = trained
    with jax.enable_x64(precision == "float64"):
        network = in_float64(network) if precision == "float64" else network
        tokens = jnp.asarray(tokens, precision)
        for subset in (None, [], [0, 5], [3]):
            exact, without = errors(network, tokens[:-1], tokens[-1], subset)
            assert exact < EXACT[precision]
            assert without > 1e-4 or subset == []


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_lifted_entries_keep_the_scale_small(precision):
    """Where the normalised answer nearly vanishes in one channel, the published patch is exact on paper only."""
    with jax.enable_x64(precision == "float64"):
        network, context, query = drawn("Gemma", d=8, f=12, n=6, seed=2)
        # In the channel where the context adds most, the last matrix's answer is made to vanish but for 1e-6.
        block, rows = network.block(0), jnp.concatenate([context, query[None]])
        seen = jnp.arange(7)[None] >= jnp.array([[0], [6]])
        reading = jax.vmap(lambda seen: block.first_half(rows, visible=seen))(seen)
        m = block.feed_forward.hidden(block.mlp_in(reading.source[0, -1]))
        j = int(jnp.argmax(jnp.abs(reading.carry[0, -1] - reading.carry[1, -1])))
        away = jnp.zeros_like(block.feed_forward.w_out).at[:, j].set(m / (m @ m)) * (
            m @ block.feed_forward.w_out[:, j] - 1e-6
        )
        network = eqx.tree_at(
            lambda net: net.blocks[0].feed_forward.w_out, network, (block.feed_forward.w_out - away)[None]
        )
        wanted = answer(network, context, query)
        size, error = {}, {}
        for floor in (0.0, 0.1):
            patch = implicit_update(network, context, query, floor=floor)
            size[floor] = float(jnp.max(jnp.abs(patch.vectors["post_norm_scale"])))
            error[floor] = off(answer(network, context, query, None, patch), wanted)
        assert size[0.0] > 1e4 and size[0.1] < 100
        assert error[0.1] < EXACT[precision]
        assert precision == "float32" or error[0.0] < 1e-8
        assert patch.weights["w_out"].rank()[0] == 1
    with pytest.raises(BadInput, match="floor must be at least 0 and below 1"):
        implicit_update(network, context, query, floor=1.0)


@pytest.mark.parametrize("kind", ["no skip", "Llama", "experts"])
def test_least_norm_and_rank_one(x64, kind):
    """Of the first block, against the pseudo-inverse solution of the linear equations, in the papers' convention."""
    network, context, query = case_of(kind, 3)
    block, n = network.block(0), context.shape[0]
    removed = np.arange(n) < n // 2
    rows = np.concatenate([context, query[None]])
    kept = rows[np.append(~removed, True)]
    n_1, n_0 = (oracle.read(block, oracle.readings(block, r, len(r) - 1)[1]) for r in (rows, kept))
    patch = compiled("weights", 0.0)(network, context, query, jnp.asarray(removed))[-1]
    for name, change in patch.weights.items():
        if name.endswith("out"):
            continue
        weights = np.asarray(getattr(block.feed_forward, name), np.float64)
        weights = weights if weights.ndim == 3 else weights[None]
        found = np.asarray(change.dense()[0]).reshape(weights.shape)
        used = np.argsort(-(np.asarray(block.feed_forward.router).T @ n_1))[:2] if name.startswith("experts_") else [0]
        for e, w in enumerate(weights):
            wanted = (w.T @ (n_1 - n_0))[:, None] @ np.linalg.pinv(n_0[:, None])
            np.testing.assert_allclose(found[e].T, wanted if e in used else 0 * wanted, rtol=1e-11, atol=1e-12)
            assert np.linalg.matrix_rank(found[e]) == (e in used)


@eqx.filter_jit
def control_errors(network, context, query, other):
    """Errors with the patch of another query, without what bypasses the MLP, of what stands before the norm, and, with
    experts, of a router left as it is."""
    wanted = answer(network, context, query)
    patch = implicit_update(network, context, query)
    block, rows = network.block(0), jnp.concatenate([context, query[None]])
    last = jnp.arange(len(rows)) == len(rows) - 1
    h_1, h_0 = (block.first_half(rows, visible=seen).source[-1] for seen in (jnp.ones_like(last), last))
    unnormalised = {}
    for name, w in block.feed_forward.reading_weights(h_1).items():
        inputs = jnp.broadcast_to(h_0 / (h_0 @ h_0), (1, *w.shape[:-2], 1, w.shape[-2]))
        unnormalised[name] = LowRank(inputs, ((h_1 - h_0) @ w)[None, ..., None, :])
    before = Patch(patch.weights | unnormalised, patch.vectors)
    wrong = [implicit_update(network, context, other), patch.zeroed(*patch.residual), before]
    wrong += [patch.zeroed("router")] if "router" in patch.weights else []
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *wrong)
    found = jax.vmap(lambda patch: answer(network, context, query, None, patch))(stacked)
    return jnp.linalg.norm(found - wanted[None], axis=-1) / jnp.linalg.norm(wanted)


@pytest.mark.parametrize(
    "kind", ["pre-LN", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("Gemma", "experts"))]
)
def test_negative_controls_fail(x64, kind):
    """By 0.1 to 1 and more, in the median over random blocks."""
    found = []
    for seed in range(5):
        network, context, query = drawn(kind, d=16, f=32, n=20, seed=seed)
        other = jnp.asarray(np.random.default_rng(100 + seed).normal(size=16))
        found.append(control_errors(network, context, query, other))
    assert np.all(np.median(found, axis=0) > 0.1)
    assert np.min(found) > 1e-3
    with pytest.raises(BadInput, match="unknown part of the patch"):
        Patch({}, {}).without("b_in")


def test_degenerate_contexts(x64):
    network, context, query = drawn("no skip", "without query")
    # Nothing is left to attend to: the MLP reads zero, which no change of its weights can answer to.
    with pytest.raises(BadInput, match="zero vector"):
        implicit_update(network, context, query)
    with pytest.raises(Exception, match="zero vector"):
        compiled("weights", 0.0)(network, context, query, jnp.ones(6, bool))
    # Without any removed token the patch is exactly zero, even there.
    for subset in ([], np.zeros(6, bool)):
        assert float(implicit_update(network, context, query, subset).norm()[0]) == 0
    assert errors(network, context, query, [])[0] == 0
    # A zero vector is all right where nothing has to change either.
    still = eqx.tree_at(lambda net: net.blocks[0].mixer.w_v, network, jnp.zeros_like(network.blocks[0].mixer.w_v))
    assert float(implicit_update(still, context, query).norm()[0]) == 0
    # One token of context.
    network, context, query = drawn("pre-LN", n=1)
    assert errors(network, context, query, None)[0] < 1e-12
    # Overflow is named as what it is.
    with pytest.raises(BadInput, match="not finite"):
        implicit_update(network, jnp.full((1, 8), 1e308), query)


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ([6], "positions below 6"),
        ([-1], "positions below 6"),
        ([1, 1], "repetitions"),
        (np.ones(5, bool), "mask of shape"),
    ],
)
def test_bad_subsets(subset, message):
    with pytest.raises(BadInput, match=message):
        implicit_update(*drawn("residual"), subset)


def test_bad_shapes_and_names():
    network, context, query = drawn("residual")
    for arguments, message in (
        ((context[:0], query), "at least one token"),
        ((context, query[:3]), "one token of width 8"),
        ((context[:, :3], query[:3]), "tokens of width 8"),
    ):
        with pytest.raises(BadInput, match=message):
            implicit_update(network, *arguments)
    with pytest.raises(BadInput, match="did you mean 'weights'"):
        implicit_update(network, context, query, through="weight")
    with pytest.raises(BadInput, match="through must be 'weights'"):
        implicit_update(network, context, query, through="norm_scale")
    with pytest.raises(BadInput, match="unknown arrangement 'LLama'; did you mean 'Llama'"):
        contextual(4, 4, 1, "LLama")


def test_small_readings_neither_overflow_nor_vanish():
    """1 / |a|^2 leaves float32 long before a does."""
    network, context, query = case_of("no skip", 0)
    tiny = eqx.tree_at(lambda net: net.blocks[0].mixer.w_o, network, network.blocks[0].mixer.w_o * 1e-22)
    exact, _ = errors(tiny, context, query, None)
    assert exact < 1e-5


@pytest.mark.parametrize("kind", ["residual", "pre-LN"])
def test_every_position(x64, kind):
    """Innocenti & Achour's form: the last token alone, patched for position i, answers as position i does."""
    network, context, query = drawn(kind, n=7)
    block, rows = network.block(0), np.concatenate([context, query[None]])
    patches = position_updates(block, jnp.asarray(rows))
    wanted = oracle.run(block, rows)
    alone, there = jnp.asarray(rows[-1:]), jnp.ones(1, bool)
    found = eqx.filter_jit(jax.vmap(lambda change: block(alone, visible=there, patch=change)[0]))(patches)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
    dense = np.asarray(patches.weights["w_in"].dense())
    np.testing.assert_array_equal(np.linalg.matrix_rank(dense), np.ones(8))
    assert np.linalg.matrix_rank(dense.sum(0)) == 1  # all positions share the input row of the last token alone
