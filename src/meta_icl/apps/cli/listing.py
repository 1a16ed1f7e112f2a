"""What papers and probes there are, read from their files without importing them (they import jax)."""

import ast
import dataclasses
import importlib
import importlib.resources
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_icl.apps.cli import own
from meta_icl.errors import BadInput, choose
from meta_icl.runs import Claim, read_json
from meta_icl.runs.judged import read_claims

NEEDED = ("IDS", "PRESETS", "run", "claims", "figures")
PAPER = own.Kind("paper", f"a file or folder that defines {', '.join(NEEDED)}", bool)
REASONS = "reasons.toml"  # in the folder of a paper: why claims fail in the kept runs, as far as that was measured
SHORT = "verdicts.json"  # of all kept results, in the folder of the papers; `make verdicts` writes it


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


def load_paper(name: str) -> tuple[str, Any, own.Record | None]:
    """The name and the module of a paper, and its record if it is one of the user's own."""
    if own.place(name) is not None:
        module, record = own.find_module(PAPER, name, NEEDED)
        presets = module.PRESETS
        if not isinstance(presets, dict) or not presets or not all(map(_is_config, presets.values())):
            raise BadInput(f"paper {name!r} must have PRESETS = {{name: object of a dataclass}}")
        return Path(record["file"]).stem, module, record
    found = find_paper(name)
    return found, importlib.import_module(f"meta_icl.papers.{found}"), None


def _is_config(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


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
    if Path(name).exists():
        here = name if name.startswith((".", "/")) else f"./{name}"
        raise BadInput(f"{name!r} is no paper of this package; your own is run by: meta-icl reproduce {here}")
    choose("paper", name, [known.split("_")[0] for known in names])  # says which short name is nearest
    raise AssertionError("a short name is the beginning of a name")


def _by_topic(name: str) -> set[str]:
    """Such as `titans2025` of `behrouz2025_titans`."""
    first, *topic = name.split("_")
    return {f"{word}{first[-4:]}" for word in topic}


def reasons(folder: Path) -> dict[str, str]:
    """Why claims of the paper in a folder fail in its kept runs, as far as it was measured: {id, such as "F-7": text}.

    Raises `BadInput` if its `reasons.toml` cannot be read as lines of texts.
    """
    file = folder / REASONS
    if not file.exists():
        return {}
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {file}: {error}") from None
    if wrong := [id for id, text in found.items() if not isinstance(text, str)]:
        raise BadInput(f'{file}: the reason of {wrong[0]} must be a text: {wrong[0]} = "..."')
    return {id: " ".join(text.split()) for id, text in found.items()}


def explained(claims: Sequence[Claim], known: Mapping[str, str]) -> list[Claim]:
    """The same claims; the notes of those that fail end with the reason that is known of the kept runs."""

    def one(claim: Claim) -> Claim:
        reason = known.get(claim.id.rpartition("/")[2])
        if claim.verdict != "fails" or reason is None or reason in (claim.note or ""):
            return claim
        return dataclasses.replace(claim, note=f"{claim.note}; {reason}" if claim.note else reason)

    return [one(claim) for claim in claims]


def results(folder: Path, paper: str) -> dict[str, Any] | None:
    """The content of `folder/PAPER/claims.json`, if it is there and its verdicts are those of its checks."""
    path = folder / paper / "claims.json"
    if not path.exists():
        return None
    read_claims(path.parent)
    return read_json(path)


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    """The short form of all kept results, by PAPER or PAPER-PRESET: of a folder of results, or, where there is none, of
    those that came with this installation."""
    if folder.is_dir():
        return {path.parent.name: short(path.parent) for path in sorted(folder.glob("*/claims.json"))}
    return json.loads(importlib.resources.files("meta_icl.papers").joinpath(SHORT).read_text("utf-8"))


def short(folder: Path) -> dict[str, Any]:
    """Of a kept result the commit, the seconds it took, and of every claim id, verdict and statement."""
    claims = results(folder.parent, folder.name) or {"claims": []}
    try:
        provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
        commit, seconds = provenance["code"].get("commit"), provenance["wall_seconds"]
    except (OSError, ValueError, KeyError):
        commit = seconds = None
    rows = [[claim["id"], claim["verdict"], claim["statement"]] for claim in claims["claims"]]
    return {"commit": commit, "seconds": seconds, "claims": rows}


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
