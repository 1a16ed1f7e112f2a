"""Pretrained language models from a local folder, as stacks of contextual blocks. Nothing is ever downloaded.

A folder holds `config.json` and `*.safetensors`, as the Hugging Face libraries save them. GPT-2 and the Llama family
(Llama, Mistral, Qwen 2) are read without torch; weights become float32.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors import SafetensorError, safe_open

from meta_icl.errors import BadInput, choose, require
from meta_icl.models.blocks import (
    Attention,
    AttentionMixer,
    Block,
    BlockNetwork,
    DenseMlp,
    GatedMlp,
    LanguageModel,
    Norm,
)

GPT2_ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact", "relu": "relu"}
LLAMA_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu_exact", "gelu_pytorch_tanh": "gelu"}


def load_language_model(folder: str | Path) -> LanguageModel:
    """The language model in a folder, on which every probe of `meta_icl.analysis.implicit` works.

    Raises `BadInput` for a folder without a model, a damaged file, or an architecture or option that is not supported.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise BadInput(f"{folder} holds no language model: it has no config.json")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not JSON ({error})") from None
    kind = choose("model_type", str(config.get("model_type")), LOADERS)
    return LOADERS[kind](config, Checkpoint(folder))


class Checkpoint:
    """The tensors of a checkpoint by name, as float32 numpy arrays."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tensors: dict[str, np.ndarray] = {}
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise BadInput(f"{folder} holds no weights: it has no *.safetensors file")
        for file in files:
            try:
                with safe_open(file, framework="flax") as opened:  # unlike numpy, it knows bfloat16
                    names = opened.keys()
                    self.tensors |= {name: np.asarray(opened.get_tensor(name), np.float32) for name in names}
            except (SafetensorError, OSError) as error:
                raise BadInput(f"{file} cannot be read ({error})") from None

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            raise BadInput(f"the checkpoint in {self.folder} has no tensor {name!r}")
        return self.tensors[name]

    def get(self, name: str, otherwise: np.ndarray) -> np.ndarray:
        """The tensor of a name, or another array if there is none."""
        return self.tensors.get(name, otherwise)

    def stacked(self, pattern: str, n_layers: int) -> np.ndarray:
        """The tensors of all layers, with "{}" in the pattern for the layer, on a leading axis."""
        return np.stack([self[pattern.format(layer)] for layer in range(n_layers)])


def _gpt2(config: Mapping[str, Any], checkpoint: Checkpoint) -> LanguageModel:
    """GPT-2: learned positions, pre-LN, a dense MLP, read-out tied to the embedding. Its matrices are "in out"."""
    n, heads, d = (_size(config, name) for name in ("n_layer", "n_head", "n_embd"))
    require(d % heads == 0, "n_head", heads, f"a divisor of n_embd = {d}")
    for option in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        require(not config.get(option), option, config.get(option), "false")
    require(config.get("scale_attn_weights", True), "scale_attn_weights", False, "true")
    name = config.get("activation_function", "gelu_new")
    activation = GPT2_ACTIVATIONS[choose("activation_function", name, GPT2_ACTIVATIONS)]
    start = "transformer." if "transformer.wte.weight" in checkpoint else ""
    eps = float(config.get("layer_norm_epsilon", 1e-5))

    def layers(name: str) -> np.ndarray:
        return checkpoint.stacked(f"{start}h.{{}}.{name}", n)

    def norm(name: str) -> Norm:
        return Norm(_array(layers(f"{name}.weight")), _array(layers(f"{name}.bias")), "layer", eps)

    w_q, w_k, w_v = np.split(layers("attn.c_attn.weight"), 3, axis=-1)
    b_q, b_k, b_v = np.split(layers("attn.c_attn.bias"), 3, axis=-1)
    mixer = AttentionMixer(
        *(_array(_heads(w, heads)) for w in (w_q, w_k, w_v)),
        _array(layers("attn.c_proj.weight").reshape(n, heads, d // heads, d)),  # pyright: ignore[reportCallIssue]
        *(_array(b.reshape(n, heads, d // heads)) for b in (b_q, b_k, b_v)),
        _array(layers("attn.c_proj.bias")),  # pyright: ignore[reportCallIssue]
        Attention(n_heads=heads, biases=True),  # pyright: ignore[reportCallIssue]
    )
    dense = (layers(f"mlp.{part}") for part in ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"))
    mlp = DenseMlp(*map(_array, dense), activation)  # pyright: ignore[reportCallIssue]
    embed = checkpoint[f"{start}wte.weight"]
    final = Norm(_array(checkpoint[f"{start}ln_f.weight"]), _array(checkpoint[f"{start}ln_f.bias"]), "layer", eps)
    unembed = checkpoint.get("lm_head.weight", embed)
    blocks = Block(mixer, mlp, norm("ln_1"), norm("ln_2"), None, None, "residual")
    positions = _array(checkpoint[f"{start}wpe.weight"])
    return LanguageModel(_array(embed), positions, BlockNetwork(blocks), final, _array(unembed.T))


def _llama(config: Mapping[str, Any], checkpoint: Checkpoint) -> LanguageModel:
    """Llama and its kin: rotary positions, pre-RMSNorm, grouped keys and values, a gated MLP. Matrices are "out in"."""
    n, heads, d = (_size(config, name) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    groups, width = config.get("num_key_value_heads") or heads, config.get("head_dim") or d // heads
    sliding = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    require(sliding is None, "sliding_window", sliding, "absent: all attention must be full")
    name = config.get("hidden_act", "silu")
    activation = LLAMA_ACTIVATIONS[choose("hidden_act", name, LLAMA_ACTIVATIONS)]
    eps = float(config.get("rms_norm_eps", 1e-6))

    def layers(name: str) -> np.ndarray:
        return checkpoint.stacked(f"model.layers.{{}}.{name}", n)

    def norm(name: str) -> Norm:
        return Norm(_array(layers(f"{name}.weight")), None, "rms", eps)

    def bias(name: str, heads: int) -> Array | None:
        if f"model.layers.0.self_attn.{name}.bias" not in checkpoint:
            return None
        values = layers(f"self_attn.{name}.bias")
        return _array(values.reshape(n, heads, width) if name != "o_proj" else values)

    shapes = {"q_proj": heads, "k_proj": groups, "v_proj": groups}
    weights = [_array(_heads(layers(f"self_attn.{m}.weight").swapaxes(1, 2), count)) for m, count in shapes.items()]
    w_o = layers("self_attn.o_proj.weight").swapaxes(1, 2).reshape(n, heads, width, d)
    biases = [bias(m, count) for m, count in shapes.items()]
    described = Attention(n_heads=heads, n_groups=groups, d_head=width, rope=_rope_base(config))
    mixer = AttentionMixer(*weights, _array(w_o), *biases, bias("o_proj", 1), described)  # pyright: ignore[reportCallIssue]
    if "model.layers.0.mlp.gate_proj.bias" in checkpoint:
        raise BadInput("biases of gated MLPs are not supported")
    mlp = GatedMlp(*(_array(layers(f"mlp.{m}_proj.weight").swapaxes(1, 2)) for m in ("gate", "up", "down")), activation)  # pyright: ignore[reportCallIssue]
    blocks = Block(mixer, mlp, norm("input_layernorm"), norm("post_attention_layernorm"), None, None, "residual")
    embed = checkpoint["model.embed_tokens.weight"]
    unembed = checkpoint.get("lm_head.weight", embed)
    final = Norm(_array(checkpoint["model.norm.weight"]), None, "rms", eps)
    return LanguageModel(_array(embed), None, BlockNetwork(blocks), final, _array(unembed.T))


LOADERS = {"gpt2": _gpt2, "llama": _llama, "mistral": _llama, "qwen2": _llama}


def _rope_base(config: Mapping[str, Any]) -> float:
    """The base of the rotary positions, from either form of the configuration; scaled ones are not supported."""
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = stated.get("rope_type", stated.get("type", "default"))
    require(kind == "default", "rope_type", kind, "'default'")
    return float(stated.get("rope_theta", config.get("rope_theta", 10_000.0)))


def _size(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise BadInput(f"{name} of the model's config.json must be a positive integer, got {value!r}")
    return value


def _heads(w: np.ndarray, heads: int) -> np.ndarray:
    """Matrices "layers d heads*k" as "layers heads d k"."""
    n, d, wide = w.shape
    require(wide % heads == 0, "width of a projection", wide, f"a multiple of {heads} heads")
    return w.reshape(n, d, heads, wide // heads).swapaxes(1, 2)


def _array(values: np.ndarray) -> Array:
    return jnp.asarray(values, jnp.result_type(float))
