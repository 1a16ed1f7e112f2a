"""The identities O1 to O3, O12, O13, O17 to O19 of Titans' rule, in float64, each against loops or closed forms."""

import jax
import jax.numpy as jnp
import naive_memories as naive
import numpy as np
import pytest
from memory_cases import (
    ALPHA,
    BETA,
    DEEP,
    ETA,
    EXACT,
    M0,
    RNG,
    SLOW,
    THETA,
    B,
    D,
    K,
    Q,
    T,
    V,
    gates,
    linear_form,
    loop,
    momentum,
    products,
    scans,
    titans,
)

from meta_icl.models.mixers.titans_rule import (
    Gates,
    Momentum,
    Rule,
    answer,
)

pytestmark = pytest.mark.usefixtures("x64")


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
