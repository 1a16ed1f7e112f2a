"""Models written as folders: read back as they were, and by the Hugging Face library."""

import json

import ml_dtypes
import numpy as np
import pytest
from gguf_files import config_of as gguf_config
from gguf_files import random_tensors, write
from language_configs import CONFIGS

from meta_icl.apps.cli import main
from meta_icl.errors import BadInput
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.exports import config_of, write_checkpoint
from meta_icl.lm.files import read_checkpoint
from meta_icl.lm.names import from_checkpoint, to_checkpoint
from meta_icl.lm.tokenizer import read_tokenizer


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations_there_and_back(kind):
    shape, _ = shape_of(CONFIGS[kind])
    assert shape_of(json.loads(json.dumps(config_of(shape)))) == (shape, [])


def test_a_checkpoint_there_and_back(tmp_path):
    shape, _ = shape_of(CONFIGS["phi3"])
    stored = random_tensors(CONFIGS["phi3"])
    ours = dict(from_checkpoint(stored, shape))
    write_checkpoint(tmp_path / "model", config_of(shape), dict(to_checkpoint(ours, shape)))
    again = read_checkpoint(tmp_path / "model")
    assert (again.shape, again.notes) == (shape, ())
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
    for name, array in stored.items():
        np.testing.assert_array_equal(again.tensors[name], array)
    with pytest.raises(BadInput, match=r"one without a model: it has a config\.json"):
        write_checkpoint(tmp_path / "model", config_of(shape), stored)
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(BadInput, match=r"one without a model: it has a model\.safetensors"):
        write_checkpoint(tmp_path / "model", config_of(shape), stored)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write .*file"):
        write_checkpoint(tmp_path / "file", config_of(shape), stored)


@pytest.mark.parametrize(("narrow", "name"), [("norm", "float32"), ("", "bfloat16")])
def test_the_widest_type_is_stated(tmp_path, narrow, name):
    """As what the library then loads all tensors, so that none is rounded."""
    stored = random_tensors(CONFIGS["qwen3"])
    stored = {n: a.astype(ml_dtypes.bfloat16) if narrow in n else a for n, a in stored.items()}
    write_checkpoint(tmp_path, CONFIGS["qwen3"], stored)
    again = read_checkpoint(tmp_path)
    assert again.config["torch_dtype"] == name
    assert all(again.tensors[n].dtype == a.dtype for n, a in stored.items())


def test_gguf_to_a_folder(tmp_path, capsys):
    pytest.importorskip("gguf")
    tokenizers = pytest.importorskip("tokenizers")
    symbols = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *symbols, "ab", "abc"]
    more = [
        ("add_tokenizer_model", "gpt2"),
        ("add_tokenizer_pre", "smollm"),
        ("add_token_list", tokens),
        ("add_token_types", [3] + [1] * (len(tokens) - 1)),
        ("add_token_merges", ["a b", "ab c"]),
        ("add_bos_token_id", 0),
        ("add_eos_token_id", 0),
    ]
    config = gguf_config("llama", vocab_size=len(tokens))
    path = write(tmp_path / "m.gguf", "llama", config, random_tensors(config), more=more)
    folder = tmp_path / "folder"
    assert main(["models", "convert", str(path), str(folder)]) == 0
    assert capsys.readouterr().out == f"wrote {folder}: config.json, model.safetensors, tokenizer.json\n"
    one, other = read_checkpoint(path), read_checkpoint(folder)
    assert (one.shape, other.notes) == (other.shape, ())
    for name, array in one.tensors.items():
        np.testing.assert_array_equal(other.tensors[name], array)
    for text in ("abc 12", "<|endoftext|>ab"):
        np.testing.assert_array_equal(read_tokenizer(path).numbers(text), read_tokenizer(folder).numbers(text))
    assert main(["models", "convert", str(path), str(folder)]) == 2
    assert "folder must be one without a model in it" in capsys.readouterr().err
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), one.tensors[name])
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs("abc 12").input_ids == read_tokenizer(path).numbers("abc 12")
    assert theirs.eos_token == "<|endoftext|>"
