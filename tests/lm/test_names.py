"""Tables of names: there and back exactly, and against the models of the Hugging Face library by their logits."""

import json

import ml_dtypes
import numpy as np
import numpy_decoder as oracle
import pytest
from language_configs import CONFIGS

from meta_icl.errors import BadInput
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.names import AXES, expected, from_checkpoint, to_checkpoint

CLASSES = {
    "gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text", "gpt_neox": "GPTNeoX", "olmo2": "Olmo2", "smollm3": "SmolLM3", "phi3": "Phi3",
}  # fmt: skip
LONG = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7])


def random_tensors(shape, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=s).astype(dtype) for name, s in expected(shape).items()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_there_and_back(kind):
    shape, _ = shape_of(CONFIGS[kind])
    stored = random_tensors(shape)
    ours = dict(from_checkpoint(stored, shape))
    for name, array in ours.items():
        part = name.split(".", 2)[2] if name.startswith("blocks.") else name
        axes = AXES.get(part, "d")
        if "q_norm" in part or "k_norm" in part:
            axes = "k" if shape.qk_norm == "head" else {"q": "heads k", "k": "groups k"}[part.removeprefix("mixer.")[0]]
        assert array.shape == tuple(shape.sizes[a] for a in axes.split()), name
    assert sum(a.size for a in ours.values()) == sum(a.size for a in stored.values())
    back = dict(to_checkpoint(ours, shape))
    assert {n: a.shape for n, a in back.items()} == expected(shape)
    again = dict(from_checkpoint(back, shape))
    for name, array in back.items():
        if "gemma" in kind and "norm" in name:  # w - 1 and back rounds once
            np.testing.assert_allclose(array, stored[name], rtol=0, atol=3e-7)
        else:
            np.testing.assert_array_equal(array, stored[name], name)
    for name, array in again.items():  # ours near 1, as those of norms are, come back as they were
        near = np.abs(ours[name]) >= 0.5 if "gemma" in kind and "norm" in name else np.full(array.shape, True)
        np.testing.assert_array_equal(array[near], ours[name][near], name)


def test_bfloat16_stays_but_for_scales_with_one_added():
    shape, _ = shape_of(CONFIGS["gemma2"])
    stored = random_tensors(shape, ml_dtypes.bfloat16)
    ours = dict(from_checkpoint(stored, shape))
    assert ours["blocks.0.mixer.w_q"].dtype == ml_dtypes.bfloat16
    scale = ours["blocks.1.post_norm_mixer.scale"]
    assert scale.dtype == np.float32
    theirs = stored["model.layers.1.post_attention_layernorm.weight"]
    np.testing.assert_array_equal(scale, theirs.astype(np.float32) + np.float32(1))


def test_what_is_missing_or_of_another_shape_is_named():
    shape, _ = shape_of(CONFIGS["llama"])
    stored = random_tensors(shape)
    name = "model.layers.1.self_attn.k_proj.weight"
    with pytest.raises(BadInput, match=f"no tensor '{name}'"):
        dict(from_checkpoint({n: a for n, a in stored.items() if n != name}, shape))
    with pytest.raises(BadInput, match=r"k_proj.weight must be of shape \(12, 16\), got \(16, 12\)"):
        dict(from_checkpoint(stored | {name: stored[name].T}, shape))
    ours = dict(from_checkpoint(stored, shape))
    with pytest.raises(BadInput, match=r"no array 'blocks\.0\.mixer\.w_o'"):
        dict(to_checkpoint({n: a for n, a in ours.items() if n != "blocks.0.mixer.w_o"}, shape))
    with pytest.raises(BadInput, match=r"final_norm\.scale must be of shape \(16,\), got \(3,\)"):
        dict(to_checkpoint(ours | {"final_norm.scale": np.ones(3)}, shape))


@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_of_the_hugging_face_library(kind):
    """A float64 forward pass written from the description and our names equals the library's model."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = getattr(transformers, f"{CLASSES[kind]}Config")(**CONFIGS[kind], attn_implementation="eager")
    names = {"gemma3_text": "Gemma3ForCausalLM", "gpt2": "GPT2LMHeadModel"}
    model = getattr(transformers, names.get(kind, f"{CLASSES[kind]}ForCausalLM"))(config).double().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = float("norm" in name and "weight" in name and "gemma" not in kind)
            parameter.copy_(centre + 0.3 * torch.randn(parameter.shape, dtype=torch.float64))
        wanted = model(torch.tensor(LONG)[None]).logits[0].numpy()
    shape, notes = shape_of(json.loads(config.to_json_string()))
    assert notes == []
    assert (shape, []) == shape_of(CONFIGS[kind])  # the form in which the library wrote configurations before
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    readout = tensors.pop("lm_head.weight")
    if not shape.tied:
        tensors["embed_out.weight" if kind == "gpt_neox" else "lm_head.weight"] = readout
    assert {name: a.shape for name, a in tensors.items()} == expected(shape)
    found = oracle.logits(shape, dict(from_checkpoint(tensors, shape)), LONG)
    assert np.abs(wanted).max() > 1
    # gemma's factor of the embedding and the library's rotary tables are float32
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)
