"""The pretrained model that `meta-icl models get smollm2` fetches, where it is there: too slow for every run."""

import jax.numpy as jnp
import numpy as np
import numpy_decoder as oracle
import pytest

from meta_icl.lm.answers import most_probable
from meta_icl.lm.files import read_checkpoint
from meta_icl.lm.names import from_checkpoint
from meta_icl.lm.networks import network_of
from meta_icl.lm.packages import place
from meta_icl.lm.tokenizer import read_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not place("smollm2").is_file(), reason="smollm2 is not fetched")]
TEXT = "The capital of France is Paris. The capital of Germany is"


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint("smollm2")


def test_its_shape(checkpoint):
    shape = checkpoint.shape
    assert (shape.n_layers, shape.n_heads, shape.n_groups, shape.d_model, shape.tied) == (30, 9, 3, 576, True)
    assert checkpoint.notes == ()
    assert sum(np.prod(checkpoint.tensors.shape(name)) for name in checkpoint.tensors) == 134_515_008


def test_it_knows_a_capital(checkpoint):
    """Logits by a float64 forward pass, and those of the Hugging Face library on the same weights."""
    tokenizer = read_tokenizer("smollm2")
    tokens = np.array([tokenizer.opening, *tokenizer.numbers(TEXT)])
    found = oracle.logits(checkpoint.shape, dict(from_checkpoint(checkpoint.tensors, checkpoint.shape)), tokens)
    assert tokenizer.text(int(found[-1].argmax())) == " Berlin"
    network = network_of(checkpoint)
    np.testing.assert_allclose(network(jnp.asarray(tokens))[0], found, rtol=0, atol=2e-4)
    (answer, share), *_ = most_probable(network, tokens)
    assert answer == found[-1].argmax() and share > 0.1
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**checkpoint.config)).eval()
    named = {name: torch.tensor(checkpoint.tensors[name]) for name in checkpoint.tensors}
    left = model.load_state_dict(named, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["lm_head.weight"], [])  # tied
    with torch.no_grad():
        wanted = model(torch.tensor(tokens)[None]).logits[0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


def test_its_tokenizer():
    """Digits one by one; the merges, without those cuts, by the Hugging Face library."""
    tokenizer = read_tokenizer("smollm2")
    assert [tokenizer.text(n) for n in tokenizer.numbers(" 123 a")] == [" ", "1", "2", "3", " a"]
    assert (tokenizer.n_tokens, tokenizer.text(0)) == (49152, "<|endoftext|>")
    texts = [
        TEXT,
        "  two  spaces\n\nand\tta b",
        "naïve 日本語 🙂",
        "don't I'LL",
        "\ufeffBOM",
        "\r\n\x00 e\u0301",
        "3.14 + 2",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.numbers(text)) == text
    transformers = pytest.importorskip("transformers")
    path = place("smollm2")
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in texts:
        assert theirs(text).input_ids == tokenizer.numbers(text)
