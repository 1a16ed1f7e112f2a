"""States put in place against float64 passes of other prompts, and the vectors of contexts."""

import numpy as np
import numpy_decoder as oracle
import pytest
import tokenizers
from checkpoints import written
from language_configs import CONFIGS
from scipy.special import log_softmax

from meta_icl.errors import BadInput
from meta_icl.lm import load_language_model, read_tokenizer
from meta_icl.lm.answers import Asked
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.names import expected, from_checkpoint
from meta_icl.lm.states import Replaced, answers_with_states, replaced_answers, states_at
from meta_icl.lm.task_vectors import carried, contexts_of
from meta_icl.lm.tasks import task_of

CONFIG = CONFIGS["mistral"] | {"num_hidden_layers": 3, "max_position_embeddings": 64, "sliding_window": None}
WORDS = ("<s>", "\n", "x", "y", "z", "u", "v", "->", "p", "q", "r")
ROWS = [{"input": a, "output": b} for a, b in zip("xyzuv", "pqrpq", strict=True)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model whose tokens are words."""
    rng = np.random.default_rng(1)
    tensors = {n: (rng.normal(size=s) * (1 if len(s) == 1 else 0.5)).astype(np.float32)
               for n, s in expected(shape_of(CONFIG)[0]).items()}  # fmt: skip
    path = written(tmp_path_factory.mktemp("lm") / "model", CONFIG, tensors)
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<s>")
    )
    splits = (tokenizers.pre_tokenizers.Split(*how) for how in ((" ", "removed"), ("\n", "isolated")))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(list(splits))
    tokenizer.save(str(path / "tokenizer.json"))
    shape = shape_of(CONFIG)[0]
    return load_language_model(path).network, read_tokenizer(path), shape, dict(from_checkpoint(tensors, shape))


def logs_after(model, tokens):
    return log_softmax(oracle.logits(model[2], model[3], np.array(tokens)), axis=-1)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_state_of_a_prompt_that_differs_in_the_last_token_alone_gives_its_answer(model, layer):
    """What stands before is alike in every layer, so the rest of the pass is that of the other prompt."""
    other, longer = (0, 2, 3, 5), tuple([0] + [2, 3] * 20)
    states = states_at(model[0], [other, (*longer, 5)])
    wanted = [
        Replaced(Asked((0, 2, 3, 4), (8,)), layer, states[0, layer]),
        Replaced(Asked((*longer, 9), (3,)), layer, states[1, layer]),
    ]
    told = replaced_answers(model[0], wanted)
    expected_logs = [logs_after(model, other)[-1], logs_after(model, (*longer, 5))[-1]]
    np.testing.assert_allclose(told.scores, [expected_logs[0][8], expected_logs[1][3]], atol=2e-4)
    assert told.greedy.tolist() == [expected_logs[0].argmax() == 8, expected_logs[1].argmax() == 3]


def test_its_own_state_changes_nothing_of_a_longer_answer(model):
    before, answer = (0, 2, 3, 4), (8, 9, 1)
    states = states_at(model[0], [before])
    told = replaced_answers(model[0], [Replaced(Asked(before, answer), i, states[0, i]) for i in range(3)])
    logs = logs_after(model, before + answer)
    expected_sum = sum(logs[3 + j, token] for j, token in enumerate(answer))
    np.testing.assert_allclose(told.scores, np.full(3, expected_sum), atol=3e-4)
    assert not told.greedy.any() or (logs[3:6].argmax(1) == answer).all()


def test_answers_and_states_of_one_pass(model):
    asked = [Asked((0, 2, 3, 4), (8, 9)), Asked(tuple([0] + [2, 3] * 20), (4,))]
    told, states = answers_with_states(model[0], asked)
    for one, score, own in zip(asked, told.scores, states_at(model[0], [one.before for one in asked]), strict=True):
        logs = logs_after(model, (*one.before, *one.answer))
        first = len(one.before) - 1
        assert score == pytest.approx(sum(logs[first + j, t] for j, t in enumerate(one.answer)), abs=3e-4)
        np.testing.assert_allclose(states[asked.index(one)], own, atol=1e-5)


def test_vectors_are_of_a_dummy_that_is_not_the_query(model):
    network, tokenizer, *_ = model
    task = task_of("t", ROWS, separator="\n")
    found = contexts_of(network, tokenizer, task, shots=2, prompts=3, opening=0)
    assert found.vectors.shape == (3, 3, CONFIG["hidden_size"])
    for after, alone, query in zip(found.after_examples, found.alone, found.queries, strict=True):
        word = tokenizer.numbers(task.examples[query].question)
        assert list(alone.before) == [0, *word] and list(after.before)[-2:] == word
        assert after.answer == alone.answer == tuple(tokenizer.numbers(task.examples[query].answer))
        assert after.before.count(word[0]) == 1  # neither an example nor the dummy
    carries = carried(network, found, (0, 2))
    logs = [logs_after(model, (*one.before, *one.answer)) for one in found.alone]
    alone = [-own[len(one.before) - 1, one.answer[0]] for own, one in zip(logs, found.alone, strict=True)]
    np.testing.assert_allclose(carries.loss_alone, alone, atol=2e-4)
    assert carries.by_layer.shape == (2, 3) and carries.best in (0, 2)
    # After the last layer the vector is read as it is: the distribution behind the dummy, whatever the query.
    same = carried(network, found, (2,), vectors=np.repeat(found.vectors[:1], 3, 0))
    read = -same.losses[0]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        if found.alone[i].answer == found.alone[j].answer:
            assert read[i] == pytest.approx(read[j], abs=1e-4)


def test_refuses(model):
    network, tokenizer, *_ = model
    with pytest.raises(BadInput, match="layer must be from 0 to 2, got 3"):
        replaced_answers(network, [Replaced(Asked((0,), (1,)), 3, np.zeros(CONFIG["hidden_size"]))])
    with pytest.raises(BadInput, match="answer must be tokens"):
        replaced_answers(network, [Replaced(Asked((0,), ()), 0, np.zeros(CONFIG["hidden_size"]))])
    with pytest.raises(BadInput, match="number of examples of t"):
        contexts_of(network, tokenizer, task_of("t", ROWS, separator="\n"), shots=4, prompts=2)
