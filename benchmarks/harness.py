"""Workloads, each done in several ways that take turns, one process and one thread each.

A `Workload` holds its ways: functions without arguments that make everything and return `run(n) -> loss`, which does n
steps. `measure` starts a process per way, lets all of them do some steps in turn, round after round, and compares the
CPU time that each took in the same round, so that what else the machine does falls on all alike.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
FAMILIES = ("regression", "circuits", "decoders", "recurrent", "theory", "memories", "peak")
MEASURED = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}  # on one thread, compilation too
Run = Callable[[int], float]


@dataclass(frozen=True)
class Workload:
    """What is done, and the ways of doing it; the first way is this project's.

    `steps` is what a round does, at least; `per` is how many units a step has (tokens, seeds), so that times are per
    unit. After `match` steps the losses of all ways but those `apart` differ by at most the share `tolerance`: they do
    the same. `flops` are the floating-point operations of a step, for the share of the peak.
    """

    about: str
    ways: dict[str, Callable[[], Run]]
    steps: int = 10
    match: int = 1
    tolerance: float = 0.1
    unit: str = "step"
    per: dict[str, float] | None = None
    flops: float | None = None
    apart: tuple[str, ...] = ()


def workloads() -> dict[str, Workload]:
    """All workloads by name, in the order of the families; nothing heavy is imported."""
    return {name: work for family in FAMILIES for name, work in importlib.import_module(family).WORKLOADS.items()}


def measure(name: str, rounds: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """{way: what it took}: CPU and wall milliseconds per unit, ratios to the first way, set-up, peak memory, losses."""
    work = workloads()[name]
    found: dict[str, dict[str, Any]] = {}
    running: dict[str, subprocess.Popen] = {}
    try:
        for way in work.ways:
            if only and way not in only:
                continue
            process = _start(name, way)
            told = _ask(process, work.match)
            if "missing" in told:
                found[way] = told
                continue
            running[way] = process
            # Enough steps for a quarter of a second, so that the clock does not matter.
            once = _ask(process, work.steps)
            steps = max(work.steps, round(0.25 / max(once["cpu"] / work.steps, 1e-9)))
            found[way] = told | {"steps": min(steps, 100_000), "samples": []}
        for _ in range(rounds):
            for way, process in running.items():
                found[way]["samples"].append(_ask(process, found[way]["steps"]))
        for way, process in running.items():
            found[way] |= {key: _ask(process, 0)[key] for key in ("peak_mb", "threads")}
    finally:
        for process in running.values():
            process.stdin.close()
            process.wait()
    return {"about": work.about, "unit": work.unit, "flops": work.flops, "ways": _summed(work, found)}


def mismatches(name: str, ways: dict[str, dict[str, Any]]) -> list[str]:
    """In one line each, the ways whose loss is not that of the first one."""
    work = workloads()[name]
    told = [(way, values["loss"]) for way, values in ways.items() if "loss" in values and way not in work.apart]
    return [
        f"{name}: {way} has loss {loss:.4g}, {told[0][0]} {told[0][1]:.4g}"
        for way, loss in told[1:]
        if abs(loss - told[0][1]) > work.tolerance * max(abs(told[0][1]), 1e-12)
    ]


def _summed(work: Workload, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    def each(way: str, kind: str) -> list[float]:
        values = found[way]
        units = values["steps"] * (work.per or {}).get(way, 1.0)
        return [1e3 * sample[kind] / units for sample in values["samples"]]

    here = [way for way, values in found.items() if "samples" in values]
    out: dict[str, dict[str, Any]] = {way: values for way, values in found.items() if "missing" in values}
    for way in here:
        values, cpu, base = found[way], each(way, "cpu"), each(here[0], "cpu")
        out[way] = {
            "cpu_ms": median(cpu),
            "cpu_ms_least": min(cpu),
            "wall_ms": median(each(way, "wall")),
            "ratio": median(a / b for a, b in zip(cpu, base, strict=True)),
            "ready_cpu_s": values["cpu"],
            "peak_mb": values["peak_mb"],
            "threads": values["threads"],
            "loss": values["loss"],
        }
    return {way: out[way] for way in found}


def _start(name: str, way: str) -> subprocess.Popen:
    from meta_icl.sweeps.environment import single_threaded  # here: a process that measures imports what is measured

    paths = [str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | single_threaded({}) | MEASURED | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / "harness.py"), name, way]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _ask(process: subprocess.Popen, steps: int) -> dict[str, Any]:
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{' '.join(process.args[1:])} ended with status {process.wait()}")
    return json.loads(line)


def _serve(name: str, way: str) -> None:
    """One way: for every number of steps on standard input a line of JSON on standard output."""
    answers, sys.stdout = sys.stdout, sys.stderr
    run: Run | None = None
    for line in sys.stdin:
        steps, told = int(line), {}
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            if run is None:
                run, cpu = workloads()[name].ways[way](), 0.0  # all since the process began: imports, compilation
            if steps:
                told["loss"] = float(run(steps))
        except ModuleNotFoundError as missing:
            told["missing"] = str(missing)
        told |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told["threads"] = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
