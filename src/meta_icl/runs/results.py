"""What a run keeps for figures and claims: arrays and JSON values, each with a seal that names where it belongs.

`DONE` holds the hashes of a finished run. Until then the seal tells a damaged file, and one of another run, part or
name, from the one that was saved. Files of older versions have none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.data.cache import digest
from meta_icl.errors import BadInput
from meta_icl.runs.arrays import dense, from_bytes, metadata_of, to_bytes
from meta_icl.runs.checkpoints import owner
from meta_icl.runs.config import checked_name
from meta_icl.runs.files import (
    FORMAT,
    SEAL,
    parse_json,
    sealed,
    unsealed,
    versioned,
    write_atomically,
    write_json,
)
from meta_icl.runs.manifest import require_place

KEY = "meta_icl"  # of the metadata of a file of arrays


def arrays_file(name: str) -> str:
    """Where arrays of a name stand in a run."""
    return f"arrays/{checked_name(name)}.safetensors"


def json_file(name: str) -> str:
    """Where a value of a name stands in a run."""
    return f"json/{checked_name(name)}.json"


def save_arrays(folder: Path, config: Mapping[str, Any], name: str, arrays: Mapping[str, Any]) -> None:
    """Write named arrays atomically."""
    kept = dense(arrays)
    seal = sealed({**_about(folder, config, name), "sha256": digest(kept).hex()})
    write_atomically(folder / arrays_file(name), to_bytes(kept, {KEY: json.dumps(seal)}))


def arrays_from(data: bytes, path: Path, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays in the bytes of a file, by name; `BadInput` if they are damaged, or those of another run or part."""
    try:
        arrays, text = from_bytes(data), metadata_of(data).get(KEY)
    except (ValueError, KeyError) as error:
        raise BadInput(f"{path} cannot be read as safetensors ({error}); nothing was changed") from None
    if text is not None:
        stated = parse_json(text.encode(), path)
        about = unsealed(stated if isinstance(stated, dict) else {}, path)
        if about.pop("sha256", None) != digest(arrays).hex():
            raise BadInput(f"{path} is damaged: its arrays are not those that its checksum names")
        _require_own(about, path, config)
    return arrays


def save_value(folder: Path, config: Mapping[str, Any], name: str, value: Any) -> None:
    """Write a value of numbers, strings, lists and mappings atomically."""
    about = _about(folder, config, name)
    write_json(folder / json_file(name), sealed({"format": FORMAT, "value": value, "about": about}))


def value_from(data: bytes, path: Path, config: Mapping[str, Any]) -> Any:
    """The value in the bytes of a file; `BadInput` if it is damaged, or that of another run, part or name."""
    content = versioned(parse_json(data, path), path)
    if SEAL in content or "about" in content:
        content = unsealed(content, path)
        _require_own(content["about"], path, config)
    return content.get("value")


def _about(folder: Path, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**owner(folder, config), "name": name}


def _require_own(about: Mapping[str, Any], path: Path, config: Mapping[str, Any]) -> None:
    folder = path.parent.parent
    own = _about(folder, config, path.stem)
    for name, what in (("config", "a run or part with another configuration"), ("name", f"{about['name']!r}")):
        if about[name] != own[name]:
            raise BadInput(f"{path} was copied from {what}")
    require_place(folder, about["part"], about["of"], path)
