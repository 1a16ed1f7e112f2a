"""The linear systems of mixers against numpy; none of them calls LAPACK, which can block a program for ever."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.models import mixers as m
from meta_icl.models.mixers.solves import solve_positive, unit_lower_inverse


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [1, 5, 16])
def test_systems_are_solved(n):
    rng = np.random.default_rng(n)
    a = rng.normal(size=(n, n))
    expected = np.linalg.inv(np.eye(n) + np.tril(a, -1))
    np.testing.assert_allclose(unit_lower_inverse(jnp.asarray(a)), expected, rtol=1e-10, atol=1e-12)
    positive, b = a @ a.T + 0.3 * np.eye(n), rng.normal(size=n)
    x = np.linalg.solve(positive, b)
    np.testing.assert_allclose(solve_positive(jnp.asarray(positive), jnp.asarray(b)), x, rtol=1e-9)
    # With c the gradient at x: that of b is A^-1 c, that of A is -(A^-1 c) x^T.
    c = rng.normal(size=n)
    by_a, by_b = jax.grad(lambda a, b: c @ solve_positive(a, b), (0, 1))(jnp.asarray(positive), jnp.asarray(b))
    np.testing.assert_allclose(by_b, np.linalg.solve(positive, c), rtol=1e-9)
    np.testing.assert_allclose(by_a, -np.outer(np.linalg.solve(positive, c), x), rtol=1e-9)


def test_repeated_keys_of_a_long_chunk():
    """The worst case of the delta rule in float32: the same key at every token at rate 1; a power series would fail."""
    n = 64
    inverse = unit_lower_inverse(jnp.tril(jnp.ones((n, n)), -1))
    np.testing.assert_allclose(inverse, np.eye(n) - np.eye(n, k=-1), atol=1e-6)


@pytest.mark.parametrize("description", [m.DeltaNet(), m.GatedDeltaNet(), m.Longhorn(), m.Rwkv7(), m.Mesa()])
def test_no_mixer_calls_lapack(description):
    mixer = description(8, key=jax.random.key(0))
    program = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(mixer(x))))(jnp.ones((20, 8))))
    for name in ("triangular_solve[", "cholesky[", " lu["):
        assert name not in program
