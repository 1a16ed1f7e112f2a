"""`meta-icl bench`: the workloads of `benchmarks/` against the conventional ways of doing them, in turn."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from meta_icl.apps.cli import tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import BadInput, choose, require

EXAMPLES = ("--list", "--only linear lstm", "--only minegishi --ways meta_icl torch --rounds 9", "--keep my_machine",
            "--optimisers --only lstm")  # fmt: skip
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "torch")
COLUMNS = ("workload", "way", "CPU ms", "ratio", "ready s", "MB")
RACE_COLUMNS = ("family", "optimiser", "rate", "steps to the loss", "lowest", "CPU ms a step")


@dataclass(frozen=True)
class Options:
    """Measure workloads against PyTorch and a plain JAX loop: one thread each, one process each, in turn.

    `CPU ms` is the median CPU time of a unit (a step, unless the workload says otherwise), `ratio` the median over
    rounds of that way's time to the first one's, `ready s` the CPU time from the start of the process to the end of its
    first steps, imports and compilation included, `MB` the peak memory. The losses of all ways are compared first.
    Needs a checkout, whose folder `benchmarks` holds the workloads; PyTorch is measured where it is installed.

    With --optimisers, steps are counted instead: how many each optimiser needs, at each rate, to bring the loss of a
    family of networks below a level that takes learning in context.
    """

    only: tuple[str, ...] = ()
    """Workloads to measure, by name (with --optimisers: families); all of them unless given."""
    ways: tuple[str, ...] = ()
    """Ways to measure, such as meta_icl and torch (with --optimisers: adam, muon); all of them unless given."""
    rounds: int = 5
    """How often the ways take turns."""
    optimisers: bool = False
    """Count the steps to a given loss, by optimiser and rate."""
    seeds: int = 2
    """How many seeds every optimiser trains at every rate."""
    list: bool = False
    """List the workloads and their ways, and measure nothing."""
    keep: str = ""
    """Add what is measured to benchmarks/results/KEEP.json, which names the machine."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="bench", examples=EXAMPLES)
    require(options.rounds >= 1, "rounds", options.rounds, "a positive integer")
    require(options.keep in ("", Path(options.keep).name), "keep", options.keep, "the name of a file, without a folder")
    require(options.seeds >= 1, "seeds", options.seeds, "a positive integer")
    harness = load_harness()
    kept = harness.HERE / "results" / f"{options.keep}.json" if options.keep else None
    if options.optimisers:
        return race(options, kept)
    known = harness.workloads()
    chosen = [choose("workload", name, known) for name in options.only] or list(known)
    all_ways = dict.fromkeys(way for name in chosen for way in known[name].ways)
    ways = [choose("way", way, all_ways) for way in options.ways]
    if options.list:
        listed = [(name, known[name].about, ", ".join(known[name].ways)) for name in chosen]
        if options.json:
            print_json([dict(zip(("name", "about", "ways"), row, strict=True)) for row in listed])
        else:
            tables.show(tables.plain_table(("workload", "what", "ways"), listed))
        return 0
    found: dict[str, Any] = {}
    for name in chosen:
        print(f"measuring {name}", file=sys.stderr)
        found[name] = harness.measure(name, options.rounds, ways)
        if kept is not None:
            keep(kept, workloads={name: found[name]})
    unlike = [line for name in chosen for line in harness.mismatches(name, found[name]["ways"])]
    if options.json:
        print_json({"machine": machine(), "workloads": found, "unlike": unlike})
    else:
        tables.show(tables.plain_table(COLUMNS, rows(found), title=machine()["processor"], whole=True))
    for line in unlike:
        print(f"losses differ: {line}", file=sys.stderr)
    if kept is not None:
        say(f"kept in {kept}")
    return 1 if unlike else 0


def race(options: Options, kept: Path | None) -> int:
    """Steps to a given loss; by the module `optimisers` of the folder `benchmarks`."""
    import optimisers  # load_harness has put its folder on the path

    known = optimisers.RACES
    chosen = [choose("family", name, known) for name in options.only] or list(known)
    for name in options.ways:
        choose("optimiser", name, dict.fromkeys(way for name in chosen for way in known[name].rates))
    if options.list:
        listed = [(name, known[name].about, f"{known[name].target:g}") for name in chosen]
        tables.show(tables.plain_table(("family", "what", "loss"), listed))
        return 0
    results = []
    for name in chosen:
        print(f"measuring {name}", file=sys.stderr)
        results += optimisers.run(name, options.seeds, options.ways)
        if kept is not None:
            keep(kept, optimisers={name: [asdict(result) for result in results if result.race == name]})
    if options.json:
        print_json({"machine": machine(), "optimisers": [asdict(result) for result in results]})
    else:
        tables.show(tables.plain_table(RACE_COLUMNS, race_rows(results), whole=True))
    if kept is not None:
        say(f"kept in {kept}")
    return 0


def race_rows(results: Sequence[Any]) -> list[tuple[str, ...]]:
    """A line per family, optimiser and rate, with the values of the seeds."""
    return [
        (result.race, result.optimiser, f"{rate:g}", ", ".join("-" if step is None else f"{step:,}" for step in steps),
         ", ".join(f"{loss:.3g}" for loss in result.lowest[rate]), f"{result.cpu_ms:.3g}")
        for result in results for rate, steps in result.reached.items()
    ]  # fmt: skip


def load_harness() -> ModuleType:
    """The module that measures, from the folder `benchmarks` of the checkout; `BadInput` where there is none."""
    folder = Path(__file__).resolve().parents[4] / "benchmarks"
    if not (folder / "harness.py").is_file():
        raise BadInput("meta-icl bench needs a checkout of the project: its folder benchmarks is not installed")
    sys.path.append(str(folder))
    import harness

    return harness


def rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """A line per way; the share of the peak is told beside the first way where the peak was measured, too."""
    peak = peak_of(found)
    lines: list[tuple[Any, ...]] = []
    for name, work in found.items():
        for way, values in work["ways"].items():
            if "missing" in values:
                lines.append((name, way, "-", "-", "-", "-"))
                continue
            told = f"{values['cpu_ms']:.3g}"
            if peak and work["flops"] and name != "gemm":
                told += f" ({work['flops'] / values['cpu_ms'] / 1e6 / peak:.0%})"
            ready, memory = f"{values['ready_cpu_s']:.1f}", f"{values['peak_mb']:.0f}"
            lines.append((name, way, told, f"{values['ratio']:.2f}", ready, memory))
    return lines


def peak_of(found: dict[str, Any]) -> float | None:
    """The best rate of a large matrix product in GFLOP/s, if it was measured."""
    work = found.get("gemm")
    times = [values["cpu_ms"] for values in work["ways"].values() if "cpu_ms" in values] if work else []
    return work["flops"] / min(times) / 1e6 if work and times else None


def keep(path: Path, **found: dict[str, Any]) -> None:
    """Add measurements to a file of results, by kind and name; those made before under the same name are replaced.

    The machine stands once, the code that was measured beside every measurement.
    """
    from meta_icl.runs.files import read_json, write_json
    from meta_icl.runs.provenance import code

    content = (read_json(path) if path.exists() else {}) | {"machine": machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind, measured in found.items():
        added = {name: {"code": code(), "measured": values} for name, values in measured.items()}
        content[kind] = content.get(kind, {}) | added
    write_json(path, content)


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, system, versions of libraries."""
    from meta_icl.runs.provenance import versions

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions(PACKAGES),
    }
