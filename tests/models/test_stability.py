"""Feature maps that do not cancel, and a memory that does not run away as it is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.models import mixers
from meta_icl.models.mixers.patterns import elu_plus_one


@given(st.lists(st.floats(-80, 80, width=32), min_size=4, max_size=4), st.sampled_from([1e-3, 1.0]))
def test_elu_plus_one_is_the_exponential_below_zero(values, scale):
    x = (np.array(values) * scale).astype(np.float32)
    exact = np.where(x > 0, x.astype(float) + 1, np.exp(np.minimum(x.astype(float), 0)))
    mine = elu_plus_one(jnp.asarray(x))
    np.testing.assert_allclose(mine, exact, rtol=1e-5)
    assert (np.asarray(mine) > 0).all()
    slope = jax.grad(lambda u: elu_plus_one(u).sum())(jnp.asarray(x))
    np.testing.assert_allclose(slope, np.where(x > 0, 1, np.exp(np.minimum(x.astype(float), 0))), rtol=1e-5)


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
