"""Few-shot tasks from files: JSON lists of pairs, JSON lines, CSV and TSV, and two published forms of lines."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

from meta_icl.errors import BadInput, choose, require
from meta_icl.lm.tasks import GENERATED, PLAIN, REVIEW, Template, TextTask, generated, shipped, task_of, word_pairs

SENTIMENT = Template(REVIEW)
SENTIMENTS = {"0": "Negative", "1": "Positive"}
QUESTION = Template("Question: {question}\nType: {label}")
TYPES = {"ABBR": "Abbreviation", "DESC": "Description", "ENTY": "Entity", "HUM": "Person", "LOC": "Location",
         "NUM": "Number"}  # fmt: skip
STSA, TREC = re.compile(r"([01]) (\S.*)"), re.compile(r"(ABBR|DESC|ENTY|HUM|LOC|NUM):\w+ (\S.*)")
Rows = list[dict[str, str]]


def read_task(
    source: str | Path, *, template: str | None = None, separator: str | None = None, n: int = 1000, seed: int = 0
) -> TextTask:
    """A task by the name of word pairs or of a generated one (n examples), else from a file.

    Files: a JSON list or JSON lines of objects (`input` and `output`, or the fields of the template); CSV with quotes
    or TSV without, with a header; SST-2 with `sentence` and `label` (GLUE) or lines "0 a text"; TREC's lines
    "NUM:dist a question". `template` says how an example is written (see `tasks.Template`), `separator` what stands
    between examples: default a line break, or an empty line where examples have several lines.

    Raises `BadInput` for a name or file that does not exist, is damaged, or does not have what the template names.
    """
    name, path = str(source), Path(source)
    if not path.exists():
        known = (*word_pairs(), *GENERATED)
        if re.fullmatch(r"\w+", name):
            choose("task", name, known)
            require(template is None, "template", template, f"left out for {name}, which is not a file")
            made = shipped(name) if name in word_pairs() else generated(name, n, seed=seed)
            return made if separator is None else replace(made, separator=separator)
        raise BadInput(f"there is no task {name}: neither a file nor one of {', '.join(known)}")
    require(path.is_file(), "task", name, "a file")
    rows, usual = _rows(path)
    chosen = Template(template) if template is not None else usual
    require(len(rows) >= 2, f"number of examples in {name}", len(rows), "at least 2")
    several = "\n" in chosen.text or any("\n" in row.get(field, "") for row in rows for field in chosen.fields)
    return task_of(
        path.stem, rows, template=chosen, separator=("\n\n" if several else "\n") if separator is None else separator
    )


def _rows(path: Path) -> tuple[Rows, Template]:
    """The rows of a file as texts, and the template that fits them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as text ({error})") from None
    kind = path.suffix.lower()
    if kind in (".json", ".jsonl"):
        return _json(path, text), Template(PLAIN)
    if kind in (".csv", ".tsv"):
        rows = _table(path, text, "," if kind == ".csv" else "\t")
        if {"sentence", "label"} <= set(rows[0] if rows else ()):
            return [row | {"label": SENTIMENTS.get(row["label"], row["label"])} for row in rows], SENTIMENT
        return rows, Template(PLAIN)
    # Cut at line feeds alone: a text may hold other breaks, as U+2028.
    lines = [line for line in text.split("\n") if line.strip()]
    for pattern, names, template in ((STSA, SENTIMENTS, SENTIMENT), (TREC, TYPES, QUESTION)):
        found = [pattern.fullmatch(line.rstrip()) for line in lines]
        if lines and all(found):
            asked, answer = template.fields
            return [{answer: names[m[1]], asked: m[2].strip()} for m in found if m], template
    raise BadInput(f"{path} must be .json, .jsonl, .csv or .tsv, or hold lines of SST-2 or TREC")


def _json(path: Path, text: str) -> Rows:
    try:
        if path.suffix.lower() == ".jsonl":
            values = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error})") from None
    require(isinstance(values, list), str(path), type(values).__name__, "a JSON list of objects")
    for i, value in enumerate(values):
        require(
            isinstance(value, dict),
            f"example {i + 1} of {path}",
            value,
            "an object such as {'input': .., 'output': ..}",
        )
    return [
        {key: _text(item) for key, item in value.items() if isinstance(item, str | int | float)} for value in values
    ]


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(path: Path, text: str, delimiter: str) -> Rows:
    """Rows by the names of the header. TSV has no quotes, as GLUE's files."""
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    lines = io.StringIO(text, newline="")  # with line breaks kept, a quoted field may have several lines
    try:
        header, *rows = [row for row in csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True) if row]
    except ValueError:
        raise BadInput(f"{path} is empty") from None
    except csv.Error as error:
        raise BadInput(f"{path} is no table ({error})") from None
    require(len(set(header)) == len(header), f"header of {path}", header, "different names")
    for i, row in enumerate(rows):
        require(len(row) == len(header), f"row {i + 1} of {path}", row, f"{len(header)} values, as its header has")
    return [dict(zip(header, row, strict=True)) for row in rows]
