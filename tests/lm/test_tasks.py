"""Few-shot tasks: files of every form, those that are drawn, and the lines for what cannot be read."""

import json
import string

import pytest

from meta_icl.errors import BadInput
from meta_icl.lm.task_files import read_task
from meta_icl.lm.tasks import (
    BLAME,
    GENERATED,
    PRAISE,
    Example,
    Template,
    TextTask,
    generated,
    shipped,
    task_of,
    word_pairs,
)

PAIRS = [{"input": "hot", "output": "cold"}, {"input": "big", "output": "small"}]


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8") if isinstance(text, str) else path.write_bytes(text)
    return path


def test_white_space_before_the_answer_belongs_to_it():
    template = Template("Q: {ask}\nA: \t{say}")
    assert template.example({"ask": "a {b} ", "say": "c"}) == Example("Q: a {b} \nA:", " \tc")
    assert Template("{a}{b}").example({"a": "x ", "b": "y"}) == Example("x ", "y")
    assert Template("{{{a}}}\n{b}").example({"a": "x", "b": "y"}) == Example("{x}\n", "y")
    assert template.content_free == "Q: N/A\nA:"


@pytest.mark.parametrize(
    "text",
    [
        "{a}",
        "no fields",
        "{a} {a}",
        "{a} -> {b}.",
        "{a} {",
        "{a!r} {b}",
        "{a:>3} {b}",
        "{} {}",
        "{a.b} {c}",
        "{a[0]} {b}",
    ],
)
def test_templates_that_are_none(text):
    with pytest.raises(BadInput, match="template must be"):
        Template(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", json.dumps(PAIRS)),
        ("t.json", "\ufeff" + json.dumps(PAIRS)),
        ("t.jsonl", "\n".join(map(json.dumps, PAIRS)) + "\n\n"),
        ("t.csv", "input,output\nhot,cold\nbig,small\n"),
        ("t.csv", 'input,output,more\r\n"hot",cold,1\r\nbig,"small",2\r\n'),
        ("t.TSV", "input\toutput\nhot\tcold\nbig\tsmall"),
    ],
)
def test_pairs(tmp_path, name, text):
    task = read_task(written(tmp_path, name, text))
    assert task.name == "t"
    assert task.examples == (Example("hot ->", " cold"), Example("big ->", " small"))
    assert task.labels == ()
    assert (task.separator, task.content_free) == ("\n", "N/A ->")


def test_quotes_and_lines_in_csv_and_none_in_tsv(tmp_path):
    path = written(tmp_path, "t.csv", 'text,label\n"a, ""b""\nc",x\nd,y\n')
    task = read_task(path, template="Text: {text}\nLabel: {label}")
    assert task.examples[0] == Example('Text: a, "b"\nc\nLabel:', " x")
    assert task.separator == "\n\n"  # so that examples of several lines stay apart
    assert read_task(path, template="{text} = {label}").separator == "\n\n"
    assert read_task(path, template="{text} = {label}", separator=" ; ").separator == " ; "
    task = read_task(written(tmp_path, "t.tsv", 'input\toutput\n"a\tb"\n"\tc\n'))
    assert task.examples == (Example('"a ->', ' b"'), Example('" ->', " c"))


def test_numbers_and_fields_of_json(tmp_path):
    rows = [{"a": 1, "b": 2.5, "c": True, "more": [1]}, {"a": 2, "b": 0, "c": False}]
    task = read_task(written(tmp_path, "t.json", json.dumps(rows)), template="{a} + {b}: {c}")
    assert task.examples == (Example("1 + 2.5:", " true"), Example("2 + 0:", " false"))


SST2 = [("1", "a fine film"), ("0", "a dull one")] * 5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.tsv", "sentence\tlabel\n" + "".join(f"{s}\t{label}\n" for label, s in SST2)),
        ("stsa.binary.dev", "".join(f"{label} {s}\n" for label, s in SST2)),
    ],
)
def test_sentiment(tmp_path, name, text):
    task = read_task(written(tmp_path, name, text))
    assert task.examples[0] == Example("Review: a fine film\nSentiment:", " Positive")
    assert task.labels == (" Negative", " Positive")
    assert task.separator == "\n\n"


def test_questions(tmp_path):
    lines = ["NUM:dist How far is it ?", "ABBR:exp What is NASA ?"] * 5
    task = read_task(written(tmp_path, "trec.txt", "\n".join(lines)))
    assert task.examples[1] == Example("Question: What is NASA ?\nType:", " Abbreviation")
    assert task.labels == (" Abbreviation", " Number")


def test_labels_are_few_answers_that_come_often():
    rows = [{"input": str(i), "output": "ab"[i % 2]} for i in range(10)]
    assert task_of("t", rows).labels == (" a", " b")
    assert task_of("t", rows[:9]).labels == ()
    assert task_of("t", [{"input": str(i), "output": "a"} for i in range(10)]).labels == ()  # one is no choice
    assert task_of("t", [{"input": str(i), "output": str(i % 27)} for i in range(270)]).labels == ()


BAD = {
    "nothing.json": (None, "there is no task .*nothing.json"),
    "a.json": ("{", "is not JSON"),
    "b.json": ('{"input": "a"}', "must be a JSON list of objects, got 'dict'"),
    "c.json": ('["a", "b"]', "example 1 of .* must be an object"),
    "d.json": ('[{"input": "a"}, {"input": "b"}]', r"fields of example 1 of d must be all of \['input', 'output'\]"),
    "e.json": ("[]", "number of examples in .* must be at least 2, got 0"),
    "f.json": ('[{"input": "a", "output": ""}, {"input": "b", "output": "c"}]', "answer that are not empty"),
    "g.json": ('[{"input": "a", "output": null}, {"input": "b", "output": "c"}]', "fields of example 1 of g must be"),
    "h.jsonl": ('{"input": "a", "output": "b"}\nx\n', "is not JSON"),
    "i.csv": ("", "is empty"),
    "j.csv": ("input,output\na\n", "row 1 of .* must be 2 values, as its header has"),
    "k.csv": ("input,input\na,b\n", "header of .* must be different names"),
    "l.csv": ('input,output\n"a,b\n', "is no table"),
    "m.tsv": ("a\tb\n1\t2\n3\t4\n", "fields of example 1 of m must be all of"),
    "n.txt": ("hello\nworld\n", "must be .json, .jsonl, .csv or .tsv, or hold lines of SST-2 or TREC"),
    "o.txt": ("1 good\n2 bad\n", "must be .json"),
    "p.json": (b"\xff\xfe\x00", "cannot be read as text"),
    "q.json": ("[" * 100_000, "is not JSON"),
}


@pytest.mark.parametrize(("name", "case"), BAD.items(), ids=BAD)
def test_files_that_cannot_be_read(tmp_path, name, case):
    text, message = case
    path = tmp_path / name if text is None else written(tmp_path, name, text)
    with pytest.raises(BadInput, match=message) as caught:
        read_task(path)
    assert "\n" not in str(caught.value)


def test_word_pairs_that_come_with_the_package():
    assert {"antonym", "country_capital", "present_past"} <= set(word_pairs())
    for name in word_pairs():
        task = shipped(name)
        assert len(task.examples) >= 190
        assert all(e.question.endswith(" ->") and e.answer.startswith(" ") for e in task.examples)
    assert Example("France ->", " Paris") in read_task("country_capital").examples
    assert read_task("antonym", separator="; ").separator == "; "
    with pytest.raises(BadInput, match=r"unknown task 'antonyms'; did you mean 'antonym'\?"):
        read_task("antonyms")
    with pytest.raises(BadInput, match="template must be left out for antonym"):
        read_task("antonym", template="{input} {output}")


RULES = {
    "and": lambda a, b: a == b == "1",
    "nand": lambda a, b: not a == b == "1",
    "or": lambda a, b: "1" in a + b,
    "nor": lambda a, b: "1" not in a + b,
    "xor": lambda a, b: a != b,
    "xnor": lambda a, b: a == b,
}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_tasks(name):
    task = generated(name, 200, seed=1)
    assert task == generated(name, 200, seed=1)
    assert task != generated(name, 200, seed=2)
    assert task.separator == ("\n\n" if name == "sentiment" else "\n")  # an empty line where examples have two
    seen = {}
    for question, answer in task.examples:
        asked, said = question.removesuffix(" ->"), answer[1:]
        if name == "addition":
            assert eval(asked) == int(said)
        elif name == "copying":
            assert asked == said
        elif name == "letters":
            assert string.ascii_lowercase.index(said) == (string.ascii_lowercase.index(asked) + 1) % 26
        elif name == "sentiment":
            words = set(question.removeprefix("Review: ").removesuffix("\nSentiment:").split())
            praised, blamed = (len(words & set(listed)) for listed in (PRAISE, BLAME))
            assert (praised, blamed) == ((2, 0) if said == "Positive" else (0, 2))
        elif name == "symbols":  # one label for each symbol, both labels as often
            assert seen.setdefault(asked, said) == said
        elif name != "bitwise_null":
            rule = RULES[name.removeprefix("bitwise_")]
            assert said == "".join("01"[rule(a, b)] for a, b in zip(*asked.split(" "), strict=True))
    if name == "symbols":
        assert sorted(seen.values()) == ["A"] * 4 + ["B"] * 4
        assert task.labels == (" A", " B")


def test_options_of_generated_tasks():
    assert all(len(e.answer) == 4 for e in generated("bitwise_or", 5, bits=3).examples)
    assert max(len(e.answer) for e in generated("addition", 50, digits=4).examples) >= 5
    with pytest.raises(BadInput, match="unknown option of addition 'bits'"):
        generated("addition", 5, bits=3)
    with pytest.raises(BadInput, match="digits must be positive, got 0"):
        generated("addition", 5, digits=0)
    with pytest.raises(BadInput, match="unknown generated task 'bitwise_not'"):
        generated("bitwise_not", 5)
    with pytest.raises(BadInput, match="number of examples must be at least 2, got 1"):
        generated("addition", 1)


def test_an_answer_that_is_no_label():
    with pytest.raises(BadInput, match=r"answer in t must be one of \['a', 'c'\], got 'b'"):
        TextTask("t", (Example("1", "a"), Example("2", "b")), ("a", "c"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_other_breaks_than_line_feeds_belong_to_a_text(tmp_path, name):
    """U+2028, U+0085 and form feeds, at which `str.splitlines` cuts."""
    odd = "one\u2028two\x85three\x0cfour"
    lines = {
        "a.jsonl": "".join(json.dumps({"input": odd, "output": w}, ensure_ascii=False) + "\n" for w in "xyz"),
        "a.csv": "input,output\n" + "".join(f"{odd},{w}\n" for w in "xyz"),
        "a.tsv": "input\toutput\n" + "".join(f"{odd}\t{w}\n" for w in "xyz"),
    }
    (tmp_path / name).write_text(lines[name], "utf-8")
    task = read_task(tmp_path / name)
    assert len(task.examples) == 3 and all(odd in example.question for example in task.examples)
