"""Checkpoints of GPT-2 and Llama against a forward pass written from their tensors' names, in numpy."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks as oracle
import pytest
from checkpoints import GPT2, LLAMA, TOKENS, gpt2_tensors, llama_tensors, written
from safetensors.flax import save_file as save_bfloat16

from meta_icl.analysis.implicit import example_updates, generate_without_prompt
from meta_icl.errors import BadInput
from meta_icl.lm import load_language_model


def layer_norm(x, w, b):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def rms_norm(x, w):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w


def causal(q, k, v):
    scores = np.where(np.tril(np.ones((len(q), len(q)))), q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def gpt2_logits(t, tokens):
    h = t["wte.weight"][tokens] + t["wpe.weight"][: len(tokens)]
    for i in range(2):
        p = {name.removeprefix(f"h.{i}."): a for name, a in t.items() if name.startswith(f"h.{i}.")}
        x = layer_norm(h, p["ln_1.weight"], p["ln_1.bias"]) @ p["attn.c_attn.weight"] + p["attn.c_attn.bias"]
        q, k, v = x[:, :8], x[:, 8:16], x[:, 16:]
        z = np.concatenate([causal(q[:, s], k[:, s], v[:, s]) for s in (slice(0, 4), slice(4, 8))], 1)
        h = h + z @ p["attn.c_proj.weight"] + p["attn.c_proj.bias"]
        x = layer_norm(h, p["ln_2.weight"], p["ln_2.bias"]) @ p["mlp.c_fc.weight"] + p["mlp.c_fc.bias"]
        h = h + oracle.ACTIVATIONS["gelu"](x) @ p["mlp.c_proj.weight"] + p["mlp.c_proj.bias"]
    return layer_norm(h, t["ln_f.weight"], t["ln_f.bias"]) @ t["wte.weight"].T


def llama_logits(t, tokens):
    h = t["model.embed_tokens.weight"][tokens]
    for i in range(2):
        p = {n.removeprefix(f"model.layers.{i}."): a for n, a in t.items() if n.startswith(f"model.layers.{i}.")}
        x = rms_norm(h, p["input_layernorm.weight"])
        q, k, v = (x @ p[f"self_attn.{n}_proj.weight"].T for n in "qkv")
        heads = []
        for head in range(4):
            mine, shared = slice(2 * head, 2 * head + 2), slice(2 * (head // 2), 2 * (head // 2) + 2)
            qs = np.stack([oracle.turn(row, j, 100.0) for j, row in enumerate(q[:, mine])])
            ks = np.stack([oracle.turn(row, j, 100.0) for j, row in enumerate(k[:, shared])])
            heads.append(causal(qs, ks, v[:, shared]))
        h = h + np.concatenate(heads, 1) @ p["self_attn.o_proj.weight"].T
        x = rms_norm(h, p["post_attention_layernorm.weight"])
        gate = oracle.ACTIVATIONS["silu"](x @ p["mlp.gate_proj.weight"].T)
        h = h + (gate * (x @ p["mlp.up_proj.weight"].T)) @ p["mlp.down_proj.weight"].T
    return rms_norm(h, t["model.norm.weight"]) @ t["lm_head.weight"].T


@pytest.mark.parametrize("kind", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_checkpoints_agree_with_numpy(x64, kind, tmp_path):
    config, draw, forward = (
        (GPT2, gpt2_tensors, gpt2_logits) if kind == "gpt2" else (LLAMA, llama_tensors, llama_logits)
    )
    tensors = draw(np.random.default_rng(0))
    model = load_language_model(written(tmp_path, config, tensors))
    exact = {name: a.astype(np.float64) for name, a in tensors.items()}
    found = eqx.filter_jit(model)(jnp.asarray(TOKENS))[0]
    np.testing.assert_allclose(found, forward(exact, TOKENS), rtol=1e-10, atol=1e-11)
    if kind == "llama":  # the probes work on it as on any stack of blocks
        prompt, tokens = jnp.asarray(TOKENS), TOKENS
        patched = generate_without_prompt(model, prompt, 3)
        for chosen, logits in zip(patched.tokens, patched.logits, strict=True):  # as with the prompt in view
            wanted = forward(exact, tokens)[-1]
            np.testing.assert_allclose(logits, wanted, rtol=1e-9, atol=1e-10)
            assert wanted.argmax() == chosen
            tokens = np.append(tokens, chosen)
        rows = model.embedded(prompt)
        found = example_updates(model.network, rows[:-1], rows[-1], np.array([0, 0, 1, 1, 2]))
        assert found.size.shape == (2, 3)
        assert bool(jnp.all(found.size > 0))


def test_bfloat16_shards(tmp_path):
    """Half of the tensors in another file, all in bfloat16."""
    tensors = {name: jnp.asarray(a, jnp.bfloat16) for name, a in llama_tensors(np.random.default_rng(0)).items()}
    names = sorted(tensors)
    written(tmp_path, LLAMA, {n: tensors[n] for n in names[::2]}, save_bfloat16)
    save_bfloat16({n: tensors[n] for n in names[1::2]}, tmp_path / "model-2.safetensors")
    model = load_language_model(tmp_path)
    np.testing.assert_array_equal(model.embed, np.asarray(tensors["model.embed_tokens.weight"], np.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(model) if hasattr(leaf, "dtype")} == {jnp.dtype("float32")}


def test_what_cannot_be_loaded(tmp_path):
    def fails(message):
        with pytest.raises(BadInput, match=message):
            load_language_model(tmp_path)

    fails("no config.json")
    (tmp_path / "config.json").write_text("{")
    fails("not JSON")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "lama"}))
    fails("did you mean 'llama'")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    fails("no weights")
    (tmp_path / "model.safetensors").write_bytes(b"not a file of tensors")
    fails("cannot be read")
    tensors = llama_tensors(np.random.default_rng(0))
    written(tmp_path, LLAMA, {name: a for name, a in tensors.items() if "down_proj" not in name})
    fails("no tensor 'model.layers.0.mlp.down_proj.weight'")
    written(tmp_path, LLAMA | {"rope_scaling": {"rope_type": "llama3"}}, tensors)
    fails("rope_type must be 'default'")
    written(tmp_path, LLAMA | {"num_attention_heads": "4"}, tensors)
    fails("num_attention_heads of the model's config.json must be a positive integer, got '4'")
