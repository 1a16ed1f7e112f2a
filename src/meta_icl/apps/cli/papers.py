"""`meta-icl papers [NAME]`: what can be reproduced, how long it takes, and how it went last."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from meta_icl.apps.cli import listing, tables
from meta_icl.apps.cli.options import parse, print_json
from meta_icl.runs.claims import VERDICTS

EXAMPLES = ("", "rossi2024", "rossi2024 --json")


@dataclass(frozen=True)
class Options:
    """The papers with the time that the preset `small` takes and the verdicts of the last kept run; of one paper all
    presets, and all claims with their verdicts.
    """

    paper: tyro.conf.Positional[str] = ""
    """Name of a paper, its beginning, or a word of its topic and the year (default: all papers)."""
    results: Path = Path("results")
    """Folder of kept results; where there is none, those that came with this installation are told."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Print the table of papers, or what is known of one."""
    options = parse(Options, arguments, command="papers", examples=EXAMPLES)
    kept = listing.kept(options.results)
    if options.paper:
        name = listing.find_paper(options.paper)
        (paper,) = [one for one in listing.papers() if one.name == name]
        _tell(
            paper, {run: told for run, told in kept.items() if run == name or run.startswith(f"{name}-")}, options.json
        )
        return 0
    rows = []
    for paper in listing.papers():
        claims = kept.get(paper.name, {"claims": []})["claims"]
        verdicts = Counter(verdict for _, verdict, _ in claims)
        rows.append(
            {
                "paper": paper.name,
                "title": paper.title,
                "times": paper.times,
                "claims": len(claims),
                "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]}
                if claims
                else None,
            }
        )
    if options.json:
        print_json(rows)
    else:
        _show(rows)
    return 0


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    cells = []
    for row in rows:
        verdicts = row["verdicts"]
        of = verdicts or {}
        counts = [
            row["claims"],
            of.get("holds", 0),
            of.get("fails", 0),
            of.get("not decided", 0) + of.get("not converged", 0),
        ]
        cells.append((row["paper"], row["times"].get("small"), *(counts if verdicts else [None] * len(counts))))
    tables.show(tables.plain_table(("paper", "small", "claims", "hold", "fail", "open"), cells, whole=True))
    lacking = [row["paper"] for row in rows if not row["verdicts"]]
    if lacking:
        tables.show_text(f"no kept results: {', '.join(lacking)}")
    tables.show_text(
        "small: time of the default preset on two cores, ~ where estimated; open: not decided by the kept run, or not "
        "converged. `meta-icl papers NAME` shows the claims of a paper and its other presets."
    )


def _tell(paper: listing.Listed, kept: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """One paper: its title, the times of its presets, and every kept run with its claims."""
    if as_json:
        runs = {
            run: {**told, "claims": [dict(zip(("id", "verdict", "statement"), c, strict=True)) for c in told["claims"]]}
            for run, told in kept.items()
        }
        print_json({"paper": paper.name, "title": paper.title, "times": paper.times, "kept": runs})
        return
    tables.show_text(f"{paper.name}\n{paper.title}\n")
    tables.show(tables.plain_table(("preset", "time"), list(paper.times.items())))
    if not kept:
        tables.show_text("\nno kept results")
    for run, told in kept.items():
        preset = run.removeprefix(paper.name).removeprefix("-") or "small"
        commit = f", commit {told['commit'][:10]}" if told["commit"] else ""
        took = f", {told['seconds'] / 60:.0f} min" if told["seconds"] else ""
        rows = [[id.rpartition("/")[2], verdict, statement] for id, verdict, statement in told["claims"]]
        print()
        title = f"the last kept run, preset {preset}{took}{commit}"
        tables.show(tables.verdict_table(title, ("id", "verdict", "claim"), rows))
    tables.show_text(f"\nmeta-icl reproduce {paper.name.split('_')[0]}")
