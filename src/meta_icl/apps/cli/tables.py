"""Tables that several commands print."""

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from meta_icl.runs import Claim

STYLES = {"holds": "green", "fails": "red", "not decided": "yellow"}


def claim_table(title: str, claims: Sequence[Claim]) -> Table:
    """Claims with one line per check: what was expected, and the median over seeds with its spread."""
    table = Table("id", "claim", "quantity", "expected", "measured", "", "verdict", title=title)
    table.columns[0].no_wrap = table.columns[6].no_wrap = True
    for claim in claims:
        statement = Text(claim.statement)
        for remark in (claim.undecided, claim.note):
            if remark:
                statement.append(f"\n{remark}", style="dim")
        head = [Text(claim.id), statement, Text(claim.verdict, style=STYLES[claim.verdict])]
        for check in claim.checks or [None]:
            cells = [Text()] * 4
            if check is not None:
                mark = Text("✓", style="green") if check.holds else Text("✗", style="red")
                cells = [Text(check.quantity), Text(check.expected), Text(check.measured_text), mark]
            table.add_row(*head[:2], *cells, head[2])
            head = [Text()] * 3
        table.add_section()
    return table


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Table:
    """Rows as text; numbers with six significant digits, NaN as such, missing values as "-"."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> Text:
    if value is None:
        return Text("-")
    if isinstance(value, float):
        return Text("NaN" if math.isnan(value) else f"{value:.6g}")
    return value if isinstance(value, Text) else Text(str(value))
