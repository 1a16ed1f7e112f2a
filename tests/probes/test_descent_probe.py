"""The probe `descent`: a network that is gradient descent is found out, also halfway between weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.algorithms import sample_best_rate
from meta_icl.analysis import from_products, gradient_descent_construction
from meta_icl.models import Concatenated, InContextLearner, Learner, garg, von_oswald
from meta_icl.probes import descent, learner_subject
from meta_icl.prompt import Prompt, truncated

HALFWAY = "weights halfway to gradient descent"


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    x, w = rng.uniform(-1, 1, (256, 9, 3)), rng.normal(size=(256, 3, 1))
    return Prompt(jnp.asarray(x), jnp.asarray(x @ w))


def test_one_step_in_another_gauge_is_found(prompts):
    """The rate of the whole prompt makes the network the reference there; a scale moved from A to B changes nothing."""
    built = gradient_descent_construction(sample_best_rate(prompts), d=3, n_context=8).network
    moved = from_products(built.config, 3 * built.qk(), built.ov() / 3)
    found = descent.measure(learner_subject(InContextLearner(Concatenated(), moved), prompts))
    assert found["contexts"].tolist() == [4, 8]
    np.testing.assert_allclose(found["gradient descent/difference"][1], 0, atol=1e-5)
    np.testing.assert_allclose(found["gradient descent/cosine"][1], 1, atol=1e-5)
    np.testing.assert_allclose(found[f"{HALFWAY}/loss"][1], found["loss"][1], rtol=1e-5)
    assert {row["reference"] for row in descent.rows(found)} >= {HALFWAY, "least squares"}


def test_halfway_is_by_the_mean_of_products(prompts):
    """One layer answers with B only through the y slots: halfway is the answer of the mean of its read-outs."""
    rate = float(sample_best_rate(prompts))
    doubled = gradient_descent_construction(2 * rate, d=3, n_context=8).network
    found = descent.measure(learner_subject(InContextLearner(Concatenated(), doubled), prompts))
    x, y = np.asarray(prompts.x, np.float64), np.asarray(prompts.y, np.float64)
    step = np.einsum("bno,bnd,bd->bo", y[:, :-1], x[:, :-1], x[:, -1]) / 8
    wanted = 0.5 * np.mean((1.5 * rate * step - y[:, -1]) ** 2)
    np.testing.assert_allclose(found[f"{HALFWAY}/loss"][1], wanted, rtol=1e-5)


def test_two_separate_steps_are_compared_with_as_many(prompts):
    built = gradient_descent_construction(jnp.array([0.4, 0.4]), d=3, n_context=8, n_steps=2)
    assert f"{HALFWAY}/loss" in descent.measure(learner_subject(built, truncated(prompts, 8)))


@pytest.mark.parametrize(
    "model",
    [Learner(von_oswald(4, n_heads=2)), Learner(von_oswald(4, attention="softmax")), Learner(garg(3, 8, 1, 1, 12))],
    ids=["two heads", "softmax", "a decoder"],
)
def test_networks_without_the_construction(prompts, model):
    if not isinstance(model, InContextLearner):
        model = model(key=jax.random.key(0))
    assert descent.halfway(model, prompts) == {}
