"""Models written as folders in Hugging Face's format, which its libraries and `read_checkpoint` load."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from meta_icl.errors import BadInput, require
from meta_icl.lm.files import SINGLE, read_checkpoint
from meta_icl.lm.packages import located
from meta_icl.lm.tokenizer import Tokenizer, read_tokenizer
from meta_icl.runs.files import fsync_folder, write_json

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM", "gpt_neox": "GPTNeoXForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM", "phi3": "Phi3ForCausalLM",
}  # fmt: skip
TYPES = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16", np.dtype(ml_dtypes.bfloat16): "bfloat16"}


def write_checkpoint(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tokenizer: Tokenizer | None = None
) -> None:
    """Write a configuration, tensors under the family's names and a tokenizer, each file by rename.

    `config.json` comes last, so that a folder with it is whole. Raises `BadInput` for a folder that holds a model
    already, or that cannot be written.
    """
    folder = Path(folder)
    require(not (folder / "config.json").exists(), "folder", str(folder), "one without a model: it has a config.json")
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in tensors}
    kinds = {TYPES.get(array.dtype, "float32") for array in arrays.values()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=folder)
    except OSError as error:
        raise BadInput(f"cannot write {folder}: {error.strerror}") from None
    try:
        os.close(handle)
        save_file(arrays, temporary, metadata={"format": "pt"})
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / SINGLE)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(folder)
    if tokenizer is not None:
        write_json(folder / "tokenizer.json", json.loads(tokenizer.library.to_str()))
        write_json(folder / "tokenizer_config.json", _tokenizer_config(config, tokenizer))
    named = {"architectures": [ARCHITECTURES[config["model_type"]]]}
    write_json(folder / "config.json", named | {"torch_dtype": min(kinds)} | dict(config))


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
