"""Files in the cache folder: arrays with a checksum of their own, written atomically; nothing is ever unpickled."""

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CHECKSUM = "sha256"


def cache_folder() -> Path:
    """Where data sets are kept: $META_ICL_DATA, else meta_icl in the user's cache folder."""
    chosen = os.environ.get("META_ICL_DATA")
    return Path(chosen) if chosen else user_cache()


def user_cache() -> Path:
    """The folder of this package among the user's caches; of somebody without a home, among temporary files."""
    try:
        place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"meta_icl-{os.getuid()}"
    return place / "meta_icl"


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file by temporary file, fsync and rename, so that it is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep named arrays in an npz file with the checksum of their names, types, shapes and bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in {**arrays, CHECKSUM: np.frombuffer(digest(arrays), np.uint8)}.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def kept_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays that `keep_arrays` kept, or nothing if the file is missing, damaged or another's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    stated = arrays.pop(CHECKSUM, None)
    return arrays if stated is not None and stated.tobytes() == digest(arrays) else None


def digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of named arrays, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape};".encode())
        total.update(array.tobytes())
    return total.digest()
