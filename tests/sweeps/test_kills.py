"""`kill -9` of anybody at random moments: what is left in the end is what an undisturbed run leaves.

`KILLS=50 pytest -m slow -s tests/sweeps/test_kills.py` kills as often in trainings and as often in every kind of sweep
and tells how often whom; without the variable a few times.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meta_icl.runs import Run, verify
from meta_icl.runs.lock import holder

KILLS = int(os.environ.get("KILLS", "4"))
SECONDS = 900.0  # after which a command hangs

# A paper of the user's own, with trainings as parts, claims about them, and checkpoints every few records.
PAPER = """
from dataclasses import dataclass
from meta_icl.models import Learner, von_oswald
from meta_icl.runs import Check, Claim, at_most
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression
from meta_icl.training import loop, to_arrays, train

loop.CHECKPOINT_SECONDS = 0.2

@dataclass(frozen=True)
class Config:
    seeds: int = 3
    steps: int = 6000

IDS, PRESETS = ("K-1",), {"small": Config()}

def trained(part, *, seed, steps):
    net = train(LinearRegression(d=3, n_context=4), Learner(von_oswald(4)), steps=steps, key=0, seeds=[seed], batch=16,
                record=steps // 60, store=part)
    return {f"history/{name}": values for name, values in net.history.items()} | to_arrays(net.stacked, "net")

def run(config, run):
    run_parts(run, trained, {f"seed={s}": {"seed": s, "steps": config.steps} for s in range(config.seeds)})

def claims(run):
    losses = [float(arrays["history/loss"][-1, 0]) for arrays in run.arrays_of_parts().values()]
    return [Claim("own/K-1", "The loss falls", "none", (Check("loss", at_most(1.5), losses),))]

def figures(run):
    return {}
"""
SWEEP = """
[paper]
name = "./mine.py"
[sweep.grid]
paper.steps = [3000, 6000]
paper.seeds = [1, 2]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("kills")
    (place / "mine.py").write_text(PAPER)
    (place / "plan.toml").write_text(SWEEP)
    return place


def start(folder: Path, *command: str, out: Path | None = None) -> subprocess.Popen:
    """A command of `meta-icl` in a process of its own."""
    with open(out or os.devnull, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "meta_icl", *command],
            cwd=folder,
            stdout=file,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])},
        )


def told(folder: Path, *command: str) -> dict[str, Any]:
    """What a command that nobody disturbs tells as JSON."""
    out = folder / "out.json"
    assert start(folder, *command, "--json", out=out).wait(SECONDS) == 0
    return json.loads(out.read_text())


def content(folder: Path) -> dict[str, Any]:
    """What a run and its parts, at any depth, have left: arrays, rows, claims and states; not when and how often."""
    run = Run.load(folder)
    parts = {name: content(part.folder) for name, part in run.parts().items()}
    claims = [(claim.id, claim.verdict, claim.checks) for claim in run.load_claims()]
    arrays = {path.stem: run.load_arrays(path.stem) for path in sorted((folder / "arrays").glob("*.safetensors"))}
    return {"parts": parts, "arrays": arrays, "rows": run.metrics(), "claims": claims, "state": run.state}


def at_random_moments(
    folder: Path, command: list[str], victims: Callable[[subprocess.Popen], dict[str, list[int]]], reach: float
) -> Counter[str]:
    """Start a command and kill one of its victims, until nobody was there any more to kill; who was killed, how often.

    Every kill is waited for in the way in which a user would: until the command has ended, and its workers with it.
    """
    random, killed = np.random.default_rng(), Counter[str]()
    while True:
        process = start(folder, *command)
        end = time.monotonic() + float(random.uniform(0.0, reach))
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        there = {who: pids for who, pids in victims(process).items() if pids}
        if process.poll() is None and there:
            who = str(random.choice(sorted(there)))
            pid = int(random.choice(there[who]))
            try:
                os.kill(pid, signal.SIGKILL)
                killed[who] += 1
            except ProcessLookupError:
                pass
        status = process.wait(SECONDS)
        while any(holder(path.parent) is not None for path in (folder / "runs").rglob("lock")):
            time.sleep(0.05)
        if status == 0:
            return killed


def held(root: Path, process: subprocess.Popen) -> list[int]:
    """The processes that hold a part, but for the main one."""
    pids = {holder(path.parent) for path in root.rglob("parts/*/lock")}
    return sorted(pid for pid in pids if pid not in (None, process.pid))


def emptied(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def compare(folder: Path, command: list[str], victims: Any, whole: tuple[Any, Any]) -> Counter[str]:
    """Chains of kills until there were enough; each ends with the same table and the same content."""
    killed, chains, began = Counter[str](), 0, time.monotonic()
    table, wanted = whole
    reach = SECONDS_WHOLE[tuple(command)]
    while killed.total() < KILLS:
        emptied(folder / "runs")
        killed += at_random_moments(folder, command, victims, reach)
        chains += 1
        found = told(folder, *command)
        (run,) = (folder / "runs").glob("*-*")
        np.testing.assert_equal(without_place(found), without_place(table))
        np.testing.assert_equal(content(run), wanted)
        assert verify([run]) == []
        seconds = time.monotonic() - began
        print(f"{' '.join(command)}: {dict(killed)} in {chains} chains, {seconds:.0f} s, all alike", flush=True)
    return killed


SECONDS_WHOLE: dict[tuple[str, ...], float] = {}


def undisturbed(folder: Path, *command: str) -> tuple[Any, Any]:
    """The table and the content that a command leaves; how long it takes is how long kills may wait."""
    (folder / "runs").mkdir(exist_ok=True)
    emptied(folder / "runs")
    began = time.monotonic()
    table = told(folder, *command)
    SECONDS_WHOLE[command] = time.monotonic() - began
    (run,) = (folder / "runs").glob("*-*")
    return table, content(run)


def without_place(table: Any) -> Any:
    return {name: value for name, value in table.items() if name not in ("run", "seconds", "report")}


@pytest.mark.slow
def test_a_training_alone(folder):
    """The main process, which trains by itself."""
    command = ["reproduce", "./mine.py", "--root", "runs", "--workers", "0"]
    killed = compare(folder, command, lambda process: {"main": [process.pid]}, undisturbed(folder, *command))
    assert killed["main"] >= KILLS


@pytest.mark.slow
def test_trainings_on_workers(folder):
    """The main process or one of two workers."""
    command = ["reproduce", "./mine.py", "--root", "runs", "--workers", "2"]
    victims = lambda process: {"main": [process.pid], "worker": held(folder / "runs", process)}  # noqa: E731
    assert compare(folder, command, victims, undisturbed(folder, *command)).total() >= KILLS


@pytest.mark.slow
def test_a_sweep_on_workers(folder):
    command = ["sweep", "plan.toml", "--yes", "--root", "runs", "--workers", "2"]
    victims = lambda process: {"main": [process.pid], "worker": held(folder / "runs", process)}  # noqa: E731
    assert compare(folder, command, victims, undisturbed(folder, *command)).total() >= KILLS


class Cluster:
    """A scheduler of Dask and two workers, started again where one was killed, as by a queue."""

    def __init__(self, folder: Path):
        self.folder, self.file, self.started = folder, folder / "scheduler.json", {}
        self.port, self.mending = 0, threading.Lock()

    def mend(self) -> None:
        """Start whoever is not there; a scheduler at the address of the first one."""
        with self.mending:
            self._mend()

    def _mend(self) -> None:
        names = ("scheduler", "dask worker 1", "dask worker 2")
        for name in names:
            if name in self.started and self.started[name].poll() is None:
                continue
            if name == "scheduler":
                self.file.unlink(missing_ok=True)
                arguments = ["dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
                self.started[name] = self._start(*arguments, "--scheduler-file", str(self.file))
                while not self.file.exists():
                    assert self.started[name].poll() is None
                    time.sleep(0.05)
                self.port = int(re.search(r"tcp://[\d.]+:(\d+)", self.file.read_text())[1])
            else:
                place = str(self.folder / name.replace(" ", "-"))
                arguments = ["dask_worker", "--scheduler-file", str(self.file), "--host", "127.0.0.1", "--no-nanny"]
                more = ["--nthreads", "1", "--no-dashboard", "--local-directory", place]
                self.started[name] = self._start(*arguments, *more)

    def _start(self, program: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{program}", *arguments],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(self.folder)])},
        )

    def alive(self) -> dict[str, list[int]]:
        found = {name: [process.pid] for name, process in self.started.items() if process.poll() is None}
        return {"scheduler": found.get("scheduler", [])} | {
            "dask worker": [pid for name, pids in found.items() if "worker" in name for pid in pids]
        }


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    made, ended = Cluster(folder), threading.Event()

    def watch() -> None:  # a worker may also end by itself, when its scheduler was killed before
        while not ended.wait(1.0):
            made.mend()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        made.mend()
        yield made
    finally:
        ended.set()
        watching.join()
        for process in made.started.values():
            process.kill()
            process.wait(60)


def killed_on_dask(folder: Path, monkeypatch: pytest.MonkeyPatch, whom: Callable[..., Any]) -> Counter[str]:
    """Who was killed of a sweep on a cluster, of `whom(process, cluster)`; what is dead is started with the command."""
    pytest.importorskip("distributed")
    with cluster(folder) as made:
        command = ["sweep", "plan.toml", "--yes", "--root", "runs", "--on", f"dask:tcp://127.0.0.1:{made.port}"]
        whole = undisturbed(folder, *command)
        plain = start

        def mended(*arguments: Any, **options: Any) -> subprocess.Popen:
            made.mend()
            return plain(*arguments, **options)

        monkeypatch.setitem(globals(), "start", mended)
        return compare(folder, command, lambda process: whom(process, made), whole)


@pytest.mark.slow
def test_a_sweep_on_dask(folder, monkeypatch):
    """The client, the scheduler, a worker of Dask, or the process that computes a part for it."""

    def anybody(process: subprocess.Popen, made: Cluster) -> dict[str, list[int]]:
        return {"client": [process.pid], "process": held(folder / "runs", process), **made.alive()}

    assert killed_on_dask(folder, monkeypatch, anybody).total() >= KILLS


@pytest.mark.slow
def test_a_scheduler_that_is_killed(folder, monkeypatch):
    """It alone, while parts are being computed: whoever computes them goes on or is started again, none twice."""

    def the_scheduler(process: subprocess.Popen, made: Cluster) -> dict[str, list[int]]:
        return {"scheduler": made.alive()["scheduler"]} if held(folder / "runs", process) else {}

    assert set(killed_on_dask(folder, monkeypatch, the_scheduler)) == {"scheduler"}
