"""The card of a family that only the library transformers knows, and what it is made of, of a Llama read both ways."""

import json

import numpy as np
import pytest

from meta_icl.apps.cli import main
from meta_icl.lm import load_language_model
from meta_icl.lm.answers import Asked
from meta_icl.lm.states import Replaced, replaced_answers, states_at
from meta_icl.lm.texts import head_scores, token_losses
from meta_icl.torch import TransformersNetwork

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
WORDS = ("<s>", "?", "x", "y", "z", "u", "v", "w", "p", "q", "r", "\n")


def written(config, folder):
    """A random model in a folder, with a tokenizer of words."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    model.set_attn_implementation("eager")  # which shows what heads look at
    numbers = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="?"))
    splits = (tokenizers.pre_tokenizers.Split(*how) for how in ((" ", "removed"), ("\n", "isolated")))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(list(splits))
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def test_read_both_ways(tmp_path):
    """Losses without some heads, what heads look at, and answers with a state in place."""
    sizes = {"vocab_size": 12, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 64}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    written(transformers.LlamaConfig(**sizes, **heads), tmp_path)
    ours, theirs = load_language_model(tmp_path).network, TransformersNetwork.load(tmp_path)
    rows = np.array([[0, 5, 3, 8, 5, 3, 8], [0, 2, 9, 4, 2, 9, 4]])
    removed = np.array([[True, False, False, True], [False, True, False, False]])
    wanted = token_losses(ours, rows, removed)
    np.testing.assert_allclose(token_losses(theirs, rows, removed), wanted, rtol=0, atol=2e-5)
    assert np.abs(token_losses(ours, rows) - wanted).max() > 1e-2  # the heads matter
    scores = [head_scores(network, rows, 3) for network in (ours, theirs)]
    for name, values in scores[0].items():
        np.testing.assert_allclose(scores[1][name], values, rtol=0, atol=2e-5, err_msg=name)
    states = [states_at(network, [(0, 5, 3), (0, 2)]) for network in (ours, theirs)]
    np.testing.assert_allclose(states[1], states[0], rtol=0, atol=2e-5)
    asked = [Replaced(Asked((0, 7, 2), (8, 3)), layer, states[0][0, layer]) for layer in (0, 1)]
    told = [replaced_answers(network, asked) for network in (ours, theirs)]
    np.testing.assert_allclose(told[1].scores, told[0].scores, rtol=0, atol=1e-4)
    assert told[0].scores[0] != told[0].scores[1]


def test_the_card_of_an_opt(tmp_path, capsys):
    """Its losses are those of the library, without heads too; what reads matrices is left out and says why."""
    sizes = {"vocab_size": 12, "hidden_size": 24, "ffn_dim": 16, "word_embed_proj_dim": 24, "init_std": 0.3}
    config = transformers.OPTConfig(
        num_hidden_layers=2, num_attention_heads=6, max_position_embeddings=64, do_layer_norm_before=True, **sizes
    )  # fmt: skip
    model = written(config, tmp_path / "m")
    asked = ["x y", "y z", "z u", "u v", "v w", "w x", "x z", "y u", "z v", "u w"]
    pairs = [{"input": question, "output": "pqr"[i % 3]} for i, question in enumerate(asked)]
    (tmp_path / "t.json").write_text(json.dumps(pairs))
    words = np.random.default_rng(0).choice(WORDS[2:-1], 300)
    (tmp_path / "text.txt").write_text(" ".join(words))
    command = ["card", str(tmp_path / "m"), "--task", str(tmp_path / "t.json"), "--text", str(tmp_path / "text.txt")]
    assert main([*command, "--prompts", "2", "--out", str(tmp_path / "card.html"), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert {name: card["settings"][name] for name in ("family", "layers", "heads")} == {
        "family": "opt", "layers": 2, "heads": 6,
    }  # fmt: skip
    assert main(["fewshot", *command[1:4], "--separator", " ", "--shots", "0,1"]) == 2
    assert "separator must be a text of which the tokenizer makes" in capsys.readouterr().err
    sections = card["sections"]
    assert set(sections) == {"few_shot", "by_position", "heads", "without_heads", "task_vectors", "circuits"}
    assert set(card["left_out"]) == {"copying", "implicit_updates"}
    assert "matrices" in card["left_out"]["copying"] and "copying" not in sections["heads"]["rows"][0]

    def losses(rows):
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor(rows)).logits[:, :-1].double(), -1)
        return -np.take_along_axis(logs.numpy(), np.asarray(rows)[:, 1:, None], -1)[..., 0]

    numbers = [WORDS.index(word) for word in words]
    windows = np.array([[0, *numbers[i : i + 63]] for i in range(0, 4 * 63, 63)])
    first = sections["by_position"]["rows"][0]
    assert first["tokens"] == "1-8" and first["loss"] == pytest.approx(losses(windows)[:, :8].mean(), abs=1e-4)
    # Random tokens, one block twice; the four heads that match prefixes best answer nothing.
    blocks = [np.random.default_rng(seed).choice(np.arange(1, 12), 11, replace=False) for seed in range(4)]
    repeats = np.array([[0, *block, *block] for block in blocks])
    with torch.no_grad():
        patterns = torch.stack(model(torch.tensor(repeats), output_attentions=True).attentions).double().numpy()
    at = np.arange(12, 23)
    matched = patterns[..., at, at - 10].mean((1, 3))  # layers heads
    best = sections["heads"]["rows"][0]
    assert best["prefix matching"] == pytest.approx(matched.max(), abs=1e-5)
    assert matched[best["layer"] - 1, best["head"] - 1] == matched.max()
    whole = losses(repeats[:2])[:, -11:].mean()
    for layer, head in zip(*np.divmod(np.argsort(-matched, axis=None)[:4], 6), strict=True):
        with torch.no_grad():
            model.model.decoder.layers[layer].self_attn.out_proj.weight[:, 4 * head : 4 * head + 4] = 0
    row = sections["without_heads"]["rows"][0]
    assert row["removed heads"] == 4
    assert row["repeated tokens"] == pytest.approx(losses(repeats[:2])[:, -11:].mean() - whole, abs=1e-4)
