"""Lean forms equal the full form in value and gradient, whatever the structure of the network."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturbed import drawn

from meta_icl.models import (
    Architecture,
    Attention,
    Block,
    Dense,
    InContextLearner,
    Interleaved,
    ItemIndex,
    Items,
    LabelTokens,
    Learned,
    Linear,
    Norm,
    Rotary,
    Vectors,
    Window,
    garg,
    lstm,
    minegishi,
    reddy,
    restricted,
    von_oswald,
)
from meta_icl.models import mixers as m
from meta_icl.models.feedforward import gelu
from meta_icl.models.lean import folds, lean_form
from meta_icl.prompt import PlacedPrompt, Prompt

D, SHORT, LONG = 4, 5, 21
ALL = object()  # every entry may be used


def oswald(d=D, **fields):
    return von_oswald(d, **{"init_scale": 1.0, **fields})


def stack(block, n_layers=2, d=8, **fields):
    return Architecture(d, n_layers, block, Vectors(D), readout=Linear(3), **fields)


WIDE = Attention(2, 12)  # heads wider than the stream
# description, tokens, what may be used, whether products of weights are folded
CASES = {
    "linear": (oswald(), SHORT, ALL, True),
    "linear, long: sums G": (oswald(n_layers=2), LONG, ALL, True),
    "looped": (oswald(n_layers=3, looped=True, n_heads=2, dampening=0.5), LONG, ALL, True),
    "clipped": (oswald(n_layers=3, query_is_key=True, activation_clip=0.5), SHORT, ALL, True),
    "last channel": (oswald(6, n_layers=2, d_in=D, input_mlp=7, update="y"), SHORT, ALL, True),
    "kept rank": (oswald(9, n_layers=3, d_in=D, attention=("linear", "softmax", "linear"), dampening=0.5), LONG, ALL,
                  True),
    "embedded, narrow heads": (oswald(16, n_layers=2, d_in=D, d_out=D, attention="softmax", n_heads=2, d_head=2), SHORT,
                               ALL, True),
    "mixed": (oswald(n_layers=2, attention=("mixed", "linear"), init_scale=2.0), LONG, ALL, True),
    "layer norm": (oswald(n_layers=2, layer_norm=True, d_mlp=5), SHORT, ALL, False),
    "layer norm, restricted": (oswald(n_layers=2, layer_norm=True, attention="softmax"), SHORT, None, False),
    "without the query, restricted": (oswald(n_layers=2, attention="softmax"), SHORT, None, True),
    "one row": (oswald(n_layers=2), 2, ALL, True),
    "8 heads": (stack(Block(Attention(8))), SHORT, ALL, True),
    "8 heads, no map": (stack(Block(Attention(8, project=False)), 3), SHORT, None, True),
    "no map, one head": (stack(Block(Attention(project=False, scale=1.0)), 2), LONG, None, True),
    "not causal, wide": (stack(Block(Attention(2, 12, causal=False, kind="linear"), dampening=0.1)), LONG, ALL, True),
    "causal, linear": (stack(Block(Attention(2, 12, kind="linear"), dampening=0.1)), LONG, None, True),
    "wide stream, wide heads": (stack(Block(Attention(2, 20)), 3, 40), SHORT, None, True),
    "two blocks in turn": (stack((Block(WIDE), Block(Attention(4), clip=1.0)), 3), SHORT, None, True),
    "scanned in turn": (stack((Block(WIDE), Block(Attention(4), writes="last", dampening=0.7)), 7), SHORT, ALL, True),
    "learned positions": (stack(Block(WIDE), positions=Learned(SHORT)), SHORT, ALL, True),
    "grouped, rotary": (stack(Block(Attention(4, n_groups=2, rotary=Rotary()))), SHORT, None, False),
    "elu": (stack(Block(Attention(2, kind="elu"))), SHORT, ALL, False),
    "window, biases": (stack(Block(Attention(2, window=2, biases=True))), SHORT, ALL, False),
    "post norm": (stack(Block(Attention(2), Dense(5), Norm(), "post")), SHORT, None, False),
    "none, parallel": (stack((Block(skip="none"), Block(Attention(2), Dense(5), Norm(), skip="parallel"))), SHORT, ALL,
                       False),
    "decoder": (garg(D, 8, 2, 2, SHORT, 3), SHORT, ALL, False),
    "scanned decoder": (garg(D, 8, 7, 2, SHORT, 3, init_std=0.3), SHORT, ALL, False),
    "lstm": (lstm(D, 5, 2), SHORT, ALL, False),
    "recurrence last": (stack((Block(Attention(2)), Block(m.Lstm(), Dense(5), Norm())), 2), SHORT, ALL, False),
    "no layers": (stack(Block(), 0), SHORT, ALL, False),
}  # fmt: skip


def used(architecture, t):
    """Some of the entries of every layer; the first always, so that no row is left without any."""
    kept = np.random.default_rng(3).random((architecture.n_layers, t, t)) < 0.6
    kept[:, :, 0] = True
    return jnp.asarray(kept)


@pytest.mark.variants(
    "linear",
    "looped",
    "clipped",
    "last channel",
    "mixed",
    "layer norm, restricted",
    "8 heads",
    "causal, linear",
    "two blocks in turn",
    "grouped, rotary",
    "window, biases",
    "none, parallel",
    "decoder",
    "lstm",
)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_lean_is_full(name):
    architecture, t, which, folded = CASES[name]
    network = drawn(architecture)
    assert folds(network) == folded
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(3, t, D)) / np.sqrt(t))
    visible = None if which is ALL else used(architecture, t)
    # By hand: the query is no key, so the last column of what may be used has no place in the scores.
    keyed = visible is None or network.block(0).mixer.config.query_is_key
    cut = () if visible is None else (restricted(visible if keyed else visible[:, :, :-1]),)

    @eqx.filter_jit
    def both(network, rows):
        def loss(network, lean):
            out = lean_form(network)(network, rows, visible) if lean else full(network)
            return jnp.sum(jnp.sin(out)), out

        def full(network):
            return jax.vmap(lambda x: network(x, cut)[0][-1])(rows)

        return [eqx.filter_value_and_grad(loss, has_aux=True)(network, lean) for lean in (True, False)]

    ((_, lean), lean_gradient), ((_, full), full_gradient) = both(network, rows)
    assert lean.shape[0] == 3 and float(jnp.ptp(full)) > 1e-3
    np.testing.assert_allclose(lean, full, rtol=1e-10, atol=1e-12)
    for a, b in zip(jax.tree.leaves(lean_gradient), jax.tree.leaves(full_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


N, DX, LABELS, PLACES = 3, 5, 6, 11
CIRCUITS = {
    "Minegishi": (minegishi(LABELS, DX + PLACES), ItemIndex(n_positions=PLACES), True),
    "heads": (minegishi(LABELS, DX + PLACES, n_heads=4, project=True, fixed_labels=True), Window(n_positions=PLACES),
              True),
    "rows of labels, joined": (minegishi(LABELS, 40, n_layers=3, project=True), ItemIndex(n_positions=PLACES), False),
    "Reddy": (reddy(LABELS, 63), Window(n_positions=63 - DX), False),
}  # fmt: skip


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CIRCUITS)
def test_classifiers_through_a_layout(name):
    """Through the learner, whose layouts place items and labels; two of them under a mask."""
    architecture, layout, restrict = CIRCUITS[name]
    learner = InContextLearner(layout, drawn(architecture))
    rng = np.random.default_rng(0)
    y, offset = rng.integers(0, LABELS, (4, N + 1)), rng.integers(0, PLACES - 2 * N, 4)
    batch = PlacedPrompt(jnp.asarray(rng.normal(size=(4, N + 1, DX))), jnp.asarray(y), jnp.asarray(offset))
    visible = used(architecture, 2 * N + 1) if restrict else None
    cut = () if visible is None else (restricted(visible),)

    @partial(eqx.filter_value_and_grad, has_aux=True)
    def loss(learner, lean):
        full = jax.vmap(lambda prompt: learner.trace(prompt, cut)[0])
        answers = learner.batched(batch, visible) if lean else full(batch)
        return jnp.sum(jnp.sin(answers)), answers

    both = eqx.filter_jit(lambda learner: [loss(learner, lean) for lean in (True, False)])
    ((_, lean), lean_gradient), ((_, full), full_gradient) = both(learner)
    assert lean.shape == (4, LABELS)
    np.testing.assert_allclose(lean, full, atol=1e-10)
    for a, b in zip(jax.tree.leaves(lean_gradient), jax.tree.leaves(full_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    moved = float(jnp.abs(full_gradient.network.embedding.labels).max())
    assert (moved == 0) == learner.network.embedding.fixed_labels


@pytest.mark.usefixtures("x64")
def test_items_with_an_encoder_and_a_recurrence():
    network = drawn(Architecture(8, 2, Block(m.Lstm(), skip="none"), Items(4, Vectors(3, bias=True), label_std=1.0)))
    labels = jnp.asarray([-1, 2, -1, 0, -1])
    vectors = jax.random.normal(jax.random.key(0), (2, 5, 3)) * (labels < 0)[None, :, None]
    tokens = LabelTokens(vectors, jnp.stack([labels, labels]))
    lean = lean_form(network)(network, tokens, None)
    np.testing.assert_allclose(lean, jax.vmap(lambda one: network(one)[0][-1])(tokens), rtol=0, atol=1e-12)


EVERY = {
    "decoder": (garg(3, 8, 2, 2, 9), Interleaved()),
    "scanned decoder": (garg(3, 8, 7, 2, 9, init_std=0.3), Interleaved()),
    "recurrence": (lstm(4, 5, 2), Interleaved(own_slot=True)),
    "no layers": (Architecture(3, 0), Interleaved()),
    "grouped, rotary, window": (
        Architecture(8, 2, Block(Attention(4, n_groups=2, rotary=Rotary(), window=3)), Vectors(3), readout=Linear(1)),
        Interleaved(sign=-1.0),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", EVERY)
def test_rows_that_are_read_are_those_of_the_full_form(name):
    architecture, layout = EVERY[name]
    learner = InContextLearner(layout, drawn(architecture))
    rng = np.random.default_rng(0)
    batch = Prompt(*(jnp.asarray(rng.normal(size=(2, 5, d))) for d in (3, 1)))

    @partial(eqx.filter_value_and_grad, has_aux=True)
    def loss(learner, lean):
        answers = learner.batched(batch) if lean else jax.vmap(lambda prompt: learner.trace(prompt)[0])(batch)
        return jnp.sum(jnp.sin(answers)), answers

    both = eqx.filter_jit(lambda learner: [loss(learner, lean) for lean in (True, False)])
    ((_, lean), lean_gradient), ((_, full), full_gradient) = both(learner)
    assert lean.shape == (2, 5, 1)
    np.testing.assert_allclose(lean, full, atol=1e-12)
    for a, b in zip(jax.tree.leaves(lean_gradient), jax.tree.leaves(full_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_slope_of_gelu_is_that_of_its_formula():
    u = np.linspace(-6, 6, 241)
    formula = lambda v: 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))  # noqa: E731
    np.testing.assert_allclose(gelu(jnp.asarray(u)), formula(u), atol=1e-14)
    step = 1e-5
    quotient = (formula(u + step) - formula(u - step)) / (2 * step)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(jnp.asarray(u)), quotient, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_what_may_be_used_holds_where_every_item_is_read():
    learner = InContextLearner(ItemIndex(True, PLACES), drawn(minegishi(LABELS, DX + PLACES)))
    rng = np.random.default_rng(0)
    batch = Prompt(jnp.asarray(rng.normal(size=(2, N + 1, DX))), jnp.asarray(rng.integers(0, LABELS, (2, N + 1))))
    visible = jnp.broadcast_to(jnp.eye(2 * N + 1, dtype=bool), (2, 2 * N + 1, 2 * N + 1))  # a token sees itself alone
    answers = learner.batched(batch, visible)
    others = eqx.tree_at(lambda prompts: prompts.x, batch, batch.x.at[:, 0].add(1.0))
    np.testing.assert_array_equal(learner.batched(others, visible)[:, 1:], answers[:, 1:])
    assert float(jnp.abs(learner.batched(others)[:, 1:] - learner.batched(batch)[:, 1:]).max()) > 1e-3
