"""All runs under a root: what there is, SQL over their metrics, and the removal of what nobody needs."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import metrics
from meta_icl.runs.config import CONFIG, parts_in
from meta_icl.runs.files import TEMPORARY, write_atomically
from meta_icl.runs.lock import Lock, Locked, holder
from meta_icl.runs.manifest import is_done
from meta_icl.runs.run import Run

QUERY_SECONDS = 60.0
QUERY_MEMORY = "2GB"
QUERY_ROWS = 1_000_000  # of an answer: a table, not a data set


def default_root() -> Path:
    """Where runs are kept: the folder named by META_ICL_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get("META_ICL_RUNS") or "runs")


@dataclass(frozen=True)
class RunInfo:
    """One line of the list of runs; `state` is that of `Run.state`, or "running" or "unreadable"."""

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
    return sorted((_info(folder) for folder in runs_in(Path(root))), key=lambda info: info.started or "", reverse=True)


def find_run(name: str | Path, root: str | Path) -> Run:
    """The run of a folder, or of a name (or its unambiguous beginning) under a root, for reading."""
    return Run.load(named_run(name, root))


def named_run(name: str | Path, root: str | Path) -> Path:
    """The folder of a run, whatever state it is in, found as `find_run` finds it."""
    if (Path(name) / CONFIG).is_file():
        return Path(name)
    names = [folder.name for folder in runs_in(Path(root))]
    matches = [known for known in names if known.startswith(str(name))]
    if str(name) in names or len(matches) == 1:
        return Path(root) / (str(name) if str(name) in names else matches[0])
    if matches:
        raise BadInput(f"run {str(name)!r} is ambiguous: {', '.join(matches)}")
    if not names:
        raise BadInput(f"there is no run {str(name)!r}: {root} holds no runs")
    return Path(root) / choose("run", str(name), names)


@dataclass(frozen=True)
class Table:
    """The answer to a query: column names and rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def query(sql: str, root: str | Path, *, seconds: float = QUERY_SECONDS) -> Table:
    """DuckDB SQL over the table `metrics`: every logged row of every run and part, with columns `run` and `part`.

    Rows of the run itself have an empty `part`; parts of parts are "OUTER/INNER". Also the table `runs` of `list_runs`.

    Raises `BadInput` for SQL that fails, or takes more than `seconds`, `QUERY_MEMORY` or `QUERY_ROWS`.
    """
    import duckdb

    root = Path(root)
    limits: dict[str, Any] = {"memory_limit": QUERY_MEMORY, "temp_directory": ""}
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(config=limits) as connection:
        clock = threading.Timer(seconds, connection.interrupt)
        clock.daemon = True
        try:
            # The files are read into tables first; after that the query itself may not touch the disk, nor the limits.
            _fill(connection, root, Path(folder))
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            clock.start()
            answer = connection.execute(sql)
            columns = tuple(column[0] for column in answer.description or ())
            rows = answer.fetchmany(QUERY_ROWS + 1)
        except duckdb.InterruptException:
            raise BadInput(f"the query took more than {seconds:g} seconds and was stopped") from None
        except duckdb.Error as error:
            raise BadInput(f"the query failed: {' '.join(str(error).split())}") from None
        finally:
            clock.cancel()
    require(len(rows) <= QUERY_ROWS, "rows of the answer", f"more than {QUERY_ROWS:,}", "fewer (say LIMIT)")
    return Table(columns, rows)


@dataclass(frozen=True)
class Removal:
    """A folder that `collect` removes, why, and how large it is."""

    folder: Path
    reason: str
    bytes: int


def collect(root: str | Path, *, unfinished: bool = False, delete: bool = False) -> list[Removal]:
    """Checkpoints of finished runs and, if asked for, whole `unfinished` runs that nobody works on.

    Nothing is removed unless `delete`; the list says what would be. What a link points at is never touched.
    """
    removals = []
    for run in runs_in(Path(root)):
        if run.is_symlink():
            continue
        if unfinished and not is_done(run) and not any(holder(f) is not None for f in nested(run)):
            removals += _removal(run, run, "unfinished, and no process works on it", delete)
            continue
        for folder in nested(run):
            place = folder / "checkpoints"
            if place.is_dir() and not place.is_symlink() and _is_finished(folder):
                removals += _removal(place, folder, "checkpoints of a finished run", delete)
    return removals


def _removal(target: Path, run: Path, reason: str, delete: bool) -> list[Removal]:
    removal = Removal(target, reason, _size(target))
    if delete:
        try:
            lock = Lock(run)
        except (Locked, OSError):  # in use, or what stands in the place of the lock is none
            return []
        try:
            inside = [folder for folder in nested(run) if folder != run] if target == run else []
            if any(holder(folder) is not None for folder in inside):  # a worker elsewhere has begun on a part
                return []
            # Out of the way first: whoever begins the run meanwhile makes a folder of its own.
            aside = target.with_name(f"{TEMPORARY}{target.name}")
            os.replace(target, aside)
            shutil.rmtree(aside)
        finally:
            lock.release()
    return [removal]


def _is_finished(folder: Path) -> bool:
    """Whether a run is finished beyond doubt: the checkpoints of a damaged one may be needed."""
    try:
        return Run.load(folder).done
    except BadInput:
        return False


def runs_in(root: Path) -> list[Path]:
    """The folders of the runs under a root."""
    return sorted(path.parent for path in root.glob(f"*/{CONFIG}"))


def nested(run: Path) -> Iterator[Path]:
    """A run folder and all its parts, at any depth."""
    yield run
    for path in parts_in(run).values():
        yield from nested(path)


def _info(folder: Path) -> RunInfo:
    parts = list(nested(folder))[1:]
    started = seconds = None
    try:
        run = Run.load(folder)
        state = run.state
        if not run.done and any(holder(one) is not None for one in (folder, *parts)):
            state = "running"
        provenance = run.provenance
        started = provenance["starts"][0]["started"]
        seconds = provenance["wall_seconds"]
    except (BadInput, KeyError, IndexError, TypeError):
        state = "unreadable"
    done = sum(is_done(part) for part in parts)
    return RunInfo(folder.name, folder, state, done, len(parts), started, seconds, _size(folder))


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, without what links point at; files may come and go meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _fill(connection: Any, root: Path, folder: Path) -> None:
    finished: list[Path] = []
    running: list[Path] = []
    rows: list[dict[str, Any]] = []
    origins: list[tuple[str, str, str]] = []
    for run in runs_in(root):
        for one in nested(run):
            part = "/".join(one.relative_to(run).parts[1::2])
            log = Run.load(one).log_file()
            if log is not None and log.name == metrics.LINES:
                # Copied, so that the process that writes it cannot be caught in the middle of a line.
                found = metrics.read_lines(log)
                copy = folder / f"{len(running)}.jsonl"
                write_atomically(copy, b"".join(metrics.line(row) for row in found))
                rows += found
                running.append(copy)
                origins.append((str(copy), run.name, part))
            elif log is not None:
                finished.append(log)
                origins.append((str(log), run.name, part))
    if not origins:
        raise BadInput(f"{root} holds no run that has logged metrics")
    connection.execute("CREATE TABLE origins (filename VARCHAR, run VARCHAR, part VARCHAR)")
    connection.executemany("INSERT INTO origins VALUES (?, ?, ?)", origins)
    sources = []
    if finished:
        files = ", ".join(f"'{metrics.quoted(metrics.exactly(path))}'" for path in finished)
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
