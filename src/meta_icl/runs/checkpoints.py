"""Checkpoints of a run: written whole or not at all, verified by checksum, the last two kept."""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.errors import BadInput
from meta_icl.runs.arrays import from_bytes, to_bytes
from meta_icl.runs.files import FORMAT, TEMPORARY, fsync_folder, read_versioned, write_atomically, write_json

KEEP = 2
STATE = "state.safetensors"
CHECKSUM = "checksum.json"


def save_checkpoint(folder: Path, step: int, arrays: Mapping[str, Any]) -> None:
    """Write `folder/step_XXXXXXXX` from a temporary folder by one rename, then drop all but the newest two."""
    data = to_bytes(arrays)
    folder.mkdir(exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    target = folder / f"step_{step:08d}"
    try:
        write_atomically(temporary / STATE, data)
        checksum = hashlib.sha256(data).hexdigest()
        write_json(temporary / CHECKSUM, {"format": FORMAT, "step": step, "sha256": checksum, "bytes": len(data)})
        os.chmod(temporary, 0o755)
        if target.exists():
            _remove(target)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(folder)
    for old in checkpoints(folder)[:-KEEP]:
        _remove(old)


def latest_checkpoint(folder: Path) -> tuple[int, dict[str, np.ndarray]] | None:
    """The newest checkpoint that verifies, or `None` if there is none.

    A damaged one is passed over with a warning; if all are damaged it is a `BadInput`, so that work is not redone (or
    overwritten) without a decision.
    """
    problems: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            found = _read(path)
        except BadInput as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{'; '.join(problems)}; going on from {path.name}", stacklevel=2)
        return found
    if problems:
        raise BadInput(f"{'; '.join(problems)}; no checkpoint is left: remove {folder} to start again")
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))


def _read(path: Path) -> tuple[int, dict[str, np.ndarray]]:
    stated = read_versioned(path / CHECKSUM)
    state = path / STATE
    try:
        data = state.read_bytes()
        if hashlib.sha256(data).hexdigest() != stated.get("sha256"):
            raise ValueError("its checksum does not match")
        return int(stated["step"]), from_bytes(data)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"checkpoint {state} is damaged ({error})") from None


def _remove(path: Path) -> None:
    """Remove a checkpoint; renamed first, so that a kill in between leaves no half of one."""
    doomed = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    os.rename(path, doomed / path.name)
    shutil.rmtree(doomed, ignore_errors=True)
