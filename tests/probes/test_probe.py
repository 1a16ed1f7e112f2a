"""`meta-icl probe` on trained runs and on language models, and what its first probe measures."""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from checkpoints import LLAMA, llama_tensors, written

from meta_icl.analysis.implicit import implicit_update, random_network
from meta_icl.apps import cli
from meta_icl.apps.cli import listing
from meta_icl.errors import BadInput
from meta_icl.lm import Tokens, load_language_model, tokenized
from meta_icl.models import Concatenated, InContextLearner, Interleaved, contextual, von_oswald
from meta_icl.plotting import draw
from meta_icl.probes import implicit_updates, language_subject, learner_subject, text_subject
from meta_icl.prompt import Prompt
from meta_icl.runs import Run

TASK = ("linear_regression", "--task", "d=2", "n_context=5")
NO_TRAINING = ("--steps", "2", "--batch", "4", "--workers", "0")


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a command."""
    status = cli.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A run of a stack of recurrent blocks from two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    model = ("d_model=3", "d_mlp=4", "n_blocks=2", "arrangement=pre-LN", "mixer=lstm:d_hidden=4,project=true")
    names = (*TASK[:1], "contextual", *TASK[1:], "--model", *model, "--seeds", "2", *NO_TRAINING)
    assert cli.main(["train", *names, "--root", str(folder)]) == 0
    return folder


def test_probe_of_a_run(root, capsys, tmp_path):
    arguments = ("probe", "train-LinearRegression-contextual", "--prompts", "3", "--root", str(root))
    status, out, _ = call(capsys, *arguments, "--json")
    told = json.loads(out)
    assert status == 0 and {"implicit_updates", "memories"} <= set(listing.probes())
    assert "implicit_updates" in told["probes"] and "memories" not in told["probes"]  # those that can look at it
    assert set(told["left_out"]) == set(listing.probes()) - set(told["probes"]) and told["answer"] == []
    by_label = told["probes"]["implicit_updates"]
    assert set(by_label) == {"seed 0", "seed 1", "untrained"}
    for rows in by_label.values():
        assert [row["block"] for row in rows] == [1, 2]
        assert all(0 < row["|dW| / |W| (median)"] <= row["largest (mean)"] for row in rows)
        assert all(row["error of the identity"] < 1e-5 for row in rows)
    (folder,) = root.glob("*contextual*")
    assert told["report"] == str(folder / "probe.html")
    page = Path(told["report"]).read_text()
    for text in ("Which examples move the weights, and where", "holds for untrained weights as well", "untrained"):
        assert text in page
    status, out, _ = call(capsys, *arguments, "--probe", "implicit_updates", "--out", str(tmp_path / "mine.html"))
    assert status == 0 and "implicit_updates, seed 1" in out and (tmp_path / "mine.html").exists()
    status, out, _ = call(capsys, *arguments, "--probe", "implicit_updates", "--no-twin", "--json")
    assert set(json.loads(out)["probes"]["implicit_updates"]) == {"seed 0", "seed 1"}


def test_card_of_a_run(root, capsys, tmp_path):
    """Every probe that fits, with its reading and limits; the others with their reasons."""
    page = tmp_path / "card.html"
    name = "train-LinearRegression-contextual"
    status, out, _ = call(capsys, "card", name, "--prompts", "3", "--root", str(root), "--out", str(page))
    told = json.loads(page.with_suffix(".json").read_text())
    assert status == 0 and page.exists() and f"card  {page} and card.json" in out
    assert set(told["sections"]) | set(told["left_out"]) == set(listing.probes()) and told["kind"] == "trained run"
    one = told["sections"]["implicit_updates"]
    assert {row["subject"] for row in one["rows"]} == {"seed 0", "seed 1", "untrained"}
    assert "holds for untrained weights as well" in one["limits"] and "seed 1: block 1" in one["reading"]
    status, _, err = call(capsys, "card", name, "--root", str(root), "--prompts", "1")
    assert status == 2 and "--prompts must be at least 2" in err
    both = tmp_path / "both.html"  # a card of this very name beside it is another subject
    status, *_ = call(
        capsys, "card", str(page.with_suffix(".json")), str(page.with_suffix(".json")), "--out", str(both)
    )
    subjects = [card["subject"] for card in json.loads(both.with_suffix(".json").read_text())["cards"]]
    assert status == 0 and subjects == [told["subject"], f"{told['subject']}-2"]
    page.with_suffix(".json").write_text(json.dumps(told | {"sections": []}))
    status, _, err = call(capsys, "card", str(page.with_suffix(".json")))
    assert status == 2 and "wrote, unchanged" in err


@pytest.mark.slow
def test_probe_of_a_language_model(capsys, tmp_path):
    (tmp_path / "model").mkdir()
    folder = written(tmp_path / "model", LLAMA, llama_tensors(np.random.default_rng(0)))
    arguments = ("probe", str(folder), "--tokens", "3,1,9,4,1,9,5,2,9,6", "--separator", "9")
    chosen = ("--probe", "implicit_updates", "--json")
    status, out, _ = call(capsys, *arguments, "--root", str(tmp_path / "runs"), *chosen)
    told = json.loads(out)
    rows = told["probes"]["implicit_updates"]["model"]
    assert set(told["probes"]["implicit_updates"]) == {"model", "shuffled weights"}
    logits = load_language_model(folder).network(jnp.array([3, 1, 9, 4, 1, 9, 5, 2, 9, 6]))[0][-1]
    assert [one["token"] for one in told["answer"]] == np.argsort(-np.asarray(logits))[:5].tolist()
    assert told["answer"][0]["probability"] == pytest.approx(float(jax.nn.softmax(logits).max()), rel=1e-4)
    assert status == 0 and len(rows) == 2 and all(row["error of the identity"] < 1e-5 for row in rows)
    assert {row["of example"] for row in rows} <= {"1: 1", "2: 1", "3: 2"}
    assert Path(told["report"]) == tmp_path / "runs" / "probe-model.html" and Path(told["report"]).exists()
    for extra, message in (
        (("--tokens", ""), "--text or --tokens must be given for a language model"),
        (("--text", "a"), "--text or --tokens must be given for a language model"),
        (("--examples", "a", "b"), "--examples must be given with --text"),
        (("--separator", "x"), "--separator must be an integer"),
        (("--tokens", "1,x"), "--tokens must be an integer, got 'x'"),
        (("--tokens", "1,77"), "tokens must be below 10 and not negative"),
        (("--separator", "7"), "separator must end one or more examples"),
        (("--probe", "implicit_update"), "did you mean 'implicit_updates'"),
        (("--prompts", "0"), "--prompts must be a positive integer, got 0"),
        (("--probe", "memories"), "memories of keys and values"),
    ):
        status, _, err = call(capsys, *arguments, *extra)
        assert status == 2 and message in err and err.count("\n") == 1


TEXT = "x p\ny q\np\nx"  # as many tokens as the prompt above, so that nothing is compiled anew
WORDS = ("<s>", "</s>", "\n", "x", "y", "z", "p", "q", "<unk>")


def written_tokenizer(folder):
    """Words and new lines are tokens; `<s>` stands before every text and `</s>` behind it."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    splits = (tokenizers.pre_tokenizers.Split(*how) for how in ((" ", "removed"), ("\n", "isolated")))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(list(splits))
    ends = [(word, WORDS.index(word)) for word in ("<s>", "</s>")]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A </s>", None, ends)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_probe_of_a_text(capsys, tmp_path):
    """Lines of a text, examples before a text, and the same token numbers: one prompt, one result."""
    (tmp_path / "model").mkdir()
    folder = written(tmp_path / "model", LLAMA, llama_tensors(np.random.default_rng(0)))
    probe = ("probe", str(folder), "--probe", "implicit_updates", "--root", str(tmp_path), "--json")
    status, _, err = call(capsys, *probe, "--text", "x p")
    assert status == 2 and "has no tokenizer.json: give the prompt as token numbers" in err
    written_tokenizer(folder)
    found = []
    several = ("--examples", "x\np", "y q", "--text", "x\nz")  # examples of two lines stay whole
    status, out, _ = call(capsys, *probe, *several, "--probe", "attention", "implicit_updates", "--no-twin")
    told = json.loads(out)
    assert status == 0 and told["answer"][0]["text"] in WORDS
    assert {row["of example"] for row in told["probes"]["implicit_updates"]["model"]} <= {"1: x p", "2: y q"}
    for arguments in (("--text", TEXT), ("--examples", "x p", "y q", "p", "--text", "x")):
        status, out, _ = call(capsys, *probe, *arguments)
        assert status == 0
        found.append(json.loads(out)["probes"]["implicit_updates"]["model"])
        assert {row["of example"] for row in found[-1]} <= {"1: x p", "2: y q", "3: p"}
    assert found[0] == found[1]
    page = (tmp_path / "probe-model.html").read_text()
    assert "1: x p" in page and "block 2" in page
    tokens, model = tokenized(folder, TEXT), load_language_model(folder)
    np.testing.assert_array_equal(tokens.numbers, [0, 3, 6, 2, 4, 7, 2, 6, 2, 3])  # `</s>` is left out
    subject = text_subject(model, tokens, TEXT)
    np.testing.assert_array_equal(subject.examples, [-1, 0, 0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(subject.classes, [[0, 1, 0]])
    # The first block's row is the size of the update of leaving out the tokens of an example.
    tokens = subject.tokens()[0]
    sizes = []
    for own in ([1, 2, 3], [4, 5, 6], [7, 8]):
        patch = implicit_update(model.network, tokens[:-1], tokens[-1], own)
        sizes.append(np.hypot(*(patch.weights[name].norm()[0] for name in ("w_gate", "w_up"))))
    weights = [getattr(model.network.blocks[0].feed_forward, name)[0] for name in ("w_gate", "w_up")]
    assert found[0][0]["largest (mean)"] == pytest.approx(max(sizes) / np.linalg.norm(weights), rel=1e-4)
    for arguments, message in (
        (("--text", "x p\n"), "text must be a query after the last separator"),
        (("--text", ""), "--text or --tokens must be given"),
        (("--text", "x p\n\nx"), "example must be a text that is not blank"),
        (("--text", "x", "--separator", ""), "separator must be at least one character"),
    ):
        status, _, err = call(capsys, *probe, *arguments)
        assert status == 2 and message in err and err.count("\n") == 1


def test_tokens_of_a_text(tmp_path, monkeypatch):
    model = load_language_model(written(tmp_path, LLAMA, llama_tensors(np.random.default_rng(0))))
    # Without a separator every token of the text is an example, but for what stands before it.
    alone = text_subject(model, Tokens(np.array([0, 3, 6, 3]), np.array([-1, 0, 2, 4]), ("", "x", "p", "x")), "x p x")
    np.testing.assert_array_equal(alone.examples, [-1, 0, 1])
    np.testing.assert_array_equal(alone.classes, [[3, 6]])
    assert alone.names == ("1: x", "2: p")
    # A token that reaches into the next example belongs to the one in which it starts.
    text = "ab; cd; e"
    across = Tokens(np.arange(5), np.array([0, 2, 5, 7, 8]), ("ab", "; c", "d;", " ", "e"))
    np.testing.assert_array_equal(text_subject(model, across, text, "; ").examples, [0, 0, 1, 1])
    swallowed = Tokens(np.arange(3), np.array([0, 1, 8]), ("a", "b; cd; ", "e"))
    with pytest.raises(BadInput, match="example must be the start of at least one token"):
        text_subject(model, swallowed, text, "; ")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"tokenizer\.json cannot be read as a tokenizer"):
        tokenized(tmp_path, "x")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BadInput, match="pip install tokenizers"):
        tokenized(tmp_path, "x")


def test_what_cannot_be_probed(root, capsys, tmp_path):
    with Run.open(tmp_path / "other", {"a": 1}) as run:
        run.finish()
    trained = ("train-LinearRegression-contextual", "--root", str(root))
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (("none", "--root", str(root)), "unknown run 'none'"),
        ((str(tmp_path / "none"), "--text", "a"), "there is no folder"),
        ((str(tmp_path / "none.gguf"), "--text", "a"), "there is no file"),
        ((str(tmp_path / "file"), "--text", "a"), "give a folder, or a .gguf file"),
        ((str(tmp_path / "other"),), "was not made by `meta-icl train`"),
        ((*trained, "--tokens", "1,2"), "--tokens must be given for a"),
        ((*trained, "--text", "a"), "--text must be given for a"),
        (
            ("train-LinearRegression-contextual", "--root", str(root), "--probe", "memories"),
            "memories of keys and values",
        ),
    ):
        status, _, err = call(capsys, "probe", *arguments)
        assert status == 2 and message in err and err.count("\n") == 1
    # A network without MLPs, and that nothing is written where a probe refuses.
    network = eqx.filter_eval_shape(von_oswald(3), key=jax.random.key(0))
    prompts = Prompt(jnp.zeros((1, 3, 2)), jnp.zeros((1, 3, 1)))
    with pytest.raises(BadInput, match="feed_forward must be given in the last layer"):
        implicit_updates.measure(learner_subject(InContextLearner(Concatenated(), network), prompts))
    page = tmp_path / "refused.html"
    status, _, err = call(capsys, "probe", "train", "--root", str(root), "--prompts", "0", "--out", str(page))
    assert status == 2 and "--prompts must be a positive integer" in err and not page.exists()


def test_the_measures_of_a_prompt(x64):
    """Sizes and similarities by dense algebra; two rows per pair in an interleaved layout."""
    network = random_network(contextual(2, 4, d_out=1), 0)
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 5, 2)))
    y = jnp.asarray(np.array([[1.0, -1, 2, 3, 0], [1, 1, 1, 1, 0]])[..., None])
    subject = learner_subject(InContextLearner(Interleaved(), network), Prompt(x, y))
    np.testing.assert_array_equal(subject.examples, [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(subject.classes, [[1, 0, 1, 1], [1, 1, 1, 1]])
    measured = implicit_updates.measure(subject)
    rows = subject.rows()[0]
    dense = []
    for e in range(4):
        patch = implicit_update(network, rows[:-1], rows[-1], [2 * e, 2 * e + 1])
        dense.append(np.asarray(patch.weights["w_in"].dense()[0]).ravel())
    size = np.linalg.norm(dense, axis=1)
    np.testing.assert_allclose(
        measured["relative"][0, 0], size / np.linalg.norm(network.blocks[0].feed_forward.w_in), rtol=1e-10
    )
    cosines = np.array(dense) @ np.array(dense).T / np.outer(size, size)
    np.testing.assert_allclose(measured["same"][0, 0], np.mean([cosines[0, 2], cosines[0, 3], cosines[2, 3]]))
    np.testing.assert_allclose(measured["other"][0, 0], np.mean(cosines[1, [0, 2, 3]]))
    assert np.all(np.isnan(measured["same"][1]))  # all of one class: nothing to compare
    assert np.all(measured["error"] < 1e-12)
    (told,) = implicit_updates.rows(measured)
    assert told["cosine, same class"] == measured["same"][0, 0]
    mean = measured["relative"][:, 0].mean(0)
    assert told["of example"] == str(mean.argmax() + 1) and told["largest (mean)"] == mean.max()
    charts = implicit_updates.figures({"one": measured, "other": measured})
    np.testing.assert_allclose(charts["sizes"].panels[0].matrix, mean[None])
    for chart in charts.values():
        draw(chart)


def test_subjects(tmp_path):
    model = load_language_model(written(tmp_path, LLAMA, llama_tensors(np.random.default_rng(0))))
    subject = language_subject(model, np.array([3, 1, 4, 1, 5]))
    np.testing.assert_array_equal(subject.examples, [0, 1, 2, 3])
    np.testing.assert_array_equal(subject.classes, [[3, 1, 4, 1]])
    np.testing.assert_array_equal(subject.tokens()[0], [3, 1, 4, 1, 5])
    np.testing.assert_array_equal(subject.rows()[0], model.network.embedding.table[np.array([3, 1, 4, 1, 5])])
    subject = language_subject(model, np.array([3, 1, 9, 4, 9, 5, 6, 2]), 9)
    np.testing.assert_array_equal(subject.examples, [0, 0, 0, 1, 1, -1, -1])
    np.testing.assert_array_equal(subject.classes, [[1, 4]])
    assert subject.names == ("1: 1", "2: 4")
    for tokens in ([9, 1, 9, 2], [1, 9, 9, 2]):
        with pytest.raises(BadInput, match="separator"):
            language_subject(model, np.array(tokens), 9)
    labels = Prompt(jnp.zeros((1, 4, 2)), jnp.array([[2, 0, 2, 1]]))
    learner = InContextLearner(Concatenated(), model.network)
    np.testing.assert_array_equal(learner_subject(learner, labels).classes, [[2, 0, 2]])
    with pytest.raises(BadInput, match="model must be one that reads tokens by a layout"):
        learner_subject(jax.nn.relu, labels)
