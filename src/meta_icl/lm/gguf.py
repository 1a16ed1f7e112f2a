"""Files of llama.cpp and Ollama (`.gguf`) as a configuration and tensors in Hugging Face's names.

The library `gguf` (extra `lm`) reads and dequantises. Three habits of the format are undone here: rows of q and k of
Llama stand in the order of interleaved rotary pairs, scales of Gemma's norms have 1 added, GPT-2's matrices are
transposed. What the format leaves out (Gemma's scale of scores and pattern of windows) follows llama.cpp's rules.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from meta_icl.errors import BadInput, choose, first_line, require
from meta_icl.lm.shapes import Rotary

LLAMA_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA_NAMES = LLAMA_NAMES | {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GPT2_NAMES = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


@dataclass(frozen=True)
class Kind:
    """How an architecture of the format becomes a model of the Hugging Face library."""

    model_type: str
    names: Mapping[str, str]
    layer: str = "model.layers"


KINDS = {
    "llama": Kind("llama", LLAMA_NAMES),
    "qwen2": Kind("qwen2", LLAMA_NAMES),
    "qwen3": Kind("qwen3", LLAMA_NAMES),
    "gemma2": Kind("gemma2", GEMMA_NAMES),
    "gemma3": Kind("gemma3_text", GEMMA_NAMES),
    "gpt2": Kind("gpt2", GPT2_NAMES, "transformer.h"),
}
SIZES = {  # of the metadata, behind "ARCHITECTURE."
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
}
OTHERS = {
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon", "attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping",
    "rope.freq_base", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "vocab_size",
    "rope.scaling.original_context_length", "rope.scaling.finetuned",
}  # fmt: skip
LARGEST = {"gemma2": 46, "gemma3": 62}  # layers of the 27B models, whose scores are scaled by the width of a whole head
GPT2_KEYS = {
    "num_hidden_layers": "n_layer", "hidden_size": "n_embd", "intermediate_size": "n_inner",
    "num_attention_heads": "n_head", "max_position_embeddings": "n_positions",
}  # fmt: skip
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class GgufFile:
    """The metadata of a file, and its tensors by the library."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Any]


def open_gguf(path: str | Path) -> GgufFile:
    """A file's metadata and tensors, of which nothing is read yet.

    Raises `BadInput` for a missing, foreign, damaged or truncated file, a part of a split one, and where the library
    is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    stat = path.stat()
    return _opened(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1)  # the vocabulary takes seconds; a model and its tokenizer are read one after the other
def _opened(path: Path, changed: int, size: int) -> GgufFile:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise BadInput("files of type .gguf need the library gguf (extra lm): pip install gguf") from None
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BadInput(f"{path} is not a GGUF file: it does not begin with GGUF")
    try:
        reader = _careful(GGUFReader)(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except Exception as error:  # the library raises whatever its parsing runs into
        raise BadInput(f"{path} is damaged or cut short ({type(error).__name__}: {first_line(error)})") from None
    parts = metadata.get("split.count", 1)
    require(parts == 1, f"parts of {path.name}", parts, "1: join split files first (llama-gguf-split --merge)")
    return GgufFile(path, metadata, tensors)


def _careful(library: Any) -> Any:
    """The library's reader, made to stop where the file does and not to go on to a damaged length, and faster."""

    class Reader(library):
        @property
        def data(self) -> np.ndarray:
            return self._bytes

        @data.setter
        def data(self, value: np.ndarray) -> None:
            self._bytes = np.asarray(value)  # slices of a mapped file take twice as long as those of an array

        def _get(self, offset: Any, dtype: Any, count: Any = 1, **more: Any) -> np.ndarray:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self._bytes):
                raise ValueError("it ends too early")
            return super()._get(offset, dtype, count, **more)

    return Reader


def configuration(file: GgufFile) -> dict[str, Any]:
    """The configuration in Hugging Face's form, by which `configurations.shape_of` understands the model.

    Raises `BadInput` for an architecture or an option that is not supported.
    """
    arch = choose("general.architecture", str(file.metadata.get("general.architecture")), KINDS)
    own = {key.removeprefix(f"{arch}."): v for key, v in file.metadata.items() if key.startswith(f"{arch}.")}
    for key, value in own.items():
        if key not in SIZES and key not in OTHERS and value:
            raise BadInput(f"{arch}.{key} = {value!r} in {file.path.name} may change what it computes: not supported")
    config: dict[str, Any] = {"model_type": KINDS[arch].model_type}
    for key, name in SIZES.items():
        require(isinstance(own.get(key), int), f"{arch}.{key} in {file.path.name}", own.get(key), "an integer")
        config[name] = own[key]
    for name in ("token_embd.weight", "output_norm.weight"):
        require(name in file.tensors, f"tensors of {file.path.name}", sorted(file.tensors)[:3], f"with {name}")
    config["vocab_size"] = _shape(file.tensors["token_embd.weight"])[0]
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    for key, name in (("bos_token_id", "bos_token_id"), ("eos_token_id", "eos_token_id")):
        config[name] = file.metadata.get(f"tokenizer.ggml.{key}")
    if arch == "gpt2":
        config["layer_norm_epsilon"] = _short(own.get("attention.layer_norm_epsilon", 1e-5))
        return {GPT2_KEYS.get(key, key): value for key, value in config.items()}
    return config | _llama(arch, own, config, file)


def _llama(arch: str, own: Mapping[str, Any], config: Mapping[str, Any], file: GgufFile) -> dict[str, Any]:
    """What models of the Llama style have beside sizes."""
    heads = config["num_attention_heads"]
    width = own.get("attention.key_length", config["hidden_size"] // max(heads, 1))
    value_width, turned = own.get("attention.value_length", width), own.get("rope.dimension_count", width)
    require(value_width == width, f"{arch}.attention.value_length", value_width, f"key_length = {width}")
    require(turned == width, f"{arch}.rope.dimension_count", turned, f"the width of a head, {width}")
    found: dict[str, Any] = {
        "num_key_value_heads": own.get("attention.head_count_kv", heads),
        "head_dim": width,
        "rms_norm_eps": _short(own.get("attention.layer_norm_rms_epsilon", 1e-6)),
        "rope_theta": _short(own.get("rope.freq_base", 1e6 if arch == "gemma3" else 1e4)),
        "rope_scaling": _scaling(own, file, _short(own.get("rope.freq_base", 1e4)), width),
    }
    if arch in ("llama", "qwen3"):
        found["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if arch == "llama":
        found["mlp_bias"] = "blk.0.ffn_gate.bias" in file.tensors
    if arch.startswith("gemma"):
        whole = config["hidden_size"] // heads
        found["query_pre_attn_scalar"] = whole if config["num_hidden_layers"] == LARGEST[arch] else width
        for ours, theirs in (
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ):
            value = own.get(theirs, {"attn": 50.0, "fina": 30.0}[ours[:4]] if arch == "gemma2" else None)
            found[ours] = _short(value) if value else None
        found["hidden_activation"] = "gelu_pytorch_tanh"
    window = own.get("attention.sliding_window")
    if window is not None or arch == "gemma2":
        require(arch != "llama" or not window, f"{arch}.attention.sliding_window", window, "absent")
        found["sliding_window"] = window or 4096
    return found


def _scaling(own: Mapping[str, Any], file: GgufFile, base: float, width: int) -> dict[str, Any] | None:
    """The scaling of rotary positions: "linear" of the metadata, or "llama3", stored as a tensor of factors."""
    kind = own.get("rope.scaling.type", "none")
    if "rope_freqs.weight" in file.tensors:
        factors = _values(file.tensors["rope_freqs.weight"])
        stated = {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3}
        rule = Rotary(
            base, scaling="llama3", factor=stated["factor"], original=LLAMA3["original_max_position_embeddings"]
        )
        known = len(factors) == width // 2 and np.allclose(
            Rotary(base).frequencies(width) / rule.frequencies(width), factors, rtol=1e-3
        )
        require(known, "rope_freqs.weight", f"{factors[:4]}...", "the factors of Llama 3.1's published rule")
        return stated
    if kind == "none":
        return None
    choose("rope.scaling.type", str(kind), ("none", "linear"))
    return {"rope_type": "linear", "factor": _short(own.get("rope.scaling.factor", 1.0))}


def tensors(file: GgufFile, config: Mapping[str, Any]) -> dict[str, Stored]:
    """The tensors under Hugging Face's names and with their shapes; each is dequantised when it is read.

    Quantised ones become float32, others keep their type. Raises `BadInput` for a name that the architecture has not.
    """
    arch = file.metadata["general.architecture"]
    heads = {"attn_q": config.get("num_attention_heads", 1), "attn_k": config.get("num_key_value_heads", 1)}
    found = {}
    for name, tensor in file.tensors.items():
        if name == "rope_freqs.weight":
            continue
        parts = re.fullmatch(r"(?:blk\.(\d+)\.)?(.*)\.(weight|bias)", name)
        layer, stem, kind = parts.groups(default="") if parts else ("", "", "")
        theirs = KINDS[arch].names.get(stem)
        if theirs is None:
            raise BadInput(f"{file.path.name} has a tensor that a {arch} has not: {name}")
        theirs = f"{KINDS[arch].layer}.{layer}.{theirs}.{kind}" if layer else f"{theirs}.{kind}"
        shape, change = _shape(tensor), _same
        if arch == "llama" and stem in heads:
            require(shape[0] % (2 * heads[stem]) == 0, f"rows of {name}", shape[0], f"a multiple of {2 * heads[stem]}")
            change = functools.partial(_unpermuted, heads=heads[stem])
        elif arch.startswith("gemma") and stem.endswith("norm"):
            change = _less_one
        elif arch == "gpt2" and kind == "weight" and stem in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
            shape, change = shape[::-1], _transposed
        found[theirs] = Stored(shape, functools.partial(_read, tensor, change))
    return found


def _read(tensor: Any, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return change(_values(tensor))


def _values(tensor: Any) -> np.ndarray:
    """A tensor as an array of its stored type, or dequantised to float32."""
    from gguf.quants import dequantize

    kind = tensor.tensor_type.name
    if kind in ("F32", "F16", "F64"):
        return np.array(tensor.data)
    if kind == "BF16":
        return np.array(tensor.data).view(ml_dtypes.bfloat16).reshape(_shape(tensor))
    try:
        return dequantize(tensor.data, tensor.tensor_type)
    except (NotImplementedError, ValueError) as error:
        raise BadInput(f"{tensor.name} has the type {kind}, which cannot be read ({first_line(error)})") from None


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in reversed(tensor.shape))


def _same(w: np.ndarray) -> np.ndarray:
    return w


def _transposed(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(w.T)


def _less_one(w: np.ndarray) -> np.ndarray:
    return w - w.dtype.type(1)


def _unpermuted(w: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from interleaved pairs (0, half, 1, half + 1, ...) back to halves (0, 1, ..., half, ...)."""
    return w.reshape(heads, -1, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def _short(value: Any) -> float:
    """A float32 of the metadata as the decimal number that was meant: 1e-5, not 9.99999974e-6."""
    return float(str(np.float32(value)))
