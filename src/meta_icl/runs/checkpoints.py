"""Checkpoints of a run: written whole or not at all, verified by checksum, the last two kept."""

import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from meta_icl.errors import BadInput
from meta_icl.runs.arrays import from_bytes, to_bytes
from meta_icl.runs.config import place_of
from meta_icl.runs.files import (
    FORMAT,
    TEMPORARY,
    CannotWrite,
    digest,
    fsync_folder,
    read_regular,
    read_versioned,
    sealed,
    unsealed,
    write_atomically,
    write_json,
)
from meta_icl.runs.manifest import require_place

KEEP = 2
STATE = "state.safetensors"
CHECKSUM = "checksum.json"
OLDER = {"format", "step", "sha256", "bytes"}  # what a checksum held before checkpoints said what they belong to


class Checkpoint(NamedTuple):
    """The state after `step` steps and what it was saved with; `about` is nothing if an older version wrote it."""

    path: Path
    step: int
    arrays: dict[str, np.ndarray]
    about: dict[str, Any] | None


def save_checkpoint(folder: Path, step: int, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write `folder/step_XXXXXXXX` from a temporary folder by one rename, then drop all but the newest two."""
    data = to_bytes(arrays)
    target = folder / f"step_{step:08d}"
    stated = {"format": FORMAT, "step": step, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    try:
        folder.mkdir(exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
        try:
            write_atomically(temporary / STATE, data)
            write_json(temporary / CHECKSUM, sealed({**stated, "about": dict(about)}))
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
    except OSError as error:
        raise CannotWrite(target, error) from None


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or `None` if there is none.

    A damaged one is passed over with a warning; if all are damaged it is a `BadInput`, so that work is not redone (or
    overwritten) without a decision.
    """
    problems: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            found = read_checkpoint(path)
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
    found = [path for path in folder.glob("step_*") if re.fullmatch(r"step_[0-9]{8,}", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def newest_about(folder: Path) -> dict[str, Any] | None:
    """What the newest checkpoint says of itself, without its state; nothing if it cannot be read."""
    found = checkpoints(folder)
    try:
        return stated_about(found[-1])[1] if found else None
    except BadInput:
        return None


def stated_about(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The checksum of a checkpoint and what it belongs to; nothing of the latter if an older version wrote it."""
    stated = read_versioned(path / CHECKSUM)
    if set(stated) != OLDER:
        stated = unsealed(stated, path / CHECKSUM)
    if stated.get("step") != int(path.name.removeprefix("step_")):
        raise BadInput(f"checkpoint {path} is that of step {stated.get('step')}")
    return stated, stated.get("about")


def owner(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the run that it belongs to."""
    part, of = place_of(folder) or (None, None)
    return {"config": digest(dict(config)), "part": part, "of": of}


def require_belonging(found: Checkpoint, folder: Path, config: Mapping[str, Any]) -> None:
    """`BadInput` if a checkpoint is not one of this run, of this configuration and in this place."""
    if found.about is None:
        warnings.warn(f"{found.path} is of an older format: what it was made with is not known", stacklevel=3)
        return
    if found.about["config"] != digest(dict(config)):
        raise BadInput(f"{found.path} was copied from a run or part with another configuration")
    require_place(folder, found.about["part"], found.about["of"], found.path)


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint; `BadInput` if it is damaged."""
    state = path / STATE
    try:
        stated, about = stated_about(path)
        data = read_regular(state)
        if hashlib.sha256(data).hexdigest() != stated.get("sha256"):
            raise ValueError("its checksum does not match")
        return Checkpoint(path, stated["step"], from_bytes(data), about)
    except (OSError, KeyError, ValueError) as error:  # `BadInput` is a ValueError
        raise BadInput(f"checkpoint {state} is damaged ({error})") from None


def _remove(path: Path) -> None:
    """Remove a checkpoint; renamed first, so that a kill in between leaves no half of one."""
    doomed = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    os.rename(path, doomed / path.name)
    shutil.rmtree(doomed, ignore_errors=True)
