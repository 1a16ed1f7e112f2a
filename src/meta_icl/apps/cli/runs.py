"""`meta-icl runs`: list, show, query, verify and clean up."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from meta_icl.apps.cli import tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.which import find_run, folder_of
from meta_icl.errors import BadInput, choose
from meta_icl.runs import collect, default_root, list_runs, query, verify
from meta_icl.runs.claims_json import claims_to_json
from meta_icl.runs.query import runs_in
from meta_icl.runs.verify import OLDER

EXAMPLES = (
    "list",
    "show last",
    'query "SELECT run, part, max(step), min(loss) FROM metrics GROUP BY ALL"',
    "verify  # every file of all runs against what they were finished with",
    "gc  # what could be removed: checkpoints of finished runs",
    "gc --unfinished --delete",
)
ACTIONS = ("list", "show", "query", "verify", "gc")


@dataclass(frozen=True)
class Options:
    """The runs: `list` all, `show RUN`, `query SQL` over the tables `metrics` and `runs`, `verify [RUN ...]` that
    nothing is missing, added, exchanged or changed (exit status 1 if so), `gc` what nobody needs."""

    action: tyro.conf.Positional[str] = "list"
    """One of list, show, query, verify, gc."""
    what: tyro.conf.Positional[tuple[str, ...]] = ()
    """The run to show or the runs to verify (folder, name or the beginning of it, or last; default: all), or the
    SQL."""
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
    if needed and len(options.what) != 1:
        raise BadInput(f"runs {action} needs {needed}")
    if options.what and not needed and action != "verify":
        raise BadInput(f"runs {action} takes no {options.what[0]!r}")
    if action == "verify":
        return _verify(options)
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
    run = find_run(options.what[0], options.root)
    parts = {name: part.state for name, part in run.parts().items()}
    claims = run.load_claims()
    provenance = run.provenance
    if options.json:
        told = {
            "folder": run.folder,
            "state": run.state,
            "config": run.config,
            "provenance": provenance,
            "parts": parts,
        }
        print_json(told | {"claims": claims_to_json(claims)["claims"]})
        return
    say(f"{run.folder}: {run.state}, {_duration(provenance['wall_seconds'])}")
    print_json({"config": run.config, **{name: provenance[name] for name in ("code", "devices")}})
    if parts:
        tables.show(tables.plain_table(("part", "state"), list(parts.items())))
    if claims:
        tables.show(tables.claim_table("Claims", claims))


def _verify(options: Options) -> int:
    folders = [folder_of(name, options.root) for name in options.what] or runs_in(options.root)
    findings = verify(folders)
    wrong = [finding for finding in findings if finding.kind != OLDER]
    if options.json:
        print_json({"runs": folders, "findings": findings})
        return 1 if wrong else 0
    if findings:
        rows = [(finding.run, finding.part, finding.file, finding.text) for finding in findings]
        tables.show(tables.plain_table(("run", "part", "file", "what"), rows))
    older = len({finding.run for finding in findings} - {finding.run for finding in wrong})
    also = f", {older} of an older format, which is not verifiable" if older else ""
    state = f"{len(wrong)} files or parts are not as they were left" if wrong else "all is as it was left"
    tables.show_text(f"{tables.counted(len(folders), 'run')}: {state}{also}")
    return 1 if wrong else 0


def _query(options: Options) -> None:
    table = query(options.what[0], options.root)
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
