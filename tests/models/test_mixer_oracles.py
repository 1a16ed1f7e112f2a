"""The identities O1 to O19 of memories, in float64, each against numpy loops, closed forms or autodiff."""

import jax
import jax.numpy as jnp
import naive_memories as naive
import numpy as np
import pytest

from meta_icl.models.mixers import affine_scan, segment_products
from meta_icl.models.mixers.delta import (
    delta_chunks,
    delta_step,
    generalised_delta_chunks,
    implicit_rate,
)
from meta_icl.models.mixers.linear import linear_chunks, linear_step
from meta_icl.models.mixers.mesa import MesaState, mesa_chunks
from meta_icl.models.mixers.titans import (
    AS_WRITTEN,
    Gates,
    Momentum,
    Rule,
    answer,
    titans_products,
    titans_scans,
)
from meta_icl.models.mixers.ttt import Norm, inner_loss, inner_model, ttt_chunks

T, D, B = 64, 8, 16
RNG = np.random.default_rng(0)
EXACT = {"rtol": 0, "atol": 1e-12}


# Compiled once per shape: run eagerly, every operation would be a program of its own.
products = jax.jit(titans_products, static_argnames=("size", "rule"))
scans = jax.jit(titans_scans, static_argnames=("size", "rule", "form"))
linear_form = jax.jit(linear_chunks, static_argnames="size")
delta_form = jax.jit(delta_chunks, static_argnames="size")
rwkv_form = jax.jit(generalised_delta_chunks, static_argnames="size")
mesa_form = jax.jit(mesa_chunks, static_argnames=("size", "cg_steps"))
ttt_form = jax.jit(ttt_chunks, static_argnames="size")
affine = jax.jit(affine_scan, static_argnames="form")


def unit_rows(*shape):
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


Q, K, V = RNG.normal(size=(T, D)), unit_rows(T, D), RNG.normal(size=(T, D))
ALPHA, ETA, THETA = RNG.uniform(0.01, 0.2, T), RNG.uniform(0.1, 0.9, T), RNG.uniform(0.05, 0.4, T)
SLOW = 0.1 * THETA  # a deep memory diverges at the steps of a linear one
BETA, G = RNG.uniform(0, 1, T), RNG.uniform(0.5, 1, T)
M0 = [0.3 * RNG.normal(size=(D, D))]
DEEP = [0.3 * RNG.normal(size=(16, D)), 0.3 * RNG.normal(size=(D, 16))]
pytestmark = pytest.mark.usefixtures("x64")


def gates(alpha=ALPHA, eta=ETA, theta=THETA):
    return Gates(*(jnp.asarray(a, float) * jnp.ones(T) for a in (alpha, eta, theta)))


def momentum(weights):
    given = tuple(jnp.asarray(w) for w in weights)
    return Momentum(given, tuple(jnp.zeros_like(w) for w in given))


def titans(weights, size, gates_, rule=AS_WRITTEN, k=K, v=V, function=products, **options):
    init = tuple(jnp.asarray(w) for w in weights)
    return function(
        momentum(weights), jnp.asarray(Q), jnp.asarray(k), jnp.asarray(v), gates_, size, rule, init, **options
    )


def loop(weights, size, alpha=ALPHA, eta=ETA, theta=THETA, k=K, v=V, **options):
    deep = len(weights) == 2
    given = {"gradient": naive.mlp_gradient if deep else naive.linear_gradient}
    given["read"] = naive.mlp_read if deep else naive.linear_read
    full = (np.broadcast_to(a, T) for a in (alpha, eta, theta))
    return naive.titans(Q, k, v, *full, weights, size, **given, **options)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Rule(), {}),
        (Rule(read="before"), {"before": True}),
        (Rule(loss_scale=0.125), {"scale": 0.125}),
        (Rule(decay_to="init"), {"target": M0}),
    ],
)
def test_o1_linear_titans_is_the_token_loop(rule, options):
    state, read = titans(M0, B, gates(), rule)
    expected, m, s = loop(M0, B, **options)
    np.testing.assert_allclose(read, expected, **EXACT)
    np.testing.assert_allclose(state.weights[0], m[0], **EXACT)
    np.testing.assert_allclose(state.surprise[0], s[0], **EXACT)


def test_o1f_float32_is_close():
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (momentum(M0), Q, K, V, gates()))
    _, read = products(*single, B)
    assert read.dtype == jnp.float32
    np.testing.assert_allclose(read, loop(M0, B)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["scan", "associative"])
@pytest.mark.parametrize("weights", [M0, DEEP], ids=["linear", "deep"])
def test_o1b_o19_scans_are_the_token_loop(form, weights):
    theta = THETA if weights is M0 else SLOW
    state, read = titans(weights, B, gates(theta=theta), function=scans, form=form)
    expected, m, s = loop(weights, B, theta=theta)
    np.testing.assert_allclose(read, expected, **EXACT)
    for now, then in zip(state.weights + state.surprise, m + s, strict=True):
        np.testing.assert_allclose(now, then, **EXACT)


@pytest.mark.parametrize("size", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 16, 64)), 10])
def test_o2_deep_titans_is_the_token_loop(size):
    state, read = titans(DEEP, size, gates(theta=SLOW))
    expected, m, s = loop(DEEP, size, theta=SLOW)
    np.testing.assert_allclose(read, expected, **EXACT)
    for now, then in zip(state.weights + state.surprise, m + s, strict=True):
        np.testing.assert_allclose(now, then, **EXACT)


def test_o2b_a_sequence_can_be_cut_between_chunks():
    whole = titans(DEEP, B, gates(theta=SLOW))[1]
    rows = (jnp.asarray(Q), jnp.asarray(K), jnp.asarray(V), gates(theta=SLOW))
    first, second = (jax.tree.map(lambda a, s=s: a[s], rows) for s in (slice(None, 2 * B), slice(2 * B, None)))
    state, before = products(momentum(DEEP), *first, B)
    np.testing.assert_allclose(jnp.concatenate([before, products(state, *second, B)[1]]), whole, **EXACT)


def test_o2c_the_chunk_size_matters():
    online, chunked = titans(DEEP, 1, gates(theta=SLOW))[1], titans(DEEP, B, gates(theta=SLOW))[1]
    assert float(jnp.linalg.norm(online - chunked) / jnp.linalg.norm(online)) > 1e-4


def test_o3_titans_contains_the_others():
    zero, q, k, v = [np.zeros((D, D))], jnp.asarray(Q), jnp.asarray(K), jnp.asarray(V)
    delta = naive.gated_delta(Q, K, V, BETA, np.ones(T))[0]
    np.testing.assert_allclose(titans(zero, 1, gates(0, 0, BETA / 2))[1], delta, **EXACT)
    # O3b: with forgetting it is not Gated DeltaNet, unless the gradient is taken at the decayed memory.
    gated = naive.gated_delta(Q, K, V, BETA, 1 - ALPHA)[0]
    assert np.abs(titans(zero, 1, gates(ALPHA, 0, BETA / 2))[1] - gated).max() > 1e-3
    s = np.zeros((D, D))
    for t in range(T):
        s = (1 - ALPHA[t]) * s
        s = s - BETA[t] / 2 * naive.linear_gradient([s], K[t], V[t])[0]
        np.testing.assert_allclose(s @ Q[t], gated[t], **EXACT)
    # O3d, O3e: all gradients at zero give linear attention, with forgetting the gated one.
    np.testing.assert_allclose(titans(zero, T, gates(0, 0, 0.5))[1], np.tril(Q @ K.T) @ V, **EXACT)
    log_keep = jnp.log(1 - jnp.asarray(ALPHA))[:, None]
    mixed = titans(zero, T, gates(ALPHA, 0, 0.5))[1]
    np.testing.assert_allclose(mixed, linear_form(jnp.zeros((D, D)), q, k, v, log_keep, B)[1], **EXACT)
    np.testing.assert_allclose(mixed, naive.linear(Q, K, V, 1 - ALPHA)[0], **EXACT)


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


def constant_pair(alpha, eta, theta, n, start=0.0):
    """The component of M k along v after n tokens of one key and one value."""
    k, v = np.eye(D)[0], np.eye(D)[1]
    rows = [jnp.asarray(np.tile(a, (n, 1))) for a in (k, k, v)]
    given = Gates(*(jnp.full(n, a) for a in (alpha, eta, theta)))
    m = np.zeros((D, D))
    m[1, 0] = start
    return float(products(momentum([m]), *rows, given, 1)[1][-1] @ v)


def test_o12_fixed_point():
    theta, eta, alpha = 0.2, 0.6, 0.05
    expected = 2 * theta / (2 * theta + alpha * (1 - eta))
    assert expected == pytest.approx(0.95238, abs=1e-5)
    assert constant_pair(alpha, eta, theta, 400) == pytest.approx(expected, abs=1e-9)


def test_o13_stability_edge():
    eta, alpha = 0.6, 0.05
    edge = (2 - alpha) * (1 + eta) / 2

    def fixed(theta):
        return 2 * theta / (2 * theta + alpha * (1 - eta))

    for factor, grows in ((0.99, False), (1.01, True)):
        theta = edge * factor
        error = [abs(constant_pair(alpha, eta, theta, n, 1.5) - fixed(theta)) for n in (200, 1200)]
        assert (error[1] > error[0]) == grows


@pytest.mark.parametrize("weights", [M0, pytest.param(DEEP, marks=pytest.mark.slow)], ids=["linear", "deep"])
def test_o17_outer_gradient_is_the_finite_difference(weights):
    arguments = (tuple(map(jnp.asarray, weights)), jnp.asarray(Q), jnp.asarray(K), jnp.asarray(V), gates(theta=SLOW))

    def loss(arguments):
        init, *rows = arguments
        start = Momentum(init, tuple(jnp.zeros_like(w) for w in init))
        return jnp.sum(jnp.sin(products(start, *rows, B)[1]))

    both = jax.jit(jax.value_and_grad(loss))

    direction = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape)), arguments)
    moved = [jax.tree.map(lambda a, d, e=e: a + e * d, arguments, direction) for e in (1e-6, -1e-6)]
    difference = (both(moved[0])[0] - both(moved[1])[0]) / 2e-6
    gradient = both(arguments)[1]
    exact = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    assert float(difference) == pytest.approx(float(exact), rel=1e-6)


def test_o18_without_steps_the_memory_is_a_fixed_network():
    read = titans(DEEP, B, gates(0, ETA, 0))[1]
    np.testing.assert_allclose(read, [naive.mlp_read(DEEP, q) for q in Q], **EXACT)
    np.testing.assert_allclose(read, answer(tuple(map(jnp.asarray, DEEP)), jnp.asarray(Q)), **EXACT)
    # With alpha 1 and no momentum M_t knows M_{t-1} only through the gradient's point.
    erased = titans(M0, 1, gates(1, 0, THETA))[1]
    m = M0[0]
    for t in range(T):
        m = -THETA[t] * naive.linear_gradient([m], K[t], V[t])[0]
        np.testing.assert_allclose(erased[t], m @ Q[t], **EXACT)


def test_segment_products_are_products():
    a = RNG.uniform(0.01, 1, (9, 3))
    a[4] = 0
    products = np.asarray(segment_products(jnp.log(jnp.maximum(a, 1e-300))))
    for t in range(9):
        for i in range(9):
            expected = np.prod(a[i + 1 : t + 1], axis=0) if i <= t else np.zeros(3)
            np.testing.assert_allclose(products[t, i], expected, **EXACT)


@pytest.mark.parametrize("weights", [M0, pytest.param(DEEP, marks=pytest.mark.slow)], ids=["linear", "deep"])
def test_no_forgetting_rate_breaks_float32(weights):
    """Chunk 64: quotients of cumulative products would overflow from alpha = 0.75 on."""
    rows = [jnp.asarray(a, jnp.float32) for a in (Q, K, V)]
    start = jax.tree.map(lambda a: a.astype(jnp.float32), momentum(weights))
    theta, eta = jnp.float32(0.05 if weights is M0 else 0.002), jnp.float32(0.5)

    @jax.jit
    def value_and_gradient(alpha):
        def loss(alpha):
            given = Gates(jnp.full(T, alpha), jnp.full(T, eta), jnp.full(T, theta))
            return jnp.sum(jnp.square(products(start, *rows, given, 64)[1]))

        return jax.value_and_grad(loss)(alpha)

    for alpha in (1e-6, 0.1, 0.5, 0.75, 0.9, 0.99, 1 - 1e-6):
        given = jnp.float32(alpha)
        assert all(bool(jnp.isfinite(x)) for x in value_and_gradient(given))
        exact = loop(weights, 64, float(given), 0.5, float(theta))[0]
        single = Gates(jnp.full(T, given), jnp.full(T, eta), jnp.full(T, theta))
        np.testing.assert_allclose(products(start, *rows, single, 64)[1], exact, rtol=0, atol=1e-5)
