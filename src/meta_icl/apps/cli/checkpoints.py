"""Language models as commands take them: a folder, a `.gguf` file, or the name of a fetched model."""

import json
from pathlib import Path
from typing import Any

from meta_icl.apps.cli.which import is_path
from meta_icl.errors import BadInput

WANTED = "a run nor a language model"


def is_language_model(subject: str) -> bool:
    """Whether a name is that of a checkpoint rather than of a run."""
    from meta_icl.lm.packages import PACKAGES

    place = Path(subject)
    if subject in PACKAGES and not place.exists():
        return True
    if place.suffix == ".gguf" and not place.is_dir():
        return True
    path = place / "config.json"
    try:
        return path.is_file() and "model_type" in json.loads(path.read_text("utf-8-sig"))
    except (ValueError, TypeError):
        return False  # a damaged run, of which `find_run` tells more


def require_subject(subject: str) -> None:
    """Refuse a path that leads nowhere, or to something with neither a run nor a model in it."""
    path = Path(subject)
    if is_language_model(subject):
        if path.suffix == ".gguf" and not path.exists():
            raise BadInput(f"there is no file {path.resolve()}")
        return
    if is_path(subject) and not path.exists():
        raise BadInput(f"there is no folder {path.resolve()} to probe")
    if path.is_file():
        raise BadInput(f"{path.resolve()} holds neither {WANTED}: give a folder, or a .gguf file")
    if path.is_dir() and not (path / "config.json").is_file():
        raise BadInput(f"{path.resolve()} holds neither {WANTED}: it has no config.json")


def require_checkpoint(subject: str) -> None:
    """Refuse what is no language model; a name of one that is not fetched yet is told by what reads it."""
    require_subject(subject)
    if not is_language_model(subject):
        raise BadInput(
            f"{subject} is no language model: give a folder, a .gguf file or a name of `meta-icl models list`"
        )


def name_of(subject: str) -> str:
    """The name of a checkpoint in the names of files."""
    path = Path(subject)
    return path.stem if path.suffix == ".gguf" and path.is_file() else path.resolve().name


def opening_of(tokenizer: Any, given: str) -> tuple[int | None, str]:
    """The token that opens prompts, and its text; "auto" is the one that opens documents, "none" is none."""
    if given == "none":
        return None, "none"
    if given == "auto":
        number = tokenizer.opening
        return number, "none" if number is None else tokenizer.text(number)
    number = tokenizer.library.token_to_id(given)
    if number is None:
        raise BadInput(f"--opening must be auto, none or a token of the model such as <|endoftext|>, got {given!r}")
    return number, given
