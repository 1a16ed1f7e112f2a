r"""Few-shot tasks of texts: examples with answers, how they are written, and those that need no file.

An example is written by a template such as "Review: {sentence}\nSentiment: {label}". Its last field is the answer and
ends it; what stands before, without the white space at its end, is the question. That white space opens the answer,
since byte-level tokenizers keep a space with the word that follows it.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from meta_icl.errors import BadInput, choose, require

PLAIN = "{input} -> {output}"
REVIEW = "Review: {sentence}\nSentiment: {label}"  # of Minegishi et al. (2025)
CONTENT_FREE = "N/A"  # in place of every field, to see what a model answers without a question (Zhao et al., 2021)
MOST_LABELS, PER_LABEL = 26, 5  # answers are labels if there are few of them and each comes often


class Example(NamedTuple):
    """A question and its answer as they are written; together they are the example."""

    question: str
    answer: str


@dataclass(frozen=True)
class Template:
    """How an example is written, with "{field}" for what the data say; the last field is the answer."""

    text: str = PLAIN

    def __post_init__(self):
        fields = self.fields
        require(
            len(fields) >= 2,
            "template",
            self.text,
            "a text with at least two {fields}, of which the last is the answer",
        )
        require(
            self.text.endswith(f"{{{fields[-1]}}}"), "template", self.text, "a text that ends with its last {field}"
        )
        require(len(set(fields)) == len(fields), "template", self.text, "a text with each {field} once")

    @property
    def parts(self) -> list[tuple[str, str]]:
        """What stands before each field, and the field."""
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise BadInput(f"template must be a text with {{fields}} ({error}), got {self.text!r}") from None
        found, text = [], ""
        for before, name, spec, conversion in parts:
            text += before
            if name is not None:  # "{{" is a part without a field
                plain = re.fullmatch(r"[^\W\d][\w -]*", name) and not spec and not conversion
                require(bool(plain), "template", self.text, "a text with plain {fields}")
                found.append((text, name))
                text = ""
        require(not text, "template", self.text, "a text that ends with the answer's {field}")
        return found

    @property
    def fields(self) -> list[str]:
        """The names of the fields, in order."""
        return [name for _, name in self.parts]

    def example(self, values: Mapping[str, str]) -> Example:
        """An example as it is written."""
        *asked, (before, answer) = self.parts
        head = before.rstrip(" \t")
        question = "".join(text + values[name] for text, name in asked) + head
        return Example(question, before[len(head) :] + values[answer])

    @property
    def content_free(self) -> str:
        """A question that asks nothing."""
        return self.example(dict.fromkeys(self.fields, CONTENT_FREE)).question


@dataclass(frozen=True)
class TextTask:
    """Examples of one task; `labels` are all answers that there are, or empty where answers are open."""

    name: str
    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    separator: str = "\n\n"  # between examples
    content_free: str = CONTENT_FREE

    def __post_init__(self):
        require(len(self.examples) >= 2, f"number of examples of {self.name}", len(self.examples), "at least 2")
        empty = next((e for e in self.examples if not e.question.strip() or not e.answer.strip()), None)
        require(empty is None, f"example of {self.name}", empty, "a question and an answer that are not empty")
        if self.labels:
            strange = next((e.answer for e in self.examples if e.answer not in self.labels), None)
            require(strange is None, f"answer in {self.name}", strange, f"one of {list(self.labels)}")


def task_of(
    name: str,
    rows: Sequence[Mapping[str, str]],
    *,
    template: Template | None = None,
    separator: str = "\n\n",
) -> TextTask:
    """A task from rows of values. Few answers that each come often (at most 26, each 5 times on average) are labels.

    Raises `BadInput` for a row without a field of the template.
    """
    template = template or Template()
    for i, row in enumerate(rows):
        missing = [field for field in template.fields if field not in row]
        require(not missing, f"fields of example {i + 1} of {name}", sorted(row), f"all of {template.fields}")
    examples = tuple(template.example(row) for row in rows)
    answers = Counter(example.answer for example in examples)
    few = 2 <= len(answers) <= MOST_LABELS and len(examples) >= PER_LABEL * len(answers)
    labels = tuple(sorted(answers)) if few else ()
    return TextTask(name, examples, labels, separator, template.content_free)


# Tasks that need no file.


def addition(rng: np.random.Generator, *, digits: int = 2) -> tuple[str, str]:
    """Two numbers of up to so many digits, and their sum."""
    a, b = rng.integers(0, 10**digits, 2)
    return f"{a} + {b}", str(a + b)


BITWISE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "and": lambda a, b: a & b,
    "nand": lambda a, b: 1 - (a & b),
    "or": lambda a, b: a | b,
    "nor": lambda a, b: 1 - (a | b),
    "xor": lambda a, b: a ^ b,
    "xnor": lambda a, b: 1 - (a ^ b),
}


def bitwise(rng: np.random.Generator, *, operation: str, bits: int = 5) -> tuple[str, str]:
    """Two binary numbers and the result of an unnamed operation (Han et al., 2024); of "null", random bits."""
    a, b = rng.integers(0, 2, (2, bits))
    result = BITWISE[operation](a, b) if operation != "null" else rng.integers(0, 2, bits)
    return " ".join("".join(map(str, x)) for x in (a, b)), "".join(map(str, result))


def letters(rng: np.random.Generator, *, ahead: int = 1) -> tuple[str, str]:
    """A letter and the one so many places ahead of it, round the alphabet."""
    i = int(rng.integers(26))
    return string.ascii_lowercase[i], string.ascii_lowercase[(i + ahead) % 26]


def copying(rng: np.random.Generator, *, length: int = 4) -> tuple[str, str]:
    """A few random letters, and the same again."""
    text = " ".join(rng.choice(list(string.ascii_lowercase), length))
    return text, text


def symbols(rng: np.random.Generator, *, meanings: Mapping[str, str]) -> tuple[str, str]:
    """A symbol and the label that it was given by chance, which only the context tells."""
    symbol = str(rng.choice(list(meanings)))
    return symbol, meanings[symbol]


THINGS = ("film", "story", "script", "acting", "ending", "music", "plot", "cast", "dialogue", "pacing")
PRAISE = (
    "brilliant",
    "moving",
    "charming",
    "gripping",
    "delightful",
    "superb",
    "funny",
    "touching",
    "clever",
    "lovely",
)
BLAME = ("dull", "boring", "clumsy", "tedious", "awful", "lifeless", "predictable", "messy", "shallow", "annoying")
FORMS = (
    "the {0} is {2} and the {1} is {3}",
    "a {2} {0} with a {3} {1}",
    "i found the {0} {2} , and even the {1} was {3}",
    "{2} {0} , {3} {1}",
    "what a {2} , {3} {0}",
    "there is not much to say about this {0} : it is {2} and {3}",
)


def sentiment(rng: np.random.Generator) -> tuple[str, str]:
    """A made sentence about a film, and whether it praises or blames."""
    good = bool(rng.integers(2))
    words = rng.choice(PRAISE if good else BLAME, 2, replace=False)
    text = str(rng.choice(FORMS)).format(*rng.choice(THINGS, 2, replace=False), *words)
    return text, "Positive" if good else "Negative"


SYMBOLS, LABELS = ("@", "#", "%", "&", "*", "+", "=", "~"), ("A", "B")
GENERATED = (
    "addition",
    "copying",
    "letters",
    "sentiment",
    "symbols",
    *(f"bitwise_{name}" for name in (*BITWISE, "null")),
)


def generated(name: str, n: int, *, seed: int = 0, **options: int) -> TextTask:
    """A task of n examples that are drawn; options: `digits` (addition), `bits`, `ahead` (letters), `length` (copying).

    Raises `BadInput` for an unknown name or option, or an option that is not positive.
    """
    kind, _, operation = choose("generated task", name, GENERATED).partition("_")
    known = {
        "addition": ("digits",),
        "bitwise": ("bits",),
        "letters": ("ahead",),
        "copying": ("length",),
        "sentiment": (),
        "symbols": (),
    }
    for option, value in options.items():
        choose(f"option of {name}", option, known[kind])
        require(value >= 1, option, value, "positive")
    require(n >= 2, "number of examples", n, "at least 2")
    rng = np.random.default_rng(seed)
    draw: Callable[..., tuple[str, str]] = {
        "addition": addition, "bitwise": bitwise, "letters": letters, "copying": copying, "sentiment": sentiment,
        "symbols": symbols,
    }[kind]  # fmt: skip
    fixed: dict[str, Any] = dict(options)
    if kind == "bitwise":
        fixed["operation"] = operation
    if kind == "symbols":
        fixed["meanings"] = dict(zip(SYMBOLS, rng.permutation(LABELS * (len(SYMBOLS) // 2)).tolist(), strict=True))
    template, separator = (Template(REVIEW), "\n\n") if kind == "sentiment" else (Template(), "\n")
    asked, answer = template.fields
    rows = [{asked: question, answer: told} for question, told in map(partial(draw, **fixed), [rng] * n)]
    return task_of(name, rows, template=template, separator=separator)


def word_pairs() -> list[str]:
    """The names of the word pairs that come with the package (Todd et al., 2024; MIT)."""
    return sorted(file.name.removesuffix(".tsv") for file in _pairs_folder().iterdir() if file.name.endswith(".tsv"))


def shipped(name: str) -> TextTask:
    """A task of word pairs that comes with the package; `BadInput` for an unknown name."""
    text = (_pairs_folder() / f"{choose('word pairs', name, word_pairs())}.tsv").read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines()[1:]]
    return task_of(name, [{"input": asked, "output": answer} for asked, answer in pairs], separator="\n")


def _pairs_folder() -> Any:
    return files("meta_icl.lm") / "word_pairs"
