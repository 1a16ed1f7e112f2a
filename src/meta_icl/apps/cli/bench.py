"""`meta-icl bench`: the workloads of `benchmarks/` against the conventional ways of doing them, in turn."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from meta_icl.apps.cli import tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import BadInput, choose, require

EXAMPLES = ("--list", "--only linear lstm", "--only minegishi --ways meta_icl torch --rounds 9", "--keep my_machine")
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "torch")
COLUMNS = ("workload", "way", "CPU ms", "ratio", "ready s", "MB")


@dataclass(frozen=True)
class Options:
    """Measure workloads against PyTorch and a plain JAX loop: one thread each, one process each, in turn.

    `CPU ms` is the median CPU time of a unit (a step, unless the workload says otherwise), `ratio` the median over
    rounds of that way's time to the first one's, `ready s` the CPU time from the start of the process to the end of its
    first steps, imports and compilation included, `MB` the peak memory. The losses of all ways are compared first.
    Needs a checkout, whose folder `benchmarks` holds the workloads; PyTorch is measured where it is installed.
    """

    only: tuple[str, ...] = ()
    """Workloads to measure, by name; all of them unless given."""
    ways: tuple[str, ...] = ()
    """Ways to measure, such as meta_icl and torch; all of them unless given."""
    rounds: int = 5
    """How often the ways take turns."""
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
    harness = load_harness()
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
    kept = harness.HERE / "results" / f"{options.keep}.json" if options.keep else None
    for name in chosen:
        print(f"measuring {name}", file=sys.stderr)
        found[name] = harness.measure(name, options.rounds, ways)
        if kept is not None:
            keep(kept, {name: found[name]})
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


def load_harness() -> ModuleType:
    """The module that measures, from the folder `benchmarks` of the checkout; `BadInput` where there is none."""
    folder = Path(__file__).resolve().parents[4] / "benchmarks"
    if not (folder / "harness.py").is_file():
        raise BadInput("meta-icl bench needs a checkout of the project: its folder benchmarks is not installed")
    sys.path.append(str(folder))
    import harness  # pyright: ignore[reportMissingImports]

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


def keep(path: Path, found: dict[str, Any]) -> None:
    """Add measurements to a file of results; those of a workload measured before are replaced."""
    from meta_icl.runs.files import read_json, write_json

    before = read_json(path)["workloads"] if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"machine": machine(), "workloads": before | found})


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, system, versions."""
    from meta_icl.runs.provenance import code, versions

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions(PACKAGES),
        "code": code(),
    }
