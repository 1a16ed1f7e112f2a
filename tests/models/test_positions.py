"""Rotary positions far into a text, against complex numbers in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.models import Rotary


@pytest.mark.parametrize("fields", [{}, {"base": 5e5, "scaling": "linear", "factor": 0.1}])
def test_angles_far_into_a_text(fields):
    """A float32 keeps 24 bits of p rate, whole turns included: that product is off by more than 1e-4 here."""
    positions, k = np.array([0, 1, 511, 8191, 100_003]), 8
    x = np.random.default_rng(0).normal(size=(2, len(positions), k)).astype(np.float32)
    rates = fields.get("base", 1e4) ** (-np.arange(k // 2) / (k // 2)) / fields.get("factor", 1)
    turned = (x[..., : k // 2] + 1j * x[..., k // 2 :]) * np.exp(1j * positions[:, None] * rates)
    found = Rotary(**fields)(jnp.asarray(x), jnp.asarray(positions))
    np.testing.assert_allclose(found, np.concatenate([turned.real, turned.imag], -1), rtol=0, atol=2e-6)
    products = (positions[:, None].astype(np.float32) * rates.astype(np.float32)).astype(float)
    assert np.abs(products - positions[:, None] * rates).max() > 1e-4
