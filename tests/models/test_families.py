"""Small random models of every family of language models against the Hugging Face library: the same logits to 1e-4."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from language_configs import CONFIGS
from perturbed import drawn

from meta_icl.lm.configurations import shape_of
from meta_icl.lm.names import to_checkpoint
from meta_icl.models import Rotary, gemma2, gemma3, gpt2, llama, mistral, neox, olmo2, qwen2, qwen3

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7])
SIZES = (23, 16, 3, 4, 20)  # tokens, width, layers, heads, width of the MLP
GROUPED = {"n_groups": 2, "eps": 1e-5}
GEMMA = GROUPED | {"d_head": 6, "window": 5, "query_scale": 9.0}
LLAMA3 = Rotary(50.0, scaling="llama3", factor=4.0, original_length=16)
# The configuration of `oracles/language_configs.py` in the words of a published function; what the file cannot say is
# changed in it.
FAMILIES = {
    "gpt2": ("GPT2", gpt2(23, 16, 3, 4, 32), {}),
    "llama": ("Llama", llama(*SIZES, d_head=6, rotary=LLAMA3, **GROUPED), {"attention_bias": False, "mlp_bias": False}),
    "llama, linear": (
        "Llama",
        llama(*SIZES, rotary=Rotary(50.0, scaling="linear", factor=2.0), tied=True, **GROUPED),
        {
            "attention_bias": False, "mlp_bias": False, "head_dim": 4, "tie_word_embeddings": True,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
    ),
    "mistral": (
        "Mistral",
        mistral(*SIZES, window=4, d_head=6, rotary=Rotary(50.0, scaling="linear", factor=2.0), **GROUPED),
        {},
    ),
    "qwen2": ("Qwen2", qwen2(*SIZES, rotary=Rotary(50.0), windows=(None, 6, 6), tied=True, **GROUPED), {}),
    "qwen3": ("Qwen3", qwen3(*SIZES, d_head=6, rotary=Rotary(50.0), **GROUPED), {"attention_bias": False}),
    "gemma2": ("Gemma2", gemma2(*SIZES, softcap=2.0, final_softcap=3.0, rotary=Rotary(50.0), **GEMMA), {}),
    "gemma3_text": (
        "Gemma3Text",
        gemma3(*SIZES, local_rotary=Rotary(20.0), global_rotary=Rotary(50.0, scaling="linear", factor=8.0),
               global_every=2, **GEMMA),
        {},
    ),
    "gpt_neox": ("GPTNeoX", neox(*SIZES, rotary=Rotary(50.0, 0.5), eps=1e-4), {}),
    "olmo2": ("Olmo2", olmo2(*SIZES, rotary=Rotary(50.0), **GROUPED), {}),
}  # fmt: skip


def named(network, shape):
    """The weights under the neutral names of `lm.names`, layer by layer; norms over all heads as "heads k"."""
    found = {"embedding.tokens": network.embedding.table}
    if network.positions is not None:
        found["embedding.positions"] = network.positions.table
    if not shape.tied:
        found["readout.weight"] = network.readout.map.weight
    found |= norms("final_norm", network.final_norm)
    behind = shape.placement == "branch"  # the only norm of a half stands behind it, as the second of a sandwich does
    for i, block in enumerate(network.layers()):
        at, mixer, half = f"blocks.{i}.", block.mixer, block.feed_forward
        first = ("post_norm_mixer", "post_norm_feedforward") if behind else ("norm_mixer", "norm_feedforward")
        found |= norms(at + first[0], block.norm_mixer) | norms(at + first[1], block.norm_feed_forward)
        found |= norms(at + "post_norm_mixer", block.post_norm_mixer)
        found |= norms(at + "post_norm_feedforward", block.post_norm_feed_forward)
        for name in ("w_q", "w_k", "w_v", "w_o", "b_q", "b_k", "b_v", "b_o"):
            found[f"{at}mixer.{name}"] = getattr(mixer, name)
        for name in ("q_norm", "k_norm"):
            if getattr(mixer, name) is not None:
                scale = getattr(mixer, name).scale
                found[f"{at}mixer.{name}.scale"] = scale.reshape(-1, shape.d_head) if behind else scale
        for name in ("w_in", "b_in", "w_gate", "w_up", "w_out", "b_out"):
            found[f"{at}feedforward.{name}"] = getattr(half, name, None)
    return {name: np.asarray(array) for name, array in found.items() if array is not None}


def norms(name, norm):
    return {} if norm is None else {f"{name}.scale": norm.scale, f"{name}.bias": norm.bias}


def magnified(network):
    """Matrices three times as large as drawn: logits that differ from token to token."""
    return jax.tree.map(lambda leaf: leaf * (1 if leaf.ndim < 2 else 3), network)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_the_librarys(name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind, architecture, changes = FAMILIES[name]
    config = CONFIGS[name.partition(",")[0]] | changes
    shape, _ = shape_of(config)
    network = magnified(drawn(architecture))
    stored = {n: torch.tensor(np.array(a)) for n, a in to_checkpoint(named(network, shape), shape)}
    settings = getattr(transformers, f"{kind}Config")(**{k: v for k, v in config.items() if k != "model_type"})
    settings._attn_implementation = "eager"
    heads = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}
    model = getattr(transformers, heads.get(kind, f"{kind}ForCausalLM"))(settings).eval()
    if "embed_out.weight" in stored and "lm_head.weight" in model.state_dict():  # newer versions of the library
        stored["lm_head.weight"] = stored.pop("embed_out.weight")
    missing, unknown = model.load_state_dict(stored, strict=False)
    assert not unknown and all("lm_head" in n or n.endswith((".attn.bias", "inv_freq")) for n in missing)
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS)[None]).logits[0].numpy()
    assert np.std(expected) > 0.1
    found = eqx.filter_jit(lambda network, tokens: network(tokens)[0])(network, jnp.asarray(TOKENS))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
