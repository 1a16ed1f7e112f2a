"""The implicit update is exact in every network with an MLP in its last layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks as oracle
import pytest
from update_cases import compiled, off, random_rows

from meta_icl.analysis.implicit import answer, implicit_update, random_network
from meta_icl.errors import BadInput
from meta_icl.models import (
    Architecture,
    Attention,
    Block,
    Dense,
    Gated,
    LabelTokens,
    Norm,
    chan,
    gpt2,
    mistral,
    olmo2,
    olsson,
    von_oswald,
)
from meta_icl.models.embeddings import Vectors
from meta_icl.models.mixers import DeltaNet


def published():
    """Networks of other papers and arrangements: looped, damped, of unlike blocks, with norms in other places."""
    softmax, memory, mlp = Attention(2), DeltaNet(conv=0, chunk_size=1), Dense(7)
    return {
        "looped, damped": von_oswald(4, 2, looped=True, d_mlp=5, init_scale=1.0, dampening=0.5),
        "clipped, embedded": von_oswald(6, 3, 2, attention="softmax", d_mlp=9, d_in=4, d_out=2, activation_clip=0.9),
        "norm behind the sum": Architecture(6, 3, Block(softmax, mlp, Norm(), norm_at="post", dampening=2.0)),
        "norm behind the branch": Architecture(6, 2, Block(softmax, mlp, Norm("rms"), norm_at="branch")),
        "memory and attention in turn": Architecture(
            6,
            7,
            (Block(memory, Dense(7, biases=False), Norm("rms")), Block(softmax, Dense(7, biases=False))),
            Vectors(4),
        ),
        "unlike halves": Architecture(6, 3, (Block(softmax), Block(None, mlp), Block(softmax, Gated(7), Norm()))),
        "MLP alone, no skip": Architecture(6, 2, (Block(softmax, mlp), Block(None, mlp, skip="none"))),
    }


LIGHT = ("looped, damped", "unlike halves", "memory and attention in turn", "norm behind the branch")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in LIGHT else pytest.mark.slow) for n in published()])
def test_every_network_is_replaced_exactly(x64, name):
    """Whatever the arrangement, and by a patch that the network itself can be run with."""
    network = random_network(published()[name], 3)
    d_in = network.embedding.d_in or network.config.d_model
    context, query = random_rows(5, d_in, 0, jnp.float64)
    removed = np.array([True, False, True, True, False])
    outputs, patched, without, patch = compiled("weights", 0.0)(network, context, query, jnp.asarray(removed))
    rows = np.concatenate([context, query[None]])
    if "memory" not in name:  # the oracle knows no DeltaNet
        wanted = rows if network.embedding.map is None else rows @ np.asarray(network.embedding.map.weight)
        for block in network.layers():
            wanted = oracle.run(block, wanted)
        wanted = wanted if network.readout is None else wanted @ np.asarray(network.readout.map.weight)
        np.testing.assert_allclose(outputs, wanted, rtol=1e-10, atol=1e-11)
    assert off(patched, outputs[-1]) < 1e-11 and off(without, outputs[-1]) > 1e-3
    assert all(leaf.shape[0] == network.n_layers for leaf in jax.tree.leaves(patch))
    if name == "unlike halves":  # attention alone has nothing to change, and each half its own names
        sizes = {part: np.asarray(change.norm()) > 0 for part, change in patch.weights.items()}
        assert {part: size.tolist() for part, size in sizes.items()} == {
            "w_in": [False, True, False],
            "w_gate": [False, False, True],
            "w_up": [False, False, True],
            "w_out": [False, False, True],
        }


TOKENS = np.array([3, 1, 4, 1, 5, 9, 2])
LANGUAGE = {
    "gpt2": gpt2(10, 8, 2, 2, 12),
    "olmo2": olmo2(10, 8, 2, 2, 12),
    "mistral": mistral(10, 8, 2, 2, 12, 1, window=3),
}


@pytest.mark.parametrize("name", ["gpt2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("olmo2", "mistral"))])
def test_language_models_are_replaced_exactly(x64, name):
    """By the same functions, on integers; the vectors that their table holds give the same patch."""
    network = random_network(LANGUAGE[name], 1)
    tokens = jnp.asarray(TOKENS)
    removed = np.arange(6) % 2 == 0
    patch = implicit_update(network, tokens[:-1], tokens[-1], removed)
    wanted = eqx.filter_jit(network)(tokens)[0][-1]
    assert wanted.shape == (10,)
    assert off(answer(network, tokens[:-1], tokens[-1], removed, patch), wanted) < 1e-10
    assert off(answer(network, tokens[:-1], tokens[-1], removed), wanted) > 1e-3


def test_items_and_labels_are_replaced_exactly(x64):
    network = random_network(chan(5, Vectors(3, bias=True), 8, 1, 2), 0)
    rng = np.random.default_rng(0)
    rows = LabelTokens(jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray([-1, 2, -1, 0, -1]))
    context, query = jax.tree.map(lambda leaf: leaf[:-1], rows), jax.tree.map(lambda leaf: leaf[-1], rows)
    patch, wanted = implicit_update(network, context, query, (0, 1)), answer(network, context, query)
    assert off(answer(network, context, query, (0, 1), patch), wanted) < 1e-12
    assert off(answer(network, context, query, (0, 1)), wanted) > 1e-3


def test_networks_without_a_patch():
    """One line says what a network lacks."""
    rows, query = random_rows(3, 4, 0, jnp.float32)
    softmax, mlp = Attention(2), Dense(3)
    for description, message in (
        (von_oswald(4), "feed_forward must be given in the last layer"),
        (Architecture(4, 3, (Block(softmax, mlp), Block(softmax))), None),  # the third layer is the first again
        (Architecture(4, 2, (Block(softmax, mlp), Block(softmax))), "feed_forward must be given in the last layer"),
        (von_oswald(4, d_mlp=3, update="y"), "writes must be 'all'"),
        (von_oswald(4, d_mlp=3, dampening=0.0), "dampening must be other than 0"),
        (Architecture(4, 2, (Block(softmax, mlp), Block(softmax, Dense(5)))), "feed_forward must be of one size"),
    ):
        network = random_network(description, 0)
        if message is None:
            assert implicit_update(network, rows, query).vectors["b_out"].shape == (3, 4)
            continue
        with pytest.raises(BadInput, match=message):
            implicit_update(network, rows, query)
    language = random_network(olsson(10, 9, 4, 1, 2, d_mlp=3), 0)
    for context, last, message in (
        (jnp.array([1, 10]), jnp.array(1), "context must be below 10"),
        (jnp.array([1, 2]), jnp.array(-1), "query must be below 10"),
        (rows, query, "context must be integers"),
    ):
        with pytest.raises(BadInput, match=message):
            implicit_update(language, context, last)
