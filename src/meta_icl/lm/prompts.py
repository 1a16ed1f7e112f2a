"""Few-shot prompts: which examples, under which control, and their tokens, each known to belong to one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from meta_icl.errors import BadInput, choose, require
from meta_icl.lm.tasks import Example, TextTask
from meta_icl.lm.tokenizer import Tokenizer

CONTROLS = {
    "right": "answers as they are",
    "random": "each answer of the context drawn anew, of all labels or of all answers",
    "permuted": "the answers of the context in another order",
    "flipped": "every label replaced by the next one, round the list, and so the answer that counts as right",
    "symbols": "labels replaced by letters without a meaning, and so the answer that counts as right",
    "shuffled": "the examples of the context in another order",
}
SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class TextPrompt:
    """The examples of a context and a query; `query.answer` is what counts as right under the control."""

    context: tuple[Example, ...]
    query: Example
    labels: tuple[str, ...]  # under the control
    indices: tuple[int, ...]  # of the examples in the task, the query's last


def draw_prompt(
    task: TextTask, n_shots: int, *, rng: np.random.Generator, control: str = "right", query: int | None = None
) -> TextPrompt:
    """A prompt with different examples in its context, none of them the query (given, or drawn too).

    Drawing takes the same numbers from `rng` under every control up to the control's own, so equal generators give the
    same examples. Raises `BadInput` where there are too few examples, or a control needs labels and there are none.
    """
    choose("control", control, CONTROLS)
    require(0 <= n_shots < len(task.examples), "shots", n_shots, f"between 0 and {len(task.examples) - 1}")
    if control in ("flipped", "symbols") and not task.labels:
        raise BadInput(f"the control {control!r} needs labels, and the answers of {task.name} are open")
    order = rng.permutation(len(task.examples))
    if query is None:
        query = int(order[n_shots])
        chosen = order[:n_shots]
    else:
        require(0 <= query < len(task.examples), "query", query, f"the number of one of {len(task.examples)} examples")
        chosen = order[order != query][:n_shots]
    context, asked, labels = [task.examples[i] for i in chosen], task.examples[query], task.labels
    if control == "shuffled":
        chosen = chosen[rng.permutation(n_shots)]
        context = [task.examples[i] for i in chosen]
    elif control == "random":
        answers = labels or tuple(example.answer for example in task.examples)
        context = [Example(example.question, answers[rng.integers(len(answers))]) for example in context]
    elif control == "permuted":
        moved = rng.permutation(n_shots)
        context = [Example(example.question, context[j].answer) for example, j in zip(context, moved, strict=True)]
    elif control in ("flipped", "symbols"):
        renamed = _renamed(labels, control)
        context = [Example(example.question, renamed[example.answer]) for example in context]
        asked, labels = Example(asked.question, renamed[asked.answer]), tuple(renamed[label] for label in labels)
    return TextPrompt(tuple(context), asked, labels, (*map(int, chosen), query))


def _renamed(labels: Sequence[str], control: str) -> dict[str, str]:
    if control == "flipped":
        return dict(zip(labels, (*labels[1:], labels[0]), strict=True))
    require(len(labels) <= len(SYMBOLS), "labels for the control 'symbols'", len(labels), f"at most {len(SYMBOLS)}")
    spaces = [label[: len(label) - len(label.lstrip())] for label in labels]
    return {label: space + symbol for label, space, symbol in zip(labels, spaces, SYMBOLS, strict=False)}


class Segment(NamedTuple):
    """Tokens start .. stop - 1 of a prompt: "opening", "question", "answer" or "separator" of an example."""

    kind: str
    example: int  # 0, 1, ... in the order of the prompt, the query last; -1 for the opening
    start: int
    stop: int


@dataclass(frozen=True)
class TokenizedPrompt:
    """The tokens of a prompt with the query's answer, if it was asked for, and what they belong to."""

    tokens: Int[np.ndarray, " t"]
    segments: tuple[Segment, ...]
    whole: bool  # the text as a whole gives the same tokens

    def of(self, kind: str) -> list[Segment]:
        """The segments of a kind, in order."""
        return [segment for segment in self.segments if segment.kind == kind]

    @property
    def example_of(self) -> Int[np.ndarray, " t"]:
        """The example of every token."""
        found = np.full(len(self.tokens), -1)
        for segment in self.segments:
            found[segment.start : segment.stop] = segment.example
        return found


def tokenize(
    prompt: TextPrompt, tokenizer: Tokenizer, *, separator: str, opening: int | None = None, answered: bool = False
) -> TokenizedPrompt:
    """The tokens of a prompt as a text, and to which question, answer or separator each belongs.

    Where a token of the whole text would belong to two of them, each is cut into tokens by itself (`whole` is false).
    `opening` is a token put first, on which heads without anything to attend to rest. With `answered`, the query's
    answer follows, so that the probability of every token of every answer is read from one pass.
    """
    pieces: list[tuple[str, int, str]] = []
    for i, example in enumerate((*prompt.context, prompt.query)):
        pieces.append(("question", i, example.question))
        if i < len(prompt.context) or answered:
            pieces.append(("answer", i, example.answer))
        if i < len(prompt.context):
            pieces.append(("separator", i, separator))
    pieces = [piece for piece in pieces if piece[2]]
    numbers, starts, ends = tokenizer.spans("".join(text for _, _, text in pieces))
    bounds = np.cumsum([0, *(len(text) for _, _, text in pieces)])
    # Tokens of one character's bytes share its span; a token over a bound starts before it and ends behind it.
    whole = not any(np.any((starts < bound) & (ends > bound)) for bound in bounds[1:-1])
    cuts = np.searchsorted(starts, bounds) if whole else None
    parts = [numbers[a:b] for a, b in zip(cuts, cuts[1:], strict=False)] if cuts is not None else []
    if not whole or not all(len(part) for part in parts):
        parts, whole = [np.array(tokenizer.numbers(text), int) for _, _, text in pieces], False
    segments = [] if opening is None else [Segment("opening", -1, 0, 1)]
    at = len(segments)
    for (kind, i, _), part in zip(pieces, parts, strict=True):
        segments.append(Segment(kind, i, at, at + len(part)))
        at += len(part)
    return TokenizedPrompt(
        np.concatenate([[opening] if opening is not None else [], *parts]).astype(int), tuple(segments), whole
    )


def answer_tokens(question: str, answers: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of answers as they follow a question."""
    found = []
    for answer in answers:
        prompt = tokenize(TextPrompt((), Example(question, answer), (), (0,)), tokenizer, separator="", answered=True)
        found += [prompt.tokens[s.start : s.stop].tolist() for s in prompt.of("answer")]
    return found


class Telling(NamedTuple):
    """Where answers part: the number of tokens that all share, and each answer's token there."""

    shared: int
    tokens: tuple[int, ...]

    @property
    def by_one_token(self) -> bool:
        """Whether that token tells every answer from every other."""
        return len(set(self.tokens)) == len(self.tokens)


def first_difference(answers: Sequence[Sequence[int]], *, end: int | None = None) -> Telling:
    """The first position at which tokenized answers differ; never one that all share, such as a space before digits.

    An answer that is the beginning of another ends there with the token `end`, the first of the separator. Raises
    `BadInput` for fewer than two different answers, or where an answer ends and `end` is not given.
    """
    rows = [tuple(row) if end is None else (*row, end) for row in answers]
    require(len(set(rows)) == len(rows) >= 2, "answers", len(set(rows)), "at least two, all with different tokens")
    shared = 0
    while all(shared < len(row) for row in rows) and len({row[shared] for row in rows}) == 1:
        shared += 1
    if any(shared >= len(row) for row in rows):
        raise BadInput("one answer is the beginning of another: what follows an answer must be given")
    return Telling(shared, tuple(row[shared] for row in rows))
