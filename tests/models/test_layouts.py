"""Layouts: where items, targets, labels and positions stand, what is read back, and that no target shows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.models import (
    Concatenated,
    InContextLearner,
    Interleaved,
    ItemIndex,
    LabelLayout,
    Learner,
    Separate,
    Shifted,
    Window,
    chan,
    garg,
    kirsch,
    lstm,
    minegishi,
    mlp,
    olsson,
    von_oswald,
)
from meta_icl.models.embeddings import Items, Vectors
from meta_icl.models.layouts import TokenLayout
from meta_icl.prompt import PlacedPrompt, Prompt, answer_batch, answer_positions, answer_tokens, take_rows
from meta_icl.tasks import Overwrite

KEY = jax.random.key(0)
N, DX, LABELS, PLACES = 3, 5, 6, 11


def placed_prompts(n=4, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(n, N + 1, DX)), jnp.result_type(float))
    y, offset = rng.integers(0, LABELS, (n, N + 1)), rng.integers(0, PLACES - 2 * N, n)
    return PlacedPrompt(x, jnp.asarray(y), jnp.asarray(offset))


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


def test_interleaved_pairs():
    one = Prompt(jax.random.normal(KEY, (5, 4)), jax.random.normal(jax.random.key(1), (5, 1)))
    tokens = np.asarray(Interleaved(own_slot=True).encode(one))
    np.testing.assert_array_equal(tokens[::2, 1:], one.x)
    np.testing.assert_array_equal(tokens[1::2, :1], one.y[:-1])
    assert (tokens[::2, 0] == 0).all() and (tokens[1::2, 1:] == 0).all()


@pytest.mark.parametrize("layout", [LabelLayout(), ItemIndex(n_positions=PLACES), Window(n_positions=PLACES)])
def test_items_labels_and_places(layout):
    prompt = jax.tree.map(lambda leaf: leaf[0], placed_prompts())
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
        np.testing.assert_array_equal(places[::2], np.eye(N + 1))  # what is left out is zero
        assert not places[1::2].any()


def test_vectors_are_as_wide_as_what_reads_them():
    prompt = jax.tree.map(lambda leaf: leaf[0], placed_prompts())
    tokens = ItemIndex(n_positions=PLACES).encode(prompt)
    places = np.where(np.arange(2 * N + 1)[:, None] % 2 == 0, np.repeat(np.eye(PLACES), 2, axis=0)[: 2 * N + 1], 0)
    whole = tokens._replace(vectors=jnp.concatenate([tokens.vectors[:, :DX], jnp.asarray(places, "float32")], axis=1))
    for encoder in (None, Vectors(DX + PLACES)):
        embedding = Items(LABELS, encoder)(DX + PLACES, key=KEY)
        np.testing.assert_array_equal(embedding(tokens), embedding(whole))
        for i in (1, 2):
            one = [embedding.one(jax.tree.map(lambda leaf, i=i: leaf[i], some)) for some in (tokens, whole)]
            np.testing.assert_array_equal(*one)


def test_every_item_answers_from_its_past():
    learner = Learner(minegishi(LABELS, DX + PLACES), Window(every_item=True, n_positions=PLACES))(key=KEY)
    batch, each = placed_prompts(), eqx.filter_jit(eqx.filter_vmap(learner))
    answers = each(batch)
    assert answers.shape == (4, N + 1, LABELS)
    other = eqx.tree_at(lambda p: p.y, batch, batch.y.at[:, 2:].set((batch.y[:, 2:] + 1) % LABELS))
    changed = each(other)
    np.testing.assert_allclose(changed[:, :3], answers[:, :3], atol=1e-6)
    assert np.abs(changed[:, 3] - answers[:, 3]).max() > 1e-4
    np.testing.assert_allclose(eqx.filter_jit(answer_batch)(learner, batch), answers[:, -1], atol=1e-6)
    cut = take_rows(batch, slice(0, 3))
    assert isinstance(cut, PlacedPrompt) and cut.y.shape == (4, 3)
    np.testing.assert_allclose(each(cut), answers[:, :3], atol=1e-6)


WIDTH = DX + LABELS
SHIFTED = {
    "decoder": kirsch(WIDTH, LABELS, 8, 2, 2, 7, init_std=0.4),
    "kernel": kirsch(WIDTH, LABELS, 8, 1, 2, 7, init_std=0.4, attention="elu"),
    "lstm": lstm(WIDTH, 6, d_out=LABELS),
    "fast": lstm(WIDTH, 6, d_out=LABELS, fast_weights=2),
    "mlp": mlp(WIDTH, 6, d_out=LABELS),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SHIFTED)
def test_shifted_labels_show_no_row_its_own_or_what_follows(name):
    layout, t = Shifted(LABELS), 7
    answer = eqx.filter_jit(Learner(SHIFTED[name], layout)(key=KEY))
    rng = np.random.default_rng(0)
    asked = Prompt(jnp.asarray(rng.normal(size=(t, DX))), jnp.asarray(rng.integers(0, LABELS, t)))
    tokens = np.asarray(layout.encode(asked))
    np.testing.assert_array_equal(tokens[:, :DX], asked.x)
    np.testing.assert_array_equal(tokens[1:, DX:], np.eye(LABELS)[asked.y[:-1]])
    assert tokens.shape == (t, WIDTH) and not tokens[0, DX:].any()
    before = np.asarray(answer(asked))
    assert before.shape == (t, LABELS)
    after = np.asarray(answer(Prompt(asked.x.at[5:].add(1.0), asked.y.at[4:].set((asked.y[4:] + 1) % LABELS))))
    np.testing.assert_allclose(after[:5], before[:5], atol=1e-12)
    assert (after[5:] != before[5:]).any(axis=1).all()
    last = np.asarray(answer(Prompt(asked.x, asked.y.at[-1].set((asked.y[-1] + 1) % LABELS))))
    np.testing.assert_array_equal(last, before)  # the query's label is in no token
    seen = np.asarray(answer(Prompt(asked.x, asked.y.at[0].set((asked.y[0] + 1) % LABELS)))) != before
    assert not seen[0].any() and seen[1].any()  # the token of row 1 holds the label of row 0
    assert seen[2:].any() == (name != "mlp")  # without memory it is forgotten at once


@pytest.mark.parametrize("body", ["transformer", "lstm"])
def test_a_classifier_never_reads_the_querys_label(body):
    network = chan(LABELS, Vectors(DX, bias=True), 8, 2, 2, body, label_std=0.5, init_std=0.4)
    learner = Learner(network, LabelLayout())(key=KEY)
    placed, batched = placed_prompts(), eqx.filter_jit(learner.batched)
    batch = Prompt(placed.x, placed.y)
    answers = batched(batch)
    assert answers.shape == (4, LABELS)
    for row, same in ((-1, True), (-2, False)):
        other = batched(Prompt(batch.x, batch.y.at[:, row].set((batch.y[:, row] + 1) % LABELS)))
        assert (np.abs(np.asarray(other - answers)).max(1) == 0).all() == same


def test_predictors_hide_targets_and_answer_at_every_position():
    learner = Learner(von_oswald(4, init_scale=1.0))(key=KEY)
    prompts = Prompt(jax.random.normal(KEY, (3, 5, 3)), jax.random.normal(KEY, (3, 5, 1)))
    moved = Prompt(prompts.x, prompts.y.at[:, -1].add(5.0))
    np.testing.assert_array_equal(answer_batch(learner, prompts), answer_batch(learner, moved))

    learner = InContextLearner(Interleaved(), garg(3, 8, 1, 2, 9, init_std=0.3)(key=KEY))
    run = jax.jit(lambda prompts: answer_positions(learner, prompts))
    answers = run(prompts)
    assert answers.shape == (3, 5, 1)
    other = Prompt(prompts.x.at[:, 3:].set(0.3), prompts.y.at[:, 2:].set(-1.0))
    np.testing.assert_allclose(run(other)[:, :3], answers[:, :3], rtol=1e-5, atol=1e-6)

    tokens = Overwrite(vocabulary=16, n_keys=2, n_writes=1).sample_batch(3, key=KEY)
    t = tokens.tokens.shape[1]
    reader = Learner(olsson(16, t, 8, 1), TokenLayout())(key=KEY)
    assert answer_tokens(reader, tokens).shape == (3, t, 16)
