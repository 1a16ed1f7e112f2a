"""Texts as tokens, from `tokenizer.json` and from the vocabularies in GGUF files."""

import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.lm.tokenizer import read_tokenizer
from meta_icl.lm.vocabularies import vocabulary

tokenizers = pytest.importorskip("tokenizers")
BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
MERGES = ["1 2", "12 3", "h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġ Ġ", "a n", "Ġ 1"]


def pairs(**changes):
    """A byte-level vocabulary: two special tokens, all bytes, what the merges make."""
    tokens = ["<|endoftext|>", "<|im_start|>", *BYTES, *(merge.replace(" ", "") for merge in MERGES), "<user>"]
    kinds = [3, 3] + [1] * (len(tokens) - 3) + [4]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    } | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}


def cut(metadata, text):
    return vocabulary(metadata, "m.gguf").encode(text).tokens


@pytest.mark.parametrize(
    ("pre", "text", "wanted"),
    [
        ("gpt-2", "hello wor 123", "hello Ġwor Ġ 123"),  # 1 2 is joined before Ġ 1, and nothing joins Ġ 123
        ("smollm", "hello wor 123", "hello Ġwor Ġ 1 2 3"),
        ("qwen2", "hello wor 123", "hello Ġwor Ġ 1 2 3"),
        ("llama-bpe", "hello wor 123", "hello Ġwor Ġ 123"),
        ("gpt-2", "hello123", "hello 123"),
        ("smollm", "hello123", "hello 1 2 3"),
        ("qwen2", "hello123", "hello 1 2 3"),
        ("llama-bpe", "hello123123", "hello 123 123"),
        ("llama-bpe", "1231", "123 1"),
        ("gpt-2", "hello  wor", "hello Ġ Ġwor"),  # the last of several spaces belongs to the word
        ("smollm", "hello   wor", "hello ĠĠ Ġwor"),
        ("gpt-2", "a\n\nan", "a Ċ Ċ an"),
        ("smollm", "<|endoftext|>hello<user>an", "<|endoftext|> hello <user> an"),
        ("smollm", "é", "Ã ©"),
        ("qwen2", "e\u0301", "Ã ©"),  # composed first
        ("gpt-2", "e\u0301", "e Ì ģ"),
        ("gpt-2", "\ufeff", "ï » ¿"),
    ],
)
def test_how_texts_are_cut(pre, text, wanted):
    assert cut(pairs(pre=pre), text) == wanted.split(" ")


def test_tokens_of_a_gguf_file_and_of_the_folder_made_from_it(tmp_path):
    gguf = pytest.importorskip("gguf")
    metadata = pairs(pre="smollm")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_tokenizer(tmp_path / "m.gguf")
    (tmp_path / "tokenizer.json").write_text(found.library.to_str())
    for tokenizer in (found, read_tokenizer(tmp_path)):
        tokens = tokenizer.encode("hello 12")
        assert tokens.texts == ("<|im_start|>", "hello", " ", "1", "2")
        assert list(tokens.starts) == [-1, 0, 5, 6, 7]
        assert tokenizer.numbers("hello") == [int(tokens.numbers[1])]
        assert tokenizer.decode(tokens.numbers[1:]) == "hello 12"
        assert tokenizer.opening == 0
        assert tokenizer.n_tokens == len(metadata["tokenizer.ggml.tokens"])
        assert tokenizer.notes == []


PIECES = {  # with scores, as SentencePiece's: of neighbours, those that make the best piece are joined first
    "<unk>": 0, "<s>": 0, "</s>": 0, "▁": -20, "a": -21, "b": -22, "c": -23, "ab": -1, "bc": -2, "abc": -9, "▁ab": -3,
    "▁abc": -8, "cc": -4, "aa": -5,
}  # fmt: skip


def pieces(**changes):
    tokens = [*PIECES, *(f"<0x{byte:02X}>" for byte in range(256))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [*map(float, PIECES.values()), *[0.0] * 256],
        "tokenizer.ggml.token_type": [2, 3, 3] + [1] * (len(PIECES) - 3) + [6] * 256,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 0,
    } | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}


def joined(text):
    """SentencePiece's rule itself: join the two neighbours with the best joint piece, the leftmost of equals."""
    symbols = list(text)
    while True:
        options = [
            (PIECES[a + b], -i) for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False)) if a + b in PIECES
        ]
        if not options:
            return symbols
        i = -max(options)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def test_pieces_with_scores():
    rng = np.random.default_rng(0)
    plain = vocabulary(pieces(add_space_prefix=False, add_bos_token=False), "m.gguf")
    prefixed = vocabulary(pieces(), "m.gguf")
    for _ in range(200):
        text = "".join(rng.choice(list("abc "), size=rng.integers(1, 12)))
        assert plain.encode(text).tokens == joined(text.replace(" ", "▁"))
        assert prefixed.encode(text).tokens == ["<s>", *joined("▁" + text.replace(" ", "▁"))]
        assert prefixed.decode(prefixed.encode(text).ids) == text
    assert plain.encode("aé").tokens == ["a", "<0xC3>", "<0xA9>"]
    assert plain.decode(plain.encode("aé").ids) == "aé"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (pairs(model="bert"), "unknown tokenizer.ggml.model of m.gguf 'bert'"),
        (pairs(pre="deepseek-llm"), "unknown tokenizer.ggml.pre of m.gguf 'deepseek-llm'"),
        (pairs(pre=None), "unknown tokenizer.ggml.pre of m.gguf 'None'"),
        (pairs(tokens=None), "m.gguf has no list tokenizer.ggml.tokens"),
        (pairs(merges=None), "m.gguf has no list tokenizer.ggml.merges"),
        (pairs(merges=["a z q"]), "must be two tokens of the vocabulary"),
        (pairs(merges=["a nothere"]), "must be two tokens of the vocabulary"),
        (pairs(tokens=["a", "a"], merges=["a a"]), "tokens of m.gguf must be 2 different ones, got 1"),
        (pairs(token_type=[1]), "tokenizer.ggml.token_type of m.gguf must be of length"),
        (pairs(add_bos_token=True, bos_token_id=10_000), "bos_token_id of m.gguf must be the number of a token"),
        (pieces(scores=None), "m.gguf has pieces without scores"),
    ],
)  # fmt: skip
def test_vocabularies_that_are_refused(metadata, message):
    with pytest.raises(BadInput, match=message):
        vocabulary(metadata, "m.gguf")


def test_gpt2_needs_no_pre():
    assert cut(pairs(pre=None) | {"general.architecture": "gpt2"}, "hello12") == ["hello", "12"]


@pytest.fixture
def folder(tmp_path):
    found = vocabulary(pairs(), "m.gguf")
    found.enable_padding(length=32)
    found.enable_truncation(max_length=2)
    (tmp_path / "tokenizer.json").write_text(found.to_str())
    return tmp_path


def test_padding_and_truncation_are_switched_off_and_that_is_said(folder):
    tokenizer = read_tokenizer(folder)
    assert tokenizer.encode("hello wor an").texts == ("hello", " wor", " ", "an")
    assert tokenizer.notes == [
        "padding is switched on in tokenizer.json: it is switched off here",
        "truncation is switched on in tokenizer.json: it is switched off here",
    ]


def test_a_byte_order_mark_before_the_file(folder):
    path = folder / "tokenizer.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_tokenizer(folder).numbers("hello") == read_tokenizer(folder).numbers("hello")


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_of_a_surrogate_pair(folder, text):
    with pytest.raises(BadInput, match=r"text has half of a surrogate pair at character [01]"):
        read_tokenizer(folder).encode(text)


def test_a_text_without_tokens(folder):
    with pytest.raises(BadInput, match="text must give at least one token, got ''"):
        read_tokenizer(folder).encode("")


DAMAGED = {
    "empty": b"",
    "cut short": b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a"',
    "a list": b"[]",
    "no model": b'{"version": "1.0"}',
    "another model": b'{"model": {"type": "Magic", "vocab": {}}}',
    "merges beyond the vocabulary": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}',
    "unknown beyond the vocabulary": b'{"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}}',
    "no unknown": b'{"model": {"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "[UNK]"}}',
    "not text": b"\xff\xfe\x00\x01",
    "nested too deeply": b"[" * 100_000,
    "half of a surrogate pair": b'{"model": {"type": "BPE", "vocab": {"\\ud800": 0}, "merges": []}}',
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"tokenizer\.json (cannot be read|must be)") as caught:
        read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_library_is_one_line_and_an_interruption_none(folder, monkeypatch, capfd):
    class PanicException(BaseException):
        """As pyo3 raises it."""

    class Library:
        @staticmethod
        def from_str(text):
            import os

            os.write(2, b"thread panicked at lib.rs\n")
            raise failure

    monkeypatch.setattr(tokenizers, "Tokenizer", Library)
    failure = PanicException("called `Option::unwrap()` on a `None` value\nnote: run with a backtrace")
    with pytest.raises(BadInput, match=r"cannot be read as a tokenizer \(called `Option::unwrap\(\)`[^\n]*\)$"):
        read_tokenizer(folder)
    assert capfd.readouterr().err == ""
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        read_tokenizer(folder)


def test_places_without_a_tokenizer(tmp_path):
    with pytest.raises(BadInput, match=r"has no tokenizer\.json: give the prompt as token numbers"):
        read_tokenizer(tmp_path)
