"""Tables that several commands print."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from meta_icl.runs import Claim

STYLES = {"holds": "green", "fails": "red", "not decided": "yellow"}


def claim_table(title: str, claims: Sequence[Claim]) -> Table:
    """Claims with what was expected and measured; one line per check."""
    table = Table("id", "claim", "expected", "measured", "verdict", title=title, show_lines=True)
    for claim in claims:
        reason = claim.undecided or claim.note
        statement = Text(claim.statement)
        if reason:
            statement.append(f"\n{reason}", style="dim")
        table.add_row(
            Text(claim.id),
            statement,
            Text("\n".join(f"{check.quantity}: {check.expected}" for check in claim.checks)),
            Text("\n".join(check.measured_text for check in claim.checks)),
            Text(claim.verdict, style=STYLES[claim.verdict]),
        )
    return table


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Table:
    """Rows as text; numbers with six significant digits, missing values as "-"."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> Text:
    if value is None:
        return Text("-")
    return value if isinstance(value, Text) else Text(f"{value:.6g}" if isinstance(value, float) else str(value))
