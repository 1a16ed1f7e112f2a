"""Models of transformers as networks: their own logits, and the trace of the house where both know the family."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from meta_icl.apps.cli import main
from meta_icl.errors import BadInput
from meta_icl.lm import load_language_model, loaded, read_tokenizer
from meta_icl.lm.prompts import draw_prompt, tokenize
from meta_icl.lm.task_files import read_task
from meta_icl.models import InContextLearner, Intervention, TokenLayout
from meta_icl.probes import attention, language_subject
from meta_icl.torch import TransformersNetwork

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
TOKENS = np.array([3, 1, 4, 1, 5, 9])


def drawn(config):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_the_trace_is_that_of_the_network(tmp_path):
    """A Llama with grouped heads, read both ways; and without one head's answer."""
    config = transformers.LlamaConfig(
        vocab_size=12, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    drawn(config).save_pretrained(tmp_path / "m")
    ours, theirs = load_language_model(tmp_path / "m").network, TransformersNetwork.load(tmp_path / "m")
    mask = np.zeros((2, 4, 1, 1), bool)
    mask[1, 2] = True
    for change in ((), (Intervention("z", mask),), (Intervention("resid_post", mask[:, :1, 0], 0.3),)):
        (wanted, trace), (found, other) = (net(jnp.asarray(TOKENS), change) for net in (ours, theirs))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
        assert set(other) == {"resid_pre", "pattern", "z", "mixer_out", "mlp_out", "resid_post"}
        for site in other:
            np.testing.assert_allclose(other[site], trace[site], rtol=0, atol=2e-5, err_msg=site)
    with pytest.raises(BadInput, match="it can only be read"):
        theirs(jnp.asarray(TOKENS), (Intervention("pattern", True),))


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    """`fewshot` and `probe` of an OPT; a line where the extra is missing."""
    config = transformers.OPTConfig(
        vocab_size=12, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, word_embed_proj_dim=16,
    )  # fmt: skip
    model = drawn(config)
    model.save_pretrained(tmp_path / "m")
    words = {word: i for i, word in enumerate(["<s>", "?", "x", "y", "z", "u", "v", "w", "p", "q", "r", "s"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "m" / "tokenizer.json"))
    pairs = [{"input": a, "output": b} for a, b in zip("xyzuvw", "pqrspq", strict=True)]
    (tmp_path / "t.json").write_text(json.dumps(pairs))
    root = ["--root", str(tmp_path), "--json"]
    task = ["--task", str(tmp_path / "t.json"), "--template", "{input} {output}", "--separator", " s "]
    asked = ["fewshot", str(tmp_path / "m"), *task, "--shots", "1", "--prompts", "2", "--controls", "right", *root]
    assert main(asked) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    read, loss = read_tokenizer(tmp_path / "m"), []
    whole = read_task(tmp_path / "t.json", template="{input} {output}", separator=" s ")
    for i in range(2):
        prompt = draw_prompt(whole, 1, rng=np.random.default_rng((0, i)))
        cut = tokenize(prompt, read, separator=" s ", opening=read.opening)
        answer = next(p["output"] for p in pairs if words[p["input"]] == cut.tokens[-1])
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor(cut.tokens)[None]).logits[0, -1], -1)
        loss.append(-float(logs[words[answer]]))
    assert row["loss"] == pytest.approx(np.mean(loss), abs=1e-4)
    assert main(["probe", str(tmp_path / "m"), "--tokens", "3,1,4,1,5,9", *root]) == 0
    assert "attention" in json.loads(capsys.readouterr().out)["probes"]
    monkeypatch.setattr(loaded, "find_spec", lambda name: None)
    assert main(asked) == 2
    assert "opt is none of the families" in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_a_family_that_is_not_read_otherwise(tmp_path):
    """OPT, whose blocks name their parts in another way; the probe of attention looks into it."""
    config = transformers.OPTConfig(
        vocab_size=12, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, word_embed_proj_dim=16,
    )  # fmt: skip
    model = drawn(config)
    model.save_pretrained(tmp_path / "m")
    network = TransformersNetwork.load(tmp_path / "m")
    with torch.no_grad():
        wanted = model(torch.tensor(TOKENS)[None]).logits[0].numpy()
    logits, trace = network(jnp.asarray(TOKENS))
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(trace["pattern"].sum(-1), 1, atol=1e-5)
    subject = language_subject(InContextLearner(TokenLayout(), network), TOKENS)
    rows = attention.rows(attention.measure(subject))
    assert len(rows) == 4 and all(0 <= row["previous token"] <= 1 for row in rows)


def test_refuses(tmp_path):
    with pytest.raises(BadInput, match="model must be a causal language model of transformers"):
        TransformersNetwork(torch.nn.Linear(2, 2))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="cannot load"):
        TransformersNetwork.load(tmp_path)
