"""The configuration of a run: what names it, and what is compared before anybody works in its folder."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput, require
from meta_icl.runs.files import FORMAT, TEMPORARY, canonical, digest, plain, read_versioned, write_json

CONFIG = "config.json"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_=,.+-]{0,150}")


def checked_name(name: str) -> str:
    """The name of a run, a part or a file of a result; `BadInput` if it could be taken for anything else."""
    allowed = "letters, digits and any of _=,.+- (starting with a letter, digit or _)"
    require(NAME.fullmatch(name) is not None, "name", name, allowed)
    return name


def config_hash(config: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that name a configuration."""
    return digest(dict(config))[:10]


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Make a run folder with its configuration, or check that an existing one has the same."""
    wanted = plain(dict(config))
    existing = existing_config(folder)
    if existing is None:
        write_json(folder / CONFIG, {"format": FORMAT, "config": wanted})
    else:
        require_same(folder, existing, wanted)


def existing_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a run folder; `None` if there is no run yet and none of anybody's files either."""
    if os.path.lexists(folder / CONFIG):
        return stated_config(folder)
    if folder.exists():
        if not folder.is_dir():
            raise BadInput(f"{folder} is a file, not a run folder")
        foreign = sorted(path.name for path in folder.iterdir() if path.name != "lock" and TEMPORARY not in path.name)
        if foreign:
            raise BadInput(f"{folder} is not a run (it has no {CONFIG}) and not empty ({foreign[0]}): left alone")
    return None


def stated_config(folder: Path) -> dict[str, Any]:
    """The configuration in a run folder; `BadInput` if it cannot be read."""
    config = read_versioned(folder / CONFIG).get("config")
    if not isinstance(config, dict):
        raise BadInput(f"{folder / CONFIG} holds no configuration; nothing was changed")
    return config


def parts_in(folder: Path) -> dict[str, Path]:
    """The folders of the parts of a run by name; links are no parts."""
    place = folder / "parts"
    if not place.is_dir() or place.is_symlink():
        return {}
    names = sorted(entry.name for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))
    return {name: place / name for name in names if os.path.lexists(place / name / CONFIG)}


def place_of(folder: Path) -> tuple[str, str] | None:
    """The name of a part and the digest of its run's configuration; nothing for a folder that is in no run."""
    folder = folder.absolute()
    if folder.parent.name != "parts":
        return None
    try:
        return folder.name, digest(stated_config(folder.parent.parent))
    except BadInput:
        return None


def require_same(folder: Path, existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """`BadInput` that names the first field in which two configurations differ."""
    if canonical(existing) == canonical(wanted):
        return
    there, asked = _flat(existing), _flat(wanted)
    field = next(name for name in sorted(there | asked) if there.get(name, ...) != asked.get(name, ...))
    said = [repr(side[field]) if field in side else "nothing" for side in (there, asked)]
    raise BadInput(f"run {folder} was made with {field} = {said[0]}, now it is {said[1]}; nothing was changed")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: plain(value)}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
