"""`meta-icl league`: sequence mixers on the same prompts, each at its own best learning rate."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.apps.cli import own, spec, tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import choose, require
from meta_icl.runs import Run, default_root
from meta_icl.sweeps import compute_like_a_worker, run_parts, use_compilation_cache

EXAMPLES = (
    "--arenas overwrite --only deltanet linear_attention --steps 500",
    "--arenas mqar needle --seeds 5 --rates 1e-3 3e-3 1e-2",
    "--only deltanet --mixer ./mine.py:MyMixer --json",
)


# Records of nine trainings each are far apart; what Ctrl-C loses since the last checkpoint is computed again.
GRACE_SECONDS = 0.6


MIXER = own.Kind("mixer", "a description of a mixer that can be called with a width and a key", callable)


@dataclass(frozen=True)
class Options:
    """Train sequence mixers on the same prompts and tabulate scores, parameters, state, operations and time.

    A mixer of your own joins as ./file.py:Name or package.module:Name: a description, or a class of one with fields as
    ./file.py:Name:field=value, that called with a width and a key gives something with `initial_state()` and
    `step(state, x)`.
    """

    arenas: tuple[str, ...] = ("overwrite",)
    """Tasks: mqar, needle, overwrite, regression."""
    only: tuple[str, ...] = ()
    """Built-in mixers to let play (default: all)."""
    mixer: tuple[str, ...] = ()
    """Further mixers, as ./file.py:Name or package.module:Name."""
    steps: int = 1000
    """Training steps."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates; every mixer keeps its best."""
    seeds: int = 3
    """Number of seeds."""
    batch: int = 64
    """Prompts per step."""
    length: int = 32
    """Tokens of a training prompt, about."""
    d_model: int = 64
    """Width."""
    n_layers: int = 2
    """Layers."""
    chunk_size: int = 16
    """Chunk size of all mixers that have one."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="league", examples=EXAMPLES)
    for field in ("steps", "seeds", "batch", "d_model", "n_layers", "chunk_size"):
        require(getattr(options, field) >= 1, f"--{field.replace('_', '-')}", getattr(options, field), "positive")
    use_compilation_cache()
    compute_like_a_worker()
    from meta_icl.evaluation.league import ARENAS, roster

    built_in = roster(options.chunk_size)
    names = [choose("mixer", name, built_in) for name in options.only] or list(built_in)
    for name in options.arenas:
        choose("arena", name, ARENAS)
    for name in options.mixer:
        require(own.place(name) is not None, "--mixer", name, "package.module:Name or ./file.py:Name")
    own_mixers = {name: spec.described(MIXER, name, [], {}) for name in options.mixer}
    settings = {f: getattr(options, f) for f in ("steps", "seeds", "batch", "length", "d_model", "n_layers")}
    settings |= {"chunk_size": options.chunk_size, "rates": list(options.rates)}
    parts = {
        f"{arena}-{re.sub(r'[^A-Za-z0-9_.]+', '.', name).strip('.')}": {
            "arena_name": arena,
            "mixer": own_mixers.get(name, name),
            "settings": settings,
        }
        for arena in options.arenas
        for name in [*names, *options.mixer]
    }
    with Run.open(options.root, {"league": parts}, name="league") as run:
        results = run_parts(run, play_part, parts, steps=options.steps, grace=GRACE_SECONDS)
        if not run.done:
            run.finish()
    rows = [row(parts[part], arrays) for part, arrays in results.items()]
    if options.json:
        print_json({"run": run.folder, "rows": rows})
    else:
        table = tables.plain_table(list(rows[0]), [list(r.values()) for r in rows], title="the league")
        tables.show(table)
        say(f"run     {run.folder}")
    return 0


def play_part(part: Run, *, arena_name: str, mixer: str | dict, settings: dict[str, Any]) -> dict[str, Any]:
    """One mixer in one arena."""
    import jax

    from meta_icl.evaluation.league import arena, play, roster

    sizes = {k: v for k, v in settings.items() if k not in ("length", "chunk_size")}
    description = spec.built(mixer, {}) if isinstance(mixer, dict) else roster(settings["chunk_size"])[mixer]
    return play(arena(arena_name, settings["length"]), description, key=jax.random.key(0), store=part, **sizes)


def row(part: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: scores as median with the range over seeds."""
    scores = {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith("score/")}
    text = ", ".join(f"{name} {np.median(v):.3f} [{v.min():.3f}, {v.max():.3f}]" for name, v in scores.items())
    return {
        "arena": part["arena_name"],
        "mixer": mixer["own"]["text"] if isinstance(mixer := part["mixer"], dict) else mixer,
        "score": text,
        "rate": float(arrays["rate"]),
        "parameters": int(arrays["parameters"]),
        "state": int(arrays["state"]),
        "flops per token": int(arrays["flops"]),
        "ms per step": 1e3 * float(arrays["seconds"]),
    }
