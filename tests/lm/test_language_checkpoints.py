"""Checkpoints of every family as networks: their logits by float64 loops, and written and read again."""

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import numpy_decoder as oracle
import pytest
from checkpoints import LLAMA, llama_tensors, written
from language_configs import CONFIGS

from meta_icl.errors import BadInput
from meta_icl.lm import load_language_model, save_language_model
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.names import expected, from_checkpoint
from meta_icl.lm.networks import architecture_of, shape_of_network
from meta_icl.models import Architecture, InContextLearner, TokenLayout
from meta_icl.models.published import gpt2
from meta_icl.prompt import TokenPrompt

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
# Gated MLPs of the house have no biases.
READ = CONFIGS | {"llama": CONFIGS["llama"] | {"mlp_bias": False}}


def stored(kind, dtype=np.float32):
    """Weights of about the size of trained ones, and scales of norms (less one, for Gemma) away from any default."""
    shape, rng = shape_of(READ[kind])[0], np.random.default_rng(0)
    tensors = {}
    for name, s in expected(shape).items():
        one = 0.0 if "gemma" in kind or len(s) > 1 or "bias" in name else 1.0
        tensors[name] = (one + rng.normal(size=s) / np.sqrt(s[-1] if len(s) > 1 else 4)).astype(dtype)
    return shape, tensors


def wide(model):
    return jax.tree.map(lambda a: jnp.asarray(a, float) if eqx.is_inexact_array(a) else a, model)


@pytest.mark.parametrize(
    "kind", [k if k in ("gemma2", "gpt2") else pytest.param(k, marks=pytest.mark.slow) for k in READ]
)
def test_logits_by_loops_in_numpy(kind, tmp_path):
    shape, tensors = stored(kind)
    model = load_language_model(written(tmp_path / "given", READ[kind], tensors))
    wanted = oracle.logits(shape, dict(from_checkpoint(tensors, shape)), TOKENS)
    assert wanted.std() > 0.1
    run = eqx.filter_jit(lambda network, tokens: network(tokens)[0])
    np.testing.assert_allclose(run(model.network, jnp.asarray(TOKENS)), wanted, rtol=0, atol=2e-4)
    save_language_model(model, tmp_path / "mine", n_positions=shape.n_positions)
    again = load_language_model(tmp_path / "mine")
    if "gemma" not in kind:  # whose scales less one and back round once
        assert again.network.config == model.network.config
        jax.tree.map(np.testing.assert_array_equal, eqx.filter(again, eqx.is_array), eqx.filter(model, eqx.is_array))
    with jax.enable_x64(True):
        found = run(wide(again).network, jnp.asarray(TOKENS))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_predictor_of_token_prompts(tmp_path):
    shape, tensors = stored("llama")
    model = load_language_model(written(tmp_path, READ["llama"], tensors))
    found = model(TokenPrompt(jnp.asarray(TOKENS), jnp.ones(len(TOKENS), bool)))
    np.testing.assert_allclose(
        found, oracle.logits(shape, dict(from_checkpoint(tensors, shape)), TOKENS), rtol=0, atol=2e-4
    )


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_narrow_weights_come_as_float32(dtype, tmp_path):
    _, tensors = stored("phi3", dtype)
    model = load_language_model(written(tmp_path, READ["phi3"], tensors))
    np.testing.assert_array_equal(
        model.network.embedding.table, tensors["model.embed_tokens.weight"].astype(np.float32)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("kind", READ)
def test_the_shape_of_a_network(kind):
    """Of the first family that describes it; its architecture is the same, however it is drawn."""
    shape = shape_of(READ[kind])[0]
    network = eqx.filter_eval_shape(architecture_of(shape), key=jax.random.key(0))
    found = shape_of_network(network, n_positions=shape.n_positions)
    assert architecture_of(found) == architecture_of(shape)
    if kind in ("gpt2", "llama", "gemma2", "gemma3_text", "gpt_neox", "olmo2"):
        assert found == shape


def test_a_network_drawn_here_is_a_gpt2(tmp_path):
    """Whatever the law of its weights; the Hugging Face library gives the same logits."""
    model = gpt2(23, d_model=12, n_layers=2, n_heads=3, n_positions=16, init_std=0.3)(key=jax.random.key(0))
    save_language_model(InContextLearner(TokenLayout(), model), tmp_path / "model")
    assert load_language_model(tmp_path / "model").network.config.n_layers == 2
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor(TOKENS)[None]).logits[0].numpy()
    np.testing.assert_allclose(model(jnp.asarray(TOKENS))[0], wanted, rtol=0, atol=2e-5)
    for other in (Architecture(4), Architecture(4, embedding=gpt2().embedding)):
        with pytest.raises(BadInput, match="no folder can hold it"):
            shape_of_network(other(key=jax.random.key(0)))


def test_what_cannot_be_loaded(tmp_path):
    tensors = llama_tensors(np.random.default_rng(0))
    config = LLAMA | {"mlp_bias": True}
    for i in range(2):
        for name, n in (("gate", 12), ("up", 12), ("down", 8)):
            tensors[f"model.layers.{i}.mlp.{name}_proj.bias"] = np.zeros(n, np.float32)
    with pytest.raises(BadInput, match="mlp_bias must be False"):
        load_language_model(written(tmp_path, config, tensors))
    with pytest.raises(BadInput, match=r"there is no|no config\.json"):
        load_language_model(tmp_path / "none")
