"""A small configuration of every family, in the form of `config.json` that the Hugging Face library wrote first."""

COMMON = {
    "vocab_size": 23, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 2, "head_dim": 6, "rms_norm_eps": 1e-5, "rope_theta": 50.0}
GEMMA = GROUPED | {"sliding_window": 5, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 9}
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
CONFIGS = {
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 23, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "llama": {"model_type": "llama", "rope_scaling": LLAMA3, "attention_bias": True, "mlp_bias": True} | GROUPED,
    "mistral": {"model_type": "mistral", "sliding_window": 4, "rope_scaling": {"type": "linear", "factor": 2.0}}
    | GROUPED,
    "qwen2": {
        "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1,
        "tie_word_embeddings": True,
    } | {key: value for key, value in GROUPED.items() if key != "head_dim"},
    "qwen3": {"model_type": "qwen3", "attention_bias": True} | GROUPED,
    "gemma2": {"model_type": "gemma2", "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0} | GEMMA,
    "gemma3_text": {
        "model_type": "gemma3_text", "sliding_window_pattern": 2, "rope_local_base_freq": 20.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    } | GEMMA,
    "gpt_neox": {"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 50, "layer_norm_eps": 1e-4} | COMMON,
    "olmo2": {"model_type": "olmo2"} | {key: value for key, value in GROUPED.items() if key != "head_dim"},
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [1, 0, 1]}
    | {key: value for key, value in GROUPED.items() if key != "head_dim"},
    "phi3": {"model_type": "phi3", "sliding_window": 7, "partial_rotary_factor": 0.5}
    | {key: value for key, value in GROUPED.items() if key != "head_dim"},
}  # fmt: skip
