"""Modules of a user's own, imported by the path of their file or folder, whatever the current folder holds."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_LOADED: dict[str, Path] = {}  # module name -> the file or folder it was imported from


def load_path(path: Path) -> ModuleType:
    """The module of a file, or the package of a folder with an `__init__.py`, imported once per process.

    Its name is made from its path, so that it can never be taken for another module, nor be imported by chance. Raises
    whatever the module raises.
    """
    place = path.resolve()
    name = f"own_{place.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    folder = place.is_dir()
    file = place / "__init__.py" if folder else place
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(place)] if folder else None
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and relative imports look their module up
    _LOADED[name] = place
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
            del sys.modules[known]
        raise
    return module


def import_name(module: str) -> str:
    """By what another process finds a module of this one: its name, or "PATH!SUBMODULE" of one imported by path."""
    root, _, inner = module.partition(".")
    return f"{_LOADED[root]}!{inner}" if root in _LOADED else module


def import_again(name: str) -> ModuleType:
    """The module of an `import_name`."""
    path, own, inner = name.rpartition("!")
    if not own:
        return importlib.import_module(name)
    module = load_path(Path(path))
    return importlib.import_module(f"{module.__name__}.{inner}") if inner else module
