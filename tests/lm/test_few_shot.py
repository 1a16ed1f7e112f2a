"""Scores of answers against float64 loops over every prompt by itself, and few-shot curves of a tiny model."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import numpy_decoder as oracle
import pytest
import tokenizers
from checkpoints import written
from language_configs import CONFIGS
from scipy.special import log_softmax

from meta_icl.apps.cli import main
from meta_icl.errors import BadInput
from meta_icl.lm import answers, load_language_model, read_tokenizer
from meta_icl.lm.answers import Asked, families_of, log_probabilities, most_probable, padded
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.few_shot import few_shot
from meta_icl.lm.loaded import tiny
from meta_icl.lm.names import expected, from_checkpoint
from meta_icl.lm.prompts import draw_prompt, tokenize
from meta_icl.lm.tasks import task_of
from meta_icl.lm.texts import token_losses
from meta_icl.models import InContextLearner, Intervention, TokenLayout, gpt2
from meta_icl.probes import language_subject

CONFIG = CONFIGS["mistral"] | {"num_hidden_layers": 2, "max_position_embeddings": 64, "sliding_window": None}
WORDS = ("<s>", "\n", "x", "y", "z", "u", "v", "->", "p", "q", "r")
ROWS = [
    {"input": a, "output": b} for a, b in (*zip("xyzuv", "pqpqp", strict=True), *zip("xyzuv", "pqpqp", strict=True))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model whose tokens are words."""
    rng = np.random.default_rng(0)
    tensors = {n: (rng.normal(size=s) * (1 if len(s) == 1 else 0.5)).astype(np.float32)
               for n, s in expected(shape_of(CONFIG)[0]).items()}  # fmt: skip
    path = written(tmp_path_factory.mktemp("lm") / "model", CONFIG, tensors)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<s>"))
    splits = (tokenizers.pre_tokenizers.Split(*how) for how in ((" ", "removed"), ("\n", "isolated")))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(list(splits))
    tokenizer.save(str(path / "tokenizer.json"))
    shape = shape_of(CONFIG)[0]
    return path, shape, dict(from_checkpoint(tensors, shape))


def score(shape, arrays, asked):
    logs = log_softmax(oracle.logits(shape, arrays, np.array([*asked.before, *asked.answer])), axis=-1)
    rows = range(len(asked.before) - 1, len(asked.before) + len(asked.answer) - 1)
    greedy = all(logs[i].argmax() == token for i, token in zip(rows, asked.answer, strict=True))
    return sum(logs[i, token] for i, token in zip(rows, asked.answer, strict=True)), greedy


def test_log_probabilities(folder):
    """Answers of several tokens, alike and not, behind beginnings of one another; and without a head."""
    path, shape, arrays = folder
    network = load_language_model(path).network
    best, _ = most_probable(network, np.array([0, 2, 3]))[0]
    asked = [
        Asked((0, 2, 3), (4,)), Asked((0, 2, 3), (5, 6)), Asked((0, 2), (3,)), Asked((0, 2, 3), (5, 7, 1)),
        Asked((0, 2, 3), (best,)), Asked(tuple([0, 2, 3] * 13), (4, 5)),
    ]  # fmt: skip
    seen = []
    told = log_probabilities(network, asked, progress=lambda *step: seen.append(step))
    wanted = [score(shape, arrays, one) for one in asked]
    np.testing.assert_allclose(told.scores, [s for s, _ in wanted], rtol=0, atol=2e-4)
    np.testing.assert_array_equal(told.greedy, [g for _, g in wanted])
    assert told.greedy[4] and seen[-1] == (2, 2)  # 0 2 3 5 7, with which the others begin, and the long one
    mask = jnp.zeros((2, 4, 1, 1), bool).at[1, 2].set(True)
    silenced = dict(arrays) | {"blocks.1.mixer.w_o": arrays["blocks.1.mixer.w_o"].copy()}
    silenced["blocks.1.mixer.w_o"][2] = 0
    told = log_probabilities(network, asked[:2], (Intervention("z", mask),))
    np.testing.assert_allclose(told.scores, [score(shape, silenced, one)[0] for one in asked[:2]], rtol=0, atol=2e-4)
    logs = oracle.logits(shape, arrays, np.array([0, 2, 3]))[-1]
    (token, share), *_ = most_probable(network, np.array([0, 2, 3]))
    assert token == logs.argmax() and share == pytest.approx(np.exp(log_softmax(logs)).max(), abs=1e-4)
    with pytest.raises(BadInput, match="answer must be tokens"):
        log_probabilities(network, [Asked((), (1,))])
    assert [padded(n) for n in (1, 32, 33, 49, 65, 100)] == [32, 32, 48, 64, 96, 128]
    short = gpt2(50, 8, n_layers=1, n_heads=1, n_positions=40)(key=jax.random.key(0))
    assert [padded(n, short) for n in (1, 33, 41)] == [32, 40, 41]
    tokens = np.arange(33)
    (best, share), *_ = most_probable(short, tokens)
    logits = short(jnp.asarray(tokens))[0][-1]
    assert best == int(jnp.argmax(logits)) and share == pytest.approx(float(jax.nn.softmax(logits)[best]), rel=1e-5)


@pytest.fixture
def cheap_steps(monkeypatch):
    """As if a token by itself cost what it does in a small network, so that short beginnings are kept."""
    monkeypatch.setattr(answers, "STEP", 4)


@pytest.mark.usefixtures("cheap_steps")
def test_answers_behind_a_long_beginning_go_on_from_what_is_kept(folder, monkeypatch):
    """Equal to whole passes and to float64, in less work; places in the beginning, and answers of several lengths."""
    path, shape, arrays = folder
    network, begin = load_language_model(path).network, tuple([0, 2, 3, 8, 1] * 8)
    asked = [Asked((*begin, 4, 7), tail) for tail in ((3, 9), (9, 8, 1), (10, 1, 8, 9), (10, 1, 9, 9), (8, 10, 2))]
    asked += [Asked(begin[:13], begin[13:15]), Asked((0, 5), (6,)), Asked((0, 5, 2), (6, 1))]
    (family,) = [one for one in families_of(sorted((*a.before, *a.answer[:-1]) for a in asked[:5])) if one.spares]
    assert (family.shared, family.tails) == (42, (1, 2, 2, 3, 3))
    seen, kept = [], answers._continued
    monkeypatch.setattr(answers, "_continued", lambda *given: seen.append(given[2]) or kept(*given))
    told, whole = log_probabilities(network, asked), log_probabilities(network, asked, steps=False)
    assert [len(family.members) for family in seen] == [5]
    np.testing.assert_allclose(told.scores, whole.scores, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(told.greedy, whole.greedy)
    np.testing.assert_allclose(told.scores, [score(shape, arrays, one)[0] for one in asked], rtol=0, atol=2e-4)


@pytest.mark.usefixtures("cheap_steps")
@pytest.mark.parametrize("steps", [True, False])
def test_answers_of_weights_kept_in_half_of_the_memory(folder, steps):
    """Those of float64 passes with matrices rounded to bfloat16: nothing else is rounded so."""
    path, shape, arrays = folder
    narrow = load_language_model(path, dtype="bfloat16").network
    assert narrow.blocks[0].mixer.w_q.dtype == narrow.embedding.table.dtype == jnp.bfloat16
    assert narrow.blocks[0].norm_mixer.scale.dtype == jnp.float32
    rounded = {n: a.astype(ml_dtypes.bfloat16) if a.ndim > 1 else a for n, a in arrays.items()}
    begin = tuple([0, 2, 3, 8, 1] * 6)
    asked = [Asked((*begin, 4), tail) for tail in ((8, 9, 1), (9, 8, 1), (10, 1, 8), (3, 1, 9), (2, 10, 2))]
    found = log_probabilities(narrow, asked, steps=steps).scores
    np.testing.assert_allclose(found, [score(shape, rounded, one)[0] for one in asked], rtol=0, atol=2e-4)
    assert np.abs(found - log_probabilities(load_language_model(path).network, asked).scores).max() > 1e-3
    tokens = np.array(asked[0].before)
    np.testing.assert_allclose(narrow(jnp.asarray(tokens))[0], oracle.logits(shape, rounded, tokens), atol=2e-4)
    with pytest.raises(BadInput, match="unknown dtype 'float8'"):
        load_language_model(path, dtype="float8")


@pytest.mark.slow
@pytest.mark.usefixtures("cheap_steps")
def test_deep_networks_go_on_from_what_is_kept():
    """Layers that are scanned, with matrices in float32 and in bfloat16, against whole passes."""
    network, begin = tiny(n_layers=7).network, tuple(range(40))
    narrow = jax.tree.map(lambda w: w.astype(jnp.bfloat16) if w.ndim > 2 else w, network)
    asked = [Asked((*begin, token), (token + 1, 7, 8)) for token in range(50, 56)]
    told = [log_probabilities(net, asked, steps=steps).scores for net in (network, narrow) for steps in (True, False)]
    np.testing.assert_allclose(told[0], told[1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(told[2], told[3], rtol=0, atol=1e-4)
    rows = np.array([[0, 5, 9, 5], [0, 7, 3, 1]])
    logs = [np.asarray(jax.nn.log_softmax(narrow(jnp.asarray(row))[0])) for row in rows]
    losses = [[-log[i, token] for i, token in enumerate(row[1:])] for log, row in zip(logs, rows, strict=True)]
    np.testing.assert_allclose(token_losses(narrow, rows), losses, rtol=0, atol=1e-4)
    subject, wanted = language_subject(InContextLearner(TokenLayout(), narrow), rows[0]), narrow(jnp.asarray(rows[0]))
    found = subject.traced(lambda trace: trace["pattern"])[0]
    np.testing.assert_allclose(found, wanted[1]["pattern"], rtol=0, atol=1e-5)
    (family,) = families_of([(*one.before, *one.answer[:-1]) for one in asked])
    assert family.spares and np.abs(told[0] - told[2]).max() > 1e-5


def test_curves_are_of_every_prompt_by_itself(folder):
    path, shape, arrays = folder
    network, tokenizer, task = (
        load_language_model(path).network,
        read_tokenizer(path),
        task_of("t", ROWS, separator="\n"),
    )
    assert task.labels == (" p", " q")
    found = few_shot(
        network, tokenizer, task, shots=(2, 0), controls=("right", "random", "flipped"), prompts=3, opening=0
    )
    assert found.shots == (0, 2)
    for control, k, i in (("right", 0, 0), ("random", 1, 2), ("flipped", 1, 1), ("random", 0, 1)):
        drawn = draw_prompt(task, 2, rng=np.random.default_rng((0, i)), control=control)
        cut = tokenize(drawn, tokenizer, separator="\n", opening=0, answered=True)
        before = tuple(cut.tokens[: cut.of("answer")[found.shots[k]].start].tolist())
        wanted = [score(shape, arrays, Asked(before, (tokenizer.numbers(label)[0],)))[0] for label in drawn.labels]
        np.testing.assert_allclose(found.scores[control][i, k], wanted, rtol=0, atol=2e-4)
        truth = task.labels.index(task.examples[drawn.indices[found.shots[k]]].answer)
        assert found.targets[control][i, k] == truth  # the column of the class, whatever it is called
    right = found.accuracy("right")
    expected_right = (found.scores["right"].argmax(-1) == found.targets["right"]).astype(float)
    np.testing.assert_array_equal(right, expected_right)
    rows = found.rows()
    assert [(row["control"], row["shots"]) for row in rows[:3]] == [("right", 0), ("right", 2), ("random", 0)]
    assert rows[1]["accuracy"] == pytest.approx(right[:, 1].mean())
    more = found.worth()["random"]["accuracy"]
    assert more == pytest.approx((right - found.accuracy("random"))[:, 1].mean())
    with pytest.raises(BadInput, match="tokens of a prompt must be at most 3"):
        few_shot(network, tokenizer, task, shots=(1,), prompts=2, longest=3)


def test_a_question_without_content(folder):
    """Scores behind the same examples and N/A, which is unknown here, and their difference from those of the query."""
    path, shape, arrays = folder
    network, tokenizer, task = (
        load_language_model(path).network,
        read_tokenizer(path),
        task_of("t", ROWS, separator="\n"),
    )
    found = few_shot(
        network, tokenizer, task, shots=(0, 2), controls=("right",), prompts=2, opening=0, content_free=True
    )
    for i, k in ((0, 0), (1, 1)):
        drawn = draw_prompt(task, 2, rng=np.random.default_rng((0, i)))
        examples = [0] + [
            n for e in drawn.context[: found.shots[k]] for n in tokenizer.numbers(e.question + e.answer + "\n")
        ]
        before = (*examples, 0, 7)  # N/A is <s>, then the arrow
        wanted = [score(shape, arrays, Asked(before, (tokenizer.numbers(label)[0],)))[0] for label in drawn.labels]
        np.testing.assert_allclose(found.without_content["right"][i, k], wanted, rtol=0, atol=2e-4)
    better = found.scores["right"] - found.without_content["right"]
    np.testing.assert_array_equal(
        found.accuracy("right", by_content=True), (better.argmax(-1) == found.targets["right"]).astype(float)
    )
    assert [row["content_free"] for row in found.rows()] == found.accuracy("right", by_content=True).mean(0).tolist()
    open_task = task_of("t", [{"input": w, "output": w} for w in "xyzuv"], separator="\n")
    with pytest.raises(BadInput, match="content_free must be false: t has no labels"):
        few_shot(network, tokenizer, open_task, shots=(1,), prompts=2, content_free=True)


def test_the_command(folder, tmp_path, capsys):
    path, _, _ = folder
    (tmp_path / "task.json").write_text(json.dumps(ROWS))
    arguments = ["fewshot", str(path), "--task", str(tmp_path / "task.json"), "--template", "{input} -> {output}"]
    arguments += ["--shots", "0,2", "--prompts", "3", "--controls", "right,flipped", "--root", str(tmp_path)]
    assert main([*arguments, "--content-free", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["opening"] == "<s>" and len(told["rows"]) == 4 and set(told["worth"]) == {"flipped"}
    assert 0 <= told["rows"][0]["accuracy"] <= 1 and 0 <= told["rows"][0]["content_free"] <= 1
    page = (tmp_path / "fewshot-model-task.html").read_text()
    assert "right answers are worth" in page
    for extra, message in (
        (("--controls", "wrong"), "unknown control 'wrong'"),
        (("--shots", "x"), "--shots must be an integer"),
        (("--shots", "50"), "shots must be between 0 and 9"),
        (("--opening", "nothing"), "--opening must be"),
        (("--task", "capitals"), "unknown task 'capitals'"),
    ):
        assert main([*arguments, *extra]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert main(["fewshot", str(tmp_path / "none"), "--task", "country-capital"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_card(folder, tmp_path, capsys):
    """Sections with a reading and limits each; every number of a head by itself."""
    path, shape, arrays = folder
    (tmp_path / "task.json").write_text(json.dumps(ROWS))
    (tmp_path / "text.txt").write_text(" ".join(np.random.default_rng(0).choice(WORDS[2:], 300)))
    arguments = ["card", str(path), "--task", str(tmp_path / "task.json"), "--text", str(tmp_path / "text.txt")]
    assert main([*arguments, "--prompts", "2", "--out", str(tmp_path / "card.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "card.json").read_text()) and told["schema"] == 1
    names = ["few_shot", "by_position", "heads", "without_heads", "task_vectors", "circuits", "implicit_updates"]
    assert list(told["sections"]) == names and told["settings"]["opening"] == "<s>"
    assert all(s["title"] and s["reading"] and s["limits"] for s in told["sections"].values())
    numbers = read_tokenizer(path).numbers((tmp_path / "text.txt").read_text())
    losses = []
    for i in range(4):  # windows of 64 tokens with the opening one
        window = [0, *numbers[63 * i : 63 * (i + 1)]]
        logs = log_softmax(oracle.logits(shape, arrays, np.array(window)), axis=-1)
        losses.append([-logs[j, token] for j, token in enumerate(window[1:])])
    row = told["sections"]["by_position"]["rows"][0]
    assert row["tokens"] == "1-8" and row["loss"] == pytest.approx(np.array(losses)[:, :8].mean(), abs=1e-3)
    assert "What is lost without these heads" in (tmp_path / "card.html").read_text()
    (tmp_path / "other.json").write_text(json.dumps(told | {"subject": "another"}))
    both = [str(tmp_path / "card.json"), str(tmp_path / "other.json"), "--out", str(tmp_path / "both.html"), "--json"]
    assert main(["card", *both]) == 0
    beside = json.loads(capsys.readouterr().out)
    assert [card["subject"] for card in beside["cards"]] == ["model", "another"] and beside["cards"][0] == told
    assert "model, another: how they learn in context" in (tmp_path / "both.html").read_text()
    (tmp_path / "wrong.json").write_text("[]")
    assert main(["card", str(tmp_path / "wrong.json")]) == 2
    assert "card must be a JSON that `meta-icl card` wrote" in capsys.readouterr().err
