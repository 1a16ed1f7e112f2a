"""Decoders against the Hugging Face library's own GPT-2, in both directions; skipped without the `lm` extra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from meta_icl.lm import load_decoder, save_decoder
from meta_icl.models import Decoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6])
CONFIGS = {
    "tied": Decoder(24, 3, 4, 9, n_tokens=11, d_out=None, init_std=0.2),
    "untied": Decoder(24, 3, 4, 9, n_tokens=11, d_out=11, read_bias=False, init_std=0.2),
    "scanned": Decoder(16, 7, 2, 9, n_tokens=11, d_out=None, init_std=0.2),
}


def their_logits(model, **inputs):
    with torch.no_grad():
        return model.eval()(**{name: torch.tensor(np.asarray(a)[None]) for name, a in inputs.items()}).logits[0].numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_exported_weights_give_the_same_logits(tmp_path, name):
    """To 1e-5 in float32, and to 1e-10 in float64, where rounding cannot hide a difference."""
    config = CONFIGS[name]
    save_decoder(config(key=jax.random.key(0)), tmp_path)
    own = load_decoder(tmp_path)(jnp.asarray(TOKENS))[0]
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32)
    np.testing.assert_allclose(own, their_logits(theirs, input_ids=TOKENS), rtol=0, atol=1e-5)
    with jax.enable_x64(True):
        own = load_decoder(tmp_path)(jnp.asarray(TOKENS))[0]
        assert own.dtype == jnp.float64
        assert float(jnp.std(own)) > 0.1
        np.testing.assert_allclose(own, their_logits(theirs.double(), input_ids=TOKENS), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_vectors_go_through_their_backbone(tmp_path):
    """Garg et al.'s arrangement: a linear map in, GPT-2 without its embedding, a linear map out."""
    network = Decoder(12, 2, 3, 9, d_in=4, d_out=2, init_std=0.3, read_init="torch")(key=jax.random.key(0))
    save_decoder(network, tmp_path)
    arrays = {name: torch.tensor(a).double() for name, a in load_file(tmp_path / "model.safetensors").items()}
    config = transformers.GPT2Config(
        n_embd=12, n_layer=2, n_head=3, n_positions=9, vocab_size=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    backbone = transformers.GPT2Model(config).double().eval()
    weights = {name.removeprefix("_backbone."): a for name, a in arrays.items() if name.startswith("_backbone.")}
    missing, unknown = backbone.load_state_dict(weights, strict=False)
    assert set(missing) <= {"wte.weight"} | {f"h.{i}.attn.bias" for i in range(2)}
    assert not unknown
    x = np.random.default_rng(0).normal(size=(6, 4))
    read_in = torch.tensor(x) @ arrays["_read_in.weight"].T + arrays["_read_in.bias"]
    with torch.no_grad():
        states = backbone(inputs_embeds=read_in[None]).last_hidden_state[0]
        theirs = states @ arrays["_read_out.weight"].T + arrays["_read_out.bias"]
    np.testing.assert_allclose(load_decoder(tmp_path)(jnp.asarray(x))[0], theirs.numpy(), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_their_weights_are_read_back(tmp_path, tied):
    """A GPT-2 that the library drew and saved, and a decoder that went there and back."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=24, n_layer=3, n_head=4, n_positions=9, vocab_size=11, initializer_range=0.2, tie_word_embeddings=tied
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path)
    own = load_decoder(tmp_path)
    expected = their_logits(model.double(), input_ids=TOKENS)
    np.testing.assert_allclose(own(jnp.asarray(TOKENS))[0], expected, rtol=0, atol=1e-10)
    save_decoder(own, tmp_path / "again")
    np.testing.assert_array_equal(load_decoder(tmp_path / "again")(jnp.asarray(TOKENS))[0], own(jnp.asarray(TOKENS))[0])
