"""Files that are either the old or the new version, never half of one, and JSON in which NaN and infinity survive."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput

FORMAT = 1  # of a run folder; raised when an older reader would misread it
TEMPORARY = ".tmp-"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by temporary file, fsync and rename; `BadInput` if its folder cannot be made or written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(value: Any) -> Any:
    """The JSON form of dataclasses, paths, tuples, numpy numbers and arrays; numbers that are not finite as strings.

    JSON has no NaN and no infinity, so they are written as the strings "NaN", "Infinity" and "-Infinity", which
    `restored` (and DuckDB's cast to DOUBLE) turns back into numbers.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _name(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    tolist = getattr(value, "tolist", None)  # numpy and jax, without importing either
    if tolist is not None:
        return plain(tolist())
    raise BadInput(f"cannot write a {type(value).__name__} as JSON: {value!r}")


def restored(value: Any) -> Any:
    """The inverse of `plain` for numbers that are not finite."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, list):
        return [restored(item) for item in value]
    if isinstance(value, dict):
        return {key: restored(item) for key, item in value.items()}
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, atomically."""
    write_atomically(path, (json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; a missing or damaged file is a `BadInput` that names it."""
    try:
        return restored(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise BadInput(f"{path} cannot be read as JSON ({_first_line(error)}); nothing was changed") from None


def read_versioned(path: Path) -> dict[str, Any]:
    """Read a JSON object that states its format; another version than this one's is a `BadInput`."""
    value = read_json(path)
    if not isinstance(value, dict) or "format" not in value:
        raise BadInput(f"{path} does not state its format: it was not written by meta_icl")
    if value["format"] != FORMAT:
        raise BadInput(f"{path} has format {value['format']!r}, this version of meta_icl reads format {FORMAT}")
    return value


def canonical(value: Any) -> str:
    """The one JSON text of a value, whatever the order of its keys."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
