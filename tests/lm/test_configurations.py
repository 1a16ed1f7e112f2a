"""Configurations of language models: what they say is understood, and what would change the computation refused."""

import numpy as np
import pytest
from language_configs import CONFIGS, LLAMA3

from meta_icl.errors import BadInput
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.shapes import Rotary


def test_what_a_configuration_says():
    shape, _ = shape_of(CONFIGS["gemma3_text"])
    local, whole = Rotary(20.0), Rotary(50.0, scaling="linear", factor=8.0)
    assert shape.rotary == (local, whole, local)  # every second layer sees everything
    assert shape.windows == (5, None, 5)
    assert (shape.placement, shape.qk_norm, shape.tied) == ("sandwich", "head", True)
    assert shape.embedding_scale == 4.0
    assert shape.score_scale == pytest.approx(1 / 3)
    shape, _ = shape_of(CONFIGS["smollm3"])
    assert shape.rotary == (Rotary(50.0), None, Rotary(50.0))
    shape, _ = shape_of(CONFIGS["gpt_neox"])
    assert shape.rotary == (Rotary(50.0, fraction=0.5),) * 3
    assert (shape.norm, shape.parallel, shape.gated, shape.activation) == ("layer", True, False, "gelu_exact")
    shape, _ = shape_of(CONFIGS["gpt2"])
    assert shape.rotary == (None,) * 3
    assert (shape.d_ff, shape.learned_positions, shape.tied) == (64, True, True)
    shape, _ = shape_of(CONFIGS["qwen2"])
    assert shape.windows == (None, 6, 6)
    assert (shape.qkv_bias, shape.o_bias, shape.n_groups, shape.d_head) == (True, False, 2, 4)
    shape, notes = shape_of(
        {"model_type": "gemma3", "vision_config": {}, "text_config": CONFIGS["gemma3_text"], "mm_tokens_per_image": 4}
    )
    assert shape == shape_of(CONFIGS["gemma3_text"])[0]
    assert notes == ["the vision tower is ignored: only the text model is read"]


def test_both_forms_of_rotary_positions_say_the_same():
    old = CONFIGS["gemma3_text"]
    new = {k: v for k, v in old.items() if not k.startswith("rope")}
    new["rope_parameters"] = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50.0},
    }
    assert shape_of(old) == shape_of(new)
    old = CONFIGS["llama"]
    new = {k: v for k, v in old.items() if not k.startswith("rope")} | {
        "rope_parameters": {**LLAMA3, "rope_theta": 50.0}
    }
    assert shape_of(old) == shape_of(new)


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_frequencies_of_llama3(base):
    """Waves longer than original / low are slowed by the factor, those shorter than original / high kept."""
    rotary = Rotary(base, scaling="llama3", factor=8.0, low_factor=1.0, high_factor=4.0, original=8192)
    found, plain = rotary.frequencies(64), Rotary(base).frequencies(64)
    for i, frequency in enumerate(plain):
        assert frequency == pytest.approx(base ** (-2 * i / 64))
        wave = 2 * np.pi / frequency
        if wave > 8192:
            assert found[i] == pytest.approx(frequency / 8)
        elif wave < 8192 / 4:
            assert found[i] == pytest.approx(frequency)
        else:
            smooth = (8192 / wave - 1) / 3
            assert found[i] == pytest.approx((1 - smooth) * frequency / 8 + smooth * frequency)
    np.testing.assert_allclose(Rotary(base, scaling="linear", factor=2.0).frequencies(64), plain / 2)
    assert len(Rotary(base, fraction=0.25).frequencies(64)) == 8
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = LLAMA3 | {"factor": 8.0, "original_max_position_embeddings": 8192, "rope_theta": base}
    config = transformers.LlamaConfig(hidden_size=128, num_attention_heads=2, rope_parameters=scaling)
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)


def test_harmless_keys_are_ignored_and_strange_ones_noted():
    config = CONFIGS["llama"] | {"torch_dtype": "bfloat16", "is_llama_config": True, "rope_interleaved": False}
    config |= {"auto_map": {"AutoModel": "custom.Model"}}  # code of the model's own, which is never run
    shape, notes = shape_of(config)
    assert shape == shape_of(CONFIGS["llama"])[0]
    assert notes == [
        "auto_map = {'AutoModel': 'custom.Model'} in the model's configuration is ignored",
        "is_llama_config = True in the model's configuration is ignored",
    ]


WRONG = [
    ({"model_type": "lama"}, "unknown model_type 'lama'; did you mean 'llama'"),
    ({"model_type": None}, "unknown model_type 'None'"),
    (
        {"num_hidden_layers": None},
        "num_hidden_layers in the model's configuration must be a positive integer, got None",
    ),
    ({"num_hidden_layers": 2**40}, "num_hidden_layers in the model's configuration must be at most 10000, got"),
    ({"num_hidden_layers": True}, "must be a positive integer, got True"),
    ({"hidden_size": 16.0}, "hidden_size in the model's configuration must be a positive integer, got 16.0"),
    ({"num_attention_heads": "4"}, "num_attention_heads in the model's configuration must be a positive integer"),
    ({"num_key_value_heads": "2"}, "num_key_value_heads in the model's configuration must be a positive integer"),
    ({"num_key_value_heads": 3}, "num_key_value_heads must be a divisor of the 4 attention heads, got 3"),
    ({"num_key_value_heads": 0}, "must be a positive integer, got 0"),
    ({"head_dim": None, "hidden_size": 18}, "a divisor of the width 18"),
    ({"vocab_size": -1}, "vocab_size in the model's configuration must be a positive integer"),
    ({"hidden_act": "mish"}, "unknown hidden_act 'mish'"),
    ({"hidden_act": ["silu"]}, "unknown hidden_act"),
    ({"rms_norm_eps": "1e-5"}, "rms_norm_eps in the model's configuration must be a positive number"),
    ({"rope_theta": -1.0}, "rope_theta in the model's configuration must be a positive number, got -1.0"),
    ({"rope_scaling": "linear"}, "rope_scaling must be an object or null, got 'linear'"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "unknown scaling of rotary positions 'yarn'"),
    ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "unknown scaling of rotary positions 'dynamic'"),
    ({"rope_scaling": {"rope_type": "linear"}}, "factor of the rotary positions must be a positive number, got None"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor of the rotary positions must be"),
    ({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "high_freq_factor must be above low_freq_factor = 4.0"),
    ({"rope_scaling": {"type": "default", "beta_fast": 32}}, "unknown key of the rotary positions 'beta_fast'"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1 in a llama, got 0.5"),
    ({"sliding_window": 4}, "sliding_window must be null, got 4"),
    ({"attention_bias": "yes"}, "attention_bias in the model's configuration must be true or false, got 'yes'"),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings in the model's configuration must be true or false, got 1"),
    ({"quantization_config": {"quant_method": "fp8"}}, r"the weights are quantised \(fp8\)"),
    ({"quantization_config": "int8"}, r"the weights are quantised \(int8\)"),
    ({"num_local_experts": 8}, "num_local_experts = 8 in the model's configuration may change what it computes"),
    ({"residual_multiplier": 0.2}, "residual_multiplier = 0.2 in the model's configuration may change"),
    ({"logit_scale": 0.06}, "logit_scale = 0.06 in the model's configuration may change"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[f"{m[:40]}" for _, m in WRONG])
def test_refused(change, message):
    with pytest.raises(BadInput, match=message) as caught:
        shape_of(CONFIGS["llama"] | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx must be false, got True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights must be true, got False"),
        ("gpt2", {"n_head": 5}, "a divisor of the width 16, got 5"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention must be false"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 2}, "layer_types must be a list of 3 kinds"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "unknown kind of layer 'chunked_attention'"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers must be a list of 3 zeros and ones"),
        (
            "phi3",
            {"partial_rotary_factor": 0.7, "hidden_size": 20},
            "even number of the 5 entries of a head, got 0.7",
        ),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "positions 'longrope'"),
        ("gpt_neox", {"rotary_pct": 0.25}, "an even number of the 4 entries of a head, got 0.25"),
    ],
)
def test_refused_of_other_families(kind, change, message):
    with pytest.raises(BadInput, match=message):
        shape_of(CONFIGS[kind] | change)


def test_a_vision_model_without_its_text():
    with pytest.raises(BadInput, match="text_config in the model's configuration must be an object, got None"):
        shape_of({"model_type": "gemma3"})


def without(kind, *keys):
    return {key: value for key, value in CONFIGS[kind].items() if key not in keys}


def test_what_is_not_stated_is_what_the_library_takes():
    """The defaults of Gemma2Config, Phi3Config and Qwen2Config of the library transformers; null is another word."""
    soft = ("attn_logit_softcapping", "final_logit_softcapping")
    shape, _ = shape_of(without("gemma2", *soft))
    assert (shape.score_softcap, shape.logit_softcap) == (50.0, 30.0)
    shape, _ = shape_of(without("gemma2") | dict.fromkeys(soft))
    assert (shape.score_softcap, shape.logit_softcap) == (None, None)
    assert set(shape_of(without("phi3", "sliding_window"))[0].windows) == {None}
    asked = {"use_sliding_window": True, "sliding_window": 4}
    assert set(shape_of(without("qwen2", "max_window_layers", "layer_types") | asked)[0].windows) == {None}
    assert set(shape_of(without("qwen2", "layer_types") | asked | {"max_window_layers": 0})[0].windows) == {4}
