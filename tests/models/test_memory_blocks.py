"""Recurrences with a step form as contextual layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from meta_icl.models.blocks import Attention, Blocks, Memory, Mixer, Stepwise, random_network

from meta_icl.analysis.implicit import answer, implicit_update, replacement_error
from meta_icl.errors import BadInput
from meta_icl.models import mixers as m

D, T = 4, 6


class LinearMemory(eqx.Module):
    """Linear attention as a recurrence, which also counts what it has read: its state is a dictionary."""

    w_q: Array
    w_k: Array
    w_v: Array
    w_o: Array

    def initial_state(self):
        return {"memory": jnp.zeros((self.w_k.shape[1], self.w_v.shape[1])), "read": jnp.zeros((), int)}

    def step(self, state, x):
        memory = state["memory"] + jnp.outer(x @ self.w_k, x @ self.w_v)
        read = state["read"] + 1
        return {"memory": memory, "read": read}, (x @ self.w_q) @ memory @ self.w_o + 0 * read.astype(x.dtype)


def linear_memory(d_model, *, key):
    return LinearMemory(*jax.random.normal(key, (4, d_model, d_model)) / d_model**0.5)


@pytest.fixture(scope="module")
def pair():
    """Two blocks' memories, the same weights as attention, and both layers as one compiled function."""
    memory = Memory(linear_memory)(D, 2, key=jax.random.key(0))
    attention = Attention("linear")(D, 2, key=jax.random.key(0))
    weights = [getattr(memory.cell, name)[:, None] for name in ("w_q", "w_k", "w_v", "w_o")]
    attention = eqx.tree_at(lambda m: (m.w_q, m.w_k, m.w_v, m.w_o), attention, weights)

    @eqx.filter_jit
    def both(tokens, visible):
        def one(mixers):
            return [mixer(tokens, visible, lambda name, value: value) for mixer in mixers]

        return eqx.filter_vmap(one)((memory, attention))

    return memory, both


@given(seed=st.integers(0, 2**31), mask=st.integers(0, 2**T - 1))
@settings(max_examples=20, deadline=None)
def test_step_form_is_attention(pair, seed, mask):
    """At every visible row, whatever is visible; the rows that are not may hold anything finite."""
    tokens = jnp.asarray(np.random.default_rng(seed).normal(size=(T, D)), jnp.float32)
    visible = np.array([mask >> i & 1 for i in range(T)], bool)
    found, wanted = pair[1](tokens, jnp.asarray(visible))
    np.testing.assert_allclose(found[:, visible], wanted[:, visible], rtol=1e-4, atol=1e-5)
    assert bool(jnp.all(jnp.isfinite(found)))
    # The same by a sum over pairs of rows.
    x, cell = np.asarray(tokens, float), pair[0].cell
    for block in range(2):
        w_q, w_k, w_v, w_o = (np.asarray(getattr(cell, name)[block], float) for name in ("w_q", "w_k", "w_v", "w_o"))
        for i in np.flatnonzero(visible):
            rows = [j for j in range(i + 1) if visible[j]]
            out = sum((x[i] @ w_q) @ (x[j] @ w_k) * (x[j] @ w_v) for j in rows) @ w_o
            np.testing.assert_allclose(found[block, i], out, rtol=1e-4, atol=1e-4)


def test_rows_that_are_not_visible_change_nothing(pair):
    """Not even where they hold what would overflow the memory."""
    tokens = np.random.default_rng(0).normal(size=(T, D)).astype(np.float32)
    visible = np.array([True, False, True, True, False, True])
    loud = np.where(visible[:, None], tokens, 1e30).astype(np.float32)
    quiet, found = (pair[1](jnp.asarray(rows), jnp.asarray(visible))[0] for rows in (tokens, loud))
    np.testing.assert_array_equal(found[:, visible], quiet[:, visible])


def test_every_block_has_a_memory_of_its_own(pair):
    memory, _ = pair
    assert isinstance(memory, Mixer) and isinstance(memory.cell, Stepwise)
    assert memory.cell.w_q.shape == (2, D, D)
    assert bool(jnp.all(memory.cell.w_q[0] != memory.cell.w_q[1]))
    network = random_network(Blocks(D, 5, n_blocks=2, mixer=Memory(linear_memory)), 0)
    read = jax.eval_shape(lambda tokens: network(tokens)[1]["memory_out"], jnp.ones((3, D)))
    assert read.shape == (2, 3, D)


FAMILY = {
    "deltanet": m.DeltaNet(chunk_size=1),
    "titans": m.Titans(chunk_size=1, depth=2),
    "linear": m.LinearAttention(decay="channel"),
    "mamba": m.Mamba(d_state=4),
    "mamba2": m.Mamba2(d_key=4),
    "gated deltanet": m.GatedDeltaNet(),
    "longhorn": m.Longhorn(),
    "rwkv7": m.Rwkv7(rank=3),
    "mesa": m.Mesa(),
    "ttt": m.Ttt(chunk_size=4),
    "mlstm": m.Mlstm(),
    "lstm": m.LstmMixer(),
    "chunks": m.Titans(chunk_size=4),
}
ALWAYS = {"deltanet"}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in FAMILY]
)
def test_what_any_memory_read_is_replaced_exactly(name):
    """Two pre-LN blocks around each of the memory mixers; all of the context removed, and a part of it."""
    network = random_network(Blocks.of_kind("pre-LN", 8, 12, mixer=Memory(FAMILY[name]), n_blocks=2), 0)
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(T + 1, 8)))
    context, query = rows[:-1], rows[-1]
    for subset in (None, [0, 3]):
        patch = implicit_update(network, context, query, subset)
        assert float(replacement_error(network, context, query, subset, patch)) < 1e-12
        without = answer(network, context, query, subset) - answer(network, context, query)
        assert float(jnp.linalg.norm(without)) > 1e-6


def test_descriptions_without_a_step_form():
    with pytest.raises(BadInput, match=r"one with initial_state\(\) and step\(state, x\), got 'Identity'"):
        Memory(lambda d_model, key: eqx.nn.Identity())(D, 1, key=jax.random.key(0))
