"""What papers and probes there are, read from their files without importing them (they import jax)."""

import ast
import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput, choose


@dataclass(frozen=True)
class Listed:
    """A paper or probe as its file tells: module name, first line of the docstring, preset -> time."""

    name: str
    title: str
    times: dict[str, str]


def papers() -> list[Listed]:
    """All papers, a folder each; the listing is the registry, names that start with `_` are no papers."""
    return _listed("meta_icl.papers")


def probes() -> dict[str, Listed]:
    """All probes by name, likewise."""
    return {probe.name: probe for probe in _listed("meta_icl.probes")}


def find_paper(name: str) -> str:
    """The module of a paper, from its name, an unambiguous beginning, or a word of its topic and the year."""
    names = [paper.name for paper in papers()]
    matches = [known for known in names if known.startswith(name.replace("-", "_"))]
    matches = matches or [known for known in names if name in _by_topic(known)]
    if name in names:
        return name
    if len(matches) > 1:
        raise BadInput(f"paper {name!r} is ambiguous: {', '.join(matches)}")
    if matches:
        return matches[0]
    choose("paper", name, [known.split("_")[0] for known in names])  # says which short name is nearest
    raise AssertionError("a short name is the beginning of a name")


def _by_topic(name: str) -> set[str]:
    """Such as `titans2025` of `behrouz2025_titans`."""
    first, *topic = name.split("_")
    return {f"{word}{first[-4:]}" for word in topic}


def results(folder: Path, paper: str) -> dict[str, Any] | None:
    """The content of `folder/PAPER/claims.json`, if it is there."""
    path = folder / paper / "claims.json"
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else None
    except ValueError:
        raise BadInput(f"{path} cannot be read as JSON") from None


def _listed(package: str) -> list[Listed]:
    found = []
    for item in importlib.resources.files(package).iterdir():
        file = item.joinpath("__init__.py") if item.is_dir() else item
        if file.is_file() and file.name.endswith(".py") and not item.name.startswith("_"):
            name = item.name.removesuffix(".py")
            found.append(_read(name, file.read_text("utf-8")))
    return sorted(found, key=lambda listed: listed.name)


def _read(name: str, source: str) -> Listed:
    tree = ast.parse(source)
    title = (ast.get_docstring(tree) or name).splitlines()[0].rstrip(".")
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == ["TIMES"]:
            return Listed(name, title, ast.literal_eval(node.value))
    return Listed(name, title, {})
