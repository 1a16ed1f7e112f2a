"""Feature maps that do not cancel, and a memory that does not run away as it is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.models import mixers
from meta_icl.models.mixers.patterns import Sums, elu_features, elu_plus_one, linear_pattern, summed


@given(st.lists(st.floats(-80, 80, width=32), min_size=4, max_size=4), st.sampled_from([1e-3, 1.0]))
def test_elu_plus_one_is_the_exponential_below_zero(values, scale):
    x = (np.array(values) * scale).astype(np.float32)
    exact = np.where(x > 0, x.astype(float) + 1, np.exp(np.minimum(x.astype(float), 0)))
    mine = elu_plus_one(jnp.asarray(x))
    np.testing.assert_allclose(mine, exact, rtol=1e-5)
    assert (np.asarray(mine) > 0).all()
    slope = jax.grad(lambda u: elu_plus_one(u).sum())(jnp.asarray(x))
    np.testing.assert_allclose(slope, np.where(x > 0, 1, np.exp(np.minimum(x.astype(float), 0))), rtol=1e-5)


def exact_pattern(q, k, seen):
    """phi(q_i).phi(k_j) over its sum over what i sees, in float64 and by logarithms, which vanish nowhere."""

    def log_features(x):
        return np.where(x > 0, np.log1p(np.maximum(x, 0)), np.minimum(x, 0))

    logs = np.logaddexp.reduce(log_features(q)[:, None] + log_features(k)[None], axis=-1)
    logs = np.where(seen, logs, -np.inf)
    return np.exp(logs - np.logaddexp.reduce(logs, axis=-1, keepdims=True))


@jax.jit
def normalised(q, k, seen):
    features = elu_features(q[None], k[None])
    return linear_pattern(jnp.einsum("hqk,hsk->hqs", *features), seen[None], normalise=True)[0]


@jax.jit
def token_by_token(q, k, v):
    def one(state, token):
        state, z = summed(state, *(row[None, None] for row in token), 1.0, elu=True)
        return state, z[0, 0]

    start = Sums(jnp.zeros((1, k.shape[1], v.shape[1])), jnp.zeros((1, k.shape[1])))
    return jax.lax.scan(one, start, (q, k, v))[1]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("seed", range(3))
def test_queries_whose_features_vanish_are_answered_as_in_float64(seed, sign, scale):
    random = np.random.default_rng(seed)
    q, k = random.normal(size=(6, 4)), random.normal(size=(6, 4)) * min(scale, 15.0)
    q = (sign * scale * np.abs(q)).astype(np.float32)  # all channels of one sign: from -1000 on all features are zero
    k, v, seen = k.astype(np.float32), random.normal(size=(6, 4)).astype(np.float32), np.tri(6, dtype=bool)
    exact = exact_pattern(q.astype(float), k.astype(float), seen)
    np.testing.assert_allclose(normalised(q, k, seen), exact, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(token_by_token(q, k, v), exact @ v, rtol=1e-3, atol=1e-5)


def test_a_row_whose_keys_all_vanish_reads_nothing():
    """Zeros, no NaN, neither in the pattern nor in its gradient; and so token by token."""
    q, k, v = jnp.full((6, 4), -300.0), jnp.full((6, 4), -300.0), jnp.ones((6, 4))
    seen = jnp.asarray(np.tri(6, dtype=bool))
    np.testing.assert_array_equal(normalised(q, k, seen), 0)
    np.testing.assert_array_equal(token_by_token(q, k, v), 0)
    slopes = jax.jit(jax.grad(lambda q, k: (normalised(q, k, seen) ** 2).sum(), (0, 1)))(q, k)
    assert all(np.isfinite(slope).all() for slope in slopes)


def largest_weight(chunk_size, depth, equal_keys, **options):
    """The largest weight of a memory as drawn after 1,024 tokens."""
    mixer = mixers.Titans(n_heads=1, chunk_size=chunk_size, depth=depth, **options)(8, key=jax.random.key(0))
    noise = jax.random.normal(jax.random.key(1), (1024, 8))
    x = jax.random.normal(jax.random.key(2), (1, 8)) + 0.1 * noise if equal_keys else noise
    state = jax.jit(lambda rows: mixer.run(mixer.initial_state(), rows)[0])(x)
    return max(float(jnp.abs(w).max()) for w in state.memory.now.weights)


@pytest.mark.parametrize("equal_keys", [False, True])
@pytest.mark.parametrize(("chunk_size", "depth"), [(4, 1), (16, 1), (16, 2)])
def test_a_drawn_memory_stays_bounded(chunk_size, depth, equal_keys):
    assert largest_weight(chunk_size, depth, equal_keys) < 10


def test_the_bound_is_what_keeps_it():
    assert not largest_weight(16, 1, True, theta_limit=1.0) < 1e6


def test_the_bound_follows_the_chunk_and_the_momentum():
    assert mixers.Titans(chunk_size=16).theta_max == pytest.approx((1 - 1 / (1 + np.exp(-1.0))) / 16)
    assert mixers.Titans(chunk_size=16, momentum=False).theta_max == pytest.approx(1 / 16)
    assert mixers.Titans(chunk_size=1, depth=2).theta_max == 0.1
    assert mixers.Titans(theta_limit=0.7).theta_max == 0.7
