"""What `train` takes: anything with a plain meaning, else one line, before anything is trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import Architecture, Learner, von_oswald
from meta_icl.prompt import Prompt, Task, TokenTask
from meta_icl.tasks import LinearRegression, Mqar, RandomPoints, RepeatedTokens
from meta_icl.training import Optimiser, arguments, objectives, train
from meta_icl.training.optimisers import Given
from meta_icl.training.replicas import make_replicas, seed_numbers

KEY = jax.random.key(0)
TASK = LinearRegression(d=2, n_context=3)


class Linear(eqx.Module):
    """The smallest model: w.x of the query, or what `form` makes of it."""

    w: jax.Array
    form: object = eqx.field(static=True, default=lambda answer: answer[None])

    def __init__(self, *, key, form=lambda answer: answer[None]):
        self.w, self.form = jax.random.normal(key, (2,)), form

    def __call__(self, prompt):
        return self.form(prompt.query.x @ self.w)


class Noisy(Task):
    noise: float = 0.0

    def sample(self, *, key):
        x_key, noise_key = jax.random.split(key)
        x = jax.random.normal(x_key, (4, 2))
        return Prompt(x, x[:, :1] + self.noise * jax.random.normal(noise_key, (4, 1)))


def quick(task=TASK, model=Linear, **changes):
    return train(task, model, **({"steps": 2, "key": 0, "batch": 4, "record": [2]} | changes))


def weights(trained):
    return np.asarray(trained.stacked.w)


def test_a_plain_number_of_a_persons_task_is_trained_on_and_swept():
    swept = quick(Noisy(), sweep={"task.noise": (0, 2.0)})
    alone = quick(Noisy(noise=2.0))
    np.testing.assert_allclose(weights(swept)[1], weights(alone)[0], rtol=1e-5)
    assert not np.allclose(weights(swept)[0], weights(swept)[1])


def test_all_ways_to_say_the_same_are_the_same():
    expected = weights(quick(key=jax.random.key(0)))
    same = {
        "an integer key": quick(key=0),
        "a number of seeds of numpy": quick(seeds=np.int64(1)),
        "a function of a key": quick(model=lambda key: Linear(key=key)),
        "a function of one argument": quick(model=lambda k: Linear(key=k)),
        "an objective's name": quick(objective="half_mse"),
        "an optimiser's name": quick(optimiser="adam"),
        "an optimiser's class": quick(optimiser=Optimiser),
        "a learning rate": quick(optimiser=1e-3),
        "optax": quick(optimiser=optax.adam(1e-3)),
        "a list of seeds": quick(seeds=[0]),
        "a number for the record": quick(record=2),
        "a sweep of one number": quick(sweep=[("optimiser.learning_rate", 1e-3)]),
        "a plain number as the answer": quick(model=lambda key: Linear(key=key, form=lambda answer: answer)),
    }
    for way, trained in same.items():
        np.testing.assert_allclose(weights(trained), expected, rtol=1e-5, err_msg=way)


def test_a_predictor_is_trained_on_from_where_it_stands():
    start = Linear(key=jax.random.key(7))
    np.testing.assert_array_equal(weights(quick(model=start, steps=0, record=None))[0], start.w)


def test_probes_in_a_list_are_called_by_their_functions():
    def size(predictor, key):
        return jnp.sum(jnp.square(predictor.w))

    for probes in (size, [size], {"size": size}):
        assert quick(probes=probes).history["size"].shape == (2, 1)


def test_the_objective_is_that_of_the_tasks_kind():
    tasks = {
        "half_mse": TASK,
        "cross_entropy": RandomPoints(d=2, n_context=3, n_labels=4),
        "next_token_cross_entropy": RepeatedTokens(n_tokens=5, period=3),
        "labelled_cross_entropy": Mqar(vocabulary=17, length=16, n_pairs=2),
    }
    for name, task in tasks.items():
        assert arguments.given_objective(None, task) is getattr(objectives, name)
    assert arguments.given_optimiser(optax.sgd(0.1)).build().update is not None
    assert isinstance(arguments.given_optimiser(optax.sgd(0.1)), Given)


POINTS = RandomPoints(d=2, n_context=3, n_labels=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": lambda key: Linear(key=key, form=lambda a: jnp.stack([a, a]))}, r"shape \(2,\), wanted \(1,\)"),
        ({"model": lambda key: Linear(key=key, form=lambda a: jnp.ones((3, 1)) * a)}, r"\(3, 1\), wanted .*\(4, 1\)"),
        ({"model": lambda key: Linear(key=key, form=lambda a: (a, {}))}, "got tuple; a network .* needs a layout"),
        ({"task": POINTS, "model": lambda key: Linear(key=key, form=lambda a: a * jnp.ones(3))}, "at least 4"),
        ({"task": POINTS, "objective": "half_mse"}, "objective must be one for integer labels"),
        ({"objective": "cross_entropy"}, "objective must be one for real targets"),
        ({"objective": "next_token_cross_entropy"}, "objective must be one for Prompt"),
        ({"objective": "half_mze"}, "did you mean 'half_mse'"),
        ({"objective": lambda *a: jnp.ones(2)}, r"must be one number, got 'shape \(2,\)'"),
        ({"objective": 3}, "objective must be a function"),
        ({"optimiser": optax.adam}, r"optax.adam\(1e-3\)"),
        ({"optimiser": "adm"}, "did you mean 'adam'"),
        ({"optimiser": optax.adam(1e-3), "sweep": {"optimiser.learning_rate": (1e-3,)}}, "unknown field"),
        ({"model": 3}, "model must be a description"),
        ({"model": lambda prompt: prompt.query.x}, "model must draw a predictor from a key"),
        ({"model": Architecture}, r"an instance, as Architecture\(d_model=..\)"),
        ({"task": LinearRegression}, r"an instance, as LinearRegression\(d=.., n_context=..\)"),
        ({"task": 3}, "task must be a task"),
        ({"steps": -1}, "steps must be an integer from 0"),
        ({"batch": True}, "batch must be an integer"),
        ({"key": -1}, "key must be"),
        ({"key": "0"}, "key must be"),
        ({"seeds": -1}, "seeds must be"),
        ({"seeds": []}, "seeds must be"),
        ({"seeds": [1, 1]}, "seeds must be"),
        ({"seeds": [0.5]}, "seeds must be"),
        ({"seeds": [-3]}, "seeds must be"),
        ({"seeds": [2**31]}, "seeds must be"),
        ({"seeds": "12"}, "seeds must be"),
        ({"sweep": {"task.noise": ()}}, "sweep of task.noise must be"),
        ({"sweep": {"task.noise": (0.1, 0.1)}}, "sweep of task.noise must be different"),
        ({"sweep": {"task.noise": (np.inf,)}}, "sweep of task.noise must be"),
        ({"sweep": {"task.noise": (-1.0,)}}, "noise must be zero or positive"),
        ({"sweep": "task.noise"}, "sweep must be a dictionary"),
        ({"probes": 3}, "probes must be a dictionary"),
    ],
)
def test_everything_else_is_one_line(changes, message):
    with pytest.raises(BadInput, match=message) as raised:
        quick(**changes)
    assert "\n" not in str(raised.value)


def test_an_ensemble_is_not_one_model():
    with pytest.raises(BadInput, match=r"such as net\[0\]"):
        quick(model=quick(seeds=2))


def test_replicas_check_seeds_too():
    """The command line makes replicas without training."""
    assert seed_numbers(3) == [0, 1, 2] and seed_numbers(range(2, 4)) == [2, 3]
    with pytest.raises(BadInput, match="seeds"):
        make_replicas(TASK, Optimiser(), KEY, [1, 1], {})


def test_a_token_task_is_refused_where_pairs_are_asked_for():
    assert isinstance(RepeatedTokens(n_tokens=5, period=3), TokenTask)
    with pytest.raises(BadInput, match="scores pairs"):
        quick(RepeatedTokens(n_tokens=5, period=3), Learner(von_oswald(4)), objective="half_mse")


def test_a_model_of_another_width_is_one_line():
    with pytest.raises(BadInput, match=r"the model does not fit LinearRegression: .*\(3,\) and \(6,\)") as told:
        train(TASK, Learner(von_oswald(6)), steps=1, key=0, batch=2)
    assert told.value.__cause__ is not None  # where it comes from is not lost
