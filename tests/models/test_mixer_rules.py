"""The identities O4 to O11 of memories, in float64, each against numpy loops, closed forms or autodiff."""

import jax
import jax.numpy as jnp
import naive_memories as naive
import numpy as np
import pytest
from memory_cases import (
    BETA,
    EXACT,
    RNG,
    B,
    D,
    G,
    K,
    Q,
    T,
    V,
    affine,
    delta_form,
    linear_form,
    mesa_form,
    rwkv_form,
    ttt_form,
    unit_rows,
)

from meta_icl.models.mixers import segment_products
from meta_icl.models.mixers.delta import (
    delta_step,
    implicit_rate,
)
from meta_icl.models.mixers.linear import linear_step
from meta_icl.models.mixers.mesa import MesaState
from meta_icl.models.mixers.ttt import Norm, inner_loss, inner_model

pytestmark = pytest.mark.usefixtures("x64")


def test_o4_linear_attention_is_one_gradient_step():
    x, y = jnp.asarray(RNG.normal(size=(12, D))), RNG.normal(size=(12, 1))
    rate = 0.3 / 12
    gradient = jax.grad(lambda w: 0.5 * jnp.sum((x @ w - y) ** 2))(jnp.zeros((D, 1)))
    state = linear_form(jnp.zeros((1, D)), x, x, jnp.asarray(rate * y), jnp.zeros((12, 1)), 5)[0]
    np.testing.assert_allclose(state @ Q[0], -rate * gradient.T @ Q[0], **EXACT)


@pytest.mark.parametrize("size", [1, 16, 24])
def test_o5_o6_delta_chunks_are_the_recurrence(size):
    for g, name in ((np.ones(T), "DeltaNet"), (G, "Gated DeltaNet")):
        arrays = [jnp.asarray(a) for a in (Q, K, V, BETA, np.log(g))]
        state, read = delta_form(jnp.zeros((D, D)), *arrays, size)
        expected, s = naive.gated_delta(Q, K, V, BETA, g)
        np.testing.assert_allclose(read, expected, **EXACT, err_msg=name)
        np.testing.assert_allclose(state, s, **EXACT, err_msg=name)


def recall(keys, values, queries, beta):
    """What DeltaNet and linear attention answer after the pairs."""
    n = len(keys)
    delta = delta_form(jnp.zeros((D, D)), *map(jnp.asarray, (keys, keys, values)), jnp.full(n, beta), jnp.zeros(n), n)
    linear = linear_form(jnp.zeros((D, D)), *map(jnp.asarray, (keys, keys, values)), jnp.zeros((n, 1)), n)
    return queries @ delta[0].T, queries @ linear[0].T


def test_o5b_orthonormal_keys_are_recalled_exactly():
    keys, values = np.linalg.qr(RNG.normal(size=(D, D)))[0], RNG.normal(size=(D, D))
    for answers in recall(keys, values, keys, 1.0):
        np.testing.assert_allclose(answers, values, **EXACT)


def test_o5c_a_key_written_twice():
    keys = np.linalg.qr(RNG.normal(size=(D, D)))[0][[0, 1, 2, 0]]
    values = RNG.normal(size=(4, D))
    delta, linear = recall(keys, values, keys, 1.0)
    np.testing.assert_allclose(delta, values[[3, 1, 2, 3]], **EXACT)
    np.testing.assert_allclose(linear[0], values[0] + values[3], **EXACT)


RIDGE = RNG.uniform(0.5, 2, D)


def solved(beta, g, ridge, cg_steps=None, size=B):
    start = MesaState(jnp.zeros((D, D)), jnp.zeros((D, D)))
    arrays = [jnp.asarray(a) for a in (Q, K, V, beta, np.log(g), ridge)]
    return np.asarray(mesa_form(start, *arrays, size, cg_steps)[1])


@pytest.mark.parametrize("size", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 16)), 24])
def test_o7_mesa_is_weighted_ridge(size):
    np.testing.assert_allclose(
        solved(BETA, G, RIDGE, size=size), naive.mesa(Q, K, V, BETA, G, RIDGE), rtol=0, atol=1e-10
    )


def test_o7_the_gradient_of_ridge_vanishes():
    n = 20
    zeta = jnp.array([BETA[i] * np.prod(G[i + 1 : n]) for i in range(n)])

    def objective(p):
        return 0.5 * jnp.sum(zeta[:, None] * (V[:n] - K[:n] @ p.T) ** 2) + 0.5 * jnp.trace(p @ jnp.diag(RIDGE) @ p.T)

    start = MesaState(jnp.zeros((D, D)), jnp.zeros((D, D)))
    given = (jnp.asarray(a[:n]) for a in (Q, K, V, BETA, np.log(G)))
    values, keys = mesa_form(start, *given, jnp.asarray(RIDGE), B)[0]
    solution = values @ jnp.linalg.inv(keys + jnp.diag(RIDGE))
    assert float(jnp.abs(jax.grad(objective)(solution)).max()) < 1e-10


def test_o7b_recursive_least_squares():
    p, w, out = np.diag(1 / RIDGE), np.zeros((D, D)), []
    for t in range(T):
        gain = p @ K[t] / (1 + K[t] @ p @ K[t])
        w = w + np.outer(V[t] - w @ K[t], gain)
        p = p - np.outer(gain, K[t] @ p)
        out.append(w @ Q[t])
    np.testing.assert_allclose(solved(np.ones(T), np.ones(T), RIDGE), out, rtol=0, atol=1e-10)


def test_o7c_conjugate_gradient_is_exact_after_d_steps():
    exact = naive.mesa(Q, K, V, BETA, G, RIDGE)
    errors = [np.abs(solved(BETA, G, RIDGE, steps) - exact).max() for steps in (1, 4, 8)]
    assert errors[0] > errors[1] > 1e-10 > errors[2]


def test_o7d_strong_ridge_is_linear_attention():
    strong = 1e8 * solved(BETA, G, np.full(D, 1e8))
    np.testing.assert_allclose(strong, naive.linear(Q, K, V * BETA[:, None], G)[0], rtol=0, atol=1e-5)


def test_o8_longhorn_is_the_implicit_step():
    s, k, v, b = RNG.normal(size=(D, D)), RNG.normal(size=D), RNG.normal(size=D), jnp.asarray(7.3)
    rate = implicit_rate(b, jnp.asarray(k))
    after = delta_step(jnp.asarray(s), *map(jnp.asarray, (k, k, v)), rate, jnp.zeros(()))[0]
    gradient = jax.grad(lambda p: jnp.sum((p - s) ** 2) + b * jnp.sum((p @ k - v) ** 2))(after)
    assert float(jnp.abs(gradient).max()) < 1e-10
    assert 0 < float(1 - rate * k @ k) < 1
    diagonal = linear_step(jnp.asarray(s), *map(jnp.asarray, (k, k)), rate * v, jnp.log1p(-rate * k * k))[0]
    assert float(jnp.linalg.norm(diagonal - after) / jnp.linalg.norm(after)) > 0.01  # an approximation, not the step


def test_o9_rwkv7():
    kappa, a, w = unit_rows(T, D), RNG.uniform(0, 1, (T, D)), RNG.uniform(0.55, 1, (T, D))
    arrays = [jnp.asarray(x) for x in (Q, kappa, a * kappa, K, V, np.log(w))]
    for size in (1, 24):
        state, read = rwkv_form(jnp.zeros((D, D)), *arrays, size)
        expected, s = naive.rwkv7(Q, kappa, a, K, V, w)
        np.testing.assert_allclose(read, expected, **EXACT)
        np.testing.assert_allclose(state, s, **EXACT)
    beta = BETA[:, None]
    as_delta = naive.rwkv7(Q, K, np.broadcast_to(beta, (T, D)), beta * K, V, np.ones((T, D)))[0]
    np.testing.assert_allclose(as_delta, naive.gated_delta(Q, K, V, BETA, np.ones(T))[0], **EXACT)
    given = [jnp.asarray(x) for x in (Q, K, beta * K, beta * K, V, np.zeros((T, D)))]
    np.testing.assert_allclose(rwkv_form(jnp.zeros((D, D)), *given, 24)[1], as_delta, **EXACT)
    for t in range(T):
        transition = np.diag(w[t]) - np.outer(kappa[t], a[t] * kappa[t])
        assert np.abs(np.linalg.eigvals(transition)).max() <= 1 + 1e-12


def test_o10_mamba2_is_its_quadratic_dual():
    for g, sizes in ((G, (1, 16, 24, 64)), (RNG.uniform(0.5, 1, (T, D)), (24,))):
        log_g = np.log(np.asarray(g).reshape(T, -1))
        recurrent, s = naive.linear(Q, K, V, g)
        dual = np.zeros_like(recurrent)
        for t in range(T):
            for i in range(t + 1):
                decay = np.exp(log_g[i + 1 : t + 1].sum(axis=0))
                dual[t] += np.sum(decay * Q[t] * K[i]) * V[i]
        np.testing.assert_allclose(recurrent, dual, rtol=0, atol=1e-11)
        for size in sizes:
            state, read = linear_form(jnp.zeros((D, D)), *map(jnp.asarray, (Q, K, V, log_g)), size)
            np.testing.assert_allclose(read, dual, rtol=0, atol=1e-11)
            np.testing.assert_allclose(state, s, rtol=0, atol=1e-11)


def test_o10b_mamba_scans_are_the_loop():
    decay, drive = RNG.uniform(0.3, 1, (T, D, 4)), RNG.normal(size=(T, D, 4))
    expected, h = [], np.ones((D, 4))
    for t in range(T):
        h = decay[t] * h + drive[t]
        expected.append(h)
    for form in ("scan", "associative"):
        states = affine(jnp.asarray(decay), jnp.asarray(drive), jnp.ones((D, 4)), form=form)
        np.testing.assert_allclose(states, expected, **EXACT)


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_o11_ttt_dual_form_is_autodiff(depth):
    widths = [D] if depth == 1 else [2 * D, D]
    weights = tuple(jnp.asarray(0.3 * RNG.normal(size=(o, i + 1))) for o, i in zip(widths, [D, 2 * D], strict=False))
    norm = Norm(jnp.asarray(RNG.uniform(0.5, 1.5, D)), jnp.asarray(RNG.normal(size=D)))
    eta = RNG.uniform(0.01, 0.1, T)
    state, read = ttt_form(weights, norm, *map(jnp.asarray, (Q, K, V, eta)), B)
    gradient = jax.jit(jax.grad(inner_loss))
    start, expected = weights, []
    for t in range(T):
        if t % B == 0:
            total = jax.tree.map(jnp.zeros_like, weights)
        total = jax.tree.map(jnp.add, total, gradient(start, norm, jnp.asarray(K[t]), jnp.asarray(V[t])))
        now = jax.tree.map(lambda w, g, t=t: w - eta[t] * g, start, total)
        expected.append(Q[t] + norm(inner_model([lambda h, w=w: h @ w.T for w in now], jnp.asarray(Q[t]))))
        start = now if t % B == B - 1 else start
    np.testing.assert_allclose(read, np.array(expected), rtol=0, atol=1e-11)
    np.testing.assert_allclose(state[0], start[0], rtol=0, atol=1e-11)


def test_segment_products_are_products():
    a = RNG.uniform(0.01, 1, (9, 3))
    a[4] = 0
    products = np.asarray(segment_products(jnp.log(jnp.maximum(a, 1e-300))))
    for t in range(9):
        for i in range(9):
            expected = np.prod(a[i + 1 : t + 1], axis=0) if i <= t else np.zeros(3)
            np.testing.assert_allclose(products[t, i], expected, **EXACT)
