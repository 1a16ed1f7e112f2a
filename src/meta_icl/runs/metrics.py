"""The rows that a run logs: JSON lines while it runs, Parquet once it is finished."""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput, require
from meta_icl.runs.checkpoints import newest_about
from meta_icl.runs.files import (
    TEMPORARY,
    CannotWrite,
    open_regular,
    plain,
    read_regular,
    restored,
    write_atomically,
)
from meta_icl.runs.lock import holder
from meta_icl.runs.manifest import Manifest, read_file

RESERVED = ("run", "part", "filename")  # columns that queries over all runs add
LINES = "metrics.jsonl"
PARQUET = "metrics.parquet"
# A part may be named "K=2", which DuckDB would otherwise take for a column K of a partitioned table.
NO_PARTITIONS = "hive_partitioning = false"

Row = dict[str, Any]


class MetricsLog:
    """Appends rows to `folder/metrics.jsonl`; a last line torn by a kill is cut off when the log is opened.

    A row is written whole or not at all (`CannotWrite`, as on a full disk). `mark` states what has been logged, for a
    checkpoint; going back to a mark drops exactly what was logged since.
    """

    def __init__(self, folder: Path):
        self._path = folder / LINES
        if not os.path.lexists(self._path) and os.path.lexists(folder / PARQUET):  # finished once, but no longer
            write_atomically(self._path, b"".join(line(row) for row in read_parquet(folder / PARQUET)))
        try:
            self._handle = open_regular(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)
            data = read_regular(self._path)
        except OSError as error:
            raise CannotWrite(self._path, error) from None
        self._kinds: dict[str, tuple[str, str]] = {}  # a name, whatever its case: as it was logged, and its type
        self._earlier = len(data)  # bytes that other starts have logged
        self._keep(data[: data.rfind(b"\n") + 1], len(data))

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row of numbers, strings, booleans or flat lists of numbers."""
        for name, value in row.items():
            require(name not in RESERVED, "metric name", name, f"none of {', '.join(RESERVED)}")
            require(name != "", "metric name", name, "not empty")
            _type_of(name, plain(value))
        self._require_alike(row)
        data = line(row)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._handle, data[written:])
        except OSError as error:
            os.ftruncate(self._handle, self._size)
            raise CannotWrite(self._path, error) from None
        self._size += len(data)
        self._hash.update(data)

    def _require_alike(self, row: Mapping[str, Any]) -> None:
        """Rows become a table, whose columns have one type each and names that differ not in case alone."""
        kinds = dict(self._kinds)
        for name, value in row.items():
            kind = _type_of(name, restored(plain(value)))
            if kind is None:
                continue
            known, before = kinds.get(name.lower(), (name, kind))
            require(known == name, "metric name", name, f"other than {known!r} in more than its case")
            both = widest(before, kind)
            if both == "VARCHAR" != before or both == "VARCHAR" != kind:
                raise BadInput(f"metric {name!r} must stay of one kind, got {value!r} after values of type {before}")
            kinds[name.lower()] = name, both
        self._kinds = kinds

    def sync(self) -> None:
        """Make the rows durable: a checkpoint must never be newer than the rows it implies."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise CannotWrite(self._path, error) from None

    def mark(self) -> dict[str, Any]:
        """How many bytes have been logged, and their SHA-256."""
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def verify(self, mark: Mapping[str, Any]) -> None:
        """`BadInput` if what was logged before a `mark` is not there any more."""
        marked(self._path, mark)

    def back_to(self, mark: Mapping[str, Any]) -> None:
        """Drop what was logged since a `mark`; `BadInput` if what was logged before is not there any more."""
        self._keep(marked(self._path, mark), self._size)

    def rewind(self, step: int) -> None:
        """Drop all rows of steps after `step`, atomically; rows without a step stay."""
        rows = read_lines(self._path)
        kept = [row for row in rows if row.get("step", step) <= step]
        if len(kept) < len(rows):
            self._replace(b"".join(line(row) for row in kept))

    def drop_earlier(self) -> None:
        """Drop what other starts have logged, atomically."""
        if self._earlier:
            self._replace(read_regular(self._path)[self._earlier :])
        self._earlier = 0

    def close(self) -> None:
        os.close(self._handle)

    def _replace(self, data: bytes) -> None:
        write_atomically(self._path, data)
        self.close()
        self._handle = open_regular(self._path, os.O_RDWR | os.O_APPEND)
        self._keep(data, len(data))

    def _keep(self, data: bytes, size: int) -> None:
        """Go on after `data`, the beginning of the file's `size` bytes."""
        if len(data) < size:
            os.ftruncate(self._handle, len(data))
        self._size, self._hash, self._kinds = len(data), hashlib.sha256(data), {}
        for text in data.split(b"\n"):
            with suppress(ValueError, RecursionError, BadInput):  # damage is told by whoever reads the rows
                self._require_alike(restored(json.loads(text)))
        self._earlier = min(self._earlier, self._size)


def marked(path: Path, mark: Mapping[str, Any]) -> bytes:
    """What a log held at a mark; `BadInput` if that was changed since."""
    try:
        data = read_regular(path)[: mark["bytes"]]
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != mark["sha256"]:
        raise BadInput(
            f"{path} does not begin with the rows that the newest checkpoint was saved after: restore it, or remove it "
            "and the checkpoints beside it to start again"
        )
    return data


def read_lines(path: Path) -> list[Row]:
    """All whole rows of a log; a last line without its end is dropped, any other damage is a `BadInput`."""
    rows = []
    try:
        data = read_regular(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from None
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise BadInput(f"{path} is damaged in line {number}; nothing was changed")
        rows.append(restored(row))
    return rows


def read_metrics(folder: Path, manifest: Manifest | None = None) -> list[Row]:
    """All rows of a run in the order logged; of a finished one those of its Parquet file, as its manifest states it.

    Entries that are missing stay missing.
    """
    path = log_of(folder, manifest)
    if path is None:
        return []
    return read_lines(path) if path.name == LINES else read_parquet(path)


def log_of(folder: Path, manifest: Manifest | None = None) -> Path | None:
    """The file that holds the rows of a run, verified where something says what it was; nothing if there is none."""
    if manifest is not None:
        if PARQUET not in manifest.files:
            return None
        read_file(folder, PARQUET, manifest)
        return folder / PARQUET
    if not os.path.lexists(folder / LINES):
        return folder / PARQUET if os.path.lexists(folder / PARQUET) else None
    about = newest_about(folder / "checkpoints")
    if about is not None and holder(folder) is None:  # who works on it has compared it, and may be going back to it
        marked(folder / LINES, about["rows"])
    return folder / LINES


def read_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file; entries that are missing stay missing."""
    import duckdb

    try:
        read_regular(path)  # DuckDB waits for a pipe
        with duckdb.connect() as connection:
            relation = connection.execute(f"SELECT * FROM read_parquet(?, {NO_PARTITIONS})", [exactly(path)])
            names = [column[0] for column in relation.description]
            rows = relation.fetchall()
    except (duckdb.Error, OSError) as error:
        raise BadInput(f"{path} cannot be read as Parquet ({(str(error).splitlines() or [''])[0]})") from None
    return [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in rows]


def exactly(path: Path) -> str:
    """A path for DuckDB, which takes `*`, `?` and `[` in it for patterns that match other files too."""
    return glob.escape(str(path))


def last_row(folder: Path) -> Row | None:
    """The newest whole row of a running log, read from its end only."""
    path = folder / LINES
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16384))
            lines = file.read().split(b"\n")[:-1]
        return restored(json.loads(lines[-1])) if lines else None
    except (OSError, ValueError, RecursionError):
        return None


def compact(folder: Path) -> None:
    """Write `metrics.parquet` from `metrics.jsonl`; the caller removes the latter once the run is `DONE`."""
    rows = read_lines(folder / LINES)
    if not rows:
        return
    import duckdb

    temporary = folder / f"{TEMPORARY}metrics.parquet"
    try:
        with duckdb.connect() as connection:
            # No threads: the order of rows is the order logged.
            connection.execute("SET threads = 1")
            source = lines_as_table([folder / LINES], column_types(rows))
            connection.execute(f"COPY (SELECT * FROM {source}) TO '{quoted(temporary)}' (FORMAT parquet)")
        write_atomically(folder / PARQUET, temporary.read_bytes())
    except duckdb.IOException as error:
        raise CannotWrite(folder / PARQUET, OSError(str(error).splitlines()[0])) from None
    finally:
        temporary.unlink(missing_ok=True)


def lines_as_table(paths: Iterable[Path], types: Mapping[str, str], *, filename: bool = False) -> str:
    """The SQL table function that reads logs with the given columns (missing entries are NULL, "NaN" is NaN)."""
    files = ", ".join(f"'{quoted(exactly(path))}'" for path in paths)
    columns = ", ".join(f"\"{quoted(name, chr(34))}\": '{kind}'" for name, kind in types.items())
    extra = ", filename = true" if filename else ""
    return f"read_json([{files}], format = 'newline_delimited', columns = {{{columns}}}, {NO_PARTITIONS}{extra})"


def column_types(rows: Iterable[Row]) -> dict[str, str]:
    """The narrowest SQL type that holds every value of a column."""
    types: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            kind = _type_of(name, value)
            if kind is not None:
                types[name] = widest(types.get(name, kind), kind)
    return types


def widest(a: str, b: str) -> str:
    """The SQL type that holds the values of both types."""
    if a == b:
        return a
    pair = {a, b}
    if pair <= {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    if pair <= {"BIGINT[]", "DOUBLE[]"}:
        return "DOUBLE[]"
    return "VARCHAR"


def quoted(text: object, mark: str = "'") -> str:
    """Text for the inside of an SQL literal."""
    return str(text).replace(mark, mark * 2)


def _type_of(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int):
        return "BIGINT" if -(2**63) <= value < 2**63 else "DOUBLE"
    if isinstance(value, float):
        return "DOUBLE"
    if isinstance(value, str):
        return "VARCHAR"
    if isinstance(value, list):
        kinds = {_type_of(name, restored(item)) for item in value}
        if kinds <= {"BIGINT", "DOUBLE"}:
            return "BIGINT[]" if kinds == {"BIGINT"} else "DOUBLE[]"
    raise BadInput(f"metric {name!r} must be a number, a string, a boolean or a flat list of numbers, got {value!r}")


def line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(plain(dict(row)), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
