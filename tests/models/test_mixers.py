"""Every mixer x every property: steps equal the parallel form, causality, independence, finite numbers, one cost."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.models import Rotary
from meta_icl.models import mixers as m

T, D = 13, 8  # 13 is no multiple of any chunk here

MIXERS = {
    "attention": m.Attention(2, rotary=Rotary()),
    "window": m.Attention(2, rotary=Rotary(), window=5),
    "no positions": m.Attention(2),
    "kernel": m.Attention(2, kind="elu"),
    "fast weights": m.FastWeightLstm(2),
    "linear": m.LinearAttention(chunk_size=4),
    "linear, elu": m.LinearAttention(chunk_size=4, feature="elu", output_norm=False),
    "scalar decay": m.LinearAttention(chunk_size=4, decay="scalar"),
    "retnet": m.LinearAttention(chunk_size=4, decay="constant"),
    "gla": m.LinearAttention(chunk_size=4, decay="channel", output_gate=True),
    "mamba": m.Mamba(d_state=4),
    "mamba, associative": m.Mamba(d_state=4, form="associative"),
    "mamba2": m.Mamba2(chunk_size=4, d_key=6, d_value=8),
    "deltanet": m.DeltaNet(chunk_size=4),
    "gated deltanet": m.GatedDeltaNet(chunk_size=4, beta_max=2.0),
    "longhorn": m.Longhorn(chunk_size=4),
    "longhorn, diagonal": m.Longhorn(chunk_size=4, diagonal=True),
    "rwkv7": m.Rwkv7(rank=3, chunk_size=4),
    "mesa": m.Mesa(chunk_size=4),
    "mesa, cg": m.Mesa(chunk_size=4, cg_steps=3),
    "ttt linear": m.Ttt(chunk_size=4),
    "ttt mlp": m.Ttt(chunk_size=4, depth=2, expansion=2),
    "mlstm": m.Mlstm(chunk_size=4),
    "lstm": m.Lstm(forget_bias=1.0),
    "titans": m.Titans(chunk_size=4),
    "titans, online": m.Titans(chunk_size=1, conv=0),
    "titans, read before": m.Titans(chunk_size=4, read="before", init="zero", loss_scale=0.5),
    "titans, decay to start": m.Titans(chunk_size=4, decay_to="init", theta_map="softplus"),
    "titans, deep": m.Titans(chunk_size=4, depth=2),
    "titans, deep, before": m.Titans(chunk_size=4, depth=2, read="before", decay_to="init", residual=True),
    "titans, no momentum": m.Titans(chunk_size=4, momentum=False),
    "titans, no forgetting": m.Titans(chunk_size=4, forgetting=False),
    "titans, scan": m.Titans(chunk_size=4, depth=3, form="scan"),
    "titans, associative": m.Titans(chunk_size=4, depth=2, form="associative", decay_to="init", read="before"),
    "persistent": m.Persistent(m.Titans(chunk_size=4), n_tokens=3),
    "mac": m.TitansBlock("context", m.Titans(chunk_size=2, depth=2), segment=4, n_persistent=2),
    "mag": m.TitansBlock("gate", m.Titans(chunk_size=4), segment=5, n_persistent=2),
    "mal": m.TitansBlock("layer", m.Titans(chunk_size=4), segment=5, n_persistent=2),
}
QUADRATIC = ("window", "kernel", "mag", "mal")  # in parallel: every row weighs every other


def made(name):
    return MIXERS[name](D, key=jax.random.key(3))


def sequences(n=3):
    return jax.random.normal(jax.random.key(4), (n, T, D))


@pytest.mark.variants("attention", "linear", "mamba2", "deltanet", "longhorn", "ttt linear", "titans")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MIXERS)
def test_steps_are_the_parallel_form_which_is_causal_and_keeps_sequences_apart(name):
    """Causality and independence exactly: the same program with all from token s on, or another sequence, replaced."""
    mixer, x = made(name), sequences()
    run = eqx.filter_jit(lambda mixer, x: jax.vmap(mixer)(x))
    before = np.asarray(run(mixer, x))
    steps = np.asarray(eqx.filter_jit(m.by_steps)(mixer, x[0]))
    assert steps.shape == (T, D) and np.std(steps) > 1e-3
    np.testing.assert_allclose(steps, before[0], rtol=0, atol=1e-10)
    s = 6
    after = np.asarray(run(mixer, x.at[0, s:].set(jax.random.normal(jax.random.key(5), (T - s, D)))))
    np.testing.assert_array_equal(before[0, :s], after[0, :s])
    assert (before[0, s:] != after[0, s:]).any(axis=-1).all()
    np.testing.assert_array_equal(before[1:], after[1:])


@pytest.mark.variants("deltanet")  # divides by norms of keys
@pytest.mark.parametrize("name", MIXERS)
def test_gradients_are_finite(name):
    """Also at a sequence of zeros, where keys have no direction."""
    loss = eqx.filter_jit(eqx.filter_grad(lambda mixer, x: jnp.sum(jnp.square(jax.vmap(mixer)(x)))))
    for x in (sequences(), jnp.zeros((3, T, D))):
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(loss(made(name), x)))


def seconds_per_token(function, mixer, length):
    """The shortest of seven CPU times, compiled before."""
    x = jax.random.normal(jax.random.key(6), (length, D))
    jax.block_until_ready(function(mixer, x))
    spent = []
    for _ in range(7):
        began = time.process_time()
        jax.block_until_ready(function(mixer, x))
        spent.append(time.process_time() - began)
    return min(spent) / length


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MIXERS if name not in ("attention", "no positions")])
def test_cost_per_token_is_flat_in_length(name):
    """From 1024 to 8192 tokens, by steps and, where it is not quadratic, in parallel."""
    for function in (m.by_steps, m.mix) if name not in QUADRATIC else (m.by_steps,):
        run = eqx.filter_jit(function)
        short, long = (seconds_per_token(run, made(name), length) for length in (1024, 8192))
        assert long < 2 * short
