"""Blocks: a user's own mixers, rows that are not visible, changed weights."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturbed import drawn

from meta_icl.errors import BadInput
from meta_icl.models import (
    ARRANGEMENTS,
    Architecture,
    Attention,
    Block,
    Dense,
    Intervention,
    LowRank,
    Norm,
    Patch,
    Rotary,
    contextual,
)
from meta_icl.models import mixers as m

D, T = 8, 7


def rows(seed=1, t=T):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(t, D)))


class Averaging(eqx.Module):
    """A user's mixer of steps alone, without base class: the mean of all tokens so far."""

    weight: jax.Array

    def initial_state(self):
        return jnp.zeros(self.weight.shape[0]), jnp.zeros(())

    def step(self, state, x):
        total, n = state[0] + x, state[1] + 1
        return (total, n), total / n @ self.weight


@dataclass(frozen=True)
class Mean:
    """Describes `Averaging`."""

    def __call__(self, d_model, *, key):
        return Averaging(jax.random.normal(key, (d_model, d_model)))


class Rows(eqx.Module):
    """The same for all rows at once, with no weight and no step."""

    def __call__(self, x):
        return jnp.cumsum(x, axis=0) / jnp.arange(1, len(x) + 1)[:, None]


class Seeing(eqx.Module):
    """The same, which is told what is visible, and names what it has read."""

    def __call__(self, x, visible, tap):
        there = jnp.ones(len(x)) if visible is None else visible.astype(x.dtype)
        total = jnp.cumsum(there[:, None] * x, axis=0)
        return tap("mean", total / jnp.maximum(jnp.cumsum(there), 1)[:, None])


class Counting(eqx.Module):
    """Steps without any weight."""

    def initial_state(self):
        return jnp.zeros((), jnp.int32)

    def step(self, state, x):
        return state + 1, x * state


class Blind(eqx.Module):
    """Told what is visible, but not listened to."""

    def __call__(self, x, *, visible=None):
        return x if visible is None else x * visible[:, None]


def of(kind):
    return lambda d_model, *, key: kind()


def means(x):
    return np.cumsum(x, axis=0) / np.arange(1, len(x) + 1)[:, None]


@pytest.mark.usefixtures("x64")
def test_users_mixers():
    """By steps, by rows, told what is visible: each two layers deep, and once scanned, against running means."""
    x = rows()
    for mixer, n_layers in ((Mean(), 2), (of(Rows), 2), (of(Seeing), 6)):
        network = Architecture(D, n_layers, Block(mixer))(key=jax.random.key(0))
        expected = np.asarray(x)
        for block in network.layers():
            weight = getattr(block.mixer, "weight", np.eye(D))
            expected = expected + means(expected) @ np.asarray(weight)
        output, trace = network(x)
        np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)
        assert trace["mixer_out"].shape == (n_layers, T, D)
    np.testing.assert_allclose(trace["mean"][0], means(np.asarray(x)), rtol=1e-12)
    cut, _ = network(x, [Intervention("mean", True, 0.0)])
    np.testing.assert_array_equal(cut, x)
    mixer = Mean()(D, key=jax.random.key(0))
    assert m.state_size(mixer) == D + 1
    assert m.inner_flops(mixer, T, D) == T * (D + 1 + D + 2 * D * D)  # sums, a count, quotients, a product


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_users_mixers_step_and_hide_rows():
    x, seen = rows(), jnp.asarray([True, False, True, True, False, True, True])
    for mixer in (Mean(), of(Counting), m.Lstm(), Attention(2), m.DeltaNet(chunk_size=2)):
        network = Architecture(D, 2, Block(mixer, Dense(5)))(key=jax.random.key(0))
        np.testing.assert_allclose(network.decode(x), network(x)[0], rtol=0, atol=1e-10)
        hidden = network(x, visible=seen)[0][seen]
        np.testing.assert_allclose(hidden, network(x[seen])[0], rtol=0, atol=1e-10)
    network = Architecture(D, 1, Block(of(Seeing)))(key=jax.random.key(0))
    np.testing.assert_allclose(network(x, visible=seen)[0][seen], network(x[seen])[0], rtol=0, atol=1e-12)
    blind = Architecture(D, 1, Block(of(Blind)))(key=jax.random.key(0))
    np.testing.assert_array_equal(blind(x, visible=seen)[0], x * (1 + seen[:, None]))


VISIBLE = {
    "softmax": (Attention(2), 1),
    "not causal": (Attention(2, causal=False), 6),
    "without query": (Attention(causal=False, query_is_key=False), 2),
    "linear": (Attention(2, kind="linear"), 2),
    "elu, grouped": (Attention(4, kind="elu", n_groups=2), 2),
    "lstm": (m.Lstm(bidirectional=True), 2),
    "gated": (m.GatedDeltaNet(chunk_size=2, conv=2), 6),
    "titans": (m.Titans(chunk_size=1, depth=2), 2),
}


@pytest.mark.variants("softmax", "linear", "lstm")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", VISIBLE)
def test_hidden_rows_are_missing_ones(name):
    """The same as the shorter prompt, whatever the hidden rows hold."""
    mixer, n_layers = VISIBLE[name]
    network = drawn(Architecture(D, n_layers, Block(mixer, Dense(5), Norm("rms"))))
    seen = np.array([False, True, True, False, True, False, True])
    x = rows()

    @eqx.filter_jit
    def run(network, x):
        return network(x, visible=jnp.asarray(seen))[0][seen], network(x[seen])[0]

    hidden, shorter = run(network, x)
    np.testing.assert_allclose(hidden, shorter, rtol=0, atol=1e-10)
    loud = jnp.where(seen[:, None], x, 1e6)
    np.testing.assert_allclose(run(network, loud)[0], shorter, rtol=0, atol=1e-10)


def test_a_row_that_sees_nothing_reads_nothing():
    """Hidden context before a query that is no key, for a loss that stays differentiable."""
    network = Architecture(D, 1, Block(Attention(2, causal=False, query_is_key=False)))(key=jax.random.key(0))
    x, none = jnp.ones((3, D)), jnp.zeros(3, bool)
    np.testing.assert_array_equal(network(x, visible=none)[0], x)
    gradient = eqx.filter_grad(lambda n: n(x, visible=none)[0].sum())(network)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    alone = jnp.ones((1, D))
    np.testing.assert_array_equal(network(alone)[0], alone)


@pytest.mark.variants("residual", "pre-LN", "Llama")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_patches_are_changed_weights(arrangement):
    """Factors, biases and norm scales, against the weights with the dense changes added; three layers."""
    network, rng = drawn(contextual(D, 6, 3, arrangement, Attention(2, rotary=Rotary()))), np.random.default_rng(4)
    (stack,) = network.blocks
    half = stack.feed_forward
    matrices = [
        n for n in ("w_in", "w_gate", "w_up", "w_out", "router", "experts_up", "experts_out") if n in vars(half)
    ]

    def change(w):
        left, right = (jnp.asarray(0.1 * rng.normal(size=(*w.shape[:-2], 2, size))) for size in w.shape[-2:])
        return LowRank(left, right)

    vectors = {n: getattr(half, n) for n in ("b_in", "b_out") if getattr(half, n, None) is not None}
    if stack.norm_feed_forward is not None:
        vectors["norm_scale"] = stack.norm_feed_forward.scale
    if stack.post_norm_feed_forward is not None:
        vectors["post_norm_scale"] = stack.post_norm_feed_forward.scale
    moved = {name: jnp.asarray(0.1 * rng.normal(size=v.shape)) for name, v in vectors.items()}
    patch = Patch({name: change(getattr(half, name)) for name in matrices}, moved)

    changed = network
    for name in matrices:
        dense = jnp.einsum("...rd,...rf->...df", patch.weights[name].inputs, patch.weights[name].outputs)
        changed = eqx.tree_at(lambda n, name=name: getattr(n.blocks[0].feed_forward, name), changed,
                              getattr(half, name) + dense)  # fmt: skip
    places = {
        "b_in": lambda n: n.blocks[0].feed_forward.b_in,
        "b_out": lambda n: n.blocks[0].feed_forward.b_out,
        "norm_scale": lambda n: n.blocks[0].norm_feed_forward.scale,
        "post_norm_scale": lambda n: n.blocks[0].post_norm_feed_forward.scale,
    }
    for name, vector in vectors.items():
        changed = eqx.tree_at(places[name], changed, vector + moved[name])
    patched, plain, wanted = eqx.filter_jit(
        lambda networks, x, patch: (networks[0](x, patch=patch)[0], networks[0](x)[0], networks[1](x)[0])
    )((network, changed), rows(), patch)
    np.testing.assert_allclose(patched, wanted, rtol=1e-11, atol=1e-11)
    assert np.abs(np.asarray(patched - plain)).max() > 1e-3


def through(mixer, **options):
    """One block of a mixer on two rows."""
    return Architecture(D, 1, Block(mixer))(key=jax.random.key(0))(jnp.ones((2, D)), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Block(None), "mixer must be"),
        (lambda: Block(skip="parallel"), "skip must be"),
        (lambda: Block(norm_at="before"), "norm_at"),
        (lambda: Block(writes="y"), "writes"),
        (lambda: Block(clip=0.0), "clip must be"),
        (lambda: Dense(0), "d_ff must be"),
        (lambda: Dense(3, "gleu"), "did you mean 'gelu'"),
        (lambda: Norm("group"), "norm"),
        (lambda: Block()(D, key=jax.random.key(0), d_in=3), "d_in must be"),
        (lambda: through(of(Rows), visible=jnp.ones(2, bool)), "mixer must be one with steps, or that takes `visible`"),
        (lambda: through(lambda d_model, *, key: "none"), "mixer must be one that can be called"),
    ],
)
def test_bad_blocks_are_one_line(make, message):
    with pytest.raises(BadInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
