"""A user's own code: a file or a folder with `__init__.py`, imported by its place, in every process alike."""

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from meta_icl.errors import BadInput


def load_own(place: Path) -> ModuleType:
    """The module of a file, or the package of a folder, whose files import each other relatively (`from .x import y`).

    Its name is made of its absolute path, so the same place is the same module in this process and in a worker.
    Raises `BadInput` with one line if there is nothing to import or importing it fails.
    """
    place = place.resolve()
    file = place / "__init__.py" if place.is_dir() else place
    if not file.is_file():
        missing = "it has no __init__.py" if place.is_dir() else "there is no such file or folder"
        raise BadInput(f"{place} cannot be imported: {missing}")
    name = f"own_{hashlib.sha256(str(place).encode()).hexdigest()[:10]}_{re.sub('[^a-zA-Z0-9]', '_', place.stem)}"
    if name in sys.modules:
        return sys.modules[name]
    inside = [str(place)] if place.is_dir() else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise BadInput(f"{place} cannot be imported: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
            del sys.modules[known]
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = " ".join(str(error).split())
        raise BadInput(
            f"{place} cannot be imported: {type(error).__name__}: {told} ({where.filename}, line {where.lineno})"
        ) from error
    return module


def own_place(config: Mapping[str, Any]) -> Path | None:
    """Where the code of a run is, if its configuration names a place as its paper and not one of this package's."""
    paper = config.get("paper")
    return Path(paper) if isinstance(paper, str) and Path(paper).is_absolute() else None
