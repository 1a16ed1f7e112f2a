"""All runs under a root: what there is, SQL over their metrics, and the removal of what nobody needs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput, choose
from meta_icl.runs import metrics
from meta_icl.runs.files import write_atomically
from meta_icl.runs.lock import Lock, Locked, holder
from meta_icl.runs.run import Run


def default_root() -> Path:
    """Where runs are kept: the folder named by META_ICL_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get("META_ICL_RUNS") or "runs")


@dataclass(frozen=True)
class RunInfo:
    """One line of the list of runs; `state` is "done", "running", "unfinished" or "unreadable"."""

    name: str
    folder: Path
    state: str
    parts_done: int
    parts: int
    started: str | None
    wall_seconds: float | None
    bytes: int


def list_runs(root: str | Path) -> list[RunInfo]:
    """All runs under a root, the newest first."""
    return sorted((_info(folder) for folder in _runs(Path(root))), key=lambda info: info.started or "", reverse=True)


def find_run(name: str | Path, root: str | Path) -> Run:
    """The run of a folder, or of a name (or its unambiguous beginning) under a root, for reading."""
    if (Path(name) / "config.json").is_file():
        return Run.load(name)
    names = [folder.name for folder in _runs(Path(root))]
    matches = [known for known in names if known.startswith(str(name))]
    if str(name) in names or len(matches) == 1:
        return Run.load(Path(root) / (str(name) if str(name) in names else matches[0]))
    if matches:
        raise BadInput(f"run {str(name)!r} is ambiguous: {', '.join(matches)}")
    if not names:
        raise BadInput(f"there is no run {str(name)!r}: {root} holds no runs")
    return Run.load(Path(root) / choose("run", str(name), names))


@dataclass(frozen=True)
class Table:
    """The answer to a query: column names and rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def query(sql: str, root: str | Path) -> Table:
    """DuckDB SQL over the table `metrics`: every logged row of every run and part, with columns `run` and `part`.

    Rows of the run itself have an empty `part`; parts of parts are "OUTER/INNER". Also the table `runs` of `list_runs`.
    """
    import duckdb

    root = Path(root)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        try:
            # The files are read into tables first; after that the query itself may not touch the disk.
            _fill(connection, root, Path(folder))
            connection.execute("SET enable_external_access = false")
            answer = connection.execute(sql)
            columns = tuple(column[0] for column in answer.description or ())
            return Table(columns, answer.fetchall())
        except duckdb.Error as error:
            raise BadInput(f"the query failed: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class Removal:
    """A folder that `collect` removes, why, and how large it is."""

    folder: Path
    reason: str
    bytes: int


def collect(root: str | Path, *, unfinished: bool = False, delete: bool = False) -> list[Removal]:
    """Checkpoints of finished runs and, if asked for, whole `unfinished` runs that nobody works on.

    Nothing is removed unless `delete`; the list says what would be.
    """
    removals = []
    for run in _runs(Path(root)):
        if unfinished and not (run / "DONE").exists() and not any(holder(f) is not None for f in _nested(run)):
            removals += _removal(run, run, "unfinished, and no process works on it", delete)
            continue
        for folder in _nested(run):
            if (folder / "DONE").exists() and (folder / "checkpoints").is_dir():
                removals += _removal(folder / "checkpoints", folder, "checkpoints of a finished run", delete)
    return removals


def _removal(target: Path, run: Path, reason: str, delete: bool) -> list[Removal]:
    removal = Removal(target, reason, _size(target))
    if delete:
        try:
            lock = Lock(run)
        except Locked:
            return []
        try:
            shutil.rmtree(target)
        finally:
            lock.release()
    return [removal]


def _runs(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/config.json"))


def _nested(run: Path) -> Iterator[Path]:
    """A run folder and all its parts, at any depth."""
    yield run
    for path in sorted((run / "parts").glob("*/config.json")):
        yield from _nested(path.parent)


def _info(folder: Path) -> RunInfo:
    nested = list(_nested(folder))[1:]
    started = seconds = None
    try:
        run = Run.load(folder)
        state = "done" if run.done else "unfinished"
        if not run.done and any(holder(one) is not None for one in (folder, *nested)):
            state = "running"
        provenance = run.provenance
        started = provenance["starts"][0]["started"]
        seconds = provenance["wall_seconds"]
    except (BadInput, KeyError, IndexError, TypeError):
        state = "unreadable"
    done = sum((part / "DONE").exists() for part in nested)
    return RunInfo(folder.name, folder, state, done, len(nested), started, seconds, _size(folder))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _fill(connection: Any, root: Path, folder: Path) -> None:
    finished: list[Path] = []
    running: list[Path] = []
    rows: list[dict[str, Any]] = []
    origins: list[tuple[str, str, str]] = []
    for run in _runs(root):
        for one in _nested(run):
            part = "/".join(one.relative_to(run).parts[1::2])
            if (one / metrics.LINES).exists():
                # Copied, so that the process that writes it cannot be caught in the middle of a line.
                found = metrics.read_lines(one / metrics.LINES)
                copy = folder / f"{len(running)}.jsonl"
                write_atomically(copy, b"".join(metrics.line(row) for row in found))
                rows += found
                running.append(copy)
                origins.append((str(copy), run.name, part))
            elif (one / metrics.PARQUET).exists():
                finished.append(one / metrics.PARQUET)
                origins.append((str(one / metrics.PARQUET), run.name, part))
    if not origins:
        raise BadInput(f"{root} holds no run that has logged metrics")
    connection.execute("CREATE TABLE origins (filename VARCHAR, run VARCHAR, part VARCHAR)")
    connection.executemany("INSERT INTO origins VALUES (?, ?, ?)", origins)
    sources = []
    if finished:
        files = ", ".join(f"'{metrics.quoted(path)}'" for path in finished)
        options = f"union_by_name = true, filename = true, {metrics.NO_PARTITIONS}"
        sources.append(f"SELECT * FROM read_parquet([{files}], {options})")
    if running:
        types = metrics.column_types(rows) or {"step": "BIGINT"}
        sources.append(f"SELECT * FROM {metrics.lines_as_table(running, types, filename=True)}")
    connection.execute(
        "CREATE TABLE metrics AS SELECT run, part, logged.* EXCLUDE (filename) "
        f"FROM ({' UNION ALL BY NAME '.join(sources)}) AS logged JOIN origins USING (filename)"
    )
    connection.execute(
        "CREATE TABLE runs (run VARCHAR, state VARCHAR, parts_done INT, parts INT, started VARCHAR, "
        "wall_seconds DOUBLE, bytes BIGINT)"
    )
    infos = [
        (info.name, info.state, info.parts_done, info.parts, info.started, info.wall_seconds, info.bytes)
        for info in list_runs(root)
    ]
    connection.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", infos)
