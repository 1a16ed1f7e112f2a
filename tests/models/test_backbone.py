"""One backbone around any mixer: decoding equals the full pass, sites can be clamped, a user's mixer joins."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import Backbone, Interleaved, Intervention, Learner, TokenLearner
from meta_icl.models import mixers as m
from meta_icl.prompt import answer_positions, answer_tokens
from meta_icl.tasks import LinearRegression, Overwrite
from meta_icl.training import Optimiser, labelled_cross_entropy, train

T = 11
HYBRID = (m.TitansBlock("context", m.Titans(chunk_size=2), segment=4, n_persistent=2), m.Mamba2(chunk_size=4, d_key=4))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "mixers",
    [
        pytest.param((m.GatedDeltaNet(chunk_size=4),), id="one"),
        pytest.param(HYBRID, id="hybrid", marks=pytest.mark.slow),
    ],
)
def test_decoding_is_the_full_pass(mixers):
    network = Backbone(8, mixers, n_tokens=7, d_out=7)(key=jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (T,), 0, 7)
    full = eqx.filter_jit(lambda network, tokens: network(tokens)[0])(network, tokens)
    np.testing.assert_allclose(eqx.filter_jit(lambda n, t: n.decode(t))(network, tokens), full, rtol=0, atol=1e-10)


class Averaging(eqx.Module):
    """A user's mixer: no base class, `initial_state` and `step` only; the mean of all tokens so far."""

    weight: jax.Array

    def initial_state(self):
        return jnp.zeros(self.weight.shape[0]), jnp.zeros(())

    def step(self, state, x):
        total, n = state[0] + x, state[1] + 1
        return (total, n), total / n @ self.weight


@dataclass(frozen=True)
class AveragingMixer:
    def __call__(self, d_model, *, key):
        return Averaging(jax.random.normal(key, (d_model, d_model)))


def test_a_users_mixer_joins():
    learner = Learner(Backbone(8, (AveragingMixer(),), d_in=3), Interleaved())(key=jax.random.key(0))
    prompts = LinearRegression(d=3, n_context=4).sample_batch(2, key=jax.random.key(1))
    assert answer_positions(learner, prompts).shape == (2, 5, 1)
    mixer = AveragingMixer()(8, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (T, 8))
    expected = np.cumsum(x, axis=0) / np.arange(1, T + 1)[:, None] @ mixer.weight
    np.testing.assert_allclose(m.mix(mixer, x), expected, rtol=1e-4, atol=1e-5)
    assert m.state_size(mixer) == 9
    # Per token: 8 sums, 1 count, 8 quotients, 2 * 8 * 8 for the product.
    assert m.inner_flops(mixer, T, 8) == T * (8 + 1 + 8 + 128)


def test_a_clamped_mixer_is_a_missing_one():
    network = Backbone(8, (m.DeltaNet(chunk_size=4),), n_tokens=7, d_out=7, mlp=0)(key=jax.random.key(0))
    tokens = jnp.arange(7)
    output, trace = eqx.filter_jit(network)(tokens, [Intervention("mixer_out", True)])
    bare = eqx.filter_jit(lambda network, tokens: network.read(network.embedded(tokens)))(network, tokens)
    np.testing.assert_allclose(output, bare, rtol=1e-5, atol=1e-6)
    assert trace["resid_post"].shape == (2, 7, 8)
    with pytest.raises(BadInput, match="unknown intervention site"):
        network(tokens, [Intervention("scores", True)])


@pytest.mark.slow
def test_training_lowers_the_loss():
    task = Overwrite(vocabulary=16, n_keys=2, n_writes=1)
    model = TokenLearner(Backbone(16, (m.Titans(chunk_size=4),), n_layers=1, n_tokens=16, d_out=16))
    options = {"objective": labelled_cross_entropy, "optimiser": Optimiser(learning_rate=3e-3), "batch": 32}
    trained = train(task, model, steps=60, key=jax.random.key(0), record=30, **options)
    assert trained.history["loss"][-1, 0] < 2.2 < np.log(16)
    prompts = task.sample_batch(3, key=jax.random.key(1))
    assert answer_tokens(trained[0], prompts).shape == (3, 6, 16)


def test_bad_input_is_one_line():
    for make, field in (
        (lambda: Backbone(8, (), d_in=1), "mixers"),
        (lambda: Backbone(8, (m.DeltaNet(),)), "d_in"),
        (lambda: m.DeltaNet(n_heads=3)(8, key=jax.random.key(0)), "n_heads"),
        (lambda: m.Titans(depth=2, init="zero"), "init"),
        (lambda: m.TitansBlock("context", m.Titans(chunk_size=16), segment=24), "segment"),
        (lambda: m.Ttt(depth=3), "depth"),
    ):
        with pytest.raises(BadInput, match=f"^{field} must be"):
            make()
