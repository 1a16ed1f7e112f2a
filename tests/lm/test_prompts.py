"""Few-shot prompts: controls change what they say and nothing else; every token belongs to one part of one example."""

from collections import Counter

import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.lm.few_shot import token_behind_answers
from meta_icl.lm.prompts import CONTROLS, TextPrompt, answer_tokens, draw_prompt, first_difference, tokenize
from meta_icl.lm.tasks import Example, TextTask, generated, task_of
from meta_icl.lm.tokenizer import Tokenizer
from meta_icl.lm.vocabularies import vocabulary

tokenizers = pytest.importorskip("tokenizers")
LABELS = (" Maybe", " No", " Yes")
TASK = TextTask("t", tuple(Example(f"Is {i}?\nSay:", LABELS[i % 3]) for i in range(30)), LABELS)


def drawn(control, seed=0, n=8, task=TASK):
    return draw_prompt(task, n, rng=np.random.default_rng(seed), control=control)


def test_the_query_is_never_in_the_context():
    for seed in range(20):
        prompt = drawn("right", seed, n=29)
        assert sorted(prompt.indices) == list(range(30))
        assert [TASK.examples[i] for i in prompt.indices] == [*prompt.context, prompt.query]
    for query in (0, 7, 29):
        prompt = draw_prompt(TASK, 29, rng=np.random.default_rng(0), query=query)
        assert prompt.indices[-1] == query
        assert query not in prompt.indices[:-1]
    counts = Counter(i for seed in range(600) for i in drawn("right", seed, n=2).indices)
    assert max(abs(counts[i] - 60) for i in range(30)) < 5 * np.sqrt(60)  # every example as often


def test_controls():
    """Each against the right prompt of the same generator."""
    right = drawn("right")
    questions = [example.question for example in right.context]
    answers = [example.answer for example in right.context]
    for control in CONTROLS:
        prompt = drawn(control)
        assert prompt.query.question == right.query.question
        if control != "shuffled":
            assert [example.question for example in prompt.context] == questions
    shuffled = drawn("shuffled")
    assert sorted(shuffled.context) == sorted(right.context) != list(shuffled.context)
    assert [TASK.examples[i] for i in shuffled.indices[:-1]] == list(shuffled.context)
    permuted = [example.answer for example in drawn("permuted").context]
    assert sorted(permuted) == sorted(answers)
    assert permuted != answers
    flipped, following = drawn("flipped"), dict(zip(LABELS, (LABELS[1], LABELS[2], LABELS[0]), strict=True))
    assert [example.answer for example in flipped.context] == [following[a] for a in answers]
    assert flipped.query.answer == following[right.query.answer]
    assert flipped.labels == tuple(following[label] for label in LABELS)  # in the order of those they stand for
    symbols, letter = drawn("symbols"), dict(zip(LABELS, (" A", " B", " C"), strict=True))
    assert [example.answer for example in symbols.context] == [letter[a] for a in answers]
    assert (symbols.query.answer, symbols.labels) == (letter[right.query.answer], (" A", " B", " C"))
    for control in ("right", "random", "permuted", "shuffled"):
        assert drawn(control).query == right.query


def test_random_labels_are_independent_of_the_question():
    agree = [
        np.mean([e.answer == TASK.examples[i].answer for e, i in zip(p.context, p.indices, strict=False)])
        for p in (drawn("random", seed) for seed in range(400))
    ]
    assert abs(np.mean(agree) - 1 / 3) < 5 * np.sqrt(2 / 9 / 3200)


def test_open_answers_have_no_labels_to_flip():
    task = generated("addition", 50)
    answers = {example.answer for example in task.examples}
    assert all(example.answer in answers for example in drawn("random", task=task).context)
    for control in ("flipped", "symbols"):
        with pytest.raises(
            BadInput, match=f"the control '{control}' needs labels, and the answers of addition are open"
        ):
            drawn(control, task=task)
    with pytest.raises(BadInput, match="shots must be between 0 and 49, got 50"):
        drawn("right", n=50, task=task)
    with pytest.raises(BadInput, match="unknown control 'flip'; did you mean 'flipped'"):
        drawn("flip")
    with pytest.raises(BadInput, match="query must be the number of one of 30 examples, got 30"):
        draw_prompt(TASK, 2, rng=np.random.default_rng(0), query=30)


@pytest.fixture(scope="module")
def byte_tokenizer():
    """Byte-level, GPT-2's cuts, a few merges: among them one of line breaks, which stands over several segments."""
    symbols = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = ["Ċ Ċ", "Ġ Y", "ĠY e", "ĠYe s", "Ġ N", "ĠN o", "I s", ": Ġ"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["<|endoftext|>", *symbols, *(merge.replace(" ", "") for merge in merges)],
        "tokenizer.ggml.token_type": [3] + [1] * (len(symbols) + len(merges)),
        "tokenizer.ggml.merges": merges,
    }
    return Tokenizer(vocabulary(metadata, "m.gguf"), "m.gguf")


@pytest.mark.parametrize("separator", ["\n", "\n\n", "\n\n\n", " ## ", " "])
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("opening", [None, 0])
def test_every_token_belongs_to_one_segment(byte_tokenizer, separator, answered, opening):
    prompt = TextPrompt(
        (Example("Is ï日🙂?\n\nSay:", " Yes"), Example(f"Is{separator}it?\nSay:", " No")),
        Example("Is?\nSay:", " Yes"),
        (),
        (),
    )
    found = tokenize(prompt, byte_tokenizer, separator=separator, opening=opening, answered=answered)
    texts = {}
    for kind, example, start, stop in found.segments:
        texts[kind, example] = byte_tokenizer.decode(found.tokens[start:stop])
    wanted = {
        ("question", 0): "Is ï日🙂?\n\nSay:", ("answer", 0): " Yes", ("separator", 0): separator,
        ("question", 1): f"Is{separator}it?\nSay:", ("answer", 1): " No", ("separator", 1): separator,
        ("question", 2): "Is?\nSay:",
    }  # fmt: skip
    wanted |= {("answer", 2): " Yes"} if answered else {}
    wanted |= {("opening", -1): "<|endoftext|>"} if opening == 0 else {}
    assert texts == wanted
    stops = [segment.stop for segment in found.segments]
    assert [segment.start for segment in found.segments] == [0, *stops[:-1]]
    assert stops[-1] == len(found.tokens)
    assert found.whole
    own = found.tokens[1 if opening == 0 else 0 :]
    assert list(own) == byte_tokenizer.numbers("".join(texts[key] for key in wanted if key[0] != "opening"))
    assert list(found.example_of) == [
        segment.example for segment in found.segments for _ in range(segment.stop - segment.start)
    ]
    assert [segment.example for segment in found.of("answer")] == ([0, 1, 2] if answered else [0, 1])


def test_a_token_over_two_segments_is_cut(byte_tokenizer):
    """The answer "es" inside of the token " Yes"."""
    prompt = TextPrompt((Example("a Y", "es"),), Example("b Y", "es"), (), ())
    found = tokenize(prompt, byte_tokenizer, separator="\n")
    assert not found.whole
    assert [byte_tokenizer.decode(found.tokens[s.start : s.stop]) for s in found.segments] == ["a Y", "es", "\n", "b Y"]


def test_where_answers_part(byte_tokenizer):
    seven, eight = answer_tokens("a:", [" 7", " 8"], byte_tokenizer)
    assert len(seven) == len(eight) == 2  # the space is a token of its own, which both share
    telling = first_difference([seven, eight])
    assert (telling.shared, telling.tokens) == (1, (seven[1], eight[1]))
    assert telling.by_one_token
    assert first_difference([[1, 2], [3, 2]]) == (0, (1, 3))
    three = first_difference([[5, 1, 2], [5, 1, 3], [5, 4, 2]])
    assert (three.shared, three.tokens, three.by_one_token) == (1, (1, 1, 4), False)
    assert first_difference([[5], [5, 6]], end=9) == (1, (9, 6))
    with pytest.raises(BadInput, match="one answer is the beginning of another"):
        first_difference([[5], [5, 6]])
    for same in ([[5, 6]], [[5, 6], [5, 6]]):
        with pytest.raises(BadInput, match="answers must be at least two, all with different tokens, got 1"):
            first_difference(same)


class Alone(Tokenizer):
    """Characters one by one, but a separator that stands alone as another token, as SentencePiece puts a space."""

    def __init__(self):
        pass

    def numbers(self, text):
        return [99] if text == "\n" else [ord(c) for c in text]

    def spans(self, text):
        starts = np.arange(len(text))
        return np.array([ord(c) for c in text]), starts, starts + 1


def test_an_answer_ends_as_it_does_in_a_prompt():
    task = task_of("t", [{"input": w, "output": w} for w in "xyzuv"], separator="\n")
    assert token_behind_answers(task, Alone()) == ord("\n")
