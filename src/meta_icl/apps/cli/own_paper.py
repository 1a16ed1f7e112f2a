"""A paper from what a command or a run calls it: one of this package, or a folder or file of the user's own."""

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from meta_icl.apps.cli import listing
from meta_icl.errors import BadInput
from meta_icl.sweeps.own import load_own

NEEDED = ("IDS", "PRESETS", "run", "claims", "figures")


class Paper(NamedTuple):
    """A paper: the name of its runs and results, its module, and what a run records of it."""

    name: str
    module: ModuleType
    recorded: str  # the name of one of this package, the absolute place of another


def load_paper(text: str) -> Paper:
    """The paper of a name, of a beginning of it, or of a path: what has a slash or ends with `.py`.

    Raises `BadInput` with what a folder or file lacks to be a paper.
    """
    if "/" not in text and "\\" not in text and not text.endswith(".py"):
        try:
            name = listing.find_paper(text)
        except BadInput:
            if Path(text).exists():
                raise BadInput(f"unknown paper {text!r}; for the one that is in this folder, write ./{text}") from None
            raise
        return Paper(name, importlib.import_module(f"meta_icl.papers.{name}"), name)
    place = Path(text).expanduser().resolve()
    module = load_own(place)
    lacking = [name for name in NEEDED if not hasattr(module, name)]
    if lacking:
        raise BadInput(f"{text} is no paper: it lacks {', '.join(lacking)}")
    presets = module.PRESETS
    if not isinstance(presets, dict) or not presets or not all(map(_is_config, presets.values())):
        raise BadInput(f"{text} is no paper: PRESETS must be {{name: object of a dataclass}}")
    return Paper(place.name.removesuffix(".py"), module, str(place))


def _is_config(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
