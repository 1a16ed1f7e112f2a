"""`meta-icl papers`: what can be reproduced, and how it went last."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meta_icl.apps.cli import listing, tables
from meta_icl.apps.cli.options import console, parse, print_json
from meta_icl.runs.claims import VERDICTS

EXAMPLES = ("", "--json", "--results results")


@dataclass(frozen=True)
class Options:
    """The papers with the times of their presets and the verdicts of the last kept results."""

    results: Path = Path("results")
    """Folder of kept results, PAPER/claims.json."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Print the table of papers."""
    options = parse(Options, arguments, command="papers", examples=EXAMPLES)
    rows = []
    for paper in listing.papers():
        kept = listing.results(options.results, paper.name)
        claims = kept["claims"] if kept is not None else []
        verdicts = Counter(claim["verdict"] for claim in claims)
        rows.append(
            {
                "paper": paper.name,
                "title": paper.title,
                "times": paper.times,
                "claims": len(claims),
                "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS} if claims else None,
            }
        )
    if options.json:
        print_json(rows)
        return 0
    cells = []
    for row in rows:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in (row["verdicts"] or {}).items() if count)
        times = "\n".join(f"{preset}: {time}" for preset, time in row["times"].items())
        cells.append((row["paper"], row["title"], times, row["claims"] or None, verdicts or "no kept results"))
    columns = ("paper", "title", "time per preset", "claims", "last verdicts")
    console().print(tables.plain_table(columns, cells))
    return 0
