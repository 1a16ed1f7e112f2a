"""The prompt as a chain of gradient steps, thought patches, the updates of single examples, greedy decoding."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks as oracle
import pytest

from meta_icl.analysis.implicit import (
    agreeing_tokens,
    answer,
    class_similarity,
    example_updates,
    factorised_descent,
    fine_tune,
    generate,
    generate_without_prompt,
    implicit_descent,
    implicit_gradients,
    implicit_update,
    least_squares,
    prefix_readings,
    random_network,
    suffix_readings,
    thought_errors,
    thought_patch,
    thought_vector,
)
from meta_icl.errors import BadInput
from meta_icl.models import Attention, Concatenated, InContextLearner, LowRank, Norm, Patch, Rotary, contextual, gpt2
from meta_icl.prompt import Prompt

D, F, N = 6, 9, 7
SOME = (1, 4, N)  # steps of a chain that are looked at: each has programs of its own


def drawn(kind, seed=0, **fields):
    network = random_network(contextual(D, F, arrangement=kind, mixer=Attention(2), **fields), seed)
    rng = np.random.default_rng(seed + 1)
    return network, jnp.asarray(rng.normal(size=(N, D))), jnp.asarray(rng.normal(size=D))


@pytest.mark.parametrize("kind", ["no skip", pytest.param("pre-LN", marks=pytest.mark.slow)])
def test_additive_chain(x64, kind):
    """Literal gradient descent on trace(D_i^T W), by automatic differentiation, ends at the one-shot patch."""
    network, context, query = drawn(kind)
    block, w_0 = network.block(0), np.asarray(network.blocks[0].feed_forward.w_in[0])
    readings = prefix_readings(network, context, query)
    chain = implicit_descent(network.blocks[0].feed_forward.w_in[0], readings.mlp_in)
    gradients = implicit_gradients(network.blocks[0].feed_forward.w_in[0], readings.mlp_in)
    # Readings by real removal of tokens.
    rows = np.concatenate([context, query[None]])
    a = [oracle.read(block, oracle.readings(block, rows[[*range(i), N]], i)[1]) for i in range(N + 1)]
    np.testing.assert_allclose(readings.mlp_in, a, rtol=1e-12, atol=1e-13)
    w, dense = jnp.asarray(w_0), np.asarray(gradients.dense())
    gradient = jax.jit(jax.grad(lambda w, d_i: jnp.trace(d_i.T @ w)))
    for i in range(1, N + 1):
        d_i = np.outer(a[0], (a[i - 1] - a[i]) @ w_0)
        np.testing.assert_allclose(dense[i - 1], d_i, rtol=1e-11, atol=1e-13)
        w = np.asarray(w) - np.asarray(gradient(w, d_i)) / (a[0] @ a[0])
        if i in SOME:
            np.testing.assert_allclose(w_0 + chain.after(i).dense(), w, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(chain.step_sizes, np.full(N, 1 / (a[0] @ a[0])), rtol=1e-12)
    one_shot = implicit_update(network, context, query)
    np.testing.assert_allclose(chain.after(N).dense(), one_shot.weights["w_in"].dense()[0], rtol=1e-11, atol=1e-13)
    # Every W_i answers as the block does behind i tokens.
    for i in SOME:
        steps = chain.after(i)
        vectors = {} if kind == "no skip" else {"b_out": (readings.carry[i] - readings.carry[0])[None]}
        patch = Patch({"w_in": LowRank(steps.inputs[None], steps.outputs[None])}, vectors)
        found = answer(network, context, query, None, patch)
        np.testing.assert_allclose(found, readings.answers[i], rtol=1e-11, atol=1e-12)


def test_factorised_chain(x64):
    """W_0 (I + h_1 A_1) .. (I + h_N A_N) in the paper's column convention; every product answers for its suffix."""
    network, context, query = drawn("no skip")
    block, w_0 = network.block(0), np.asarray(network.blocks[0].feed_forward.w_in[0])
    readings = suffix_readings(network, context, query)
    chain = factorised_descent(network.blocks[0].feed_forward.w_in[0], readings.mlp_in)
    rows = np.concatenate([context, query[None]])
    b = [oracle.readings(block, rows[i:], N - i)[1] for i in range(N + 1)]
    product = w_0.T
    for i in range(1, N + 1):
        product = product @ (np.eye(D) + np.outer(b[i - 1] - b[i], b[i]) / (b[i] @ b[i]))
        if i not in SOME:
            continue
        change = chain.after(i)
        np.testing.assert_allclose(w_0 + change.dense(), product.T, rtol=1e-10, atol=1e-12)
        patch = Patch({"w_in": LowRank(change.inputs[None], change.outputs[None])}, {})
        found = answer(network, context, query, tuple(range(i)), patch)
        np.testing.assert_allclose(found, oracle.run(block, rows)[-1], rtol=1e-11, atol=1e-12)
    one_shot = implicit_update(network, context, query).weights["w_in"].dense()[0]
    assert np.abs(product.T - w_0 - one_shot).max() > 0.1  # another matrix, with the same answer


def test_linear_attention_descends_on_least_squares(x64):
    """Read by W = [w_0, -1], linear attention's chain is gradient descent on the in-context squares (example 2.5)."""
    rng = np.random.default_rng(0)
    x, y, x_q, w_0 = rng.normal(size=(N, 3)), rng.normal(size=N), rng.normal(size=3), rng.normal(size=3)
    tokens, q = np.c_[x, y], np.r_[x_q, 0]
    # a_i: the query plus keys x, values (0, residual of w_0) of the tokens so far; the read-out w_0 x - slot.
    values = np.c_[np.zeros((N, 3)), w_0 @ x.T - y]
    a = np.stack([q + sum((x[j] @ x_q) * values[j] for j in range(i)) for i in range(N + 1)])
    w = np.r_[w_0, -1][:, None]
    steps = implicit_gradients(jnp.asarray(w), jnp.asarray(a))
    for i in range(N):
        one_pair_step = w_0 - (w_0 @ x[i] - y[i]) * x[i]  # rate 1 on 1/2 (w x - y)^2
        moved = -(a[0] @ steps.dense()[i])[0] / (a[0] @ a[0])
        np.testing.assert_allclose(moved, (one_pair_step - w_0) @ x_q, rtol=1e-11)
    del tokens


def test_chain_without_a_reading():
    zero = jnp.zeros((3, 4))
    with pytest.raises(BadInput, match="zero vector"):
        implicit_descent(jnp.ones((4, 2)), zero)
    with pytest.raises(BadInput, match="zero vector"):
        factorised_descent(jnp.ones((4, 2)), zero)
    stack = drawn("residual", n_blocks=2)
    with pytest.raises(BadInput, match="n_layers"):
        prefix_readings(*stack)


def test_low_rank_algebra(x64):
    rng = np.random.default_rng(0)
    a, b = (LowRank(jnp.asarray(rng.normal(size=(2, 3, 5))), jnp.asarray(rng.normal(size=(2, 3, 4)))) for _ in range(2))
    dense, other = (np.einsum("lrd,lrf->ldf", change.inputs, change.outputs) for change in (a, b))
    x = rng.normal(size=(2, 5))

    @jax.jit
    def found(a, b, x):
        return (
            a.dense(),
            (a - b).dense(),
            a.norm(),
            (a - a).norm(),
            a.inner(b),
            a.singular_values(),
            (a + a).rank(),
            a(x),
        )

    whole, difference, norm, nothing, inner, singular, rank, applied = found(a, b, x)
    np.testing.assert_allclose(whole, dense, atol=1e-14)
    np.testing.assert_allclose(difference, dense - other, atol=1e-14)
    np.testing.assert_allclose(norm, np.linalg.norm(dense, axis=(1, 2)), rtol=1e-13)
    np.testing.assert_allclose(nothing, 0, atol=1e-13)
    np.testing.assert_allclose(inner, (dense * other).sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(singular, np.linalg.svd(dense, compute_uv=False)[:, :3], rtol=1e-12)
    np.testing.assert_array_equal(rank, [3, 3])
    np.testing.assert_allclose(applied, np.einsum("ld,ldf->lf", x, dense), rtol=1e-12)


def test_parts_of_patches():
    change = LowRank(jnp.ones((1, 2)), jnp.ones((1, 3)))
    patch = Patch({"w_in": change, "w_out": change}, {"b_out": jnp.ones(3)})
    assert patch.residual == ("w_out", "b_out")
    left = patch.without(*patch.residual)
    assert set(left.weights) == {"w_in"} and not left.vectors
    zeroed = patch.zeroed(*patch.residual)
    assert jax.tree.structure(zeroed) == jax.tree.structure(patch)
    assert float(zeroed.vectors["b_out"].sum()) == float(zeroed.weights["w_out"].norm()) == 0
    np.testing.assert_allclose(zeroed.norm(), 6**0.5, rtol=1e-6)


def test_fine_tuning_is_gradient_descent_on_the_pairs(x64):
    rng = np.random.default_rng(3)
    network = random_network(contextual(3, 5, arrangement="no skip", activation="relu"), 0)
    prompt = Prompt(jnp.asarray(rng.normal(size=(5, 2))), jnp.asarray(rng.normal(size=(5, 1))))
    rate = 0.1
    found = fine_tune(InContextLearner(Concatenated(sign=1.0), network), prompt, rate)
    m, block = network.blocks[0].feed_forward, network.block(0)
    w, b, out, b_out = (np.asarray(leaf[0]) for leaf in (m.w_in, m.b_in, m.w_out, m.b_out))
    x, y = np.asarray(prompt.x), np.asarray(prompt.y)[:, 0]

    def forward(w, x):
        a = oracle.attend(block.mixer, np.r_[x, 0][None], 0)
        u = a @ w + b
        return a, u, np.maximum(u, 0) @ out[:, -1] + b_out[-1]

    for i in range(5):
        error = forward(w, x[-1])[2] - y[-1]
        np.testing.assert_allclose(found.losses[i], 0.5 * error**2, rtol=1e-10)
        if i < 4:
            a, u, value = forward(w, x[i])
            step = -rate * (value - y[i]) * np.outer(a, (u > 0) * out[:, -1])
            np.testing.assert_allclose(found.updates[i], step, rtol=1e-9, atol=1e-13)
            w = w + step


def test_least_squares_against_numpy(x64):
    rng = np.random.default_rng(0)
    solved = jax.jit(lambda a, b, ridge: least_squares(a, b, ridge).dense())
    for k in (3, 5, 20):
        a, b = rng.normal(size=(k, 5)), rng.normal(size=(k, 4))
        np.testing.assert_allclose(solved(a, b, 0.0), np.linalg.lstsq(a, b)[0], atol=1e-11)
        ridge = np.linalg.solve(a.T @ a + 0.3 * np.eye(5), a.T @ b)
        np.testing.assert_allclose(solved(a, b, 0.3), ridge, atol=1e-12)
    flat = solved(np.ones((3, 5)), np.ones((3, 4)), 0.0)  # of rank one: least norm, and no division by zero
    np.testing.assert_allclose(flat, np.full((5, 4), 0.2), atol=1e-14)
    np.testing.assert_array_equal(solved(np.zeros((3, 5)), np.ones((3, 4)), 0.0), np.zeros((5, 4)))


@pytest.mark.parametrize("k", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_thought_patch_through_the_last_matrix(x64, k):
    """What bypasses the MLP is fitted by its last matrix and bias: numpy's least squares with a column of ones."""
    network, context, _ = drawn("residual")
    block, queries = network.block(0), np.random.default_rng(7).normal(size=(k, D))
    patch = thought_patch(network, context, jnp.asarray(queries), carry="matrix")
    ends = [oracle.readings(block, np.r_[context, q[None]], N) for q in queries]
    n_1, n_0 = (
        np.stack(rows) for rows in ([e[1] for e in ends], [oracle.readings(block, q[None], 0)[1] for q in queries])
    )
    w_in, b_in = (np.asarray(getattr(network.blocks[0].feed_forward, name)[0]) for name in ("w_in", "b_in"))
    d_in = np.linalg.lstsq(n_0, (n_1 - n_0) @ w_in)[0]
    np.testing.assert_allclose(patch.weights["w_in"].dense()[0], d_in, atol=1e-10)
    hidden = oracle.ACTIVATIONS["gelu"](n_0 @ (w_in + d_in) + b_in)
    mean = hidden.mean(0)
    d_out = np.linalg.lstsq(hidden - mean, n_1 - n_0 - (n_1 - n_0).mean(0))[0]  # the carry is what the MLP reads
    np.testing.assert_allclose(patch.weights["w_out"].dense()[0], d_out, atol=1e-8)
    np.testing.assert_allclose(patch.vectors["b_out"][0], (n_1 - n_0).mean(0) - mean @ d_out, atol=1e-8)
    if k == 40:  # the same fit, written with a column of ones
        both = np.linalg.lstsq(np.c_[hidden, np.ones(k)], n_1 - n_0)[0]
        np.testing.assert_allclose(np.r_[patch.weights["w_out"].dense()[0], patch.vectors["b_out"]], both, atol=1e-8)
    else:  # fewer queries than channels: nothing is left of their errors
        found = answer(network, context, jnp.asarray(queries[0]), None, patch)
        np.testing.assert_allclose(found, oracle.run(block, np.r_[context, queries[:1]])[-1], rtol=1e-9)
    with pytest.raises(BadInput, match="did you mean 'matrix'"):
        thought_patch(network, context, jnp.asarray(queries), carry="matrices")


@pytest.mark.parametrize("kind", ["no skip", pytest.param("Llama", marks=pytest.mark.slow)])
def test_one_query_thought_patch_is_the_exact_patch(x64, kind):
    network, context, query = drawn(kind, n_blocks=2 if kind == "Llama" else 1)
    one = thought_patch(network, context, query[None])
    wanted = answer(network, context, query)
    np.testing.assert_allclose(answer(network, context, query, None, one), wanted, rtol=1e-10, atol=1e-11)
    if kind == "no skip":
        exact = implicit_update(network, context, query).weights["w_in"].dense()
        np.testing.assert_allclose(one.weights["w_in"].dense(), exact, rtol=1e-10, atol=1e-12)
        queries = jnp.asarray(np.random.default_rng(5).normal(size=(4, D)))
        vector = thought_vector(network, context, queries)  # the mean wanted change before the activation
        moves = []
        for q in np.asarray(queries):
            rows = np.concatenate([context, q[None]])
            moves.append(
                oracle.readings(network.block(0), rows, N)[1] - oracle.readings(network.block(0), rows[-1:], 0)[1]
            )
        np.testing.assert_allclose(
            vector.vectors["b_in"][0],
            np.mean(moves, 0) @ np.asarray(network.blocks[0].feed_forward.w_in[0]),
            rtol=1e-10,
        )
    else:
        with pytest.raises(BadInput, match="biases"):
            thought_vector(network, context, query[None])


def test_thought_patches_where_there_is_nothing_to_act_on(x64):
    """Queries that read zeros change nothing, and what is not finite is named; never a silent NaN."""
    network, context, query = drawn("Gemma")
    dead = eqx.tree_at(
        lambda net: net.blocks[0].feed_forward.w_out, network, network.blocks[0].feed_forward.w_out.at[..., 2].set(0)
    )
    patch = thought_patch(dead, context, query[None])
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(patch))
    assert patch.vectors["post_norm_scale"][0, 2] == 0
    with pytest.raises(BadInput, match="not finite"):
        thought_patch(dead, jnp.full_like(context, jnp.inf), query[None])


def test_updates_of_examples(x64):
    """Each example's update is the implicit update of its tokens; sizes and cosines follow from dense algebra."""
    network, context, query = drawn("pre-LN", n_blocks=2)
    owner = np.array([-1, 0, 0, 1, 1, 2, 2])
    found = example_updates(network, context, query, owner)
    dense = np.stack(
        [np.asarray(implicit_update(network, context, query, owner == e).weights["w_in"].dense()) for e in range(3)]
    )
    np.testing.assert_allclose(found.size, np.linalg.norm(dense, axis=(2, 3)).T, rtol=1e-10)
    weights = np.linalg.norm(np.asarray(network.blocks[0].feed_forward.w_in), axis=(1, 2))
    np.testing.assert_allclose(found.relative, np.asarray(found.size) / weights[:, None], rtol=1e-10)
    flat = dense.swapaxes(0, 1).reshape(2, 3, -1)
    flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.similarity, np.einsum("lep,lfp->lef", flat, flat), rtol=1e-9, atol=1e-12)
    same, different = class_similarity(found.similarity, np.array([0, 0, 1]))
    np.testing.assert_allclose(same, found.similarity[:, 0, 1], rtol=1e-12)
    np.testing.assert_allclose(different, (found.similarity[:, 0, 2] + found.similarity[:, 1, 2]) / 2, rtol=1e-12)
    # Appended one by one, the first example's update has the query and the token of no example to itself.
    first = example_updates(network, context, query, owner, order="appended").size[:, 0]
    alone = implicit_update(network, context[:3], query, (1, 2))
    np.testing.assert_allclose(first, alone.weights["w_in"].norm(), rtol=1e-10)
    for labels in ([0, 0, 0], [0, 1, 2]):
        with pytest.raises(BadInput, match="two classes"):
            class_similarity(found.similarity, np.array(labels))
    for bad in (owner[:3], np.array([0, 0, 2, 2, 2, 2, 2])):
        with pytest.raises(BadInput, match="examples"):
            example_updates(network, context, query, bad)


@pytest.mark.slow
def test_greedy_decoding_without_the_prompt():
    """Patches recomputed at every step give the same tokens; a fixed patch and none do not."""
    mixer = Attention(4, rotary=Rotary(100.0))
    model = random_network(contextual(16, 24, 2, "Gemma", mixer, n_tokens=13, norm=Norm("rms")), 1)
    prompt = jnp.asarray(np.random.default_rng(1).integers(0, 13, 12))
    full = generate(model, prompt, 10)
    patched = generate_without_prompt(model, prompt, 10)
    np.testing.assert_array_equal(full.tokens, patched.tokens)
    np.testing.assert_allclose(full.logits, patched.logits, rtol=1e-4, atol=1e-4)
    fixed = generate_without_prompt(model, prompt, 10, patch="first step")
    np.testing.assert_allclose(full.logits[0], fixed.logits[0], rtol=1e-4, atol=1e-4)  # the first step is its own
    bare = generate_without_prompt(model, prompt, 10, patch="none")
    assert int(agreeing_tokens(full, patched)) == 10
    assert int(agreeing_tokens(full, bare)) <= int(agreeing_tokens(full, fixed)) < 10
    # The full run is what repeated argmax over a plain forward pass gives.
    hidden = np.asarray(model.embedding.table, np.float64)[np.append(prompt, full.tokens)]
    for block in model.layers():
        hidden = oracle.run(block, hidden)
    rows = np.stack([oracle.normalise(model.final_norm, row) for row in hidden[11:-1]])
    logits = rows @ np.asarray(model.readout.map.weight, np.float64)
    np.testing.assert_array_equal(logits.argmax(-1), full.tokens)


def test_thought_errors_are_those_of_thought_patches(x64):
    """By number of calibration queries: the same as fitting on so many, and measuring with numpy."""
    network, _, _ = drawn("no skip")
    block, rng = network.block(0), np.random.default_rng(2)
    contexts, queries = rng.normal(size=(2, N, D)), rng.normal(size=(2, 8, D))  # five of them for calibration
    found = thought_errors(network, *map(jnp.asarray, (contexts, queries[:, :5], queries[:, 5:])), (2, 5), ridge=0.1)

    def answered(reading, change=0.0):
        return oracle.mlp(eqx.tree_at(lambda m: m.w_in, block.feed_forward, block.feed_forward.w_in + change), reading)

    fitted, tested, none = np.zeros(2), np.zeros(2), 0.0
    for context, each in zip(contexts, queries, strict=True):
        alone = np.stack([oracle.readings(block, q[None], 0)[1] for q in each])
        behind = np.stack([oracle.readings(block, np.r_[context, q[None]], N)[1] for q in each])
        none += np.mean([np.sum((answered(alone[j]) - answered(behind[j])) ** 2) for j in range(5, 8)]) / 2
        for i, k in enumerate((2, 5)):
            normal = alone[:k].T @ alone[:k] + 0.1 * np.eye(D)
            d_w = np.linalg.solve(normal, alone[:k].T @ (behind - alone)[:k]) @ block.feed_forward.w_in
            gaps = [np.sum((answered(a, d_w) - answered(b)) ** 2) for a, b in zip(alone, behind, strict=True)]
            fitted[i] += np.mean(gaps[:k]) / 2
            tested[i] += np.mean(gaps[5:]) / 2
    np.testing.assert_allclose(found.calibration, fitted, rtol=1e-9)
    np.testing.assert_allclose(found.test, tested, rtol=1e-9)
    np.testing.assert_allclose(found.none, none, rtol=1e-9)
    assert float(found.exact) < 1e-20
    with pytest.raises(BadInput, match="sizes must be between 1 and 5"):
        thought_errors(network, *map(jnp.asarray, (contexts, queries[:, :5], queries[:, 5:])), (6,))


def test_chains_and_thoughts_of_tokens(x64):
    """Integers are read by the network's own table: the same as the vectors there, and not of another network."""
    model = random_network(gpt2(10, D, 1, 2, 12, d_ff=F), 0)
    tokens = jnp.array([3, 1, 4, 1, 5, 9, 2, 6])
    readings = prefix_readings(model, tokens[:-1], tokens[-1])
    logits = eqx.filter_jit(model)(tokens)[0][-1]
    np.testing.assert_allclose(readings.answers[-1], logits, rtol=1e-11)
    one = thought_patch(model, tokens[:-1], tokens[-1:])  # of a single query, so that it is exact
    np.testing.assert_allclose(answer(model, tokens[:-1], tokens[-1], None, one), logits, rtol=1e-9)
    with pytest.raises(BadInput, match="query must be below 10"):
        thought_patch(model, tokens[:-1], jnp.array([10]))
    with pytest.raises(BadInput, match="context must be integers"):
        prefix_readings(model, jnp.ones((2, D)), jnp.ones(D))
