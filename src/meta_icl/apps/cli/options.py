"""Options of a command from a dataclass, with examples in its help and every mistake told in one line."""

import contextlib
import inspect
import io
import itertools
import json
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

from meta_icl.apps.cli import streams
from meta_icl.errors import BadInput

T = TypeVar("T")
_FRAME = re.compile(r"[│╭╮╰╯]")
_HERE = "DESCRIPTION-STANDS-HERE"
_KINDS = {"INT": "an integer", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}


def parse(options: type[T], arguments: Sequence[str], *, command: str, examples: Sequence[str]) -> T:
    """An `options` dataclass from the command line; `--help` prints its docstring, fields and `examples`, and exits.

    Raises `BadInput` with one line where the library that reads the options would print several.
    """
    import tyro

    config = (
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.DisallowNone,
        tyro.conf.PositionalMetavarFromFieldName,
        tyro.conf.HelptextFromCommentsOff,
    )
    errors, out = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
            return tyro.cli(options, prog=f"meta-icl {command}", description=_HERE, args=list(arguments), config=config)
    except SystemExit as end:
        if end.code in (0, None):
            about = inspect.cleandoc(options.__doc__ or "")
            print(_help(out.getvalue(), about, [f"meta-icl {command} {example}".rstrip() for example in examples]))
            raise
        raise BadInput(_one_line(errors.getvalue())) from None


def _help(text: str, about: str, examples: Sequence[str]) -> str:
    """The help of a command with its description and examples, which the library would not wrap by words."""
    usage, _, listed = text.partition(_HERE)
    usage = textwrap.fill(" ".join(usage.split()), streams.columns(), subsequent_indent="    ", break_on_hyphens=False)
    told = "\n".join(map(streams.command, examples))
    return f"{usage}\n\n{streams.paragraphs(about)}\n\nexamples:\n{told}\n\n{_refilled(listed).strip()}"


def _refilled(listed: str) -> str:
    """The options with their texts filled: the library keeps the breaks of the lines in which they were written."""
    column = max((line.find("show this help") for line in listed.splitlines()), default=0)
    lines: list[str] = []

    def has_text(line: str) -> bool:
        return line[column:] != "" and line[:column].endswith("  ")

    for line in map(str.rstrip, listed.splitlines()):
        if has_text(line) and not line[:column].strip() and lines and has_text(lines[-1]):
            lines[-1] += f" {line[column:]}"
        else:
            lines.append(line)
    return "\n".join(streams.entry(line[:column], line[column:]) if has_text(line) else line for line in lines)


def print_json(value: Any) -> None:
    """Print a value as JSON for machines."""
    from meta_icl.runs.files import plain

    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def console() -> Any:
    """Where tables are printed: as wide as the terminal, or as COLUMNS says; 140 columns where there is neither."""
    from rich.console import Console

    fits = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if fits else 140, highlight=False)


def say(text: str) -> None:
    """Print lines that a person copies, such as names of files: whole, and with every sign shown as it is."""
    print(streams.visible(text))


def _one_line(text: str) -> str:
    """What a framed message says, in one line: its words up to the first rule, and the option it suggests, if any."""
    lines = [_FRAME.sub(" ", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("─ ")]  # the title is in the frame
    if "│" not in text:  # frames in ASCII, for terminals without UTF-8: the title is a section
        lines = lines[2:]
    rule = next((i for i, line in enumerate(lines) if set(line) <= {"─", "-"}), len(lines))
    words = " ".join(lines[:rule])
    flag = re.match(r"Error parsing ([^\s:]+):", words)
    values = re.findall(r"'([^']*)'", words)
    if flag and values:
        metavar = _after(lines, "Argument helptext").split(" ")[-1]
        return f"{flag[1]} must be {_KINDS.get(metavar, metavar)}, got {values[-1]!r}"
    suggestion = _after(lines, "Perhaps you meant").split(" ")[0]
    return f"{words}; did you mean {suggestion}?" if suggestion else words


def _after(lines: Sequence[str], beginning: str) -> str:
    """The line after the one that begins so; empty if there is none."""
    return next((after for line, after in itertools.pairwise(lines) if line.startswith(beginning)), "")
