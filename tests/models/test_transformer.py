"""The transformer against a float64 loop, its lean form, its trace and interventions, and the layouts."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.errors import BadInput
from meta_icl.models import (
    Concatenated,
    InContextLearner,
    Interleaved,
    Intervention,
    Learner,
    Lstm,
    Separate,
    Transformer,
    ablate_head,
)
from meta_icl.prompt import Prompt, answer_batch

KEY = jax.random.key(0)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def gelu(v: np.ndarray) -> np.ndarray:
    """The tanh form."""
    return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))


def normalised(row: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (row - row.mean()) / np.sqrt(row.var() + 1e-5) * weights[0] + weights[1]


def dense_pair(row: np.ndarray, mlp, index=...) -> np.ndarray:
    w_in, b_in, w_out, b_out = (
        np.asarray(leaf, np.float64)[index] for leaf in (mlp.w_in, mlp.b_in, mlp.w_out, mlp.b_out)
    )
    return gelu(row @ w_in + b_in) @ w_out + b_out


def reference(network, tokens: np.ndarray) -> np.ndarray:
    """The forward pass token by token and head by head, from the definition."""
    c, w = network.config, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.layers)
    residual = np.array(tokens, np.float64)
    if network.embed is not None:
        residual = residual @ np.asarray(network.embed)
    if network.input_mlp is not None:
        residual = np.stack([row + dense_pair(row, network.input_mlp) for row in residual])
    for index in range(c.n_layers):
        i, new = (0 if c.looped else index), residual.copy()
        h = residual
        if c.layer_norm:
            h = np.stack([normalised(row, w.norm_attention[i]) for row in residual])
        for t in range(len(h)):
            for head in range(c.n_heads):
                keys = range(t + 1) if c.causal else range(len(h) if c.query_is_key else len(h) - 1)
                scores = np.array([(h[t] @ w.w_q[i, head]) @ (h[s] @ w.w_k[i, head]) for s in keys])
                if c.kinds[index] == "linear":
                    weights = scores
                else:
                    soft = softmax(scores / np.sqrt(c.head_width))
                    weights = soft
                    if c.kinds[index] == "mixed":
                        # both branches of the mixture see the same scaled scores
                        share = 1 / (1 + np.exp(-10 * w.mix[i]))
                        weights = share * soft + (1 - share) * scores / np.sqrt(c.head_width)
                z = sum(weight * (h[s] @ w.w_v[i, head]) for weight, s in zip(weights, keys, strict=True))
                write = c.dampening * (z @ w.w_o[i, head])
                if c.update == "y":
                    new[t, -1] += write[-1]
                else:
                    new[t] += write
        if c.d_mlp:
            inner = [normalised(row, w.norm_mlp[i]) for row in new] if c.layer_norm else new
            new = np.stack(
                [row + c.dampening * dense_pair(into, w.mlp, i) for row, into in zip(new, inner, strict=True)]
            )
        residual = np.clip(new, -c.activation_clip, c.activation_clip) if c.activation_clip else new
    return residual if network.unembed is None else residual @ np.asarray(network.unembed)


CASES = [
    Transformer(5, init_scale=1.0),
    Transformer(5, n_layers=2, n_heads=2, d_head=3, init_scale=2.0),
    Transformer(5, n_layers=3, looped=True, dampening=0.7, init_scale=1.0),
    Transformer(5, n_layers=5, init_scale=2.0, activation_clip=0.8),
    Transformer(5, n_layers=2, update="y", query_is_key=True, init_scale=1.0),
    Transformer(5, attention="softmax", n_heads=2, init_scale=1.0),
    Transformer(5, n_layers=2, attention=("softmax", "linear"), init_scale=1.0),
    Transformer(5, attention="mixed", init_scale=1.0),
    Transformer(5, n_layers=2, attention="softmax", causal=True, query_is_key=True, init_scale=1.0),
    Transformer(5, n_layers=2, causal=True, query_is_key=True, init_scale=1.0),
    Transformer(5, n_layers=4, attention="softmax", layer_norm=True, d_mlp=7, dampening=0.8, init_scale=4.0),
    Transformer(4, d_in=5, d_out=5, input_mlp=6, d_mlp=3, init_scale=1.0),
]


@pytest.mark.parametrize("config", CASES, ids=str)
def test_full_form_is_the_definition(x64, config):
    rng = np.random.default_rng(0)
    # Norms and biases are drawn as well: at their initial ones and zeros a mistake in them would not show.
    network = jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.1 * rng.normal(size=leaf.shape), float), config(key=KEY))
    if network.layers.mix is not None:
        network = eqx.tree_at(lambda n: n.layers.mix, network, jnp.array([0.03]))
    tokens = rng.normal(size=(6, 5))
    output, trace = eqx.filter_jit(network)(jnp.asarray(tokens))
    np.testing.assert_allclose(output, reference(network, tokens), rtol=1e-10, atol=1e-12)
    assert trace["pattern"].shape == (config.n_layers, config.n_heads, 6, 6 if config.query_is_key else 5)
    if config.d_out is None:
        np.testing.assert_array_equal(trace["resid_post"][-1], output)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(Transformer(4, init_scale=1.0), marks=pytest.mark.slow),
        pytest.param(
            Transformer(4, n_layers=2, looped=True, n_heads=2, init_scale=1.0, dampening=0.5), marks=pytest.mark.slow
        ),
        pytest.param(
            Transformer(4, n_layers=3, query_is_key=True, init_scale=1.0, activation_clip=1.0), marks=pytest.mark.slow
        ),
        pytest.param(Transformer(6, d_in=4, input_mlp=7, init_scale=1.0, update="y"), marks=pytest.mark.slow),
        pytest.param(
            Transformer(6, n_layers=2, d_in=4, d_out=4, attention="softmax", n_heads=2, d_head=3, init_scale=2.0),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Transformer(
                9, n_layers=3, d_in=4, attention=("linear", "softmax", "linear"), init_scale=3.0, dampening=0.5
            ),
            marks=pytest.mark.slow,
        ),
        Transformer(4, n_layers=2, attention=("mixed", "linear"), init_scale=2.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_lean_form_equals_full_form_in_value_and_gradient(x64, config, n):
    learner = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), Learner(config)(key=KEY))
    rng = np.random.default_rng(1)
    prompts = Prompt(jnp.asarray(rng.normal(size=(7, n, 3)) / np.sqrt(n)), jnp.asarray(rng.normal(size=(7, n, 1))))

    def loss(learner, batched):
        answers = learner.batched(prompts) if batched else jax.vmap(learner)(prompts)
        return jnp.mean((answers - prompts.y[:, -1]) ** 2)

    lean, full = (eqx.filter_jit(eqx.filter_value_and_grad(loss))(learner, batched) for batched in (True, False))
    for a, b in zip(jax.tree.leaves(lean), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_initial_variance_is_the_stated_one():
    """`init_scale` / (n_layers fan_in): 0.002 / 11 for the published setting (0.00018)."""
    network = Transformer(11, n_heads=200)(key=KEY)
    assert np.var(network.layers.w_q) == pytest.approx(0.002 / 11, rel=0.03)
    assert np.var(network.layers.w_o) == pytest.approx(0.002 / (200 * 11), rel=0.03)


def test_ablating_a_head_is_removing_its_output():
    config = Transformer(5, n_layers=2, n_heads=2, attention="softmax", init_scale=1.0)
    network, tokens = config(key=KEY), jax.random.normal(KEY, (6, 5))
    run = eqx.filter_jit(lambda network, tokens, interventions=(): network(tokens, interventions))
    ablated, trace = run(network, tokens, [ablate_head("z", 1, 0, n_layers=2, n_heads=2)])
    without = eqx.tree_at(lambda n: n.layers.w_o, network, network.layers.w_o.at[1, 0].set(0))
    np.testing.assert_allclose(ablated, run(without, tokens)[0], rtol=1e-6)
    assert not np.any(trace["z"][1, 0])
    assert np.any(trace["z"][0, 0])


@pytest.mark.parametrize("n_layers", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_patching_a_trace_into_itself_and_into_another(n_layers):
    """A full patch of the last residual stream carries the whole answer over; scanned and unrolled layers alike."""
    network = Transformer(5, n_layers=n_layers, init_scale=float(n_layers))(key=KEY)
    a, b = jax.random.normal(KEY, (2, 6, 5))
    run = eqx.filter_jit(network)
    clean, trace = run(a)
    mask = jnp.zeros((n_layers, 1, 1), bool).at[-1].set(True)
    patched, _ = run(b, [Intervention("resid_post", mask, trace["resid_post"])])
    np.testing.assert_allclose(patched, clean, rtol=1e-6)
    same, _ = run(a, [Intervention("pattern", True, trace["pattern"])])
    np.testing.assert_allclose(same, clean, rtol=1e-6)


def test_interventions_let_gradients_through_what_is_left():
    network, tokens = Transformer(5, n_heads=2, init_scale=1.0)(key=KEY), jax.random.normal(KEY, (6, 5))
    cut = ablate_head("z", 0, 0, n_layers=1, n_heads=2)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda n: n(tokens, [cut])[0].sum()))(network)
    assert not np.any(gradient.layers.w_v[0, 0])
    assert np.any(gradient.layers.w_v[0, 1])


def test_unknown_site_is_one_line():
    network = Transformer(5)(key=KEY)
    with pytest.raises(BadInput, match="did you mean 'pattern'"):
        network(jnp.zeros((3, 5)), [Intervention("patern", True)])
    with pytest.raises(BadInput, match="trace site"):
        _ = network(jnp.zeros((3, 5)))[1]["nothing"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 0}, "d_model"),
        ({"d_model": 4, "attention": "linaer"}, "did you mean 'linear'"),
        ({"d_model": 4, "n_layers": 3, "attention": ("softmax", "linear")}, "3 kinds"),
        ({"d_model": 4, "causal": True}, "query_is_key"),
        ({"d_model": 4, "activation_clip": -1.0}, "activation_clip"),
    ],
)
def test_impossible_configurations_are_refused(fields, message):
    with pytest.raises(BadInput, match=message):
        Transformer(**fields)


@given(n=st.integers(1, 5), dx=st.integers(1, 4), dy=st.integers(1, 3), seed=st.integers(0, 100))
def test_layouts_hide_the_target_and_read_their_own_slot(n, dx, dy, seed):
    rng = np.random.default_rng(seed)
    x, y = (jnp.asarray(rng.normal(size=(n + 1, width)), jnp.float32) for width in (dx, dy))
    layouts = [Concatenated(), Interleaved(), Separate(d_position=4, own_slot=True)]
    if dy <= dx:
        layouts.append(Separate(d_position=4))

    @jax.jit
    def of_all(x, y):
        prompt = Prompt(x, y)
        tokens = [layout.encode(prompt) for layout in layouts]
        return tokens, [layout.read(t, prompt) for layout, t in zip(layouts, tokens, strict=True)]

    tokens, read = of_all(x, y)
    for mine, others in zip(tokens, of_all(x, y.at[-1].add(7.0))[0], strict=True):
        np.testing.assert_array_equal(mine, others)
    assert [r.shape for r in read] == [(n + 1, dy) if isinstance(layout, Interleaved) else (dy,) for layout in layouts]
    assert tokens[0].shape == (n + 1, dx + dy) and tokens[2].shape == (2 * n + 1, dx + dy + 4)


def test_separate_tokens_as_published():
    """x_1, (0, .., y_1), x_2, ..; the last channel of the code at the query is cos(20 / 10000^0.8) = 0.99992."""
    prompt = Prompt(jnp.ones((11, 10)), 3 * jnp.ones((11, 1)))
    tokens = Separate(d_position=10).encode(prompt)
    assert tokens.shape == (21, 20)
    np.testing.assert_array_equal(tokens[1, :10], [0] * 9 + [3])
    assert float(tokens[-1, -1]) == pytest.approx(0.99992, abs=1e-5)


def test_causal_every_position_prediction_sees_the_past_only():
    config = Transformer(4, n_layers=2, attention="softmax", causal=True, query_is_key=True, init_scale=1.0)
    learner = InContextLearner(Interleaved(), config(key=KEY))
    x, y = jax.random.normal(KEY, (6, 4)), jax.random.normal(jax.random.key(1), (6, 2))
    before = learner(Prompt(x, y))
    after = learner(Prompt(x.at[4:].add(1.0), y.at[3:].add(1.0)))
    np.testing.assert_allclose(before[:4], after[:4], rtol=1e-5, atol=1e-6)
    assert np.max(np.abs(before[4] - after[4])) > 1e-3


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_lstm_is_the_definition(x64, bidirectional, n_layers):
    network = Lstm(3, 4, n_layers, bidirectional)(key=KEY)
    network = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), network)
    tokens = np.random.default_rng(0).normal(size=(5, 3))

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    h = tokens
    for layer in network.cells:
        directions = []
        for direction, cell in enumerate(layer):
            w_x, w_h, bias = (np.asarray(w) for w in (cell.w_x, cell.w_h, cell.bias))
            state, memory, out = np.zeros(4), np.zeros(4), np.zeros((5, 4))
            for t in range(5)[:: -1 if direction else 1]:
                gates = h[t] @ w_x + state @ w_h + bias
                i, f, g, o = gates[:4], gates[4:8], gates[8:12], gates[12:]
                memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
                state = sigmoid(o) * np.tanh(memory)
                out[t] = state
            directions.append(out)
        h = np.concatenate(directions, axis=1)
    output, trace = eqx.filter_jit(network)(jnp.asarray(tokens))
    np.testing.assert_allclose(output, h @ np.asarray(network.w_out) + np.asarray(network.b_out), rtol=1e-10)
    assert trace["hidden"].shape == (n_layers, 5, 4 * (2 if bidirectional else 1))


def test_weights_under_a_changed_configuration():
    network, tokens = Transformer(5, init_scale=1.0)(key=KEY), jax.random.normal(KEY, (6, 5))
    twice, _ = network.with_config(n_layers=2, looped=True)(tokens)
    once, _ = network(tokens)
    np.testing.assert_allclose(twice, network(once)[0], rtol=1e-5)
    with pytest.raises(BadInput, match="shapes"):
        network.with_config(n_layers=2)


def test_batched_answers_hide_the_target():
    learner = Learner(Transformer(4, init_scale=1.0))(key=KEY)
    prompts = Prompt(jax.random.normal(KEY, (3, 5, 3)), jax.random.normal(KEY, (3, 5, 1)))
    moved = Prompt(prompts.x, prompts.y.at[:, -1].add(5.0))
    np.testing.assert_array_equal(answer_batch(learner, prompts), answer_batch(learner, moved))


def test_a_description_that_cannot_be_hashed_draws_as_well():
    """The same weights, by operations instead of a program."""

    @dataclass
    class Sized:
        sizes: list

        def __call__(self, *, key):
            return Transformer(*self.sizes)(key=key)

    plain, listed = (Learner(network)(key=KEY) for network in (Transformer(4), Sized([4])))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(listed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
