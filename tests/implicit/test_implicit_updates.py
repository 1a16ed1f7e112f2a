"""The implicit update is exact for every kind of block, and fails where it must."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_icl.analysis.implicit import answer, blocks_of, implicit_update, position_updates
from meta_icl.errors import BadInput
from meta_icl.models import Transformer
from meta_icl.models.blocks import KINDS, Attention, Blocks, LowRank, Patch, Recurrence, random_network
from meta_icl.models.trace import Tap

EXACT = {np.float64: 1e-12, np.float32: 1e-5}
MIXERS = {
    "softmax": Attention(n_heads=2),
    "grouped, rotary, biased": Attention(n_heads=4, n_groups=2, d_head=4, rope=100.0, biases=True),
    "linear": Attention("linear", n_heads=2, causal=False),
    "without query": Attention(causal=False, query_is_key=False),
    "recurrent": Recurrence(5),
}
# Every kind with softmax attention, every contextual layer in a pre-LN block.
CASES = [(kind, "softmax") for kind in KINDS] + [("pre-LN", mixer) for mixer in MIXERS if mixer != "softmax"]

FLOAT32 = ("no skip", "pre-LN", "Gemma", "experts")


def drawn(kind, mixer="softmax", *, d=8, f=12, n=6, seed=0, n_blocks=1):
    network = random_network(Blocks.of_kind(kind, d, f, mixer=MIXERS[mixer], n_blocks=n_blocks), seed)
    rng = np.random.default_rng(seed + 1)
    context, query = rng.normal(size=(n, d)), rng.normal(size=d)
    dtype = network.blocks.mlp.w_out.dtype
    return network, jnp.asarray(context, dtype), jnp.asarray(query, dtype)


def off(found, wanted):
    """Relative L2 error."""
    return float(np.linalg.norm(np.asarray(found) - np.asarray(wanted)) / np.linalg.norm(np.asarray(wanted)))


def errors(network, context, query, subset, **how):
    """Errors of the patched answer without the subset and of the unpatched one."""
    wanted = answer(network, context, query)
    patch = implicit_update(network, context, query, subset, **how)
    return off(answer(network, context, query, subset, patch), wanted), off(
        answer(network, context, query, subset), wanted
    )


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_blocks_agree_with_numpy(x64, kind, mixer):
    """Values and the meaning of `visible`: masked rows are as good as removed."""
    network, context, query = drawn(kind, mixer)
    rows = np.concatenate([context, query[None]])
    block = network.block(0)
    np.testing.assert_allclose(network(jnp.asarray(rows))[0], oracle.run(block, rows), rtol=1e-12, atol=1e-12)
    if getattr(MIXERS[mixer], "rope", None) is None:  # rotary positions stay, those of removed rows move up
        kept = np.array([0, 2, 5, 6])
        np.testing.assert_allclose(
            answer(network, context, query, (1, 3, 4)), oracle.run(block, rows[kept])[-1], rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(
    ("kind", "mixer", "x64_on"), [(*case, True) for case in CASES] + [(k, "softmax", False) for k in FLOAT32]
)
def test_any_block_is_replaced_exactly(kind, mixer, x64_on):
    """Random weights and contexts; the whole context, parts of it, a single token; stacks of one."""
    with jax.enable_x64(x64_on):
        limit = EXACT[np.float64 if x64_on else np.float32]
        for seed, subset in itertools.product(range(3), (None, (0, 3, 4), (5,))):
            exact, without = errors(*drawn(kind, mixer, seed=seed), subset)
            assert exact < limit
            assert without > 1e-3 or (mixer == "recurrent" and subset == (0, 3, 4))


@given(
    kind=st.sampled_from(sorted(KINDS)),
    mixer=st.sampled_from(sorted(MIXERS)),
    shape=st.sampled_from([(4, 7, 1), (12, 5, 9)]),
    n_blocks=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**31),
    mask=st.integers(0, 2**9 - 1),
    through=st.sampled_from(["weights", "weights", "norm_scale"]),
)
@settings(max_examples=10)
def test_any_shape_depth_and_subset(kind, mixer, shape, n_blocks, seed, mask, through):
    d, f, n = shape
    subset = [i for i in range(n) if mask >> i & 1]
    with jax.enable_x64(True):
        network, context, query = drawn(kind, mixer, d=d, f=f, n=n, n_blocks=n_blocks, seed=seed)
        # Unnormalised linear attention grows threefold with every block; a stack of it is not a well-posed computation.
        network = eqx.tree_at(lambda net: net.blocks.mixer.w_o, network, network.blocks.mixer.w_o / n)
        if through == "norm_scale" and network.blocks.norm_mlp is None:
            with pytest.raises(BadInput, match="through must be 'weights'"):
                implicit_update(network, context, query, subset, through=through)
            return
        if mixer == "without query" and kind in ("no skip", "skip around") and len(subset) == n:
            with pytest.raises(BadInput, match="zero vector"):
                implicit_update(network, context, query, subset)
            return
        # A scale divides by single entries, which may be small: the error of a quotient, not of the identity.
        limit = 1e-12 if through == "weights" and network.blocks.post_norm_mlp is None else 1e-9
        assert errors(network, context, query, subset, through=through)[0] < limit


@pytest.mark.parametrize(("kind", "x64_on"), [("pre-LN", True), ("pre-LN", False), ("Gemma", True), ("experts", True)])
def test_stacks_of_ten(kind, x64_on):
    with jax.enable_x64(x64_on):
        network, context, query = drawn(kind, n_blocks=10)
        for subset in (None, (1, 2)):
            assert errors(network, context, query, subset)[0] < (1e-12 if x64_on else 1e-4)  # ten blocks deep


@pytest.mark.parametrize("kind", ["no skip", "Llama", "experts"])
def test_least_norm_and_rank_one(x64, kind):
    """Against the pseudo-inverse solution of the linear equations, in the papers' column convention."""
    network, context, query = drawn(kind)
    block, subset = network.block(0), [0, 2]
    rows = np.concatenate([context, query[None]])
    kept = rows[[1, 3, 4, 5, 6]]
    n_1, n_0 = (oracle.normalise(block.norm_mlp, oracle.readings(block, r, len(r) - 1)[1]) for r in (rows, kept))
    patch = implicit_update(network, context, query, subset)
    for name, change in patch.weights.items():
        if name.endswith("out"):
            continue
        weights = np.asarray(getattr(block.mlp, name), np.float64)
        weights = weights if weights.ndim == 3 else weights[None]
        found = np.asarray(change.dense()[0]).reshape(weights.shape)
        used = np.argsort(-(np.asarray(block.mlp.router).T @ n_1))[:2] if name.startswith("experts_") else [0]
        for e, w in enumerate(weights):
            wanted = (w.T @ (n_1 - n_0))[:, None] @ np.linalg.pinv(n_0[:, None])
            np.testing.assert_allclose(found[e].T, wanted if e in used else 0 * wanted, rtol=1e-11, atol=1e-12)
            assert np.linalg.matrix_rank(found[e]) == (e in used)


@pytest.mark.parametrize("kind", ["pre-LN", "Gemma"])
def test_negative_controls_fail(x64, kind):
    """The patch of another query; no patch of what bypasses the MLP; the patch of what stands before the norm."""
    network, context, query = drawn(kind, d=16, f=32, n=20)
    wanted = answer(network, context, query)
    patch = implicit_update(network, context, query)
    other = jnp.asarray(np.random.default_rng(9).normal(size=16))
    assert off(answer(network, context, query, None, implicit_update(network, context, other)), wanted) > 0.1
    assert off(answer(network, context, query, None, patch.without(*patch.vectors)), wanted) > 0.1
    block, rows = network.block(0), jnp.concatenate([context, query[None]])
    h_1, h_0 = (
        block.contextual(rows, seen, Tap((), 0)).source[-1] for seen in (jnp.ones(21, bool), jnp.arange(21) == 20)
    )
    unnormalised = {
        name: LowRank((h_0 / (h_0 @ h_0))[None, None], ((h_1 - h_0) @ w)[None, None])
        for name, w in block.mlp.reading_weights(h_1).items()
    }
    assert off(answer(network, context, query, None, Patch(unnormalised, patch.vectors)), wanted) > 0.1


def test_degenerate_contexts(x64):
    network, context, query = drawn("no skip", "without query")
    # Nothing is left to attend to: the MLP reads zero, which no change of its weights can answer to.
    with pytest.raises(BadInput, match="zero vector"):
        implicit_update(network, context, query)
    with pytest.raises(Exception, match="zero vector"):
        jax.vmap(lambda c: implicit_update(network, c, query))(context[None])
    # Without any removed token the patch is exactly zero, even there.
    for subset in ([], np.zeros(6, bool)):
        patch = implicit_update(network, context, query, subset)
        assert float(patch.norm()[0]) == 0
        assert errors(network, context, query, subset)[0] == 0
    # A zero vector is all right where nothing has to change either.
    still = eqx.tree_at(lambda net: net.blocks.mixer.w_v, network, jnp.zeros_like(network.blocks.mixer.w_v))
    assert float(implicit_update(still, context, query).norm()[0]) == 0
    # One token of context.
    network, context, query = drawn("pre-LN", n=1)
    assert errors(network, context, query, None)[0] < 1e-12
    assert errors(network, context, query, [0])[0] < 1e-12
    # Overflow is named as what it is.
    with pytest.raises(BadInput, match="not finite"):
        implicit_update(*drawn("pre-LN", n=2)[:1], jnp.full((2, 8), 1e308), query)


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
    with pytest.raises(BadInput, match="unknown kind of block 'LLama'; did you mean 'Llama'"):
        Blocks.of_kind("LLama", 4, 4)
    with pytest.raises(BadInput, match="unknown part of the patch"):
        implicit_update(network, context, query).without("b_in")


def test_small_readings_neither_overflow_nor_vanish():
    """1 / |a|^2 leaves float32 long before a does."""
    network, context, query = drawn("no skip")
    tiny = eqx.tree_at(lambda net: net.blocks.mixer.w_o, network, network.blocks.mixer.w_o * 1e-22)
    wanted = answer(tiny, context, query)
    patch = implicit_update(tiny, context, query)
    assert bool(jnp.all(jnp.isfinite(answer(tiny, context, query, None, patch))))
    assert off(answer(tiny, context, query, None, patch), wanted) < 1e-5


@pytest.mark.parametrize("kind", ["residual", "pre-LN"])
def test_every_position(x64, kind):
    """Innocenti & Achour's form: the last token alone, patched for position i, answers as position i does."""
    network, context, query = drawn(kind, n=7)
    block, rows = network.block(0), np.concatenate([context, query[None]])
    patches = position_updates(block, jnp.asarray(rows))
    wanted = oracle.run(block, rows)
    alone = jnp.asarray(rows[-1:])
    for i in range(8):
        change = jax.tree.map(lambda leaf, i=i: leaf[i], patches)
        found = block(alone, jnp.ones(1, bool), Tap((), 0), change)[0]
        np.testing.assert_allclose(found, wanted[i], rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(np.linalg.matrix_rank(patches.weights["w_in"].dense()), np.ones(8))
    total = np.asarray(patches.weights["w_in"].dense()).sum(0)
    assert np.linalg.matrix_rank(total) == 1  # all positions share the input row of the last token alone


def test_trained_networks_of_the_laboratory(x64):
    """Transformers convert to blocks of equal output, looped ones too, and are replaced exactly."""
    for config in (
        Transformer(
            6, 3, 2, attention="softmax", causal=True, query_is_key=True, layer_norm=True, d_mlp=9, d_in=4, d_out=2
        ),
        Transformer(4, 2, looped=True, d_mlp=5, init_scale=1.0),
    ):
        network = config(key=jax.random.key(0))
        tokens = jnp.asarray(np.random.default_rng(0).normal(size=(7, 4)))
        blocks = blocks_of(network)
        np.testing.assert_allclose(blocks(tokens)[0], network(tokens)[0], rtol=1e-13, atol=1e-13)
        assert errors(blocks, tokens[:-1], tokens[-1], None)[0] < 1e-12
    with pytest.raises(BadInput, match="d_mlp"):
        blocks_of(Transformer(4)(key=jax.random.key(0)))
    with pytest.raises(BadInput, match="dampening"):
        blocks_of(Transformer(4, d_mlp=3, dampening=0.5)(key=jax.random.key(0)))
