"""Which run is meant: by its folder, its name or the beginning of it, or `last` for the newest."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_icl import runs
from meta_icl.errors import BadInput, require
from meta_icl.runs import Run, RunInfo
from meta_icl.runs.query import named_run

LAST = "last"
MOST_DIFFERENCES = 6  # of the settings in which runs differ, those that are told


def find_run(name: str, root: Path) -> Run:
    """The run that a name means, for reading; raises `BadInput` as `folder_of` does."""
    return Run.load(folder_of(name, root))


def folder_of(name: str, root: Path) -> Path:
    """The folder of the run that a name means, whatever state it is in.

    Raises `BadInput` where there is none, or more than one: then the message lists all with what they differ in.
    """
    if (Path(name) / "config.json").is_file():
        return Path(name)
    if is_path(name):
        path = Path(name).resolve()
        raise BadInput(f"{path} is not a run: it has no config.json" if path.exists() else f"there is no folder {path}")
    if name != LAST:
        matches = [info for info in runs.list_runs(root) if info.name.startswith(name)]
        if len(matches) > 1 and name not in [info.name for info in matches]:
            matches.sort(key=_age, reverse=True)
            raise BadInput("\n".join([f"run {name!r} is ambiguous; {LAST} is the newest run of all:", *told(matches)]))
        return named_run(name, root)
    everything = runs.list_runs(root)
    if not everything:
        raise BadInput(f"there is no last run: {root} holds no runs")
    return max(everything, key=_age).folder


def _age(info: RunInfo) -> tuple[str, int]:
    """When a run started: the larger, the newer."""
    return info.started or "", _written(info.folder)


def _written(folder: Path) -> int:
    """When the configuration of a run was written, in nanoseconds: runs can start in the same second."""
    return (folder / "config.json").stat().st_mtime_ns


def is_path(name: str) -> bool:
    """Whether a name is meant as the path of a folder."""
    return name.startswith((".", "~")) or "/" in name or os.sep in name


def checked_name(name: str | None) -> str | None:
    """A name for a run, which is the beginning of the name of its folder."""
    fine = name is None or (re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) is not None and name != LAST)
    require(fine, "--name", name, f"letters, digits, dots, dashes and underscores, and not {LAST!r}")
    return name


def told(infos: Sequence[RunInfo]) -> list[str]:
    """A line per run: its name, its state, and its value of every setting in which they differ."""
    settings = [_flat(_config(info)) for info in infos]
    names = [n for n in dict.fromkeys(n for s in settings for n in s) if len({str(s.get(n)) for s in settings}) > 1]
    # Settings that one name of the user's own brings with it follow from its text.
    names = [name for name in names if not name.endswith(("sha256", "own.file"))] or names
    lines = []
    for info, setting in zip(infos, settings, strict=True):
        values = ", ".join(f"{name}={setting.get(name, '-')}" for name in names[:MOST_DIFFERENCES])
        lines.append(f"  {info.name}  {info.state}, {(info.started or '?')[:16].replace('T', ' ')}  {values}".rstrip())
    return lines


def _config(info: RunInfo) -> Mapping[str, Any]:
    try:
        return Run.load(info.folder).config
    except BadInput:
        return {}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"task.d": 5}: the numbers and texts in a configuration, `fields` left out of their names."""
    if not isinstance(value, Mapping) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, name if key == "fields" else f"{name}.{key}".lstrip("."))
    return found
