"""Decoders in the folder format of the Hugging Face library: `config.json` and `model.safetensors`.

A decoder over tokens is a GPT-2 there, loaded by `GPT2LMHeadModel.from_pretrained(folder)` and by
`load_language_model`. One over vectors keeps its maps in and out beside GPT-2's weights, as Garg et al. (2022) do.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from meta_icl.errors import BadInput, choose, require
from meta_icl.lm.checkpoints import GPT2_ACTIVATIONS, Checkpoint
from meta_icl.models.decoder import Decoder, DecoderNetwork
from meta_icl.models.decoder_names import from_names, to_names
from meta_icl.runs.files import write_atomically

VECTORS, TOKENS = "_backbone.", "transformer."


def save_decoder(network: DecoderNetwork, folder: str | Path) -> None:
    """Write a decoder's weights (float32) and description into a folder, each file by rename."""
    c, folder = network.config, Path(folder)
    named = to_names(network, TOKENS if c.n_tokens else VECTORS)
    described = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "n_embd": c.d_model,
        "n_positions": c.n_positions,
        "vocab_size": c.n_tokens or 1,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": c.init_std,
        "tie_word_embeddings": c.d_out is None,
    }
    if c.n_tokens is None:
        described["architectures"] = ["TransformerModel"]
        described["maps"] = {"d_in": c.d_in, "d_out": c.d_out, "bias": c.read_bias}
    elif c.d_out is not None:
        require(c.d_out == c.n_tokens and not c.read_bias, "d_out", c.d_out, "n_tokens without bias, as GPT-2's head")
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in named.items()}
    write_atomically(folder / "model.safetensors", save(arrays, metadata={"format": "pt"}))
    write_atomically(folder / "config.json", (json.dumps(described, indent=2) + "\n").encode())


def load_decoder(folder: str | Path) -> DecoderNetwork:
    """The decoder in a folder: one written by `save_decoder`, or a GPT-2 saved by the Hugging Face library.

    Raises `BadInput` for a folder without a decoder, a damaged file, or an option that the decoder does not have.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise BadInput(f"{folder} holds no decoder: it has no config.json")
    try:
        described = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not JSON ({error})") from None
    choose("model_type", str(described.get("model_type")), ("gpt2",))
    name = described.get("activation_function", "gelu_new")
    require(GPT2_ACTIVATIONS.get(name) == "gelu", "activation_function", name, "'gelu_new'")
    eps = described.get("layer_norm_epsilon", 1e-5)
    require(eps == 1e-5, "layer_norm_epsilon", eps, "1e-5")
    checkpoint = Checkpoint(folder)
    return from_names(_description(described, checkpoint), checkpoint.tensors, _prefix(checkpoint))


def _description(described: Mapping[str, Any], checkpoint: Checkpoint) -> Decoder:
    sizes = {}
    for field, name in (("d_model", "n_embd"), ("n_layers", "n_layer"), ("n_heads", "n_head"), ("n_positions",) * 2):
        sizes[field] = described.get(name)
        require(isinstance(sizes[field], int), name, sizes[field], "a positive integer in config.json")
    maps = described.get("maps")
    if maps is not None:
        return Decoder(**sizes, d_in=maps["d_in"], d_out=maps["d_out"], read_bias=maps["bias"])
    untied = "lm_head.weight" in checkpoint and not described.get("tie_word_embeddings", True)
    n_tokens = described.get("vocab_size")
    return Decoder(**sizes, n_tokens=n_tokens, d_out=n_tokens if untied else None, read_bias=False)


def _prefix(checkpoint: Checkpoint) -> str:
    """What stands before GPT-2's own names: the library's, that of vectors, or nothing."""
    return next((p for p in (TOKENS, VECTORS) if f"{p}wpe.weight" in checkpoint), "")
