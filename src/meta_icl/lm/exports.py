"""Models written as folders in Hugging Face's format, which its libraries and `read_checkpoint` load."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from meta_icl.errors import BadInput, first_line, require
from meta_icl.lm.configurations import ACTIVATIONS, FAMILIES, GEMMA3_LOCAL_BASE
from meta_icl.lm.files import INDEX, SINGLE, read_checkpoint
from meta_icl.lm.packages import located
from meta_icl.lm.shapes import Shape
from meta_icl.lm.tokenizer import Tokenizer, read_tokenizer
from meta_icl.runs.files import fsync_folder, write_json

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM", "gpt_neox": "GPTNeoXForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM", "phi3": "Phi3ForCausalLM",
}  # fmt: skip
KINDS = (np.float64, np.float32, ml_dtypes.bfloat16, np.float16)  # the widest first


def write_checkpoint(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tokenizer: Tokenizer | None = None
) -> None:
    """Write a configuration, tensors under the family's names and a tokenizer, each file by rename.

    `config.json` comes last, so that a folder with it is whole. Raises `BadInput` for a folder that holds a model
    already, or that cannot be written.
    """
    folder = Path(folder)
    there = next((name for name in ("config.json", SINGLE, INDEX, "tokenizer.json") if (folder / name).exists()), None)
    require(there is None, "folder", str(folder), f"one without a model: it has a {there}")
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in tensors}
    kinds = [np.dtype(kind) for kind in KINDS if any(array.dtype == kind for array in arrays.values())]
    require(bool(kinds), "types of the tensors", [str(a.dtype) for a in arrays.values()][:3], "floating point")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=folder)
    except OSError as error:
        raise BadInput(f"cannot write {folder}: {error.strerror}") from None
    try:
        os.close(handle)
        save_file(arrays, temporary, metadata={"format": "pt"})
        os.chmod(temporary, 0o644)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, folder / SINGLE)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"cannot write {folder}: {first_line(error)}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    fsync_folder(folder)
    if tokenizer is not None:
        write_json(folder / "tokenizer.json", json.loads(tokenizer.library.to_str()))
        write_json(folder / "tokenizer_config.json", _tokenizer_config(config, tokenizer))
    named = {"architectures": [ARCHITECTURES[config["model_type"]]]}
    write_json(folder / "config.json", named | {"torch_dtype": kinds[0].name} | dict(config))


def _tokenizer_config(config: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """What the Hugging Face library wants beside `tokenizer.json` to take it as it is."""
    described: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name in ("bos_token", "eos_token"):
        number = config.get(f"{name}_id")
        if isinstance(number, int):
            described[name] = tokenizer.library.id_to_token(number)
    return described


def convert(source: str | Path, folder: str | Path) -> tuple[str, ...]:
    """Write a `.gguf` file (or a fetched model) as a folder in Hugging Face's format; notes on what was left aside.

    Quantised weights are written as float32. Raises `BadInput` for what reading or writing refuses.
    """
    path = located(source)
    require(path.suffix == ".gguf", "file to convert", str(source), "a .gguf file or the name of a fetched model")
    require(not (Path(folder) / "config.json").exists(), "folder", str(folder), "one without a model in it")
    checkpoint, tokenizer = read_checkpoint(path), read_tokenizer(path)
    write_checkpoint(folder, checkpoint.config, checkpoint.tensors, tokenizer)
    return checkpoint.notes


def config_of(shape: Shape) -> dict[str, Any]:
    """The configuration in Hugging Face's form of an architecture: `shape_of(config_of(shape))` is `shape`."""
    family = FAMILIES[shape.family]
    sizes = {
        "vocab_size": shape.n_tokens,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "max_position_embeddings": shape.n_positions,
        family.eps[0]: shape.norm_eps,
        family.activation[0][0]: next(theirs for theirs, ours in ACTIVATIONS.items() if ours == shape.activation),
        "tie_word_embeddings": shape.tied,
    }
    config: dict[str, Any] = {"model_type": shape.family} | {family.keys.get(k, k): v for k, v in sizes.items()}
    flags = ((family.qkv_bias, shape.qkv_bias), (family.o_bias, shape.o_bias))
    for key, value in (*flags, (family.feedforward_bias, shape.feedforward_bias)):
        if isinstance(key, str):
            config[key] = value
    if family.grouped:
        config |= {"num_key_value_heads": shape.n_groups, "head_dim": shape.d_head}
    if family.gemma:
        config |= {
            "query_pre_attn_scalar": round(shape.score_scale**-2, 6),
            "attn_logit_softcapping": shape.score_softcap,
            "final_logit_softcapping": shape.logit_softcap,
        }
    if shape.family == "gpt_neox":
        config["use_parallel_residual"] = shape.parallel
    return config | _positions(shape) | _windows(shape)


def _positions(shape: Shape) -> dict[str, Any]:
    """Keys of the rotary positions, by their names of the first generation."""
    turned = [(rotary, window) for rotary, window in zip(shape.rotary, shape.windows, strict=True) if rotary]
    if not turned:
        return {}
    whole, _ = next((pair for pair in turned if pair[1] is None), turned[0])
    neox = shape.family == "gpt_neox"
    found: dict[str, Any] = {"rotary_emb_base" if neox else "rope_theta": whole.base, "rope_scaling": None}
    if FAMILIES[shape.family].rotary_fraction is not None:
        found["rotary_pct" if neox else "partial_rotary_factor"] = whole.fraction
    if whole.scaling != "default":
        found["rope_scaling"] = {"rope_type": whole.scaling, "factor": whole.factor}
    if whole.scaling == "llama3":
        found["rope_scaling"] |= {
            "low_freq_factor": whole.low_factor,
            "high_freq_factor": whole.high_factor,
            "original_max_position_embeddings": whole.original,
        }
    if shape.family == "gemma3_text":
        found["rope_local_base_freq"] = next((r.base for r, window in turned if window), GEMMA3_LOCAL_BASE)
    if shape.family == "smollm3":
        found["no_rope_layers"] = [int(rotary is not None) for rotary in shape.rotary]
    return found


def _windows(shape: Shape) -> dict[str, Any]:
    rule = FAMILIES[shape.family].windows
    if rule == "none":
        return {}
    width = next((window for window in shape.windows if window), None)
    found: dict[str, Any] = {"sliding_window": width}
    if rule in ("late", "without rotary"):
        found["use_sliding_window"] = width is not None
    if rule != "all":
        found["layer_types"] = ["sliding_attention" if window else "full_attention" for window in shape.windows]
    return found
