"""Files that are either the old or the new version, never half of one, and JSON in which NaN and infinity survive."""

import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput

FORMAT = 1  # of a run folder; raised when an older reader would misread it
TEMPORARY = ".tmp-"
SEAL = "checksum"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class CannotWrite(BadInput):
    """A file could not be written, as on a full disk; what was there before is unchanged."""

    def __init__(self, path: Path, error: OSError):
        super().__init__(f"cannot write {path}: {error.strerror or error}; what is saved stays as it was")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by temporary file, fsync and rename; `CannotWrite` if that fails, as on a full disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
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
    except OSError as error:
        raise CannotWrite(path, error) from None


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file; `OSError` for a folder, a pipe, a device or a socket, without waiting for it."""
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is not a regular file")
    return handle


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; `FileNotFoundError` or another `OSError` if there is none."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def remove(path: Path) -> None:
    """Remove a file, a link (not what it points at) or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
        return parse_json(read_regular(path), path)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error}); nothing was changed") from None


def parse_json(data: bytes, path: Path) -> Any:
    """The value that `write_json` wrote as these bytes; damage is a `BadInput` that names `path`."""
    try:
        text = data.decode()
        if "\\ud" in text.lower():  # halves of a character, which no file or terminal takes
            json.dumps(json.loads(text), ensure_ascii=False).encode()
        return restored(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON ({_first_line(error)}); nothing was changed") from None


def read_versioned(path: Path) -> dict[str, Any]:
    """Read a JSON object that states its format; another version than this one's is a `BadInput`."""
    return versioned(read_json(path), path)


def versioned(value: Any, path: Path) -> dict[str, Any]:
    """The value of a file, which must be a JSON object that states this format."""
    if not isinstance(value, dict) or "format" not in value:
        raise BadInput(f"{path} does not state its format: it was not written by meta_icl")
    if value["format"] != FORMAT:
        raise BadInput(f"{path} has format {value['format']!r}, this version of meta_icl reads format {FORMAT}")
    return value


def canonical(value: Any) -> str:
    """The one JSON text of a value, whatever the order of its keys."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a value, whatever the order of its keys."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of itself, so that a changed one is recognised."""
    return {**value, SEAL: digest(dict(value))}


def unsealed(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What `sealed` was given; `BadInput` if it was changed since."""
    content = {name: item for name, item in value.items() if name != SEAL}
    if value.get(SEAL) != digest(content):
        raise BadInput(f"{path} was changed since it was written (its checksum does not match); nothing was changed")
    return content


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
