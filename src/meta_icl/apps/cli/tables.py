"""Tables that several commands print."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from meta_icl.runs import Claim

STYLES = {"holds": "green", "fails": "red", "not decided": "yellow", "not converged": "magenta"}
MARKS = {"holds": "✓", "fails": "✗", "not converged": "○"}


def claim_table(title: str, claims: Sequence[Claim]) -> Table:
    """Claims with one line per check: what was expected, and the median over seeds with its spread."""
    table = Table("id", "claim", "quantity", "expected", "measured", "", "verdict", title=title)
    table.columns[0].no_wrap = table.columns[6].no_wrap = True
    for claim in claims:
        statement = Text(claim.statement)
        for heading, remark in claim.remarks.items():
            statement.append(f"\n{'Revised: ' if heading == 'Revised' else ''}{remark}", style="dim")
        head = [Text(claim.id), statement, Text(claim.verdict, style=STYLES[claim.verdict])]
        for check in claim.checks or [None]:
            cells = [Text()] * 4
            if check is not None:
                mark = Text(MARKS[check.verdict], style=STYLES[check.verdict])
                cells = [Text(check.quantity), Text(check.expected), Text(check.measured_text), mark]
            table.add_row(*head[:2], *cells, head[2])
            head = [Text()] * 3
        table.add_section()
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
