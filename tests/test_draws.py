"""Draws are those of `jax.random`, number by number, whichever the generator; and they are what they claim to be."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import stats

from meta_icl import draws

KEYS = {generator: jax.random.key(3, impl=generator) for generator in ("threefry2x32", "philox2x32")}
NUMBERS = {
    "uniform": {"minval": -1, "maxval": 2},
    "normal": {},
    "truncated_normal": {"lower": -2.0, "upper": 1.0},
    "laplace": {},
    "exponential": {},
    "bernoulli": {"p": 0.3},
    "randint": {"minval": 2, "maxval": 9},
}
MANY = (3, draws.MANY // 2 + 1)  # an odd number of them, drawn in two halves


@pytest.mark.parametrize("generator", sorted(KEYS))
@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_the_numbers_of_jax_random(name, generator):
    ours, theirs = (partial(getattr(module, name), KEYS[generator], **NUMBERS[name]) for module in (draws, jax.random))
    written_out = generator == "threefry2x32" and name in ("uniform", "normal", "truncated_normal")
    for shape in [(), (5,), (2, 3, 5), *([MANY] if written_out else [])]:
        a, b = ours(shape=shape), theirs(shape=shape)
        assert a.shape == b.shape == shape
        assert a.dtype == b.dtype
        # A product and a sum lead to a truncated law; XLA rounds them once or twice, as programs are made and fused.
        twice = written_out and name == "truncated_normal" and shape == MANY
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 if twice else 0)


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_one_draw_per_key_under_vmap(name):
    keys = jax.random.split(KEYS["threefry2x32"], 4)
    ours, theirs = (
        jax.vmap(lambda key, module=module: getattr(module, name)(key, shape=(3,)))(keys)
        for module in (draws, jax.random)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_float64_is_drawn_with_all_its_bits(x64):
    drawn = draws.normal(KEYS["threefry2x32"], (64,))
    np.testing.assert_array_equal(drawn, jax.random.normal(KEYS["threefry2x32"], (64,)))
    assert np.any(np.asarray(drawn) != np.asarray(drawn).astype(np.float32))


def test_normal_numbers_are_normal_and_independent_of_step_key_and_lane():
    n = 1 << 15
    key = KEYS["threefry2x32"]
    steps = [draws.normal(jax.random.fold_in(key, i), (n,)) for i in (0, 1, 2, 1 << 20)]
    steps += [draws.normal(k, (n,)) for k in jax.random.split(jax.random.fold_in(key, 7))]
    drawn = np.asarray(steps, np.float64)
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    # A correlation of n independent pairs has deviation 1/sqrt(n); of these few, none is five of them.
    between = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    lanes = [np.corrcoef(drawn[0][:-lag], drawn[0][lag:])[0, 1] for lag in (1, 2, 4, 8, 16, 64, 1024, n // 2)]
    assert np.abs([*between, *lanes]).max() < 5 / np.sqrt(n // 2)
    moments = [np.mean(drawn**k) for k in (1, 2, 3, 4)]
    errors = np.sqrt(np.array([1, 2, 15, 96]) / drawn.size)  # Var x^k = E x^2k - (E x^k)^2
    assert np.abs((np.array(moments) - [0, 1, 0, 3]) / errors).max() < 5
