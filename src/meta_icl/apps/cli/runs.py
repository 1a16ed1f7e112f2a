"""`meta-icl runs`: list, show, query and clean up."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from meta_icl.apps.cli import tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.which import find_run
from meta_icl.errors import BadInput, choose
from meta_icl.runs import collect, default_root, list_runs, query
from meta_icl.runs.claims import claims_to_json

EXAMPLES = (
    "list",
    "show last",
    'query "SELECT run, part, max(step), min(loss) FROM metrics GROUP BY ALL"',
    "gc                    (what could be removed: checkpoints of finished runs)",
    "gc --unfinished --delete",
)
ACTIONS = ("list", "show", "query", "gc")


@dataclass(frozen=True)
class Options:
    """The runs: `list` all, `show RUN`, `query SQL` over the tables `metrics` and `runs`, `gc` what nobody needs."""

    action: tyro.conf.Positional[str] = "list"
    """One of list, show, query, gc."""
    what: tyro.conf.Positional[str] = ""
    """The run to show (its folder, name or the beginning of it, or last), or the SQL."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    unfinished: bool = False
    """gc: also remove unfinished runs that no process works on."""
    delete: bool = False
    """gc: really remove, instead of only saying what would be."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="runs", examples=EXAMPLES)
    action = choose("action", options.action, ACTIONS)
    needed = {"show": "the name of a run", "query": "an SQL text"}.get(action)
    if bool(needed) != bool(options.what):
        raise BadInput(f"runs {action} needs {needed}" if needed else f"runs {action} takes no {options.what!r}")
    {"list": _list, "show": _show, "query": _query, "gc": _gc}[action](options)
    return 0


def _list(options: Options) -> None:
    infos = list_runs(options.root)
    if options.json:
        print_json(infos)
        return
    rows = [
        (i.name, i.state, f"{i.parts_done}/{i.parts}", _minute(i.started), _duration(i.wall_seconds), _size(i.bytes))
        for i in infos
    ]
    columns = ("run", "state", "parts", "started (UTC)", "time", "size")
    if rows:
        tables.show(tables.plain_table(columns, rows, whole=True))
    else:
        say(f"no runs in {options.root}")


def _show(options: Options) -> None:
    run = find_run(options.what, options.root)
    parts = {name: part.done for name, part in run.parts().items()}
    claims = run.load_claims()
    provenance = run.provenance
    if options.json:
        told = {"folder": run.folder, "done": run.done, "config": run.config, "provenance": provenance, "parts": parts}
        print_json(told | {"claims": claims_to_json(claims)["claims"]})
        return
    state = "done" if run.done else "unfinished"
    say(f"{run.folder}: {state}, {_duration(provenance['wall_seconds'])}")
    print_json({"config": run.config, **{name: provenance[name] for name in ("code", "devices")}})
    if parts:
        tables.show(
            tables.plain_table(("part", "state"), [(n, "done" if d else "unfinished") for n, d in parts.items()])
        )
    if claims:
        tables.show(tables.claim_table("Claims", claims))


def _query(options: Options) -> None:
    table = query(options.what, options.root)
    if options.json:
        print_json([dict(zip(table.columns, row, strict=True)) for row in table.rows])
    else:
        tables.show(tables.plain_table(table.columns, table.rows))


def _gc(options: Options) -> None:
    removals = collect(options.root, unfinished=options.unfinished, delete=options.delete)
    if options.json:
        print_json({"removed": options.delete, "folders": removals})
        return
    if removals:
        rows = [(removal.folder, removal.reason, _size(removal.bytes)) for removal in removals]
        tables.show(tables.plain_table(("folder", "why", "size"), rows))
    verb = "removed" if options.delete else "could be removed (add --delete)"
    print(f"{len(removals)} folders, {_size(sum(removal.bytes for removal in removals))}: {verb}")


def _minute(started: str | None) -> str | None:
    """A time of the format of provenance, to the minute."""
    return None if started is None else started[:16].replace("T", " ")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e3:.0f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:.1f} MB"
