"""Constructed weights against explicit numpy loops in float64."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.analysis import (
    copy_then_descend_construction,
    from_products,
    gradient_descent_construction,
    gradient_descent_plus_plus_construction,
    interpolated,
    rolled_out,
    rollout_losses,
)
from meta_icl.errors import BadInput
from meta_icl.evaluation import sensitivity
from meta_icl.models import Architecture, Attention, Block, Norm, minegishi, von_oswald
from meta_icl.prompt import Prompt

STEPS = [1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4)), 5]


def random_prompt(seed: int, n: int, d: int, o: int) -> Prompt:
    rng = np.random.default_rng(seed)
    return Prompt(jnp.asarray(rng.normal(size=(n + 1, d))), jnp.asarray(rng.normal(size=(n + 1, o))))


def descend(prompt: Prompt, rates, w0) -> np.ndarray:
    """Gradient descent on (1/2N) sum |W x - y|^2, one example at a time."""
    x, y = np.asarray(prompt.x), np.asarray(prompt.y)
    w = np.array(w0, float)
    for rate in rates:
        gradient = np.zeros_like(w)
        for i in range(len(x) - 1):
            gradient += np.outer(w @ x[i] - y[i], x[i]) / (len(x) - 1)
        w = w - rate * gradient
    return w @ x[-1]


def descend_plus_plus(prompt: Prompt, rates, gammas, w0) -> np.ndarray:
    """GD++ on the tokens, in the order of the paper's equation; the query's slot ends as minus the prediction."""
    x, y = np.array(prompt.x), np.array(prompt.y)
    n = len(x) - 1
    y[-1] = -w0 @ x[-1]
    for rate, gamma in zip(rates, gammas, strict=True):
        second = sum(np.outer(x[i], x[i]) for i in range(n))
        cross = sum(np.outer(y[i] - w0 @ x[i], x[i]) for i in range(n))
        y = y - rate / n * np.stack([cross @ row for row in x])
        x = x - gamma * np.stack([second @ row for row in x])
    return -y[-1]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("o", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_gradient_descent_construction_is_exact(x64, steps, o, shared):
    rng = np.random.default_rng(steps)
    prompt, w0 = random_prompt(steps, 6, 4, o), rng.normal(size=(o, 4))
    rates = np.full(steps, 0.3) if shared else rng.uniform(0.1, 0.4, steps)
    learner = gradient_descent_construction(
        0.3 if shared else jnp.asarray(rates), d=4, n_context=6, n_steps=steps, n_out=o, w0=jnp.asarray(w0)
    )
    np.testing.assert_allclose(learner(prompt), descend(prompt, rates, w0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("o", [1, 2])
@pytest.mark.parametrize("start", ["zero", "any"])
def test_gd_plus_plus_construction_is_exact(x64, steps, o, start):
    rng = np.random.default_rng(steps)
    prompt = random_prompt(steps, 5, 3, o)
    w0 = np.zeros((o, 3)) if start == "zero" else rng.normal(size=(o, 3))
    rates, gammas = rng.uniform(0.1, 0.3, steps), rng.uniform(0.01, 0.03, steps)
    learner = gradient_descent_plus_plus_construction(
        jnp.asarray(rates),
        jnp.asarray(gammas),
        d=3,
        n_context=5,
        n_steps=steps,
        n_out=o,
        w0=None if start == "zero" else jnp.asarray(w0),
    )
    np.testing.assert_allclose(learner(prompt), descend_plus_plus(prompt, rates, gammas, w0), rtol=1e-12, atol=1e-12)


def test_query_among_the_keys_breaks_the_equivalence(x64):
    """With W0 != 0 the query's value is not zero, so including it changes the answer: the control that must fail."""
    prompt, w0 = random_prompt(0, 6, 4, 1), np.ones((1, 4))
    learner = gradient_descent_construction(0.3, d=4, n_context=6, w0=jnp.asarray(w0))
    block = learner.network.config.block
    block = replace(block, mixer=replace(block.mixer, query_is_key=True))
    included = type(learner)(learner.layout, learner.network.with_config(block=block))
    assert abs(float((included(prompt) - descend(prompt, [0.3], w0))[0])) > 1e-3


def test_implicit_weights_of_one_step(x64):
    """The sensitivity of one constructed step is the weight vector that gradient descent would have."""
    prompt = random_prompt(1, 6, 4, 1)
    learner = gradient_descent_construction(0.3, d=4, n_context=6)
    x, y = np.asarray(prompt.context.x), np.asarray(prompt.context.y)
    np.testing.assert_allclose(sensitivity(learner, prompt), 0.3 / 6 * y.T @ x, rtol=1e-12)


@pytest.mark.parametrize(
    ("n", "d", "o"), [*(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 2, 1), (10, 5, 1))), (7, 3, 2)]
)
def test_copy_layer_then_descent(x64, n, d, o):
    prompt = random_prompt(2, n, d, o)
    learner = copy_then_descend_construction(0.4, d=d, n_context=n, n_out=o)
    np.testing.assert_allclose(learner(prompt), descend(prompt, [0.4], np.zeros((o, d))), rtol=1e-9, atol=1e-12)


def test_interpolation_ignores_the_gauge(x64):
    """Moving a scale between A and B, or between W_Q and W_K, changes neither the model nor its interpolation."""
    prompt = random_prompt(3, 6, 4, 1)
    a = gradient_descent_construction(0.3, d=4, n_context=6)
    mixer = a.network.blocks[0].mixer
    moved = (mixer.w_q * 6.0, mixer.w_k * 0.5, mixer.w_v / 3.0)
    scaled = eqx.tree_at(lambda s: [getattr(s.network.blocks[0].mixer, w) for w in ("w_q", "w_k", "w_v")], a, moved)
    np.testing.assert_allclose(scaled(prompt), a(prompt), rtol=1e-12)
    b = gradient_descent_construction(0.5, d=4, n_context=6)
    middle = interpolated(scaled, b)
    np.testing.assert_allclose(middle(prompt), descend(prompt, [0.4], np.zeros((1, 4))), rtol=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        von_oswald(3, 4, 2, 3, ("softmax", "linear", "mixed", "linear"), score_scale=0.5),
        Architecture(3, 3, (Block(Attention(2, 3), norm=Norm()), Block(Attention(2, 3, kind="linear")))),
        von_oswald(3, 4, d_head=3, looped=True),
    ],
    ids=["kinds", "round", "looped"],
)
def test_products_come_back(x64, config):
    """Every attention-only network has the products that it is made of, in the order of its layers."""
    n = 1 if config.looped else config.n_layers
    heads = config.blocks[0].mixer.n_heads
    qk, ov = jnp.asarray(np.random.default_rng(0).normal(size=(2, n, heads, 3, 3)))
    network = from_products(config, qk, ov)
    np.testing.assert_allclose(network.qk(), qk, rtol=1e-12)
    np.testing.assert_allclose(network.ov(), ov, rtol=1e-12)
    # The first layer's scores and answer follow from the products alone.
    rows = np.random.default_rng(1).normal(size=(4, 3))
    _, trace = network(jnp.asarray(rows))
    read = np.asarray(trace["mixer_in"][0])
    scores = np.asarray(trace["scores"][0])
    np.testing.assert_allclose(
        scores, np.einsum("td,hde,se->hts", read, qk[0], read)[..., : scores.shape[-1]], rtol=1e-9
    )
    values = np.einsum("sd,hde->hse", read, ov[0])[:, : scores.shape[-1]]
    np.testing.assert_allclose(trace["mixer_out"][0], (trace["pattern"][0] @ values).sum(0), rtol=1e-9, atol=1e-12)


def test_products_of_other_networks():
    some = jnp.zeros((2, 1, 3, 3))
    for config, message in (
        (von_oswald(3, 2, d_mlp=4), "feed_forward must be nothing"),
        (von_oswald(3, 2, d_head=2), "d_head must be the width"),
        (minegishi(4, 3), "project must be True"),
        (von_oswald(3, 3), "products must be of shape"),
    ):
        with pytest.raises(BadInput, match=message):
            from_products(config, some, some)


def test_rolled_out_layers_go_on_descending(x64):
    """One constructed step, applied three times at half its size, is three steps of half the rate."""
    prompt = random_prompt(4, 6, 4, 1)
    step = gradient_descent_construction(0.6, d=4, n_context=6)
    batch = Prompt(prompt.x[None], prompt.y[None])
    answers = [descend(prompt, [0.3] * k, np.zeros((1, 4))) for k in (1, 2, 3)]
    wanted = [0.5 * float((a - np.asarray(prompt.y[-1]))[0] ** 2) for a in answers]
    for update in ("all", "y"):
        np.testing.assert_allclose(rollout_losses(rolled_out(step, 3, 0.5, update=update), batch), wanted, rtol=1e-10)
    for learner, update, message in (
        (step, "x", "update"),
        (gradient_descent_construction(jnp.ones(2), d=4, n_context=6, n_steps=2), "all", "one attention layer"),
    ):
        with pytest.raises(BadInput, match=message):
            rolled_out(learner, 2, 0.5, update=update)
