"""Flat draws are those of `jax.random`, number by number."""

from functools import partial

import jax
import numpy as np
import pytest

from meta_icl import draws

KEY = jax.random.key(3)
NUMBERS = {
    "uniform": {"minval": -1, "maxval": 2},
    "normal": {},
    "truncated_normal": {"lower": -2.0, "upper": 1.0},
    "laplace": {},
    "exponential": {},
    "bernoulli": {"p": 0.3},
    "randint": {"minval": 2, "maxval": 9},
}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_the_numbers_of_jax_random(name):
    ours, theirs = (partial(getattr(module, name), KEY, **NUMBERS[name]) for module in (draws, jax.random))
    for shape in [(), (5,), (2, 3, 5)]:
        a, b = ours(shape=shape), theirs(shape=shape)
        assert a.shape == b.shape == shape
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
