"""Decoders in files: there and back, and read by the loader of language models, which shares no code with them."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.lm import load_decoder, load_language_model, save_decoder
from meta_icl.models import Decoder

TOKENS = jnp.asarray([3, 1, 4, 1, 5, 9, 2, 6])


@pytest.mark.parametrize("d_out", [None, 11], ids=["tied", "untied"])
def test_a_decoder_over_tokens_is_a_gpt2(tmp_path, d_out):
    config = Decoder(12, 2, 3, 9, n_tokens=11, d_out=d_out, read_bias=False, init_std=0.3)
    network = config(key=jax.random.key(0))
    save_decoder(network, tmp_path)
    run = eqx.filter_jit(lambda model, tokens: model(tokens)[0])
    output = run(network, TOKENS)
    np.testing.assert_array_equal(run(load_decoder(tmp_path), TOKENS), output)
    np.testing.assert_allclose(run(load_language_model(tmp_path), TOKENS), output, rtol=1e-4, atol=1e-5)


def test_a_decoder_over_vectors_comes_back(tmp_path):
    network = Decoder(12, 2, 3, 9, d_in=4, d_out=2, init_std=0.3, read_init="torch")(key=jax.random.key(0))
    save_decoder(network, tmp_path)
    x = jax.random.normal(jax.random.key(1), (6, 4))
    run = eqx.filter_jit(lambda model, x: model(x)[0])
    np.testing.assert_array_equal(run(load_decoder(tmp_path), x), run(network, x))


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"no config\.json"):
        load_decoder(tmp_path)
    save_decoder(Decoder(8, 1, 2, 4, n_tokens=5, d_out=None)(key=jax.random.key(0)), tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"activation_function": "relu"}, "activation_function must be"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon must be"),
        ({"n_layer": 2}, "no array"),
        ({"n_embd": 6}, "must be of shape"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(described | change))
        with pytest.raises(BadInput, match=message):
            load_decoder(tmp_path)
