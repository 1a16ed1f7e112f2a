"""GGUF files, written by the library with its own table of names, against the tensors they were made from."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from gguf_files import ARCHS, config_of, random_tensors, write

from meta_icl.errors import BadInput
from meta_icl.lm import gguf as ours
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.files import read_checkpoint

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", ARCHS)
def test_tensors_and_configurations_come_back(tmp_path, kind):
    config = config_of(kind)
    tensors = random_tensors(config)
    checkpoint = read_checkpoint(write(tmp_path / "model.gguf", kind, config, tensors))
    assert checkpoint.shape == shape_of(config)[0]
    assert checkpoint.notes == ()
    assert set(checkpoint.tensors) == set(tensors)
    for name, array in tensors.items():
        exact = not (kind.startswith("gemma") and "norm" in name)
        np.testing.assert_allclose(checkpoint.tensors[name], array, rtol=0, atol=0 if exact else 3e-7)


def q4_1(data, rows):
    """Blocks of 32: scale and minimum as float16, then low and high halves of 16 bytes."""
    out = []
    for block in data.reshape(-1, 20):
        scale, least = block[:4].view(np.float16).astype(np.float32)
        out.append(np.concatenate([block[4:] & 15, block[4:] >> 4]) * scale + least)
    return np.concatenate(out).reshape(rows, -1)


def q8_0(data, rows):
    """Blocks of 32: scale as float16, then 32 signed bytes."""
    out = []
    for block in data.reshape(-1, 34):
        out.append(block[2:].view(np.int8) * block[:2].view(np.float16).astype(np.float32))
    return np.concatenate(out).reshape(rows, -1)


def q4_0(data, rows):
    """Blocks of 32: scale as float16, then two 4-bit numbers a byte, from which 8 is taken."""
    out = []
    for block in data.reshape(-1, 18):
        numbers = np.concatenate([block[2:] & 15, block[2:] >> 4]).astype(np.int64) - 8
        out.append(numbers * block[:2].view(np.float16).astype(np.float32))
    return np.concatenate(out).reshape(rows, -1)


def q6_k(data, rows):
    """Blocks of 256: 4 low bits, 2 high bits, 16 signed scales, one float16; numbers from -32 to 31."""
    out = []
    for block in data.reshape(-1, 210):
        low, high, scales = block[:128], block[128:192], block[192:208].view(np.int8).astype(np.int64)
        whole = block[208:].view(np.float16).astype(np.float32)[0]
        for half in range(2):
            nibbles, pairs = low[64 * half :][:64], high[32 * half :][:32]
            for quarter in range(4):
                four = (nibbles[32 * (quarter % 2) :][:32] >> (4 * (quarter // 2))) & 15
                two = (pairs >> (2 * quarter)) & 3
                numbers = (four | (two << 4)).astype(np.int64) - 32
                scale = np.repeat(scales[8 * half + 2 * quarter :][:2], 16)
                out.append(numbers * scale * whole)
    return np.concatenate(out).reshape(rows, -1)


class FromBytes:
    """A tensor as the library's reader hands it over."""

    def __init__(self, kind, data, shape):
        self.name, self.tensor_type, self.data = "w", gguf.GGMLQuantizationType[kind], data
        self.shape = np.array(shape[::-1])


@pytest.mark.parametrize("unpack", [q4_0, q4_1, q8_0, q6_k])
def test_dequantisation_of_random_blocks(unpack):
    kind = unpack.__name__.upper()
    size, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (3, 2, n_bytes), dtype=np.uint8)
    scales = {"Q4_0": [0], "Q4_1": [0, 2], "Q8_0": [0], "Q6_K": [208]}[kind]
    for start in scales:  # any finite float16
        data[..., start : start + 2] = rng.normal(size=(3, 2, 1)).astype(np.float16).view(np.uint8)
    data = data.reshape(3, -1)
    found = ours._values(FromBytes(kind, data, (3, 2 * size)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unpack(data, 3), rtol=1e-6)


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K"])
def test_other_types_are_read(kind):
    size, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    assert ours._values(FromBytes(kind, np.zeros((3, n_bytes), np.uint8), (3, size))).shape == (3, size)


WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "attention_bias": False, "mlp_bias": False}


def test_quantised_tensors_are_near_and_unpermuted(tmp_path):
    """The error of rounding is far below that of rows in the wrong order."""
    config = config_of("llama", **WIDE)
    tensors = random_tensors(config)
    kinds = gguf.GGMLQuantizationType
    types = {"attn_q": kinds.Q8_0, "attn_k": kinds.Q4_1, "ffn_up": kinds.Q5_1}
    types |= {"attn_v": kinds.BF16, "attn_o": kinds.F16}
    checkpoint = read_checkpoint(write(tmp_path / "m.gguf", "llama", config, tensors, types=types))
    for part, error in {"q_proj": 0.02, "k_proj": 0.25, "up_proj": 0.15, "down_proj": 0.0}.items():
        name = next(n for n in tensors if part in n)
        found = checkpoint.tensors[name]
        assert found.dtype == np.float32
        assert np.abs(found - tensors[name]).max() <= error
        assert (np.abs(found - tensors[name]).max() > 0) == (error > 0)
    value, out = (checkpoint.tensors[f"model.layers.0.self_attn.{m}_proj.weight"] for m in "vo")
    assert (value.dtype, out.dtype) == (ml_dtypes.bfloat16, np.float16)
    np.testing.assert_allclose(value.astype(np.float32), tensors["model.layers.0.self_attn.v_proj.weight"], rtol=2**-8)


def test_the_largest_gemmas_scale_scores_by_the_width_of_a_whole_head():
    """27B: 62 layers, width 5376 in 32 heads of 128."""
    own = {"attention.key_length": 128, "attention.value_length": 128, "rope.dimension_count": 128}
    config = {"num_hidden_layers": 62, "hidden_size": 5376, "num_attention_heads": 32}
    file = ours.GgufFile(Path("m.gguf"), {}, {})
    assert ours._llama("gemma3", own, config, file)["query_pre_attn_scalar"] == 168
    assert ours._llama("gemma3", own, config | {"num_hidden_layers": 34}, file)["query_pre_attn_scalar"] == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope.dimension_count": 64}, "rope.dimension_count must be the width of a head, 128, got 64"),
        ({"attention.value_length": 64}, "attention.value_length must be key_length = 128, got 64"),
        ({"attention.sliding_window": 64}, "attention.sliding_window must be absent, got 64"),
    ],
)
def test_options_that_are_not_supported(change, message):
    own = {"attention.key_length": 128, "attention.value_length": 128, "rope.dimension_count": 128} | change
    config = {"num_hidden_layers": 2, "hidden_size": 256, "num_attention_heads": 2}
    with pytest.raises(BadInput, match=message):
        ours._llama("llama", own, config, ours.GgufFile(Path("m.gguf"), {}, {}))


ONES = np.ones(4, np.float32)
WRONG = {
    "experts": ("llama", {}, [("add_expert_count", 8)], "llama.expert_count = 8 in .* may change what it computes"),
    "yarn": ("qwen3", {}, [("add_rope_scaling_type", gguf.RopeScalingType.YARN)], "unknown rope.scaling.type 'yarn'"),
    "a part of several": ("llama", {}, [("add_uint16", "split.count", 2)], "parts of m.gguf must be 1: join split"),
    "a strange tensor": ("llama", {}, [("add_tensor", "blk.0.sinks.weight", ONES)], "a llama has not: blk.0.sinks"),
    "a name without a kind": ("llama", {}, [("add_tensor", "strange", ONES)], "a llama has not: strange"),
    "not finite": (
        "llama", {"model.norm.weight": np.full(16, np.nan, np.float32)}, [], "16 NaN or infinite values of 16",
    ),
    "wrong shape": ("qwen3", {"model.norm.weight": ONES}, [], r"must be \(16,\) by its configuration"),
    "a missing tensor": ("qwen3", {"model.layers.2.mlp.up_proj.weight": None}, [], "has no tensor 'model.layers.2.mlp"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refused(tmp_path, case):
    kind, changes, more, message = WRONG[case]
    config = config_of(kind)
    tensors = random_tensors(config) | changes
    tensors = {name: array for name, array in tensors.items() if array is not None}
    path = write(tmp_path / "m.gguf", kind, config, tensors, more=more)
    with pytest.raises(BadInput, match=message) as caught:
        dict(read_checkpoint(path).tensors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.999])
def test_cut_short(tmp_path, share):
    config = config_of("qwen3")
    path = write(tmp_path / "m.gguf", "qwen3", config, random_tensors(config))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInput, match=r"m.gguf is damaged or cut short"):
        read_checkpoint(path)


def test_another_architecture(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.add_tensor("token_embd.weight", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadInput, match=r"unknown general\.architecture 'mamba'"):
        read_checkpoint(tmp_path / "m.gguf")


def test_a_damaged_length_is_not_followed(tmp_path):
    """A list that says it has 2^60 entries."""
    config = config_of("qwen3")
    more = [("add_token_list", ["a", "b"])]
    path = write(tmp_path / "m.gguf", "qwen3", config, random_tensors(config), more=more)
    data = bytearray(path.read_bytes())
    key = b"tokenizer.ggml.tokens"
    at = data.index(key) + len(key) + 4 + 4  # behind the kind of the value and of its entries
    assert int.from_bytes(data[at : at + 8], "little") == 2
    data[at : at + 8] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"m.gguf is damaged or cut short"):
        read_checkpoint(path)
