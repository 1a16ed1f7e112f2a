"""Trained predictors: chosen by seed and swept value, kept in one file, read back as they were."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from meta_icl.errors import BadInput
from meta_icl.models import Concatenated, LinearAttention
from meta_icl.prompt import answer_batch
from meta_icl.tasks import LinearRegression
from meta_icl.training import load, train
from meta_icl.training.files import FORMAT, described, rebuilt

TASK = LinearRegression(d=2, n_context=3)
RATES = (1e-3, 1e-2)


@pytest.fixture(scope="module")
def trained():
    sweep = {"optimiser.learning_rate": RATES}
    return train(TASK, LinearAttention(d_model=3), steps=2, key=0, batch=4, seeds=[3, 5], sweep=sweep, record=1)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def same(a, b):
    for one, other in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_members_are_chosen_by_value(trained):
    chosen = trained.select(seed=5, **{"optimiser.learning_rate": 1e-2})
    assert chosen.replicas == ({"seed": 5, "optimiser.learning_rate": 1e-2},)
    same(chosen[0], trained[3])
    assert chosen.history["loss"].shape == (3, 1) and chosen.history["step"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(chosen.history["loss"][:, 0], trained.history["loss"][:, 3])
    assert len(trained.select(**{"optimiser.learning_rate": list(RATES)})) == 4
    assert [r["seed"] for r in trained[1::2].replicas] == [5, 5]
    assert list(trained.points()) == ["optimiser.learning_rate=0.001", "optimiser.learning_rate=0.01"]
    same(trained[[2, 0]][1], trained[0])


def test_what_nobody_has_is_named(trained):
    with pytest.raises(BadInput, match=r"no member has seed = 4 \(there are: 3, 5\)"):
        trained.select(seed=4)
    with pytest.raises(BadInput, match=r"did you mean 'optimiser\.learning_rate'"):
        trained.select(**{"optimiser.learning_rat": 1e-3})


def test_a_file_gives_back_the_same(trained, tmp_path):
    path = replace(trained, diverged={2: 1}).save(tmp_path / "net.safetensors")
    back = load(path)
    assert back.diverged == {2: 1}
    same(back.stacked, trained.stacked)
    assert back.replicas == trained.replicas and back.model == trained.model
    for name, values in trained.history.items():
        np.testing.assert_array_equal(back.history[name], values)
    prompts = TASK.sample_batch(3, key=jax.random.key(1))
    np.testing.assert_array_equal(answer_batch(back[0], prompts), answer_batch(trained[0], prompts))
    assert list(tmp_path.iterdir()) == [path]


class Mine(eqx.Module):
    w: jax.Array

    def __init__(self, key, d=2):
        self.w = jax.random.normal(key, (d,))

    def __call__(self, prompt):
        return prompt.query.x @ self.w


def test_a_model_of_ones_own_is_given_again(tmp_path):
    mine = train(TASK, Mine, steps=1, key=0, batch=4)
    path = mine.save(tmp_path / "mine.safetensors")
    same(load(path, Mine).stacked, mine.stacked)
    with pytest.raises(BadInput, match=r"give load the model.*Mine"):
        load(path)
    with pytest.raises(BadInput, match="belongs to another model"):
        load(path, lambda key: Mine(key, d=3))
    with pytest.raises(BadInput, match="another model"):
        load(path, LinearAttention(d_model=3))


def refused(path, match):
    with pytest.raises(BadInput, match=match) as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_other_files_are_refused_in_one_line(trained, tmp_path):
    refused(tmp_path / "nowhere", "cannot read")
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"not a file of tensors")
    refused(path, "cannot read")
    save_file({"x": np.ones(2)}, path)
    refused(path, "not written by net.save")
    save_file({"x": np.ones(2)}, path, metadata={"meta_icl": json.dumps({"format": FORMAT})})
    refused(path, "not written by net.save")
    good = bytearray(trained.save(path).read_bytes())
    good[-3] ^= 1
    path.write_bytes(good)
    refused(path, "is damaged")
    path.write_bytes(good[:-8])
    refused(path, "cannot read")
    with pytest.raises(BadInput, match="cannot write"):
        trained.save(tmp_path)


@pytest.mark.parametrize(
    "named", ["os:system", "meta_icl.models.learner:Nothing", "meta_icl.apps.cli:main", "meta_icl"]
)
def test_a_file_names_descriptions_of_this_package_alone(named):
    with pytest.raises(BadInput, match="the file"):
        rebuilt({"class": named, "fields": {}})


def test_descriptions_with_arrays_come_back():
    layout = Concatenated(w0=jnp.ones((1, 2)))
    back = rebuilt(json.loads(json.dumps(described(layout))))
    np.testing.assert_array_equal(back.w0, layout.w0)
    assert described(lambda key: None) is None
