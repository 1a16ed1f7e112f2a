"""Computing one part: what a worker, and a process that works alone, do."""

import importlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs import Run, read_json, write_json
from meta_icl.sweeps.own import load_own, own_place

ERROR = "error.json"  # in the folder of a part that failed
ORDER = "parts-in-order"  # the name under which the run keeps the order in which workers take the parts
GRACE_SECONDS = 30.0  # between asking a worker to stop at its next checkpoint and insisting
TRACEBACK_LINES = 12


class PartFailed(RuntimeError):
    """A part raised an error, or its workers died; the message names the part and ends with the traceback's end."""


def function_name(function: Callable[..., Any]) -> str:
    """The "module:name" by which another process finds a top-level function."""
    name = f"{function.__module__}:{function.__qualname__}"
    if function.__module__ == "__main__" or "<" in name:
        raise BadInput(f"{name} cannot be found by a worker: parts need a top-level function of an importable module")
    return name


def find_function(name: str) -> Callable[..., Any]:
    """The function of a "module:name"."""
    module, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in qualname.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"function {name!r} of a part cannot be imported ({error})") from None
    return found


def compute(part: Run) -> None:
    """Compute an open part: call its function, keep the result, mark it `DONE`; an error is kept in `error.json`."""
    if part.done:
        return
    (part.folder / ERROR).unlink(missing_ok=True)
    try:
        function, arguments = part.config.get("function"), part.config.get("arguments")
        if not isinstance(function, str) or not isinstance(arguments, dict):
            raise BadInput(f"the configuration of {part.folder} names no function and arguments")
        _load_code_of(part)
        result = find_function(function)(part, **arguments)
        part.save_arrays("result", dict(result))
    except Exception as error:
        keep_error(part.folder, error)
        raise
    part.finish()


def _load_code_of(part: Run) -> None:
    """Import the user's own code that the run of a part names: its functions are found then, those of others never."""
    folder = part.folder.parents[1]
    if (folder / "config.json").exists():
        place = own_place(Run.load(folder).config)
        if place is not None:
            load_own(place)


def keep_error(folder: Path, error: Exception) -> None:
    """Write an error into the folder of a part, for the process that started this one."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    told = {"bad_input": isinstance(error, BadInput), "message": str(error), "traceback": lines[-TRACEBACK_LINES:]}
    write_json(folder / ERROR, told)


def raise_kept_error(name: str, folder: Path) -> None:
    """Raise the error that a worker kept for a part, if it kept one."""
    if not (folder / ERROR).exists():
        return
    told = read_json(folder / ERROR)
    if told["bad_input"]:
        raise BadInput(f"part {name}: {told['message']}")
    raise PartFailed("\n".join([f"part {name} failed:", *told["traceback"]]))
