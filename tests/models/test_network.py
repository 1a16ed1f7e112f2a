"""The frame of every network: descriptions, rounds of blocks, changed descriptions, reading any layer."""

from dataclasses import dataclass

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
    Items,
    Learned,
    Learner,
    Linear,
    Norm,
    Rotary,
    Sinusoidal,
    Tied,
    Tokens,
    Vectors,
    embeddings,
    memories,
    von_oswald,
)
from meta_icl.models import mixers as m

KEY = jax.random.key(0)
D = 8


def test_blocks_are_used_in_turn():
    """Places of layers and shapes of stacks, with and without a rest, drawn anew or looped."""
    one, two = Block(Attention(2)), Block(None, Dense(5))
    network = Architecture(D, 5, (one, two))(key=KEY)
    assert [network.position_of(i) for i in range(5)] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert network.blocks[0].mixer.w_q.shape == (3, 2, D, 4) and network.blocks[1].feed_forward.w_in.shape == (2, D, 5)
    np.testing.assert_array_equal(network.block(4).mixer.w_q, network.blocks[0].mixer.w_q[2])
    looped = Architecture(D, 5, (one, two), looped=True)(key=KEY)
    assert looped.blocks[0].mixer.w_q.shape == (1, 2, D, 4) and looped.position_of(4) == (0, 0)
    flat = np.asarray(network.blocks[0].mixer.w_q).reshape(3, -1)
    assert np.abs(np.corrcoef(flat)[np.triu_indices(3, 1)]).max() < 0.5  # drawn apart
    listed = Architecture(D, 2, [one, two])
    assert listed == Architecture(D, 2, (one, two)) and hash(listed) == hash(Architecture(D, 2, (one, two)))


def test_a_description_that_cannot_be_hashed_draws_as_well():
    """The same weights, by operations instead of a program."""

    @dataclass
    class Sized:
        sizes: list

        def __call__(self, *, key):
            return von_oswald(*self.sizes)(key=key)

    plain, listed = (Learner(network)(key=KEY) for network in (von_oswald(4), Sized([4])))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(listed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("n", [embeddings.FEW, embeddings.FEW + 1])
def test_rows_of_labels_and_their_gradient(n):
    """By a loop over the tokens, however many labels there are: what is no label has no row, and moves none."""
    embedding = Items(n, d_label=3)(4, key=KEY)
    labels = np.array([[0, -1, n - 1, n], [n // 2, 0, -7, 0]])
    weights = np.random.default_rng(0).standard_normal((2, 4, 4))
    rows, gradient = np.zeros((2, 4, 4)), np.zeros((n, 3))
    for place in np.ndindex(labels.shape):
        if 0 <= (label := labels[place]) < n:
            rows[place][:3] = embedding.labels[label]
            gradient[label] += weights[place][:3]
    np.testing.assert_array_equal(embedding.label_rows(jnp.asarray(labels)), rows.astype(np.float32))
    found = jax.grad(lambda e: jnp.sum(e.label_rows(jnp.asarray(labels)) * weights))(embedding).labels
    np.testing.assert_allclose(found, gradient, rtol=1e-6, atol=1e-6)


def test_weights_under_a_changed_description():
    network, tokens = von_oswald(5, init_scale=1.0)(key=KEY), jax.random.normal(KEY, (6, 5))
    twice, _ = network.with_config(n_layers=2, looped=True)(tokens)
    once, _ = network(tokens)
    np.testing.assert_allclose(twice, network(once)[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(BadInput, match="shapes"):
        network.with_config(n_layers=2)


@pytest.mark.usefixtures("x64")
def test_any_layer_is_read_as_the_last():
    """A lens: the read-out of the stream after layer i is the output of the network of the layers up to i."""
    network = drawn(Architecture(D, 3, Block(Attention(2)), Vectors(3), Sinusoidal(), Norm(), Linear(2)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    _, trace = network(x)
    np.testing.assert_array_equal(trace["resid_pre"][0], network.embedded(x))
    shorter = eqx.tree_at(lambda n: n.blocks, network, jax.tree.map(lambda leaf: leaf[:2], network.blocks))
    shorter = shorter.with_config(n_layers=2)
    np.testing.assert_allclose(network.read(trace["resid_post"][1]), shorter(x)[0], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_products_of_weights_are_scores_and_writes():
    """Of every layer of attention: h A h^T are the scores, pattern h B what is written; heads with and without W_O."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, D)))
    for mixer in (Attention(4, n_groups=2, scale=0.3), Attention(2, project=False)):
        network = drawn(Architecture(D, 3, (Block(mixer), Block(m.Lstm()))))
        _, trace = network(x)
        qk, ov = np.asarray(network.qk()), np.asarray(network.ov())
        assert qk.shape == ov.shape == (2, mixer.n_heads, D, D)
        for row, layer in enumerate((0, 2)):
            h, pattern = np.asarray(trace["resid_pre"][layer]), np.asarray(trace["pattern"][row])
            np.testing.assert_allclose(trace["scores"][row], h[None] @ qk[row] @ h.T[None], rtol=0, atol=1e-11)
            np.testing.assert_allclose(trace["mixer_out"][layer], (pattern @ h @ ov[row]).sum(0), rtol=0, atol=1e-11)
    single = Architecture(D, 2, Block(Attention(2)))(key=KEY)
    assert single.qk().shape == (2, 2, D, D)
    with pytest.raises(BadInput, match="attention in at least one layer"):
        Architecture(D, 1, Block(m.Lstm()))(key=KEY).qk()


MEMORIES = {
    "linear": m.LinearAttention(chunk_size=4),
    "delta": m.DeltaNet(chunk_size=4),
    "hybrid": (m.Mamba2(chunk_size=4, d_key=4), Attention(2, rotary=Rotary())),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MEMORIES)
def test_the_frame_of_memories(name):
    """RMS norms around mixers (which have oracles of their own) and GELU MLPs, by numpy."""
    mixers = MEMORIES[name]
    network = drawn(memories(D, mixers if isinstance(mixers, tuple) else (mixers,), 3, n_tokens=7, d_out=7))
    tokens = np.random.default_rng(1).integers(0, 7, 9)

    def rms(h, norm):
        return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(norm.scale)

    h = np.asarray(network.embedding.table)[tokens]
    for block in network.layers():
        h = h + np.asarray(eqx.filter_jit(m.mix)(block.mixer, jnp.asarray(rms(h, block.norm_mixer))))
        u = rms(h, block.norm_feed_forward) @ np.asarray(block.feed_forward.w_in)
        u = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        h = h + u @ np.asarray(block.feed_forward.w_out)
    expected = rms(h, network.final_norm) @ np.asarray(network.readout.map.weight)
    found = eqx.filter_jit(lambda n, t: n(t)[0])(network, jnp.asarray(tokens))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Architecture(0), "d_model must be"),
        (lambda: Architecture(D, -1), "n_layers must be"),
        (lambda: Architecture(D, 1, ()), "block must be"),
        (lambda: Architecture(D, 1, readout=Tied()), "readout must be"),
        (lambda: Architecture(D, 1, embedding=Vectors(3), d_in=3), "d_in must be"),
        (lambda: Architecture(D, 2, Block(m.Lstm(), skip="none"), d_in=3, looped=True), "d_in must be"),
        (lambda: Architecture(7, 1, positions=Sinusoidal())(key=KEY), "d_model must be even"),
        (lambda: Learned(0), "n_positions must be"),
        (lambda: Architecture(D, 0, positions=Learned(2))(key=KEY)(jnp.ones((3, D))), "at most n_positions = 2"),
        (lambda: Tokens(1), "n_tokens must be"),
        (lambda: Attention(2, n_groups=3), "n_groups must be"),
        (lambda: Attention(kind="sofmax"), "did you mean 'softmax'"),
        (lambda: Attention(causal=False, window=2), "window must be"),
        (lambda: Attention(3)(D, key=KEY), "n_heads must be a divisor of d_model = 8"),
        (lambda: Attention(2, 3, project=False)(D, key=KEY), "project must be"),
        (lambda: Attention(2, 3, rotary=Rotary())(D, key=KEY), "d_head must be"),
        (lambda: Rotary(fraction=0.0), "fraction must be"),
        (lambda: Architecture(D, 2)(key=KEY).block(2), "layer must be from 0 to 1"),
        (lambda: memories(D, (), d_in=1), "mixers must be"),
        (lambda: memories(D, (m.DeltaNet(),)), "d_in must be"),
        (lambda: m.DeltaNet(n_heads=3)(D, key=KEY), "n_heads must be"),
        (lambda: m.Titans(depth=2, init="zero"), "init must be"),
        (lambda: m.TitansBlock("context", m.Titans(chunk_size=16), segment=24), "segment must be"),
        (lambda: m.Ttt(depth=3), "depth must be"),
    ],
)
def test_bad_sizes_are_one_line(make, message):
    with pytest.raises(BadInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
