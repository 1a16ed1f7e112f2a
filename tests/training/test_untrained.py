"""What a training leaves as it was drawn: frozen leaves, those that modules hold themselves, arrays of no weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import Learner, von_oswald
from meta_icl.prompt import Prompt, answer_batch
from meta_icl.tasks import LinearRegression, Uniform
from meta_icl.training import Optimiser, train

TASK = LinearRegression(d=3, n_context=4, x_law=Uniform(half_range=1.0))
MODEL = Learner(von_oswald(4))


class Held(eqx.Module):
    """Two numbers, of which one says itself that it is not trained."""

    free: jax.Array
    fixed: jax.Array

    def untrained_leaves(self):
        return [self.fixed]

    def __call__(self, prompt):
        return (self.free + self.fixed) * prompt.query.x[:1]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_holds_itself_is_not_moved_by_weight_decay(name):
    optimiser = Optimiser(name, learning_rate=0.1, weight_decay=0.5)
    trained = train(TASK, Held(jnp.ones(()), jnp.ones(())), steps=3, key=0, batch=4, optimiser=optimiser)
    assert float(trained[0].fixed) == 1.0 and float(trained[0].free) != 1.0


def test_a_model_without_weights_is_told():
    with pytest.raises(BadInput, match="model must be one with weights to train"):
        train(TASK, lambda *, key: lambda prompt: prompt.query.x[:1], steps=3, key=0, batch=4)


def test_frozen_leaves_stay():
    def of(steps):
        return train(
            TASK, MODEL, steps=steps, key=0, batch=8, record=4, freeze=lambda m: [m.network.blocks[0].mixer.w_q]
        )

    trained, first = of(12), of(0)[0]
    np.testing.assert_array_equal(trained[0].network.blocks[0].mixer.w_q, first.network.blocks[0].mixer.w_q)
    assert not np.array_equal(trained[0].network.blocks[0].mixer.w_k, first.network.blocks[0].mixer.w_k)


class Shuffled(eqx.Module):
    """Reads its context in an order of its own, which is drawn but not trained."""

    order: jax.Array
    inner: eqx.Module

    def __call__(self, prompt: Prompt):
        rows = jnp.append(self.order, len(prompt.x) - 1)
        return self.inner(Prompt(prompt.x[rows], prompt.y[rows]))


def test_arrays_that_are_not_trained_are_drawn_once():
    def model(*, key):
        return Shuffled(jax.random.permutation(key, TASK.n_context), MODEL(key=key))

    trained = train(TASK, model, steps=0, key=jax.random.key(0), batch=8, seeds=2)
    for member in (trained[0], trained[1]):
        np.testing.assert_array_equal(member.order, jax.random.permutation(jax.random.key(0), TASK.n_context))
    assert answer_batch(trained, TASK.sample_batch(8, key=jax.random.key(1))).shape == (2, 8, 1)
