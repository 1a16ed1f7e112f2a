"""The decoder against GPT-2 written in numpy float64, its names, and its training at every position."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meta_icl.models.decoder_names import from_names, to_names
from scipy import special

from meta_icl.errors import BadInput
from meta_icl.models import Decoder, Interleaved, Intervention, Learner
from meta_icl.prompt import Prompt, answer_positions
from meta_icl.tasks import FunctionRegression, Linear, garg_curriculum
from meta_icl.training import Optimiser, every_position_logistic, every_position_mse, train

SMALL = Decoder(d_model=12, n_layers=2, n_heads=3, n_positions=9, d_in=4, read_init="torch", init_std=0.3)


def numpy_gpt2(names, tokens, n_layers, n_heads, prefix="transformer."):
    """The forward pass from named weights: a loop over queries and heads, no matrices of scores."""
    w = {name.removeprefix(prefix): np.asarray(a, np.float64) for name, a in names.items()}

    def norm(h, name):
        scale = np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return (h - h.mean(-1, keepdims=True)) / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    if "_read_in.weight" in w:
        h = tokens @ w["_read_in.weight"].T + w.get("_read_in.bias", 0)
    else:
        h = w["wte.weight"][tokens]
    h = h + w["wpe.weight"][: len(tokens)]
    size = h.shape[1] // n_heads
    for layer in range(n_layers):
        at = f"h.{layer}."
        q, k, v = np.split(norm(h, at + "ln_1") @ w[at + "attn.c_attn.weight"] + w[at + "attn.c_attn.bias"], 3, axis=1)
        mixed = np.zeros_like(h)
        for t in range(len(h)):
            for head in range(n_heads):
                part = slice(head * size, (head + 1) * size)
                weights = special.softmax(k[: t + 1, part] @ q[t, part] / np.sqrt(size))
                mixed[t, part] = weights @ v[: t + 1, part]
        h = h + mixed @ w[at + "attn.c_proj.weight"] + w[at + "attn.c_proj.bias"]
        u = norm(h, at + "ln_2") @ w[at + "mlp.c_fc.weight"] + w[at + "mlp.c_fc.bias"]
        u = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        h = h + u @ w[at + "mlp.c_proj.weight"] + w[at + "mlp.c_proj.bias"]
    h = norm(h, "ln_f")
    if "_read_out.weight" in w:
        return h @ w["_read_out.weight"].T + w.get("_read_out.bias", 0)
    return h @ w.get("lm_head.weight", w["wte.weight"]).T


def perturbed(network, seed=0):
    """Biases and norms that start at 0 and 1 become visible to a test."""
    leaves, structure = jax.tree.flatten(network)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [leaf + 0.1 * rng.normal(size=leaf.shape) for leaf in leaves])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("config", "integers"),
    [
        (SMALL, False),
        pytest.param(  # scanned
            *(Decoder(12, 7, 2, 9, d_in=4, d_out=3, read_bias=False, init_std=0.2), False), marks=pytest.mark.slow
        ),
        (Decoder(12, 2, 2, 9, n_tokens=11, d_out=None, init_std=0.2), True),  # a language model
    ],
    ids=["vectors", "scanned", "tokens"],
)
def test_forward_is_gpt2(config, integers):
    network = perturbed(eqx.filter_jit(config)(key=jax.random.key(0)))
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 11, size=8) if integers else rng.normal(size=(8, 4))
    output, trace = jax.jit(lambda net, x: net(x))(network, jnp.asarray(tokens))
    expected = numpy_gpt2(to_names(network), tokens, config.n_layers, config.n_heads)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-10)
    assert trace["pattern"].shape == (config.n_layers, config.n_heads, 8, 8)


@pytest.mark.slow
def test_scanned_and_written_out_have_equal_gradients(monkeypatch):
    monkeypatch.setattr("meta_icl.models.decoder.SCAN_FROM", 3)
    config = Decoder(8, 3, 2, 5, d_in=3, init_std=0.3)
    network, tokens = config(key=jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 3))

    def gradient():
        return jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(network(x)[0]))))(tokens)

    scanned = gradient()
    monkeypatch.setattr("meta_icl.models.decoder.SCAN_FROM", 99)
    np.testing.assert_allclose(gradient(), scanned, rtol=1e-4, atol=1e-6)


def test_names_go_both_ways_and_are_gpt2s():
    network = perturbed(SMALL(key=jax.random.key(0)))
    names = to_names(network, "_backbone.")
    assert names["_backbone.h.1.attn.c_attn.weight"].shape == (12, 36)
    assert names["_read_in.weight"].shape == (12, 4)
    assert len(names) == 2 * 12 + 3 + 4
    again = from_names(SMALL, names, "_backbone.")
    for a, b in zip(jax.tree.leaves(network), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), b)
    del names["_backbone.ln_f.bias"]
    with pytest.raises(BadInput, match=r"ln_f\.bias"):
        from_names(SMALL, names, "_backbone.")
    names["_backbone.ln_f.bias"] = np.zeros(13)
    with pytest.raises(BadInput, match=r"ln_f\.bias.*shape"):
        from_names(SMALL, names, "_backbone.")


def test_interventions_clamp_and_later_rows_follow():
    network = SMALL(key=jax.random.key(0))
    tokens = jax.random.normal(jax.random.key(1), (6, 4))
    run = jax.jit(lambda interventions: network(tokens, interventions))
    nothing = Intervention(
        "resid_post", jnp.zeros((2, 6, 1), bool), 1.5
    )  # the program of `patched`, so equal to the bit
    before, trace = run((nothing,))
    patched = Intervention("resid_post", jnp.zeros((2, 6, 1), bool).at[0, 3].set(True), 1.5)
    after, changed = run((patched,))
    assert (changed["resid_post"][0, 3] == 1.5).all()
    np.testing.assert_array_equal(after[:3], before[:3])
    assert (after[3:] != before[3:]).any(axis=1).all()
    np.testing.assert_allclose(run(())[0], before, rtol=1e-5, atol=1e-6)
    assert (trace["pattern"][:, :, 1, 2:] == 0).all()


def test_layouts_and_positions():
    learner = Learner(SMALL, layout=Interleaved())(key=jax.random.key(0))
    prompts = FunctionRegression(Linear(4), n_context=4).sample_batch(3, key=jax.random.key(2))
    run = jax.jit(lambda prompts: answer_positions(learner, prompts))
    answers = run(prompts)
    assert answers.shape == (3, 5, 1)
    other = Prompt(prompts.x.at[:, 3:].set(0.3), prompts.y.at[:, 2:].set(-1.0))
    np.testing.assert_array_equal(run(other)[:, :3], answers[:, :3])
    one = jax.tree.map(lambda leaf: leaf[0], prompts)
    tokens = np.asarray(Interleaved(own_slot=True).encode(one))
    np.testing.assert_array_equal(tokens[::2, 1:], one.x)
    np.testing.assert_array_equal(tokens[1::2, :1], one.y[:-1])
    assert (tokens[::2, 0] == 0).all()
    assert (tokens[1::2, 1:] == 0).all()


def test_objectives_average_over_the_positions_that_count():
    """Against numpy on the same batch; with a curriculum only the rows it has reached count."""
    learner = Learner(Decoder(8, 1, 1, 33, d_in=8, init_std=0.3), layout=Interleaved())(key=jax.random.key(0))
    task = FunctionRegression(Linear(8), n_context=16, curriculum=garg_curriculum(8, every=10))
    key = jax.random.key(3)
    for step, points in ((0, 11), (10, 13), (1000, 17)):
        now = task.at_step(jnp.asarray(step))
        prompts = now.sample_batch(6, key=key)
        answers, y = (np.asarray(a, np.float64) for a in (answer_positions(learner, prompts), prompts.y))
        expected = ((answers - y)[:, :points] ** 2).mean()
        np.testing.assert_allclose(every_position_mse(learner, now, 6, key), expected, rtol=1e-5)
        logistic = np.log1p(np.exp(-y * answers))[:, :points].mean()
        np.testing.assert_allclose(every_position_logistic(learner, now, 6, key), logistic, rtol=1e-5)


@pytest.mark.slow
def test_training_follows_the_curriculum_and_learns():
    """A decoder of one block learns that y = 2 x_1 from weights alone, through the loop and a curriculum."""
    task = FunctionRegression(Linear(5), n_context=10, curriculum=garg_curriculum(5)).with_pool(
        1, key=jax.random.key(7)
    )
    trained = train(
        task,
        Learner(Decoder(8, 1, 1, 22, d_in=5, init_std=0.3), layout=Interleaved()),
        steps=150,
        batch=8,
        key=jax.random.key(0),
        objective=every_position_mse,
        optimiser=Optimiser(learning_rate=1e-2),
        record=75,
    )
    zero = float(jnp.sum(jnp.square(task.pool)))
    assert trained.history["loss"][-1, 0] < 0.1 * zero


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"d_model": 10, "n_heads": 3, "d_in": 2}, "n_heads"),
        ({"d_in": 2, "n_tokens": 5}, "d_in"),
        ({}, "d_in"),
        ({"d_in": 2, "d_out": None}, "d_out"),
        ({"d_in": 2, "init_std": 0.0}, "init_std"),
    ],
)
def test_bad_descriptions(fields, field):
    with pytest.raises(BadInput, match=f"^{field} must be"):
        Decoder(**{"d_model": 8, "n_layers": 1, "n_heads": 2, "n_positions": 4} | fields)


@pytest.mark.slow
def test_hugging_face_gives_the_same_logits():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    network = perturbed(Decoder(24, 2, 3, 16, n_tokens=19, d_out=None, init_std=0.2)(key=jax.random.key(0)))
    config = transformers.GPT2Config(vocab_size=19, n_positions=16, n_embd=24, n_layer=2, n_head=3)
    model = transformers.GPT2LMHeadModel(config).eval()
    named = {name: torch.tensor(np.array(a, np.float32)) for name, a in to_names(network).items()}
    missing, unexpected = model.load_state_dict(named, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}  # tied to the embedding
    tokens = np.arange(12) % 19
    with torch.no_grad():
        expected = model(torch.tensor(tokens)[None]).logits[0].numpy()
    np.testing.assert_allclose(network(jnp.asarray(tokens))[0], expected, atol=1e-5)
