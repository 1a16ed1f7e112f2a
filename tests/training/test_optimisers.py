"""One step of every optimiser against the rule written out in numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import garg
from meta_icl.training import Optimiser, rising_and_falling
from meta_icl.training.replicas import with_field


def orthogonalised(gradient):
    """Five Newton-Schulz steps as Muon's polynomial of the singular values, which leaves the singular vectors alone."""
    u, s, v = np.linalg.svd(gradient, full_matrices=False)
    s = s / np.linalg.norm(gradient)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


def test_muon_turns_hidden_maps_only(x64):
    network = eqx.filter_eval_shape(garg(3, 4, 2, 2, 5), key=jax.random.key(0))  # compiles nothing
    shapes = eqx.filter(network, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    rng = np.random.default_rng(0)
    params, gradient = (jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes) for _ in range(2))
    optimiser = Optimiser("muon", learning_rate=0.01).build()
    step, _ = jax.jit(optimiser.update)(gradient, optimiser.init(params), params)
    (moved,), (given,) = step.blocks, gradient.blocks

    def matrices(block):  # of every layer; the heads of a layer are one
        heads = [np.moveaxis(np.asarray(getattr(block.mixer, name)), 1, 2) for name in ("w_q", "w_k", "w_v")]
        joined = [w.reshape(*w.shape[:2], -1) for w in heads]
        w_o = np.asarray(block.mixer.w_o)
        return [
            *joined,
            w_o.reshape(w_o.shape[0], -1, w_o.shape[-1]),
            block.feed_forward.w_in,
            block.feed_forward.w_out,
        ]

    for moves, gradients in zip(matrices(moved), matrices(given), strict=True):
        for found, g in zip(moves, gradients, strict=True):
            wanted = -0.01 * 0.2 * max(g.shape) ** 0.5 * orthogonalised(np.asarray(g))
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)
    ahead = 1 + 0.9 * (1 - 0.9) / (1 - 0.9**2)  # optax lets Adam look ahead here too (Nesterov); after one step
    norms = moved.norm_mixer.scale, given.norm_mixer.scale
    for found, g in (norms, (step.embedding.map.weight, gradient.embedding.map.weight)):
        np.testing.assert_allclose(found, -0.01 * ahead * np.sign(g), rtol=1e-5)


@pytest.mark.parametrize("number", [1, np.int64(1), 1.0])
def test_whole_numbers_are_real_ones(number):
    optimiser = Optimiser(learning_rate=number, momentum=0, schedule="cosine", schedule_steps=4)
    assert float(optimiser.rate(2)) == pytest.approx(0.5)
    assert float(with_field(optimiser, "momentum", 0.5).momentum) == 0.5


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_first_step_of_adam_is_the_sign(name):
    """By its name "adam" leaves out a decay that is given."""
    params = {"w_q": jnp.ones((2, 3))}
    optimiser = Optimiser(name, learning_rate=0.01, weight_decay=0.1).build()
    step, _ = optimiser.update({"w_q": jnp.full((2, 3), -2.0)}, optimiser.init(params), params)
    np.testing.assert_allclose(step["w_q"], 0.01 - 0.001 * (name == "adamw"), rtol=1e-5)


def test_the_rate_rises_rests_and_falls():
    optimiser = Optimiser(learning_rate=2.0, schedule="linear", warmup_steps=2, hold_steps=3, schedule_steps=4)
    found = [float(optimiser.rate(count)) for count in range(11)]
    np.testing.assert_allclose(found, [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0])


def test_the_rate_falls_as_the_inverse_square_root():
    optimiser = Optimiser(learning_rate=3.0, schedule="inverse_sqrt", warmup_steps=2, hold_steps=2)
    found = [float(optimiser.rate(step - 1)) for step in (1, 2, 3, 4, 9, 16, 400)]
    np.testing.assert_allclose(found, [1.5, 3.0, 3.0, 3.0, 2.0, 1.5, 0.3], rtol=1e-6)
    with pytest.raises(BadInput, match="warmup_steps"):
        Optimiser(schedule="inverse_sqrt")


@pytest.mark.parametrize(("steps", "share", "highest"), [(10, 0.5, 4), (100, 0.05, 4), (2, 0.5, 0), (7, 0.5, 2)])
def test_a_rate_that_rises_and_falls(steps, share, highest):
    """A triangle from a first step above zero to zero after the last."""
    rates = [float(Optimiser(**rising_and_falling(steps, share)).rate(i)) / 1e-3 for i in range(steps + 1)]
    assert int(np.argmax(rates)) == highest and rates[highest] == pytest.approx(1)
    assert rates[steps] == 0 < min(rates[:steps])
    for straight in (rates[: highest + 1], rates[highest + 1 :]):
        assert np.ptp(np.diff(straight)) < 1e-6 if len(straight) > 2 else True
