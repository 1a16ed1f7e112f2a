"""Computing one part: what a worker, and a process that works alone, do."""

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs import Run, read_json, write_json
from meta_icl.runs.files import CannotWrite
from meta_icl.runs.run import ERROR
from meta_icl.sweeps.environment import backend_problem
from meta_icl.sweeps.modules import import_again, import_name

ORDER = "parts-in-order"  # the name under which the run keeps the order in which workers take the parts
GRACE_SECONDS = 30.0  # between asking a worker to stop at its next checkpoint and insisting
TRACEBACK_LINES = 12


class PartFailed(RuntimeError):
    """A part raised an error, or its workers died; the message names the part and ends with the traceback's end."""


def function_name(function: Callable[..., Any]) -> str:
    """The "module:name" by which another process finds a top-level function."""
    name = f"{import_name(function.__module__)}:{function.__qualname__}"
    if function.__module__ == "__main__" or "<" in name:
        raise BadInput(f"{name} cannot be found by a worker: parts need a top-level function of an importable module")
    return name


def find_function(name: str) -> Callable[..., Any]:
    """The function of a "module:name"."""
    module, _, qualname = name.rpartition(":")
    try:
        found: Any = import_again(module)
        for attribute in qualname.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise BadInput(f"function {name!r} of a part cannot be imported ({error})") from None
    return found


def compute(part: Run, function: Callable[..., Any]) -> None:
    """Compute an open part by the function that its caller vouches for: keep the result, mark the part `DONE`.

    The configuration of a part names its function too, but no name in a folder is ever called, because the folder may
    come from anybody. An error is kept in `error.json` before the part's lock is released.
    """
    if part.done:
        return
    try:
        arguments = part.config.get("arguments")
        if part.config.get("function") != function_name(function) or not isinstance(arguments, dict):
            raise BadInput(f"the configuration of {part.folder} is not that of a part of {function.__name__}")
        part.begin_again()
        result = function(part, **arguments)
        part.save_arrays("result", dict(result))
        part.finish()
    except Exception as error:
        with suppress(CannotWrite):  # on a full disk the caller's own error says so
            keep_error(part.folder, error)
        raise


def failed(folder: Path) -> bool:
    """Whether a part has failed since the parts of its run were last asked for."""
    return os.path.lexists(folder / ERROR)


def keep_error(folder: Path, error: Exception) -> None:
    """Write an error into the folder of a part, for the process that started this one."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    problem = backend_problem()
    told = {"bad_input": isinstance(error, BadInput) or problem is not None, "message": problem or str(error)}
    write_json(folder / ERROR, {**told, "traceback": lines[-TRACEBACK_LINES:]})


def raise_kept_error(name: str, folder: Path) -> None:
    """Raise the error that a worker kept for a part, if it kept one."""
    if not failed(folder):
        return
    told = read_json(folder / ERROR)
    try:
        bad_input, message, lines = told["bad_input"], told["message"], list(told["traceback"])
    except (KeyError, TypeError):
        raise PartFailed(f"part {name} failed, and {folder / ERROR} does not say of what") from None
    if bad_input:
        raise BadInput(f"part {name}: {message}")
    raise PartFailed("\n".join([f"part {name} failed:", *map(str, lines)]))
