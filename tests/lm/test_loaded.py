"""The model made on the spot: bytes as tokens, text there and back, kept between calls."""

import pytest

from meta_icl.errors import BadInput
from meta_icl.lm.loaded import language_model


def test_tiny():
    model = language_model("tiny")
    assert model is language_model("tiny")
    text = "naïve\n日本 42"
    numbers = model.tokenizer.numbers(text)
    assert len(numbers) == len(text.encode()) and model.tokenizer.decode(numbers) == text
    assert model.before == [0] and model.tokenizer.text(0) == "<|endoftext|>" and model.tokenizer.n_tokens == 257
    assert model.network.embedding.table.shape == (257, 16)


def test_an_unknown_one_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"config\.json"):
        language_model(tmp_path)
