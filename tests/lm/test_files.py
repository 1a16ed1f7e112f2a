"""Checkpoints that are damaged, quantised, renamed or cut short: each is read rightly or refused by one line."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from language_configs import CONFIGS
from safetensors.numpy import save_file

from meta_icl.errors import BadInput
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.files import INDEX, read_checkpoint
from meta_icl.lm.names import expected, from_checkpoint

Q = "model.layers.1.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


class Broken:
    """A folder with a small Llama, before it is written: its configuration, its tensors by file, other files."""

    def __init__(self, kind="llama", **changes):
        self.config = CONFIGS[kind] | changes
        rng = np.random.default_rng(0)
        self.tensors = {
            name: rng.normal(size=shape).astype(np.float32)
            for name, shape in expected(shape_of(self.config)[0]).items()
        }
        self.files: dict[str, dict | bytes] = {}
        self.text: bytes | None = None

    def write(self, folder: Path, *, shards: bool = False) -> Path:
        text = json.dumps(self.config).encode() if self.text is None else self.text
        (folder / "config.json").write_bytes(text)
        if shards:
            names = sorted(self.tensors)
            parts = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
            for file, mine in parts.items():
                save_file({n: self.tensors[n] for n in mine}, folder / file)
            placed = {n: file for file, mine in parts.items() for n in mine}
            (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": placed}))
        elif self.tensors:
            save_file(self.tensors, folder / "model.safetensors")
        for name, content in self.files.items():
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                save_file(content, folder / name)
        return folder


def same(checkpoint, tensors):
    assert set(checkpoint.tensors) == set(tensors)
    for name, array in tensors.items():
        assert checkpoint.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(checkpoint.tensors[name], array)


# What is read rightly.


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_whole_checkpoints(tmp_path, kind, shards):
    made = Broken(kind)
    checkpoint = read_checkpoint(made.write(tmp_path, shards=shards))
    assert (checkpoint.family, checkpoint.notes) == (kind, ())
    same(checkpoint, made.tensors)
    assert len(dict(from_checkpoint(checkpoint.tensors, checkpoint.shape))) >= len(made.tensors)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_types_are_kept(tmp_path, dtype):
    made = Broken()
    made.tensors = {name: a.astype(dtype) for name, a in made.tensors.items()}
    same(read_checkpoint(made.write(tmp_path)), made.tensors)


def _bom(made):
    made.text = b"\xef\xbb\xbf" + json.dumps(made.config).encode()


def _without_prefix(made):
    made.tensors = {n.removeprefix("model."): a for n, a in made.tensors.items()}


def _buffers(made):
    made.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(3, np.float32)


def _tokenizer_config(made):
    made.files["tokenizer_config.json"] = b"{}"


@pytest.mark.parametrize("change", [_bom, _without_prefix, _buffers, _tokenizer_config])
def test_read_rightly_without_a_note(tmp_path, change):
    made = Broken()
    wanted = dict(made.tensors)
    change(made)
    checkpoint = read_checkpoint(made.write(tmp_path))
    assert checkpoint.notes == ()
    same(checkpoint, wanted)


def test_neox_of_the_newer_library_calls_its_readout_by_another_name(tmp_path):
    made = Broken("gpt_neox")
    wanted = dict(made.tensors)
    made.tensors["lm_head.weight"] = made.tensors.pop("embed_out.weight")
    same(read_checkpoint(made.write(tmp_path)), wanted)


def test_masks_of_gpt2_are_no_weights(tmp_path):
    made = Broken("gpt2")
    wanted = dict(made.tensors)
    for i in range(3):
        made.tensors[f"transformer.h.{i}.attn.bias"] = np.ones((1, 1, 4, 4), np.uint8)
        made.tensors[f"transformer.h.{i}.attn.masked_bias"] = np.float32([-1e4])[0:1].reshape(())
    same(read_checkpoint(made.write(tmp_path)), wanted)


def test_the_text_model_of_a_vision_model(tmp_path):
    made = Broken("gemma3_text")
    wanted = dict(made.tensors)
    made.tensors = {n.replace("model.", "language_model.model.", 1): a for n, a in wanted.items()}
    made.tensors["vision_tower.vision_model.embeddings.patch_embedding.weight"] = np.ones((2, 2), np.float32)
    made.tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(2, np.float32)
    made.config = {"model_type": "gemma3", "text_config": made.config, "vision_config": {}}
    checkpoint = read_checkpoint(made.write(tmp_path))
    assert checkpoint.notes == ("the vision tower is ignored: only the text model is read",)
    same(checkpoint, wanted)


# What is read rightly and states what was left aside.

LORA = {"base_model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, 2), np.float32)}


def _ema(made):
    made.files["ema.safetensors"] = {name: a + 1 for name, a in made.tensors.items()}


def _optimiser(made):
    made.files["optimizer.safetensors"] = {"state.0.exp_avg": np.ones(3, np.float32)}


def _adapter(made):
    made.files |= {"adapter_config.json": b"{}", "adapter_model.safetensors": LORA}


def _stale(made):
    made.config |= {"tie_word_embeddings": True}
    made.tensors["lm_head.weight"] = made.tensors["lm_head.weight"] + 1


def _tied_and_there(made):
    made.config |= {"tie_word_embeddings": True}
    made.tensors["lm_head.weight"] = made.tensors["model.embed_tokens.weight"].copy()


def _index_beside_the_whole(made):
    made.files[INDEX] = json.dumps({"weight_map": {Q: "other.safetensors"}}).encode()


NOTED = [
    (_ema, "ema.safetensors is ignored: it is no part of the model"),
    (_optimiser, "optimizer.safetensors is ignored: it is no part of the model"),
    (_adapter, "the adapter beside the model (adapter_config.json) is not applied"),
    (_stale, "ties the read-out to the embedding (lm_head.weight is in the file but DIFFERS from it)"),
    (_tied_and_there, "ties the read-out to the embedding (lm_head.weight is in the file and equals it)"),
    (_index_beside_the_whole, "model.safetensors.index.json is ignored: model.safetensors is there"),
]


@pytest.mark.parametrize(("change", "note"), NOTED, ids=[change.__name__ for change, _ in NOTED])
def test_read_rightly_with_a_note(tmp_path, change, note):
    made = Broken()
    wanted = dict(made.tensors)
    change(made)
    if made.config.get("tie_word_embeddings"):
        del wanted["lm_head.weight"]
    checkpoint = read_checkpoint(made.write(tmp_path))
    assert note in "\n".join(checkpoint.notes)
    same(checkpoint, wanted)


# What is refused.


def _put(name, array):
    return lambda made: made.tensors.update({name: array})


def _drop(name):
    return lambda made: made.tensors.pop(name)


def _set(**changes):
    return lambda made: made.config.update(changes)


def _only(text):
    return lambda made: setattr(made, "text", text)


def _typed(dtype):
    return lambda made: made.tensors.update({Q: made.tensors[Q].astype(dtype)})


def _value(value):
    def change(made):
        made.tensors[Q][0, 0] = value

    return change


def _file(**files):
    return lambda made: made.files.update({name.replace("__", "."): content for name, content in files.items()})


def _no_weights(made):
    made.tensors = {}


def _pickled(made):
    made.tensors, made.files = {}, {"pytorch_model.bin": b"\x80\x02"}


def _only_adapter_weights(made):
    made.tensors, made.files = {}, {"adapter_model.safetensors": LORA}


def _only_ema_and_optimiser(made):
    made.files = {"ema.safetensors": made.tensors, "optimizer.safetensors": {"a": np.ones(1, np.float32)}}
    made.tensors = {}


def _stacked(made):
    made.tensors = {"weights": np.ones((2, 2), np.float32)}


ONES = np.ones(4, np.float32)
REFUSED = {
    "int8 with scales": (
        lambda made: (_typed(np.int8)(made), _put(Q.replace("weight", "weight_scale"), ONES)(made)),
        "holds quantised weights",
    ),
    "int8 alone": (_typed(np.int8), f"{Q} of .* has the type I8: quantised weights are not read"),
    "uint8": (_typed(np.uint8), "has the type U8"),
    "fp8": (_typed(ml_dtypes.float8_e4m3fn), "has the type F8_E4M3"),
    "fp8 with inverse scales": (_put(Q + "_scale_inv", ONES), "holds quantised weights"),
    "bitsandbytes 8 bit": (_put(Q.replace("weight", "SCB"), ONES), "holds quantised weights"),
    "bitsandbytes 4 bit": (_put(Q + ".absmax", ONES), "holds quantised weights"),
    "bitsandbytes state": (_put(Q + ".quant_state.bitsandbytes__nf4", ONES), "holds quantised weights"),
    "gptq": (_put(Q.replace("weight", "qweight"), ONES), "holds quantised weights"),
    "awq": (_put(Q.replace("weight", "qzeros"), ONES), "holds quantised weights"),
    "mlx": (_put(Q.replace("weight", "scales"), ONES), "holds quantised weights"),
    "compressed": (_put(Q + "_packed", ONES), "holds quantised weights"),
    "integers": (_typed(np.int32), "has the type I32"),
    "a configuration of quantisation": (
        _set(quantization_config={"quant_method": "gptq", "bits": 4}), r"the weights are quantised \(gptq\)",
    ),
    "nan": (_value(np.nan), "1 NaN or infinite values of 384"),
    "infinite": (_value(np.inf), "1 NaN or infinite values of 384"),
    "missing matrix": (_drop(DOWN), f"has no tensor '{DOWN}'"),
    "missing embedding": (_drop("model.embed_tokens.weight"), "has no tensor 'model.embed_tokens.weight'"),
    "missing final norm": (_drop("model.norm.weight"), "has no tensor 'model.norm.weight'"),
    "missing readout": (_drop("lm_head.weight"), "has no tensor 'lm_head.weight' .*does not tie the read-out"),
    "missing bias": (_drop("model.layers.0.self_attn.k_proj.bias"), "has no tensor 'model.layers.0.self_attn.k_proj"),
    "wrong shape": (_put(DOWN, np.ones((20, 16), np.float32)), r"shape of .*down_proj.* must be \(16, 20\)"),
    "wrong rank": (_put("model.norm.weight", np.ones((1, 16), np.float32)), r"must be \(16,\) by its configuration"),
    "vocabulary": (_set(vocab_size=24), r"shape of .* must be \(24, 16\) by its configuration, got \(23, 16\)"),
    "fewer layers stated": (_set(num_hidden_layers=2), "has layer 2 .*, but its configuration states 2 layers"),
    "more layers stated": (_set(num_hidden_layers=4), "has no tensor 'model.layers.3"),
    "key heads absent": (
        lambda made: made.config.pop("num_key_value_heads"), r"k_proj.* must be \(24(, 16)?,?\) by its config",
    ),
    "key heads as text": (_set(num_key_value_heads="two"), "num_key_value_heads .* must be a positive integer"),
    "key heads as list": (_set(num_key_value_heads=[2, 2, 2]), "num_key_value_heads .* must be a positive integer"),
    "width of heads": (_set(head_dim=4), r"_proj.* must be \((8|16)(, 16)?,?\) by its configuration, got"),
    "width of the mlp": (_set(intermediate_size=21), r"must be \((21, 16|16, 21)\) by its configuration"),
    "rope as text": (_set(rope_scaling="linear"), "rope_scaling must be an object or null"),
    "yarn": (_set(rope_scaling={"rope_type": "yarn", "factor": 2.0}), "unknown scaling of rotary positions 'yarn'"),
    "partial rotary": (_set(partial_rotary_factor=0.25), "partial_rotary_factor must be 1 in a llama"),
    "experts": (_set(num_local_experts=8), "num_local_experts = 8 .* may change what it computes"),
    "another family": (_set(model_type="mamba"), "unknown model_type 'mamba'"),
    "configured without biases": (_set(attention_bias=False), "no place for: model.layers.0.self_attn.k_proj.bias"),
    "configured as its kin": (_set(model_type="qwen3"), "mlp_bias = True .* may change what it computes"),
    "unmerged adapter": (_put(Q.replace("weight", "lora_A.weight"), ONES), "an adapter that is not merged"),
    "a strange tensor": (_put("model.layers.0.mlp.router.weight", ONES), "no place for: model.layers.0.mlp.router"),
    "names of another library": (_stacked, "has no tensor 'model.embed_tokens.weight'"),
    "config is a list": (_only(b"[]"), "must be a JSON object, got 'list'"),
    "config is null": (_only(b"null"), "must be a JSON object, got 'NoneType'"),
    "config is cut short": (_only(b'{"model_type": "lla'), "is not JSON"),
    "config is empty": (_only(b""), "is not JSON"),
    "config in latin-1": (_only(b'{"model_type": "ll\xe1ma"}'), "is not JSON"),
    "config in utf-16": (_only('{"model_type": "llama"}'.encode("utf-16")), "is not JSON"),
    "config nested too deeply": (_only(b"[" * 100_000), "is not JSON"),
    "no weights": (_no_weights, "holds no weights that can be read: no \\*.safetensors"),
    "pickled weights": (_pickled, "only pytorch_model.bin, which is never unpickled"),
    "an adapter alone": (_only_adapter_weights, "weights in .* must be model.safetensors, or shards"),
    "two files without index": (_only_ema_and_optimiser, "weights in .* must be model.safetensors, or shards"),
    "weights of nothing": (_file(model__safetensors=b""), "is damaged or cut short"),
    "weights of something else": (_file(model__safetensors=b"PK\x03\x04" * 100), "is damaged or cut short"),
    "header too long": (_file(model__safetensors=b"\xff" * 7 + b"\x7f" + b"{}"), "is damaged or cut short"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, change, message):
    made = Broken()
    change(made)
    refused(made.write(tmp_path), message)


def refused(path, message):
    with pytest.raises(BadInput, match=message) as caught:
        dict(read_checkpoint(path).tensors)
    assert "\n" not in str(caught.value)


def _cut(folder):
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _remove(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()


def _index(change):
    def write(folder):
        index = json.loads((folder / INDEX).read_text())
        (folder / INDEX).write_text(json.dumps(change(index)))

    return write


def _placed(name, file):
    return _index(lambda index: index | {"weight_map": index["weight_map"] | {name: file}})


SHARDS = {
    "cut short": (_cut, "model-00002-of-00002.safetensors is damaged or cut short"),
    "missing": (_remove, "is incomplete: model-00002-of-00002.safetensors is missing"),
    "index is a list": (_index(lambda index: [index]), "must be a JSON object"),
    "index without map": (_index(lambda index: {}), "weight_map of .* must be an object of file names, got None"),
    "index of numbers": (_index(lambda index: {"weight_map": {Q: 1}}), "must be an object of file names"),
    "index out of the folder": (_placed(Q, "../model.safetensors"), "must be a name in the same folder"),
    "tensor not in its shard": (_placed("extra", "model-00001-of-00002.safetensors"), "has no tensor 'extra'"),
    "index lacks a tensor": (
        _index(lambda index: {"weight_map": {n: f for n, f in index["weight_map"].items() if n != Q}}),
        f"no tensor '{Q}'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), SHARDS.values(), ids=SHARDS)
def test_refused_shards(tmp_path, change, message):
    Broken().write(tmp_path, shards=True)
    change(tmp_path)
    refused(tmp_path, message)


def test_places_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("META_ICL_DATA", str(tmp_path))
    refused(tmp_path / "nowhere", "there is no checkpoint .*nowhere: neither a folder")
    refused(tmp_path, "holds no language model: it has no config.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "holds an adapter without its base model: it has no config.json")
    (tmp_path / "a.txt").write_text("text")
    refused(tmp_path / "a.txt", "must be a folder with config.json, or a .gguf file")
    (tmp_path / "a.gguf").write_bytes(b"GGML" + bytes(100))
    refused(tmp_path / "a.gguf", "is not a GGUF file")
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(2))
    refused(tmp_path / "a.gguf", "is damaged or cut short")
    refused(tmp_path / "b.gguf", "there is no checkpoint")
    refused("smollm2", "smollm2 has not been fetched yet: meta-icl models get smollm2")
