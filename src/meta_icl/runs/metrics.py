"""The rows that a run logs: JSON lines while it runs, Parquet once it is finished."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput, require
from meta_icl.runs.files import plain, restored, write_atomically

RESERVED = ("run", "part", "filename")  # columns that queries over all runs add
LINES = "metrics.jsonl"
PARQUET = "metrics.parquet"
# A part may be named "K=2", which DuckDB would otherwise take for a column K of a partitioned table.
NO_PARTITIONS = "hive_partitioning = false"

Row = dict[str, Any]


class MetricsLog:
    """Appends rows to `folder/metrics.jsonl`; a last line torn by a kill is cut off when the log is opened."""

    def __init__(self, folder: Path):
        self._path = folder / LINES
        self._cut_torn_line()
        self._file = open(self._path, "ab")  # noqa: SIM115  held open

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row of numbers, strings, booleans or flat lists of numbers, and flush it."""
        for name, value in row.items():
            require(name not in RESERVED, "metric name", name, f"none of {', '.join(RESERVED)}")
            _type_of(name, plain(value))
        self._file.write(line(row))
        self._file.flush()

    def sync(self) -> None:
        """Make the rows durable: a checkpoint must never be newer than the rows it implies."""
        os.fsync(self._file.fileno())

    def rewind(self, step: int) -> None:
        """Drop all rows of steps after `step`, atomically; rows without a step stay."""
        rows = read_lines(self._path)
        kept = [row for row in rows if row.get("step", step) <= step]
        if len(kept) < len(rows):
            self._file.close()
            write_atomically(self._path, b"".join(line(row) for row in kept))
            self._file = open(self._path, "ab")  # noqa: SIM115

    def close(self) -> None:
        self._file.close()

    def _cut_torn_line(self) -> None:
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            write_atomically(self._path, whole)


def read_lines(path: Path) -> list[Row]:
    """All whole rows of a log; a last line without its end is dropped, any other damage is a `BadInput`."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise BadInput(f"{path} is damaged in line {number}; nothing was changed")
        rows.append(restored(row))
    return rows


def read_metrics(folder: Path) -> list[Row]:
    """All rows of a run in the order logged, from Parquet if it is finished; entries that are missing stay missing."""
    if (folder / LINES).exists():
        return read_lines(folder / LINES)
    path = folder / PARQUET
    if not path.exists():
        return []
    import duckdb

    try:
        with duckdb.connect() as connection:
            relation = connection.execute(f"SELECT * FROM read_parquet(?, {NO_PARTITIONS})", [str(path)])
            names = [column[0] for column in relation.description]
            rows = relation.fetchall()
    except duckdb.Error as error:
        raise BadInput(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    return [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in rows]


def last_row(folder: Path) -> Row | None:
    """The newest whole row of a running log, read from its end only."""
    path = folder / LINES
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16384))
            lines = file.read().split(b"\n")[:-1]
        return restored(json.loads(lines[-1])) if lines else None
    except (OSError, ValueError):
        return None


def compact(folder: Path) -> None:
    """Write `metrics.parquet` from `metrics.jsonl`; the caller removes the latter once the run is `DONE`."""
    rows = read_lines(folder / LINES)
    if not rows:
        return
    import duckdb

    temporary = folder / ".tmp-metrics.parquet"
    with duckdb.connect() as connection:
        # No threads: the order of rows is the order logged.
        connection.execute("SET threads = 1")
        source = lines_as_table([folder / LINES], column_types(rows))
        connection.execute(f"COPY (SELECT * FROM {source}) TO '{quoted(temporary)}' (FORMAT parquet)")
    write_atomically(folder / PARQUET, temporary.read_bytes())
    temporary.unlink()


def lines_as_table(paths: Iterable[Path], types: Mapping[str, str], *, filename: bool = False) -> str:
    """The SQL table function that reads logs with the given columns (missing entries are NULL, "NaN" is NaN)."""
    files = ", ".join(f"'{quoted(path)}'" for path in paths)
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
