"""`meta-icl models`: language models at hand, one that a package ships, and GGUF files as folders."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from meta_icl.apps.cli import tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import BadInput, choose

EXAMPLES = ("list", "get smollm2", "convert smollm2 ./smollm2", "convert model.Q8_0.gguf ./model")
NEEDS = {"list": (), "get": ("the name of a model",), "convert": ("a .gguf file or a name", "a folder to write")}


@dataclass(frozen=True)
class Options:
    """Language models: `list` those that can be had by name, `get NAME`, `convert FILE FOLDER` from GGUF.

    A model that was fetched is taken by its name wherever a checkpoint is taken. `get` asks pip for one package without
    its dependencies and checks its SHA-256; nothing else is ever downloaded.
    """

    action: tyro.conf.Positional[str] = "list"
    """One of list, get, convert."""
    what: tyro.conf.Positional[str] = ""
    """The name, or the file to convert."""
    folder: tyro.conf.Positional[str] = ""
    """convert: the folder to write, in Hugging Face's format."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="models", examples=EXAMPLES)
    needed = NEEDS[choose("action", options.action, NEEDS)]
    given = [value for value in (options.what, options.folder) if value]
    if len(given) != len(needed):
        wanted = " and ".join(needed) or "nothing more"
        raise BadInput(f"models {options.action} takes {wanted}, got {' '.join(given) or 'nothing'}")
    {"list": _list, "get": _get, "convert": _convert}[options.action](options)
    return 0


def _list(options: Options) -> None:
    from meta_icl.lm.packages import PACKAGES, place

    rows = []
    for name, package in PACKAGES.items():
        where = place(name)
        there = where.is_file()
        rows.append(
            {
                "name": name,
                "model": package.about,
                "size_mb": package.model_bytes / 1e6,
                "licence": package.licence,
                "fetched": there,
                "place": str(where) if there else f"meta-icl models get {name}",
            }
        )
    if options.json:
        print_json(rows)
        return
    cells = [(r["name"], r["model"], f"{r['size_mb']:.1f} MB", r["licence"]) for r in rows]
    tables.show(tables.plain_table(("name", "model", "size", "licence"), cells))
    for r in rows:
        say(f"{r['name']}: {r['place'] if r['fetched'] else 'not here yet: ' + r['place']}")


def _get(options: Options) -> None:
    from meta_icl.lm.packages import PACKAGES, fetch

    path, fetched = fetch(options.what)
    if options.json:
        print_json({"name": options.what, "place": str(path), "fetched_now": fetched})
        return
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    say(f"{options.what} ({size}, {PACKAGES[options.what].licence}) {'is now' if fetched else 'was already'} in {path}")


def _convert(options: Options) -> None:
    from meta_icl.lm.exports import convert

    notes = convert(options.what, options.folder)
    if options.json:
        print_json({"folder": options.folder, "notes": notes})
        return
    for note in notes:
        say(f"note: {note}")
    say(f"wrote {options.folder}: config.json, model.safetensors, tokenizer.json")
