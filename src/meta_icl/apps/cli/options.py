"""Options of a command from a dataclass, with examples in its help and every mistake told in one line."""

import contextlib
import io
import itertools
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from meta_icl.errors import BadInput

T = TypeVar("T")
_FRAME = re.compile(r"[│╭╮╰╯]")
_KINDS = {"INT": "an integer", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}


def parse(options: type[T], arguments: Sequence[str], *, command: str, examples: Sequence[str]) -> T:
    """An `options` dataclass from the command line; `--help` prints its docstring, fields and `examples`, and exits.

    Raises `BadInput` with one line where the library that reads the options would print several.
    """
    import tyro

    told = "\n".join(f"  meta-icl {command} {example}".rstrip() for example in examples)
    description = f"{(options.__doc__ or '').strip()}\n\nexamples:\n{told}"
    config = (
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.DisallowNone,
        tyro.conf.PositionalMetavarFromFieldName,
        tyro.conf.HelptextFromCommentsOff,
    )
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                options, prog=f"meta-icl {command}", description=description, args=list(arguments), config=config
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise BadInput(_one_line(errors.getvalue())) from None


def print_json(value: Any) -> None:
    """Print a value as JSON for machines."""
    from meta_icl.runs.files import plain

    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def console() -> Any:
    """Where tables are printed; wide enough for them where there is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


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
