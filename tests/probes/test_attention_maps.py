"""`attention_maps`: of a model and of an ensemble, on one prompt and on several, drawn by `show`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from meta_icl import attention_maps
from meta_icl.apps.show import chart
from meta_icl.errors import BadInput
from meta_icl.models import Learner, LinearAttention, lstm, von_oswald
from meta_icl.plotting import draw
from meta_icl.prompt import Ensemble, Prompt

ROWS = np.random.default_rng(0)
PROMPTS = Prompt(jnp.asarray(ROWS.normal(size=(5, 4, 2))), jnp.asarray(ROWS.normal(size=(5, 4, 1))))
ONE = jax.tree.map(lambda leaf: leaf[0], PROMPTS)


def test_of_one_softmax_layer_by_hand():
    model = Learner(von_oswald(3, attention="softmax", query_is_key=True))(key=jax.random.key(0))
    found = attention_maps(model, ONE)
    rows = np.concatenate([ONE.x, ONE.y], axis=1).astype(np.float64)
    rows[-1, -1] = 0  # the query's target is not there
    attention = model.network.block(0).mixer
    w_q, w_k = (np.asarray(w[0], np.float64) for w in (attention.w_q, attention.w_k))
    weights = np.exp(rows @ w_q @ (rows @ w_k).T * attention.scale)
    np.testing.assert_allclose(found.mean[0, 0], weights / weights.sum(1, keepdims=True), rtol=1e-5)
    assert found.maps.shape == (1, 1, 1, 1, 4, 4) and (found.spread == 0).all() and found.layers.tolist() == [0]
    assert not chart(found).diverging and "1 prompt, 1 model" in chart(found).caption


def test_of_an_ensemble_over_prompts():
    models = [LinearAttention(3, n_layers=2)(key=jax.random.key(seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *models)
    found = attention_maps(Ensemble(stacked), PROMPTS)
    assert found.maps.shape[:4] == (3, 5, 2, 1)
    alone = attention_maps(models[1], jax.tree.map(lambda leaf: leaf[2], PROMPTS))
    np.testing.assert_allclose(found.maps[1, 2], alone.maps[0, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.spread, found.maps.reshape(-1, *found.mean.shape).std(0), rtol=1e-5)
    assert chart(found).diverging and "5 prompts, 3 models" in chart(found).caption
    plt.close(draw(chart(found)))


def test_what_has_no_attention():
    with pytest.raises(BadInput, match="without `pattern`"):
        attention_maps(Learner(lstm(3, 4))(key=jax.random.key(0)), ONE)
    with pytest.raises(BadInput, match="attention maps or a chart, got int"):
        chart(3)
