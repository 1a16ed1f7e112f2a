"""Small random checkpoints of GPT-2 and Llama, as the Hugging Face libraries write them."""

import json

import numpy as np
from safetensors.numpy import save_file

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "layer_norm_epsilon": 1e-5}
GPT2 |= {"n_inner": 20, "n_positions": 12, "vocab_size": 10}
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 12,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 100.0,
}
TOKENS = np.array([3, 1, 4, 1, 5, 9])


def gpt2_tensors(rng):
    def draw(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    tensors = {
        "wte.weight": draw(10, 8),
        "wpe.weight": draw(12, 8),
        "ln_f.weight": np.float32(1) + draw(8),
        "ln_f.bias": draw(8),
    }
    for i in range(2):
        shapes = {"ln_1": (8,), "ln_2": (8,), "attn.c_attn": (8, 24), "attn.c_proj": (8, 8)}
        shapes |= {"mlp.c_fc": (8, 20), "mlp.c_proj": (20, 8)}
        for name, shape in shapes.items():
            tensors[f"h.{i}.{name}.weight"] = draw(*shape) + np.float32(name.startswith("ln"))
            tensors[f"h.{i}.{name}.bias"] = draw(shape[-1])
    return tensors


def llama_tensors(rng):
    def draw(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": draw(10, 8),
        "model.norm.weight": np.float32(1) + draw(8),
        "lm_head.weight": draw(10, 8),
    }
    for i in range(2):
        shapes = {"q": (8, 8), "k": (4, 8), "v": (4, 8), "o": (8, 8)}
        tensors |= {f"model.layers.{i}.self_attn.{n}_proj.weight": draw(*s) for n, s in shapes.items()}
        shapes = {"gate": (12, 8), "up": (12, 8), "down": (8, 12)}
        tensors |= {f"model.layers.{i}.mlp.{n}_proj.weight": draw(*s) for n, s in shapes.items()}
        tensors |= {
            f"model.layers.{i}.{n}_layernorm.weight": np.float32(1) + draw(8) for n in ("input", "post_attention")
        }
    return tensors


def written(folder, config, tensors, save=save_file):
    (folder / "config.json").write_text(json.dumps(config))
    save(tensors, folder / "model.safetensors")
    return folder
