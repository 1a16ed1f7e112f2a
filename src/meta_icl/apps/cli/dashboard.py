"""`meta-icl dashboard`: runs while they train, all claims, and a playground, in the browser."""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from meta_icl.apps.cli import streams
from meta_icl.apps.cli.doctor import how_to_install
from meta_icl.apps.cli.options import parse, say
from meta_icl.errors import BadInput, require
from meta_icl.runs import default_root
from meta_icl.sweeps import use_compilation_cache

EXAMPLES = ("", "--port 5100 --browse", "smollm2", "last --root ./runs")
NEEDED = ("panel", "panel_material_ui")


@dataclass(frozen=True)
class Options:
    """Runs with their curves while they train, the claims of all papers, and a playground for trained networks and
    language models, in the browser; served on this machine alone until Ctrl-C, without any network.

    SUBJECTS come first in the playground. A run with code of your own is played with only if it is named here.
    """

    subjects: tyro.conf.Positional[tuple[str, ...]] = ()
    """Runs (folder, name or the beginning of it, or last) or language models to play with, besides those found."""
    port: int = 5006
    """The port; 0 takes one that is free."""
    address: str = "127.0.0.1"
    """The address to listen on. Another one than this lets other machines read the runs and use this one's cores."""
    origin: tuple[str, ...] = ()
    """Further names HOST:PORT under which browsers may open it."""
    browse: bool = False
    """Open the browser."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    results: Path = Path("results")
    """Folder of kept results; where there is none, those that came with this installation are told."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="dashboard", examples=EXAMPLES)
    require(0 <= options.port < 65536, "--port", options.port, "from 0 to 65535")
    if not all(map(importlib.util.find_spec, NEEDED)):
        raise BadInput(f"the dashboard needs the extra dashboard: {how_to_install('dashboard')}")
    use_compilation_cache()
    from meta_icl.apps.dashboard import Settings, serve

    settings = Settings(options.root, options.results, options.subjects)
    served = {"port": options.port, "address": options.address, "origins": options.origin, "browse": options.browse}
    serve(settings, **served, ready=lambda place: say(f"dashboard  {place}  (Ctrl-C ends it)"))
    streams.flush()
    os._exit(0)  # nothing is left to be done, and the interpreter's own end takes seconds
