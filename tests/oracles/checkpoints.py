"""A small random checkpoint of Llama, as the Hugging Face libraries write it."""

import json

import numpy as np
from safetensors.numpy import save_file

LLAMA = {
    "model_type": "llama",
    "vocab_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 100.0,
}


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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save(tensors, folder / "model.safetensors")
    return folder
