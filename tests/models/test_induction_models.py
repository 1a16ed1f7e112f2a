"""The attention stack against a loop in numpy float64; lean against full; interventions; layouts."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.analysis.circuits import circuit_mask
from meta_icl.errors import BadInput
from meta_icl.models import AttentionStack, Induction, Intervention, ItemIndex, LabelLayout, Learner, Window
from meta_icl.models.clamped import Clamped, ClampedLearner
from meta_icl.prompt import PlacedPrompt, Prompt, answer_batch, take_rows

N, DX, LABELS = 3, 5, 6
PLACES = 11


def prompts(n=4, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(n, N + 1, DX)), jnp.result_type(float))
    y, offset = rng.integers(0, LABELS, (n, N + 1)), rng.integers(0, PLACES - 2 * N, n)
    return PlacedPrompt(x, jnp.asarray(y), jnp.asarray(offset))


def norm(h, weights):
    h = h - h.mean(-1, keepdims=True)
    return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5) * weights[0] + weights[1]


def by_hand(stack, h):
    """The whole stack, head by head, query by query, in numpy."""
    c, w = (
        stack.config,
        {
            name: np.asarray(leaf, np.float64)
            for name, leaf in vars(stack).items()
            if name != "config" and leaf is not None
        },
    )
    patterns = np.zeros((c.n_layers, c.n_heads, len(h), len(h)))
    for layer in range(c.n_layers):
        x = norm(h, w["norm"][layer]) if c.norm == "pre" else h
        out = np.zeros_like(h)
        for head in range(c.n_heads):
            q, k, v = (x @ w[name][layer, head] for name in ("w_q", "w_k", "w_v"))
            if c.rotary:
                q, k = rotated(q), rotated(k)
            if c.smeared:
                s = 1 / (1 + np.exp(-w["smear"][layer, head]))
                k = np.stack([k[0]] + [s * k[j] + (1 - s) * k[j - 1] for j in range(1, len(k))])
            for i in range(len(h)):
                scores = np.array([q[i] @ k[j] for j in range(i + 1)]) / (np.sqrt(c.d_head) if c.scaled else 1)
                p = np.exp(scores - scores.max())
                patterns[layer, head, i, : i + 1] = p / p.sum()
                z = patterns[layer, head, i, : i + 1] @ v[: i + 1]
                if c.project:
                    out[i] += z @ w["w_o"][layer, head]
                else:
                    out[i, head * c.d_head : (head + 1) * c.d_head] += z
        h = h + out
        if c.norm == "post":
            h = norm(h, w["norm"][layer])
        if c.d_mlp:
            h = h + np.maximum(h @ w["w_in"][layer] + w["b_in"][layer], 0) @ w["w_out"][layer] + w["b_out"][layer]
    return (norm(h, w["norm_final"]) if c.norm == "pre" else h), patterns


def rotated(x):
    """Pairs of channels as complex numbers, turned."""
    pairs = x[:, ::2] + 1j * x[:, 1::2]
    k = x.shape[1]
    turned = pairs * np.exp(1j * np.arange(len(x))[:, None] / 10000 ** (np.arange(0, k, 2) / k))
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


STACKS = {
    "bare": {},
    "projected heads": {"project": True, "n_heads": 2},
    "slices": {"n_heads": 4, "n_layers": 3},
    "standard": {"norm": "post", "d_mlp": 12, "scaled": True, "project": True},
    "rotary": {"norm": "pre", "rotary": True, "scaled": True, "n_heads": 2, "project": True},
    "smeared": {"smeared": True, "n_layers": 1, "n_heads": 2},
}


@pytest.mark.parametrize("name", STACKS)
def test_stack_against_numpy(name, x64):
    stack = AttentionStack(d_model=8, init_std=0.5, **STACKS[name])(key=jax.random.key(1))
    if stack.smear is not None:
        stack = eqx.tree_at(lambda s: s.smear, stack, stack.smear + jnp.asarray([[0.3, -1.0]]))
    h = jnp.asarray(np.random.default_rng(0).normal(size=(7, 8)))
    out, sites = eqx.filter_jit(stack)(h)
    expected, patterns = by_hand(stack, np.asarray(h))
    np.testing.assert_allclose(out, expected, atol=1e-10)
    np.testing.assert_allclose(sites["pattern"], patterns, atol=1e-10)


ITEMS, WINDOW = ItemIndex(n_positions=PLACES), Window(n_positions=PLACES)
LEAN = (
    ({}, {}, ITEMS, "fcc"),
    ({}, {}, ITEMS, None),
    ({"project": True}, {"n_hidden": 1, "d_label": DX}, WINDOW, "scc"),
    ({"n_heads": 4, "project": True, "scaled": True}, {"fixed_labels": True}, WINDOW, None),
    ({"n_heads": 2}, {"classifier": "he", "n_hidden": 3}, ITEMS, "scc"),
)


@pytest.mark.parametrize(
    ("stack", "fields", "layout", "circuit"),
    [LEAN[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in LEAN[1:])],
)
def test_lean_equals_full(stack, fields, layout, circuit, x64):
    model = Induction(LABELS, AttentionStack(d_model=DX + PLACES, init_std=0.4, **stack), **fields)
    learner = Learner(model, layout)(key=jax.random.key(0))
    network = learner.network
    if circuit is not None:
        learner = ClampedLearner(learner, Clamped(Learner(model, layout), visible=partial(circuit_mask, circuit, N)))
    batch = prompts()

    @eqx.filter_jit
    @partial(eqx.filter_value_and_grad, has_aux=True)
    def loss(learner, batched):
        answers = learner.batched(batch) if batched else jax.vmap(learner)(batch)
        return jnp.sum(jnp.sin(answers)), answers

    (_, lean), lean_gradient = loss(learner, True)
    (_, full), full_gradient = loss(learner, False)
    assert network.lean is not None
    np.testing.assert_allclose(lean, full, atol=1e-10)
    for a, b in zip(jax.tree.leaves(lean_gradient), jax.tree.leaves(full_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    gradient = full_gradient if circuit is None else full_gradient.learner
    moved = float(jnp.abs(gradient.network.labels).max())
    assert (moved == 0) == fields.get("fixed_labels", False)


@pytest.mark.parametrize("layout", [LabelLayout(), ItemIndex(n_positions=PLACES), Window(n_positions=PLACES)])
def test_layouts_place_items_labels_and_positions(layout):
    prompt = jax.tree.map(lambda leaf: leaf[0], prompts())
    tokens = layout.encode(prompt.hidden())
    np.testing.assert_array_equal(tokens.labels, [-1, prompt.y[0], -1, prompt.y[1], -1, prompt.y[2], -1])
    np.testing.assert_array_equal(tokens.vectors[::2, :DX], prompt.x)
    assert not tokens.vectors[1::2, :DX].any()
    places = np.asarray(tokens.vectors[:, DX:])
    if isinstance(layout, Window):
        np.testing.assert_array_equal(places, np.eye(PLACES)[int(prompt.offset) + np.arange(2 * N + 1)])
        plain = layout.encode(Prompt(prompt.x, prompt.y))
        np.testing.assert_array_equal(plain.vectors[:, DX:], np.eye(PLACES)[: 2 * N + 1])
    elif isinstance(layout, ItemIndex):
        np.testing.assert_array_equal(places[::2], np.eye(PLACES)[: N + 1])
        assert not places[1::2].any()


def test_the_target_is_hidden_and_every_item_answers_causally():
    layout = Window(every_item=True, n_positions=PLACES)
    learner = Learner(Induction(LABELS, AttentionStack(d_model=DX + PLACES)), layout)(key=jax.random.key(0))
    batch, each = prompts(), eqx.filter_jit(eqx.filter_vmap(learner))
    answers = each(batch)
    assert answers.shape == (4, N + 1, LABELS)
    other = eqx.tree_at(lambda p: p.y, batch, batch.y.at[:, 2:].set((batch.y[:, 2:] + 1) % LABELS))
    np.testing.assert_allclose(each(other)[:, :3], answers[:, :3], atol=1e-6)
    assert np.abs(each(other)[:, 3] - answers[:, 3]).max() > 1e-4
    np.testing.assert_allclose(eqx.filter_jit(answer_batch)(learner, batch), answers[:, -1], atol=1e-6)
    cut = take_rows(batch, slice(0, 3))
    assert isinstance(cut, PlacedPrompt) and cut.y.shape == (4, 3)
    np.testing.assert_allclose(each(cut), answers[:, :3], atol=1e-6)


def test_a_clamped_pattern_passes_gradients_around_it():
    learner = Learner(Induction(LABELS, AttentionStack(d_model=DX + PLACES)), ItemIndex(n_positions=PLACES))
    learner = learner(key=jax.random.key(0))
    prompt = jax.tree.map(lambda leaf: leaf[0], prompts())
    eye = jnp.eye(2 * N + 1)[None, None]
    clamp = Intervention("pattern", jnp.asarray([True, False])[:, None, None, None], eye)

    def loss(learner):
        answer, trace = learner.trace(prompt, (clamp,))
        return answer.sum(), trace

    (_, trace), gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))(learner)
    np.testing.assert_array_equal(trace["pattern"][0, 0], np.eye(2 * N + 1))
    stack = gradient.network.stack
    assert not stack.w_q[0].any() and not stack.w_k[0].any()
    assert stack.w_v[0].any() and stack.w_q[1].any()


def test_bad_descriptions_are_refused():
    with pytest.raises(BadInput, match="n_heads"):
        AttentionStack(d_model=6, n_heads=4)
    with pytest.raises(BadInput, match="norm"):
        AttentionStack(norm="before")
    with pytest.raises(BadInput, match="d_label"):
        Induction(4, AttentionStack(d_model=6), d_label=7)
