"""Tables, and the one way in which commands print them: nothing is cut, whatever the width of the terminal.

A table whose columns do not fit is wrapped by words, column by column; where not even the longest words of all columns
fit side by side, every row becomes a block of lines.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meta_icl.apps.cli import streams
from meta_icl.apps.cli.options import console
from meta_icl.runs import Claim

STYLES = {"holds": "green", "fails": "red", "not decided": "yellow", "not converged": "magenta"}
MARKS = {"holds": "✓", "fails": "✗", "not converged": "○"}
GAP = 2  # columns between two columns
NARROWEST = 16  # of a column of words that are wrapped


def counted(n: int, noun: str, ending: str = "s") -> str:
    """A number of things: "1 run", "2 runs", with "es" "2 processes"."""
    return f"{n} {noun}{'' if n == 1 else ending}"


@dataclass(frozen=True)
class Grid:
    """A table of texts: its columns, its rows, which columns stay whole, styles of values, and a title."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    whole: frozenset[int] = frozenset()  # columns never wrapped: names and numbers
    styles: Mapping[str, str] = field(default_factory=dict)
    title: str | None = None


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None, *, whole: bool = False
) -> Grid:
    """Rows as text; numbers with six significant digits, missing values as "-".

    Columns without a space in a cell are never wrapped; if `whole`, none is.
    """
    texts = [[_cell(value) for value in row] for row in rows]
    unbroken = {i for i in range(len(columns)) if whole or not any(" " in row[i] for row in texts)}
    return Grid(list(map(_cell, columns)), texts, frozenset(unbroken), title=title and _cell(title))


def claim_table(title: str, claims: Sequence[Claim]) -> Grid:
    """A line per claim: its id, its verdict, how many of its checks hold, and what it says."""
    rows = []
    for claim in claims:
        n = len(claim.checks)
        checks = f"{sum(check.holds for check in claim.checks)} of {n}" if n else "-"
        rows.append([claim.id, claim.verdict, checks, claim.statement])
    return verdict_table(title, ("id", "verdict", "checks", "claim"), rows)


def verdict_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Grid:
    """Rows with a verdict in its colour; all columns but the last stay whole."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    return Grid(columns, texts, frozenset(range(len(columns) - 1)), STYLES, _cell(title))


def claim_details(claims: Sequence[Claim]) -> str:
    """Every claim with its remarks and checks: what was expected, and the median over seeds with its spread."""
    lines: list[str] = []
    for claim in claims:
        lines += [
            "",
            f"{claim.id}  {claim.verdict}",
            *_indented(claim.statement),
            *_indented(f"source: {claim.source}"),
        ]
        for heading, remark in claim.remarks.items():
            lines += _indented(f"{heading.lower()}: {remark}")
        for check in claim.checks:
            told = f"{MARKS[check.verdict]} {check.quantity}: expected {check.expected}, measured {check.measured_text}"
            lines += _indented(told, first="  ", later="      ")
    return "\n".join(lines)


def show(grid: Grid) -> None:
    """Print a table on standard output."""
    if grid.title:
        show_text(grid.title)
    widths = _widths(grid, console().width)
    if widths is None:
        _show_blocks(grid)
    else:
        _show_columns(grid, widths)


def show_text(text: str) -> None:
    """Print lines of words, wrapped by words where they are too long."""
    lines = []
    for line in _cell(text).split("\n"):
        beginning = line[: len(line) - len(line.lstrip())]
        lines += _wrapped(line, console().width, beginning) if line.strip() else [""]
    print("\n".join(lines))


def _show_columns(grid: Grid, widths: Sequence[int]) -> None:
    from rich.text import Text

    out = console()
    numbers = [_numeric([row[i] for row in grid.rows]) for i in range(len(grid.columns))]

    def line(cells: Sequence[str], style: str | None = None) -> None:
        pieces = [_wrapped(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
        for k in range(max(map(len, pieces))):
            told = Text()
            for i, piece in enumerate(pieces):
                text = piece[k] if k < len(piece) else ""
                room = " " * (widths[i] - _width(text))
                told.append(room + text if numbers[i] else text, style or grid.styles.get(cells[i], ""))
                told.append("" if i == len(pieces) - 1 else ("" if numbers[i] else room) + " " * GAP)
            told.rstrip()
            out.print(told, soft_wrap=True)

    if any(grid.columns):
        line(grid.columns, "bold")
        out.print(Text(encodable_rule(sum(widths) + GAP * (len(widths) - 1))), soft_wrap=True)
    for row in grid.rows:
        line(row)


def encodable_rule(width: int) -> str:
    """A horizontal line."""
    return streams.encodable("─") * width


def _show_blocks(grid: Grid) -> None:
    """The first column as a heading, the others as "name: value" below it, as many in a line as fit."""
    from rich.text import Text

    out = console()
    for row in grid.rows:
        head = f"{grid.columns[0]} {row[0]}" if _is_number(row[0]) else row[0]
        out.print(Text(head, "bold"), soft_wrap=True)
        pairs = [f"{name}: {cell}" if name else cell for name, cell in zip(grid.columns[1:], row[1:], strict=True)]
        lines: list[str] = []
        for pair in pairs:
            if lines and _width(lines[-1]) + _width(pair) + GAP <= out.width and "\n" not in pair:
                lines[-1] += " " * GAP + pair
            else:
                lines += _wrapped(f"  {pair}", out.width, "    ")
        for line in lines:
            out.print(Text(line), soft_wrap=True)


def _widths(grid: Grid, room: int) -> list[int] | None:
    """The width of every column, in all at most `room`; `None` if the longest words do not fit side by side."""
    cells = [[column, *(row[i] for row in grid.rows)] for i, column in enumerate(grid.columns)]
    natural = [max(_width(line) for cell in column for line in cell.split("\n")) for column in cells]
    least = []
    for i, column in enumerate(cells):
        words = max((_width(word) for cell in column for word in cell.split()), default=0)
        # Of a whole column only the heading may be wrapped.
        body = max((_width(line) for cell in column[1:] for line in cell.split("\n")), default=0)
        least.append(max(words, body) if i in grid.whole else max(words, min(natural[i], NARROWEST)))
    room -= GAP * (len(natural) - 1)
    if sum(least) > room:
        return None
    widths = list(natural)
    while (excess := sum(widths) - room) > 0:  # the widest column that can gives way, down to the next widest
        can = [i for i in range(len(widths)) if widths[i] > least[i]]
        widest = max(can, key=lambda i: widths[i])
        below = max((widths[i] for i in can if widths[i] < widths[widest]), default=0)
        widths[widest] -= max(1, min(excess, widths[widest] - max(least[widest], below)))
    return widths


def _wrapped(text: str, width: int, later: str = "") -> list[str]:
    """The lines of a text, broken between words only."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines += textwrap.wrap(
            line, max(width, 1), subsequent_indent=later, break_long_words=False, break_on_hyphens=False,
            drop_whitespace=True, replace_whitespace=False,
        ) or [""]  # fmt: skip
    return lines


def _indented(text: str, first: str = "    ", later: str = "    ") -> list[str]:
    return _wrapped(first + _cell(text), console().width, later)


def _numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, which stand below each other from the right."""
    return bool(cells) and all(cell in ("-", "") or _is_number(cell) for cell in cells) and any(map(_is_number, cells))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    from rich.cells import cell_len

    return cell_len(text)


def _cell(value: Any) -> str:
    """A value as text that can be printed as it stands."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return "NaN" if value != value else f"{value:.6g}"
    return streams.encodable(streams.visible(str(value)))
