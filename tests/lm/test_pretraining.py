"""Small language models trained here: their text, and what is exported against the network that was trained."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.apps.cli import main
from meta_icl.errors import BadInput
from meta_icl.lm import load_language_model, read_tokenizer
from meta_icl.lm.corpora import TextWindows, corpus, documents
from meta_icl.lm.networks import save_language_model
from meta_icl.lm.pretraining import WINDOWS, architecture_named, with_idle_mlps
from meta_icl.models import InContextLearner, TokenLayout

SENTENCE = "a small house stands by the river, and a small boat lies in the river by the house.\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("META_ICL_DATA", str(tmp_path / "cache"))
    place = tmp_path / "texts"
    (place / "inner").mkdir(parents=True)
    (place / "a.txt").write_text(SENTENCE * 60)
    (place / "inner" / "b.md").write_text("naïve 42\n" * 40)
    (place / "c.bin").write_bytes(b"\xff\xfe\x00")
    (place / "broken.txt").write_bytes(b"\xff\xfe\x00")
    return place


def test_a_corpus(folder):
    """Every text comes back from its tokens, behind the opening token; made once, mapped into memory."""
    texts = list(documents(folder))
    assert texts == [SENTENCE * 60, "naïve 42\n" * 40]
    found = corpus(folder, n_tokens=300)
    assert isinstance(found.tokens, np.memmap) and found.tokens.dtype == np.uint16
    starts = np.flatnonzero(found.tokens == found.tokenizer.opening)
    assert [found.tokenizer.decode(part[1:]) for part in np.split(found.tokens, starts[1:])] == texts
    again = corpus(folder, n_tokens=300)
    np.testing.assert_array_equal(again.tokens, found.tokens)
    held = found.held_out(9, 1000)
    assert held.shape[1] == 9 and (held[:, 0] == found.tokenizer.opening).all()
    joined = np.concatenate([found.training, held[:, 1:].ravel()])
    np.testing.assert_array_equal(joined, found.tokens[: len(joined)])  # nothing twice
    np.testing.assert_array_equal(found.held_out(9, 2), held[[0, -1]])  # of few, from everywhere
    (folder / "none").mkdir()
    with pytest.raises(BadInput, match="holds no text"):
        corpus(folder / "none", n_tokens=300)
    with pytest.raises(BadInput, match="n_tokens must be from 300"):
        corpus(folder, n_tokens=10)


def test_texts_are_mixed(tmp_path):
    """Always in one order, which is not that of their names: what is held out at the end is of all kinds."""
    names = [f"{i:02}" for i in range(12)]
    for name in names:
        (tmp_path / f"{name}.txt").write_text(name)
    found = list(documents(tmp_path))
    assert found == list(documents(tmp_path)) and sorted(found) == names != found


def test_python_library_is_there():
    assert "def " in next(text for text in documents(None, 200_000) if "def " in text)
    assert sys.version_info >= (3, 11)


def test_windows_are_pieces_of_the_text():
    tokens = jnp.arange(100, 140)
    task = TextWindows(tokens, 0, 8)
    rows = np.asarray(task.sample_batch(64, key=jax.random.key(0)).tokens)
    assert (rows[:, 0] == 0).all() and (np.diff(rows[:, 1:]) == 1).all()
    assert rows[:, 1].min() == 101 and rows[:, -1].max() == 139  # both ends are reached
    with pytest.raises(BadInput, match="length must be from 2"):
        TextWindows(tokens, 0, 41)


@pytest.mark.parametrize("shape", ["attention2", "gpt2"])
def test_exports_and_loads_back(shape, tmp_path):
    """A checkpoint of the family GPT-2 gives the logits of the network, whose attention may stand alone."""
    network = architecture_named(shape, 30, 16, 8, 2)(key=jax.random.key(1))
    save_language_model(InContextLearner(TokenLayout(), with_idle_mlps(network)), tmp_path / "m", n_positions=16)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "gpt2"
    loaded = load_language_model(tmp_path / "m").network
    tokens = jnp.arange(12) % 7
    np.testing.assert_allclose(loaded(tokens)[0], network(tokens)[0], rtol=0, atol=1e-5)
    with pytest.raises(BadInput, match="unknown shape 'bert'"):
        architecture_named("bert", 30, 16, 8, 2)


def test_the_command(folder, tmp_path, capsys):
    """A few steps on the folder lower the loss; the model it writes loads, and has the loss that was recorded."""
    command = ["models", "train", "attention1", str(tmp_path / "m"), "--text", str(folder), "--n-tokens", "300"]
    command += ["--length", "16", "--width", "16", "--heads", "2", "--steps", "40", "--batch", "8", "--rate", "0.01"]
    assert main([*command, "--root", str(tmp_path / "runs"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    source = corpus(folder, n_tokens=300)
    network = load_language_model(tmp_path / "m").network
    assert read_tokenizer(tmp_path / "m").numbers("the river") == source.tokenizer.numbers("the river")
    rows = source.held_out(16, WINDOWS)
    logs = jax.nn.log_softmax(jax.vmap(lambda row: network(row)[0])(jnp.asarray(rows)))
    losses = -np.take_along_axis(np.asarray(logs)[:, :-1], rows[:, 1:, None], -1)
    assert told["loss on held-out text"] == pytest.approx(losses.mean(), abs=1e-4) and losses.mean() < 5 < np.log(300)
    assert "While it learned" in (tmp_path / "m" / "training.html").read_text()
    assert main([*command, "--root", str(tmp_path / "runs")]) == 2
    assert "one without a model" in capsys.readouterr().err
    assert main(["models", "train", "bert", str(tmp_path / "n")]) == 2
    assert "unknown shape 'bert'" in capsys.readouterr().err
