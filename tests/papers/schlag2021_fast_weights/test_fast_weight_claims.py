"""The single layers of the fast-weight claims: what they see, and that the claimed solutions are within their reach."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.papers.schlag2021_fast_weights.experiments import Marked, rule_model
from meta_icl.prompt import Prompt

D = 3


@pytest.fixture
def prompt():
    rng = np.random.default_rng(0)
    return Prompt(jnp.asarray(rng.normal(size=(9, D))), jnp.asarray(rng.normal(size=(9, 1))))


@pytest.mark.usefixtures("x64")
def test_the_query_is_marked_and_its_target_hidden(prompt):
    tokens = Marked().encode(prompt)
    np.testing.assert_array_equal(tokens[:, D + 1], [1] * 8 + [0])
    np.testing.assert_array_equal(tokens[:, D + 2], 1)
    np.testing.assert_array_equal(tokens[:-1, D], prompt.y[:-1, 0])
    assert float(tokens[-1, D]) == 0


def with_weights(name):
    """The layer whose keys and queries are x, whose values are y, and which writes examples alone."""
    learner = rule_model(name, D)(key=jax.random.key(0))
    mixer = learner.network.mixer
    w_in = np.zeros_like(mixer.w_in)
    w_in[:D, :D] = w_in[:D, D : 2 * D] = np.eye(D)
    w_in[D, 2 * D] = 1
    w_raw = np.zeros_like(mixer.w_raw)
    if name == "mesa":
        w_raw[D + 1, 0], w_raw[D + 2] = 200, (-100, 100)  # examples weigh 1, the query 0; nothing is forgotten
    w_out = np.zeros_like(mixer.w_out)
    w_out[0, -1] = -1  # the layout reads the negative
    where = lambda net: (net.network.mixer.w_in, net.network.mixer.w_raw, net.network.mixer.w_out)  # noqa: E731
    return eqx.tree_at(where, learner, (jnp.asarray(w_in), jnp.asarray(w_raw), jnp.asarray(w_out)))


@pytest.mark.usefixtures("x64")
def test_single_layers_can_be_what_the_claims_say(prompt):
    x, y, query = (np.asarray(a) for a in (prompt.x[:-1], prompt.y[:-1, 0], prompt.x[-1]))
    step = with_weights("linear_attention")(prompt)
    np.testing.assert_allclose(step, [y @ x @ query], rtol=1e-10)
    ridge = with_weights("mesa")(prompt)
    np.testing.assert_allclose(ridge, [query @ np.linalg.solve(x.T @ x + np.eye(D), x.T @ y)], rtol=1e-8)
