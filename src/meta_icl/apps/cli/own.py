"""The user's own: what `package.module:Name`, `./file.py:Name` or a folder names, wherever a name is taken.

What is found is told with where it stands and the SHA-256 of its code, so that a run can name the code that it was
trained with and later commands load that code or refuse.
"""

import hashlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from meta_icl.errors import BadInput, choose
from meta_icl.sweeps.modules import load_path

Record = dict[str, str]
CODE = ("*.py", "*.json")  # of a folder, what counts as its code
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME = re.compile(r"[A-Za-z_]\w*")


class Kind(NamedTuple):
    """What a name must stand for: what it is called, what is wanted in words, and the test.

    A class makes the object from its fields; a function does so too if `by_function`, else it is the object.
    """

    name: str
    wanted: str
    fits: Callable[[Any], bool]
    by_function: bool = False

    def makes(self, found: Any) -> bool:
        """Whether something makes the object, and so takes fields, or is it."""
        return isinstance(found, type) or (self.by_function and inspect.isfunction(found))


class Place(NamedTuple):
    """Where a text points: a path or the name of a module, then a name in it (if any), then the text of its fields."""

    path: Path | None
    module: str
    name: str
    fields: str


def place(text: str) -> Place | None:
    """Where a text points if it names something of the user's own, else `None`.

    Paths are told by a slash at or near their beginning, or by the ending .py; modules by a name behind a colon.
    """
    match = re.fullmatch(r"(.*?\.py|[^:=]*[/\\][^:=]*|\.\.?)(?::([^:=]*))?(?::(.*))?", text, re.DOTALL)
    if match:
        return Place(Path(match[1]).expanduser(), "", match[2] or "", match[3] or "")
    module, colon, rest = text.partition(":")
    name, _, fields = rest.partition(":")
    if colon and _MODULE.fullmatch(module) and _NAME.fullmatch(name):
        return Place(None, module, name, fields)
    return None


def find(kind: Kind, text: str) -> tuple[Any, Record]:
    """What a text of the user's own names, and its record {"text", "file", "name", "sha256"}; `BadInput` says why not.

    Without a name in the text it is the one thing of the file that fits.
    """
    at = place(text)
    assert at is not None, "texts are asked with `place` first"
    module, file = _module(kind, text, at)
    name = at.name or _only(kind, text, module)
    if not hasattr(module, name):
        choose(f"{kind.name} of {file}", name, _names(module))
    found = getattr(module, name)
    if not kind.fits(found):
        raise BadInput(f"{kind.name} {text!r} must be {kind.wanted}, got {_described(found)}")
    return found, {"text": text, "file": str(file), "name": name, "sha256": digest(file), "module": at.module}


def find_module(kind: Kind, text: str, needs: tuple[str, ...]) -> tuple[ModuleType, Record]:
    """The module that a text of the user's own names, which must define the names that it `needs`, and its record."""
    at = place(text)
    assert at is not None, "texts are asked with `place` first"
    if at.name and at.path is None:
        at = at._replace(module=f"{at.module}.{at.name}", name="")
    module, file = _module(kind, text, at)
    missing = [name for name in needs if not hasattr(module, name)]
    if missing or at.name:
        raise BadInput(f"{kind.name} {text!r} must be {kind.wanted}, got a file without {', '.join(missing or needs)}")
    return module, {"text": text, "file": str(file), "name": "", "sha256": digest(file), "module": at.module}


def again(record: Record) -> Any:
    """What a record tells of, from the same code; `BadInput` if the code has changed or is gone."""
    file = Path(record["file"])
    if not file.exists():
        raise BadInput(f"{file}, which this run was made with, is gone")
    if (now := digest(file)) != record["sha256"]:
        told = f"{record['sha256'][:12]} then, {now[:12]} now"
        raise BadInput(f"{file} has changed since this run was made (SHA-256 {told}); train anew with the changed code")
    module = _imported(Kind("code", "", bool), record["text"], file, record["module"])
    return getattr(module, record["name"]) if record["name"] else module


def digest(file: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of the code in a folder."""
    if not file.is_dir():
        return hashlib.sha256(file.read_bytes()).hexdigest()
    whole = hashlib.sha256()
    for path in sorted({path for pattern in CODE for path in file.rglob(pattern)}):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(file).as_posix()}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def _module(kind: Kind, text: str, at: Place) -> tuple[ModuleType, Path]:
    """The module of a place, and its file (or folder) with an absolute path."""
    if at.path is None:
        module = _imported(kind, text, None, at.module)
        file = getattr(module, "__file__", None)
        if file is None:
            raise BadInput(f"{kind.name} {text!r}: module {at.module} has no file")
        return module, Path(file).resolve()
    path = Path(at.path).resolve()
    if not path.exists():
        raise BadInput(f"{kind.name} {text!r}: there is no file {path}")
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise BadInput(f"{kind.name} {text!r}: the folder {path} has no __init__.py")
    if not path.is_dir() and path.suffix != ".py":
        raise BadInput(f"{kind.name} {text!r}: {path} is no Python file (its name must end with .py)")
    return _imported(kind, text, path, ""), path


def _imported(kind: Kind, text: str, file: Path | None, module: str) -> ModuleType:
    try:
        if module:
            importlib.invalidate_caches()
            return importlib.import_module(module)
        assert file is not None
        return load_path(file)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):
            hint = f"; for the file {module}.py write ./{module}.py:..." if Path(f"{module}.py").is_file() else ""
            raise BadInput(f"{kind.name} {text!r}: there is no module {missing!r}{hint}") from None
        raise BadInput(f"{kind.name} {text!r} cannot be imported: {_told(error)}") from None


def _told(error: BaseException) -> str:
    """An error of the user's code in one line: its kind, its message, and the last of the user's lines it passed."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno}: {(error.text or '').strip()})"
    machinery = (str(Path(importlib.__file__).parent), "<frozen", str(Path(__file__).parents[2] / "sweeps"), __file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    inside = [f for f in frames if not f.filename.startswith((sys.prefix, sys.base_prefix))] or frames
    return f"{message} ({inside[-1].filename}, line {inside[-1].lineno}: {inside[-1].line})" if inside else message


def _names(module: ModuleType) -> list[str]:
    """The names that a module itself defines, and public ones that it took from elsewhere if there are none."""
    public = [name for name in vars(module) if not name.startswith("_")]
    return [name for name in public if getattr(vars(module)[name], "__module__", "") == module.__name__] or public


def _only(kind: Kind, text: str, module: ModuleType) -> str:
    """The one name in a module that fits."""
    fitting = [name for name in _names(module) if kind.fits(getattr(module, name))]
    if len(fitting) != 1:
        told = f"several could be meant: {', '.join(fitting)}" if fitting else f"nothing in it is {kind.wanted}"
        raise BadInput(f"{kind.name} {text!r} needs a name, as {text}:Name; {told}")
    return fitting[0]


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, ModuleType):
        return "a module"
    return f"the function {value.__name__}" if hasattr(value, "__code__") else f"{type(value).__name__} {value!r:.60}"
