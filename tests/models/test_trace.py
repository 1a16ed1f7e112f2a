"""Traces and interventions, scanned, in turn or looped: the same numbers as layer by layer by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturbed import drawn

from meta_icl.errors import BadInput
from meta_icl.models import (
    Architecture,
    Attention,
    Block,
    Dense,
    Intervention,
    Norm,
    Rotary,
    ablate_head,
    lstm,
    restricted,
    von_oswald,
)
from meta_icl.models import mixers as m
from meta_icl.models.trace import Tap

D, T = 8, 6
ONE = Block(Attention(2, rotary=Rotary()), Dense(5), Norm())
TURNS = (Block(Attention(2, project=False)), Block(m.Lstm(), Dense(5), Norm("rms")))
NETWORKS = {
    "scanned": Architecture(D, 6, ONE),
    "in turn": Architecture(D, 6, TURNS),
    "in turn, with a rest": Architecture(D, 7, TURNS),
    "looped": Architecture(D, 6, ONE, looped=True),
    "looped in turn": Architecture(D, 7, TURNS, looped=True),
    "written out": Architecture(D, 3, TURNS),
}
EVERY = ("resid_pre", "mixer_in", "mixer_out", "resid_mid", "resid_post")


def tokens(seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(T, D)))


def cuts(n_layers):
    """One of every kind: a head without answer, a clamped row, an unseen row, a value of its own for every layer."""
    rng = np.random.default_rng(2)
    row = jnp.zeros((n_layers, T, 1), bool).at[n_layers - 2, 2].set(True)
    seen = jnp.asarray(rng.random((n_layers, T, T)) < 0.7) | jnp.eye(T, dtype=bool)[None]
    own = jnp.asarray(rng.normal(size=(n_layers, T, D)))
    return (
        ablate_head("z", 2, 1, n_layers=n_layers, n_heads=2),
        Intervention("mixer_out", row, 0.5),
        restricted(seen),
        Intervention("resid_post", jnp.arange(T)[:, None] == 1, own),
    )


def by_hand(network, h, interventions):
    """One layer after the other, each with its own part of every mask and value."""
    found = []
    for index in range(network.n_layers):
        parts = [
            Intervention(cut.site, *(a[min(index, len(a) - 1)] if a.ndim > 2 else a for a in (cut.mask, cut.value)))
            for cut in interventions
        ]
        tap = Tap(parts)
        h = network.block(index)(h, tap=tap)
        found.append(tap.sites)
    return h, found


@pytest.mark.variants("in turn, with a rest", "looped")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_those_by_hand_under_interventions(name):
    network = drawn(NETWORKS[name])
    n = network.n_layers
    attending = tuple(range(n)) if len(network.config.blocks) == 1 else tuple(range(0, n, 2))

    @eqx.filter_jit
    def run(network, h):
        return [(network(h, cut), by_hand(network, h, cut)) for cut in ((), cuts(n))]

    outputs = []
    for (output, trace), (expected, layers) in run(network, tokens()):
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-12)
        outputs.append(np.asarray(output))
        for site in trace:
            having = [i for i, found in enumerate(layers) if site in found]
            assert trace.layers_of(site) == tuple(having)
            np.testing.assert_allclose(trace[site], np.stack([layers[i][site] for i in having]), rtol=0, atol=1e-12)
        assert all(trace[site].shape == (n, T, D) for site in EVERY)
        assert trace.layers_of("pattern") == attending and trace["pattern"].shape == (len(attending), 2, T, T)
        np.testing.assert_array_equal(trace["resid_post"][:-1], trace["resid_pre"][1:])
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    assert not trace["z"][list(attending).index(2), 1].any()
    assert (np.asarray(trace["mixer_out"])[n - 2, 2] == 0.5).all()
    np.testing.assert_array_equal(trace["resid_post"][:, 1], cuts(n)[3].value[:, 1])
    seen = np.asarray(~cuts(n)[2].mask[:, 0])[list(attending)]
    assert not np.asarray(trace["pattern"])[~np.broadcast_to(seen[:, None], trace["pattern"].shape)].any()


@pytest.mark.usefixtures("x64")
def test_gradients_pass_around_what_is_cut():
    """Scanned layers: those of what is left, and of the value, by finite differences; none of what is replaced."""
    network, h = drawn(NETWORKS["scanned"]), tokens()
    clamp = Intervention("pattern", jnp.arange(6)[:, None, None, None] == 1, jnp.eye(T)[None, None])
    head = ablate_head("z", 3, 0, n_layers=6, n_heads=2)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(parts, h):
        network, value = parts
        added = Intervention("mlp_out", jnp.arange(6)[:, None, None] == 4, value)
        return jnp.sum(jnp.sin(network(h, (clamp, head, added))[0]))

    value = jnp.asarray(0.3)
    _, (gradient, of_value) = loss((network, value), h)
    mixer, half = gradient.blocks[0].mixer, gradient.blocks[0].feed_forward
    assert not mixer.w_q[1].any() and not mixer.w_k[1].any() and mixer.w_v[1].any() and mixer.w_q[2].any()
    assert not mixer.w_o[3, 0].any() and mixer.w_o[3, 1].any()
    assert not half.w_in[4].any() and half.w_in[5].any()
    step = 1e-6
    ends = [float(loss((network, value + sign * step), h)[0]) for sign in (1, -1)]
    assert float(of_value) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)
    direction = jnp.asarray(np.random.default_rng(5).normal(size=mixer.w_v.shape))
    ends = []
    for sign in (1, -1):
        change = network.blocks[0].mixer.w_v + sign * step * direction
        moved = eqx.tree_at(lambda n: n.blocks[0].mixer.w_v, network, change)
        ends.append(float(loss((moved, value), h)[0]))
    assert float(jnp.vdot(mixer.w_v, direction)) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_a_patch_carries_the_answer_over():
    network = drawn(von_oswald(5, n_layers=6, attention="softmax", init_scale=6.0))
    a, b = jax.random.normal(jax.random.key(0), (2, T, 5))
    run = eqx.filter_jit(lambda network, x, cut=(): network(x, cut))
    clean, trace = run(network, a)
    last = jnp.arange(6)[:, None, None] == 5
    patched, _ = run(network, b, [Intervention("resid_post", last, trace["resid_post"])])
    np.testing.assert_allclose(patched, clean, rtol=1e-6)
    same, _ = run(network, a, [Intervention("pattern", True, trace["pattern"])])
    np.testing.assert_allclose(same, clean, rtol=1e-5, atol=1e-6)
    without = eqx.tree_at(lambda n: n.blocks[0].mixer.w_o, network, replace_fn=lambda w: w.at[1, 0].set(0))
    ablated, _ = run(network, a, [ablate_head("z", 1, 0, n_layers=6, n_heads=1)])
    np.testing.assert_allclose(ablated, run(without, a)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_scores_are_those_before_the_mask_and_queries_those_before_rotation():
    network, h = drawn(Architecture(D, 1, Block(Attention(2, rotary=Rotary(), biases=True)))), tokens()
    (mixer,), (_, trace) = [b.mixer for b in network.layers()], network(h)
    for name in "qkv":
        expected = np.einsum("td,hdk->htk", h, getattr(mixer, f"w_{name}")) + getattr(mixer, f"b_{name}")[:, None]
        np.testing.assert_allclose(trace[name][0], expected, rtol=0, atol=1e-12)
    scores = np.asarray(trace["scores"][0])
    assert np.isfinite(scores).all()  # also of what comes later
    seen = np.where(np.tri(T, dtype=bool), np.exp(scores), 0)
    np.testing.assert_allclose(trace["pattern"][0], seen / seen.sum(-1, keepdims=True), rtol=0, atol=1e-12)
    # An intervention on scores shows no row its future.
    _, changed = network(h, [Intervention("scores", True, 3.0)])
    np.testing.assert_allclose(changed["pattern"][0], np.tril(np.ones((2, T, T))) / np.arange(1, T + 1)[None, :, None])


def test_inputs_of_queries_keys_and_values_are_set_alone():
    network, h = drawn(Architecture(D, 2, Block(Attention(2)))), jnp.asarray(tokens(), jnp.float32)
    other = jnp.asarray(tokens(7), jnp.float32)
    mask = jnp.arange(2)[:, None, None] == 1
    _, plain = network(h)
    for name in "qkv":
        _, trace = network(h, [Intervention(f"{name}_input", mask, other[None])])
        w = getattr(network.block(1).mixer, f"w_{name}")
        np.testing.assert_allclose(trace[name][1], np.einsum("td,hdk->htk", other, w), rtol=1e-4, atol=1e-5)
        for kept in set("qkv") - {name}:
            np.testing.assert_allclose(trace[kept], plain[kept], rtol=1e-4, atol=1e-5)


def test_layers_of_unlike_widths_keep_entries_of_their_own():
    network = lstm(3, 5, 2)(key=jax.random.key(0))
    _, trace = network(jnp.ones((4, 3)))
    assert trace["hidden"].shape == (2, 4, 5) and "resid_pre" not in trace
    assert (trace["resid_pre.0"].shape, trace["resid_pre.1"].shape) == ((4, 3), (4, 5))
    assert (trace.layers_of("resid_pre.1"), trace.layers_of("hidden")) == ((1,), (0, 1))
    _, cut = network(jnp.ones((4, 3)), [Intervention("resid_pre", jnp.arange(2)[:, None, None] == 1, 0.5)])
    np.testing.assert_array_equal(cut["resid_pre.1"], np.full((4, 5), 0.5))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (Intervention("patern", True), "did you mean 'pattern'"),
        (Intervention("hidden", True), "unknown intervention site"),
        (Intervention("z", jnp.ones((3, 1, 1, 1), bool)), "layers of z must be 1 or n_layers = 2, got 3"),
        (Intervention("q_input", True, jnp.ones((3, 1, 1))), "layers of q_input must be"),
    ],
)
def test_unknown_sites_and_layers_are_one_line(cut, message):
    network = Architecture(D, 2, Block(Attention(2)))(key=jax.random.key(0))
    with pytest.raises(BadInput, match=message) as caught:
        network(jnp.zeros((3, D)), [cut])
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="trace site"):
        network(jnp.zeros((3, D)))[1]["nothing"]


def test_a_head_that_is_not_there_is_refused():
    for layer, head in ((2, 0), (0, 1), (-1, 0)):
        with pytest.raises(BadInput, match="must be from 0 to"):
            ablate_head("z", layer, head, n_layers=2, n_heads=1)
