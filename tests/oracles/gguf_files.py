"""GGUF files as llama.cpp's converter writes them, by the library's own table of names."""

import numpy as np
from language_configs import CONFIGS

from meta_icl.lm.configurations import shape_of
from meta_icl.lm.names import expected
from meta_icl.lm.shapes import Rotary

ARCHS = {kind: kind for kind in ("llama", "qwen2", "qwen3", "gemma2", "gpt2")} | {"gemma3_text": "gemma3"}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def config_of(kind, **changes):
    """A configuration whose every number the format can say."""
    config = CONFIGS[kind] | changes
    unsaid = {
        "qwen2": {"use_sliding_window": False, "sliding_window": None, "max_window_layers": None},
        "gemma3_text": {"sliding_window_pattern": 6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 6},
        "gemma2": {"query_pre_attn_scalar": 6},
        "llama": {"rope_scaling": LLAMA3, "rope_theta": 5e5},
    }
    return config | unsaid.get(kind, {}) | changes


def random_tensors(config, scale=1.0):
    rng = np.random.default_rng(0)
    named = expected(shape_of(config)[0])
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in named.items()}


def as_stored(name, array, kind, config):
    """What llama.cpp's converter does to a tensor, written from its description."""
    if kind == "llama" and ("q_proj" in name or "k_proj" in name):  # rows of a head: 0, half, 1, half + 1, ...
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        rows = []
        for head in np.split(array, heads):
            for i in range(len(head) // 2):
                rows += [head[i], head[len(head) // 2 + i]]
        return np.stack(rows)
    if kind.startswith("gemma") and "norm" in name:
        return array + np.float32(1)
    if kind == "gpt2" and name.endswith("weight") and (".c_" in name):
        return np.ascontiguousarray(array.T)
    return array


def write(path, kind, config, tensors, *, types=None, more=()):
    """A GGUF file of a model; `types` gives some tensors another type, by a part of their stored names."""
    import gguf

    arch = ARCHS[kind]
    writer = gguf.GGUFWriter(path, arch)
    shape = shape_of(config)[0]
    writer.add_block_count(shape.n_layers)
    writer.add_embedding_length(shape.d_model)
    writer.add_feed_forward_length(shape.d_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_context_length(shape.n_positions)
    writer.add_vocab_size(shape.n_tokens)
    if kind == "gpt2":
        writer.add_layer_norm_eps(shape.norm_eps)
    else:
        writer.add_head_count_kv(shape.n_groups)
        writer.add_key_length(shape.d_head)
        writer.add_value_length(shape.d_head)
        writer.add_layer_norm_rms_eps(shape.norm_eps)
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_rope_dimension_count(shape.d_head)
    if kind.startswith("gemma"):
        writer.add_sliding_window(config["sliding_window"])
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(shape.score_softcap)
        writer.add_final_logit_softcapping(shape.logit_softcap)
    if kind == "gemma3_text":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
    if kind == "llama":
        slowed = Rotary(5e5, scaling="llama3", factor=8.0)
        factors = Rotary(5e5).frequencies(shape.d_head) / slowed.frequencies(shape.d_head)
        assert factors.max() == 8
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    architecture = next(a for a, text in gguf.MODEL_ARCH_NAMES.items() if text == arch)
    table = gguf.get_tensor_name_map(architecture, shape.n_layers)
    for name, array in tensors.items():
        stored = table.get_name(name, try_suffixes=(".weight", ".bias"))
        changed = as_stored(name, array, kind, config)
        wanted = next((t for part, t in (types or {}).items() if part in stored), None)
        if wanted is None:
            writer.add_tensor(stored, changed)
        else:
            quantised = gguf.quants.quantize(changed, wanted)
            writer.add_tensor(stored, quantised, raw_dtype=wanted)
    for add, *arguments in more:
        getattr(writer, add)(*arguments)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
