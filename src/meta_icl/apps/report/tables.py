"""Tables as HTML: sorted by a click or a key on the head of a column, copied as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its HTML and, where that is not what sorts and what CSV holds, its value."""

    html: str
    value: Any = None


@dataclass(frozen=True)
class Table:
    """Plain rows under named columns, as a command prints them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def table(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    style: str,
    data: Sequence[str] = (),
    *,
    scripted: bool = True,
) -> str:
    """A table named for screen readers, with sorting heads and a button that copies it; `data` are attributes of rows.

    Cells are HTML; a column without a name, or with one in parentheses (shown to screen readers alone), has no button.
    There are no buttons at all where no script of the page serves them (`scripted=False`).
    """
    head = "".join(_head(column) if scripted else f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f"<tr{' ' + more if more else ''}>{''.join(_cell(cell) for cell in row)}</tr>"
        for row, more in zip(rows, data or [""] * len(rows), strict=True)
    )
    kind, tools = style, ""
    if scripted:
        kind, tools = f"{style} sortable", '<p class="tools"><button type="button" data-csv>copy as CSV</button></p>'
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{tools}'
    )


def plain_table(given: Table) -> str:
    """A table of plain values."""
    rows = [[_plain(value) for value in row] for row in given.rows]
    return f"<h3>{escape(given.title)}</h3>{table(given.title, [*map(str, given.columns)], rows, 'plain')}"


def _plain(value: Any) -> Cell:
    if isinstance(value, float):
        return Cell(escape(f"{value:.4g}".replace("-", "−")), value)
    return Cell(escape(str(value)), value if isinstance(value, int) else None)


def _head(column: str) -> str:
    if column.startswith("("):
        return f'<th scope="col"><span class="unseen">{escape(column.strip("()"))}</span></th>'
    return f'<th scope="col" aria-sort="none"><button type="button" class="sort">{escape(column)}</button></th>'


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f"<td>{cell}</td>"
    return (
        f"<td>{cell.html}</td>"
        if cell.value is None
        else f'<td data-value="{escape(str(cell.value))}">{cell.html}</td>'
    )
