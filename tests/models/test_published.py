"""Every published network against its equations in numpy float64 (`oracles/numpy_networks.py`, `numpy_blocks.py`)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks as blocks
import numpy_networks as oracle
import pytest
from perturbed import drawn

from meta_icl.errors import BadInput
from meta_icl.models import (
    ARRANGEMENTS,
    Attention,
    LabelTokens,
    Rotary,
    Vectors,
    chan,
    contextual,
    garg,
    gpt2,
    kirsch,
    lstm,
    minegishi,
    mlp,
    olsson,
    raventos,
    reddy,
    singh,
    von_oswald,
)
from meta_icl.models import mixers as m

KEY = jax.random.key(0)
EXACT = {"rtol": 0, "atol": 1e-12}


run = eqx.filter_jit(lambda network, tokens: network(tokens))

VON_OSWALD = {
    "linear": ({}, {}),
    "two heads": ({"n_layers": 2, "n_heads": 2, "d_head": 3, "init_scale": 2.0}, {}),
    "looped": ({"n_layers": 3, "looped": True, "dampening": 0.7}, {"dampening": 0.7}),
    "clipped": ({"n_layers": 5, "init_scale": 2.0, "activation_clip": 0.8}, {"clip": 0.8}),
    "y only": ({"n_layers": 2, "update": "y", "query_is_key": True}, {"y_only": True, "query_is_key": True}),
    "softmax": ({"attention": "softmax", "n_heads": 2}, {"kinds": ("softmax",)}),
    "kinds": ({"n_layers": 2, "attention": ("softmax", "linear")}, {"kinds": ("softmax", "linear")}),
    "mixed": ({"attention": "mixed"}, {"kinds": ("mixed",)}),
    "causal": (
        {"n_layers": 2, "attention": "softmax", "causal": True, "query_is_key": True},
        {"kinds": ("softmax",), "causal": True},
    ),
    "causal, linear": ({"n_layers": 2, "causal": True, "query_is_key": True}, {"causal": True}),
    "layer norm": (
        {"n_layers": 2, "attention": "softmax", "layer_norm": True, "d_mlp": 7, "dampening": 0.8, "init_scale": 4.0},
        {"kinds": ("softmax",), "dampening": 0.8},
    ),
    "scanned": (
        {"n_layers": 7, "attention": "softmax", "d_in": 5, "d_out": 2, "input_mlp": 6, "d_mlp": 3},
        {"kinds": ("softmax",)},
    ),
}


@pytest.mark.variants("linear", "looped", "softmax", "mixed", "causal")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", VON_OSWALD)
def test_von_oswald(name):
    fields, options = VON_OSWALD[name]
    network = drawn(von_oswald(4 if "d_in" in fields else 5, **{"init_scale": 1.0, **fields}))
    tokens = 0.7 * np.random.default_rng(0).normal(size=(6, 5))
    output, trace = run(network, jnp.asarray(tokens))
    expected = oracle.von_oswald(network, tokens, **options)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)
    heads, keys = fields.get("n_heads", 1), 6 if fields.get("query_is_key") else 5
    assert trace["pattern"].shape == (network.n_layers, heads, 6, keys)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), network)
    rough = run(single, jnp.asarray(tokens, jnp.float32))[0]
    np.testing.assert_allclose(rough, expected, rtol=0, atol=2e-6 * max(1, np.abs(expected).max()))


STACKS = {
    "bare": ({}, {}),
    "slices": ({"n_heads": 4, "n_layers": 3}, {}),
    "standard": (
        {"norm": "post", "d_mlp": 12, "scaled": True, "project": True, "n_heads": 2},
        {"norm": "post", "scaled": True},
    ),
    "smeared": ({"smeared": True, "n_layers": 1, "n_heads": 2, "norm": "pre"}, {"norm": "pre"}),
}


def label_tokens(d, n_labels, t=7):
    """Items at even places, labels between; a label's vector is zero."""
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(t) % 2 == 1, rng.integers(0, n_labels, t), -1)
    return LabelTokens(jnp.asarray(rng.normal(size=(t, d)) * (labels < 0)[:, None]), jnp.asarray(labels))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", STACKS)
def test_minegishi(name):
    fields, options = STACKS[name]
    network = drawn(minegishi(6, 8, d_label=5, **{"n_layers": 2, **fields}))
    tokens = label_tokens(8, 6)
    h = np.array(tokens.vectors)
    for t in range(1, 7, 2):
        h[t, :5] += np.asarray(network.embedding.labels)[int(tokens.labels[t])]
    output, trace = run(network, tokens)
    h, patterns = oracle.attention_stack(network, h, **options)
    np.testing.assert_allclose(output, oracle.classifier(h, network.readout), **EXACT)
    np.testing.assert_allclose(trace["pattern"], patterns, **EXACT)


@pytest.mark.usefixtures("x64")
def test_reddy_and_singh():
    network, tokens = drawn(reddy(6, 64)), label_tokens(64, 6)
    h = np.array(tokens.vectors)
    h[1::2, :63] += np.asarray(network.embedding.labels)[np.asarray(tokens.labels)[1::2]]
    h, _ = oracle.attention_stack(network, h)
    np.testing.assert_allclose(run(network, tokens)[0], oracle.classifier(h, network.readout), rtol=0, atol=1e-11)
    assert [layer.bias is None or layer.bias.shape for layer in network.readout.layers] == [(1,)] * 3 + [True]

    network, tokens = drawn(singh(6, 5, 8, n_heads=2)), label_tokens(5, 6)
    h = np.zeros((7, 8))
    h[::2] = oracle.affine(np.asarray(tokens.vectors)[::2], network.embedding.encoder.map)
    h[1::2] = np.asarray(network.embedding.labels)[np.asarray(tokens.labels)[1::2]]
    h, _ = oracle.attention_stack(network, h, norm="pre", scaled=True, rotary=True)
    np.testing.assert_allclose(run(network, tokens)[0], oracle.classifier(h, network.readout), **EXACT)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["positions", "rotary"])
def test_olsson(kind):
    rotary = kind == "rotary"
    network = drawn(olsson(9, 8, 8, n_heads=2, rotary=rotary, smeared=rotary, d_mlp=6 if rotary else None))
    tokens = np.random.default_rng(0).integers(0, 9, 7)
    h = np.asarray(network.embedding.table)[tokens]
    h = h if rotary else h + np.asarray(network.positions.table)[:7]
    h, patterns = oracle.attention_stack(network, h, norm="pre", scaled=True, rotary=rotary)
    output, trace = run(network, jnp.asarray(tokens))
    np.testing.assert_allclose(output, h @ np.asarray(network.readout.map.weight), **EXACT)
    np.testing.assert_allclose(trace["pattern"], patterns, **EXACT)


GPT2 = {
    "garg": garg(4, 12, 2, 3, 9, read_init="torch", init_std=0.3),
    "raventos, scanned": raventos(4, 12, 7, 2, n_positions=9, d_out=3, init_std=0.2),
    "kirsch, elu": kirsch(4, 3, 12, 2, 2, 9, init_std=0.4, attention="elu"),
    "tied": gpt2(11, 12, 2, 2, 9, init_std=0.2),
    "untied": gpt2(11, 12, 1, 2, 9, tied=False, init_std=0.2),
}


@pytest.mark.variants("garg", "untied")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", GPT2)
def test_gpt2(name):
    network, rng = drawn(GPT2[name]), np.random.default_rng(1)
    words = hasattr(network.embedding, "table")
    tokens = rng.integers(0, 11, size=8) if words else rng.normal(size=(8, 4))
    start = np.asarray(network.embedding.table)[tokens] if words else oracle.affine(tokens, network.embedding.map)
    h = start + np.asarray(network.positions.table)[:8]
    h = oracle.gpt2_blocks(network, h, "elu" if "elu" in name else "softmax")
    read = h @ np.asarray(network.embedding.table).T if name == "tied" else oracle.affine(h, network.readout.map)
    output, trace = run(network, jnp.asarray(tokens))
    np.testing.assert_allclose(output, read, **EXACT)
    assert (np.asarray(trace["pattern"])[:, :, 1, 2:] == 0).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("body", ["transformer", "lstm"])
def test_chan(body):
    """Items and labels in turn with sines and cosines of base 30, before a GPT-2 or an LSTM."""
    network, tokens = drawn(chan(6, Vectors(3, bias=True), 8, 2, 2, body, 0.5)), label_tokens(3, 6)
    places = np.arange(7)[:, None] / 30 ** (np.arange(0, 8, 2) / 8)
    h = np.concatenate([np.sin(places), np.cos(places)], -1)
    h[::2] += oracle.affine(np.asarray(tokens.vectors)[::2], network.embedding.encoder.map)
    h[1::2] += np.asarray(network.embedding.labels)[np.asarray(tokens.labels)[1::2]]
    np.testing.assert_allclose(network.embedded(tokens), h, **EXACT)
    if body == "lstm":
        expected = oracle.lstm(network, h)
    else:
        expected = oracle.affine(oracle.gpt2_blocks(network, h), network.readout.map)
    np.testing.assert_allclose(run(network, tokens)[0], expected, **EXACT)


MIXERS = {
    "softmax": Attention(2),
    "grouped, rotary, biased": Attention(4, 4, 2, rotary=Rotary(100.0), biases=True),
    "linear": Attention(2, kind="linear", causal=False),
    "without query": Attention(causal=False, query_is_key=False),
    "recurrent": m.Lstm(5, project=True),
}
CONTEXTUAL = [(name, "softmax") for name in ARRANGEMENTS] + [("pre-LN", name) for name in MIXERS if name != "softmax"]


@pytest.mark.variants("residual-softmax", "Llama-softmax", "pre-LN-linear", "pre-LN-recurrent")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("arrangement", "mixer"), CONTEXTUAL)
def test_contextual(arrangement, mixer):
    network = drawn(contextual(8, 12, 2, arrangement, MIXERS[mixer]))
    rows = np.random.default_rng(1).normal(size=(6, 8))
    expected = rows
    for i in range(2):
        expected = blocks.run(network.block(i), expected)
    np.testing.assert_allclose(run(network, jnp.asarray(rows))[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_contextual_language_model():
    network = drawn(contextual(8, 12, 1, "Llama", MIXERS["grouped, rotary, biased"], n_tokens=9, n_positions=7))
    tokens = np.random.default_rng(1).integers(0, 9, 6)
    h = blocks.run(network.block(0), np.asarray(network.embedding.table)[tokens] + network.positions.table[:6])
    expected = np.stack([blocks.normalise(network.final_norm, row) for row in h]) @ network.readout.map.weight
    np.testing.assert_allclose(run(network, jnp.asarray(tokens))[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("n_layers", "bidirectional"), [(1, False), (3, False), (2, True)])
def test_lstm(n_layers, bidirectional):
    network = drawn(lstm(3, 4, n_layers, bidirectional))
    tokens = np.random.default_rng(0).normal(size=(5, 3))
    output, trace = run(network, jnp.asarray(tokens))
    np.testing.assert_allclose(output, oracle.lstm(network, tokens), **EXACT)
    assert trace["hidden"].shape == (n_layers, 5, 8 if bidirectional else 4)


@pytest.mark.usefixtures("x64")
def test_fast_weights_and_mlp():
    tokens = np.random.default_rng(0).normal(size=(5, 3))
    network = drawn(lstm(3, 6, d_out=2, fast_weights=2))
    np.testing.assert_allclose(run(network, jnp.asarray(tokens))[0], oracle.fast_weight_lstm(network, tokens), **EXACT)
    network = drawn(mlp(3, 6, d_out=2))
    assert [layer.weight.shape for layer in network.readout.layers] == [(3, 6), (6, 6), (6, 2)]
    np.testing.assert_allclose(
        run(network, jnp.asarray(tokens))[0], oracle.classifier(tokens, network.readout), **EXACT
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: von_oswald(0), "d_model must be"),
        (lambda: von_oswald(4, attention="linaer"), "did you mean 'linear'"),
        (lambda: von_oswald(4, 3, attention=("softmax", "linear")), "attention must be .*3 kinds"),
        (lambda: von_oswald(4, causal=True), "query_is_key"),
        (lambda: von_oswald(4, activation_clip=-1.0), "clip must be"),
        (lambda: minegishi(4, 6, n_heads=4)(key=KEY), "n_heads must be"),
        (lambda: minegishi(4, norm="before"), "norm must be"),
        (lambda: minegishi(4, 6, d_label=7)(key=KEY), "d_label must be"),
        (lambda: garg(2, 10, 1, 3)(key=KEY), "n_heads must be"),
        (lambda: garg(2, 10, 1, 2, init_std=0.0), "std must be"),
        (lambda: chan(4, Vectors(3), body="gru"), "body must be"),
        (lambda: contextual(4, 4, arrangement="preLN"), "did you mean 'pre-LN'"),
        (lambda: lstm(3, 6, bidirectional=True, fast_weights=2), "bidirectional must be"),
        (lambda: lstm(3, 6, fast_weights=4)(key=KEY), "n_heads must be"),
    ],
)
def test_bad_sizes_are_one_line(make, message):
    with pytest.raises(BadInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
