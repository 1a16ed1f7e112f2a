"""Parts on Dask, with a scheduler and workers on this machine; scripts of batch systems beside dask-jobqueue's own."""

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jobs
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Run, verify
from meta_icl.runs.lock import holder
from meta_icl.sweeps import PartFailed, cluster, run_parts
from meta_icl.sweeps.cluster import on_dask, queue_cluster
from meta_icl.sweeps.progress import Progress

distributed = pytest.importorskip("distributed")
ADDRESS = re.compile(r"tcp://[\d.]+:\d+")


@contextmanager
def scheduler_and_workers(tmp_path: Path, n: int = 2):
    """A scheduler and workers in processes of their own, as on other machines, that can be killed."""
    started: list[subprocess.Popen] = []

    def start(*arguments: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen([sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]], cwd=tmp_path)
        )
        return started[-1]

    file = tmp_path / "scheduler.json"
    start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    here = ("--scheduler-file", str(file), "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def worker() -> subprocess.Popen:
        return start("dask_worker", *here, "--local-directory", str(tmp_path / f"worker-{len(started)}"))

    try:
        while not file.exists():
            time.sleep(0.05)
        for _ in range(n):
            worker()
        address = ADDRESS.search(file.read_text())
        assert address is not None
        yield address[0], started, worker
    finally:
        for process in reversed(started):  # workers first: without a scheduler they try for minutes to find it
            process.terminate()
            process.wait(240)


def test_nobody_answers():
    with pytest.raises(BadInput, match="no Dask scheduler answers at 'nonsense://"):
        on_dask("nonsense://127.0.0.1:1")


@pytest.mark.slow
def test_who_waits_for_a_worker_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.setattr(cluster, "ALONE_SECONDS", 0.1)
    with scheduler_and_workers(tmp_path, n=0) as (address, _, worker), Run.open(tmp_path / "run", {"a": 1}) as run:

        def note(self, text):
            told.append(text)
            worker()

        told: list[str] = []
        monkeypatch.setattr(Progress, "note", note)
        results = run_parts(run, jobs.slow_sum, {"a": {"x": 1.0, "steps": 2}}, executor=on_dask(address))
    assert set(results) == {"a"} and told == ["the cluster has no worker: parts wait until one comes"]


@pytest.mark.slow
def test_parts_on_two_workers_of_dask_of_which_one_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    parts = {name: {"x": float(i), "steps": 60} for i, name in enumerate("abcd")}
    with Run.open(tmp_path / "whole", {"a": 1}) as run:
        whole = run_parts(run, jobs.slow_sum, parts, workers=0, progress=False)
    with scheduler_and_workers(tmp_path) as (address, started, _), Run.open(tmp_path / "run", {"a": 1}) as run:
        other = subprocess.Popen(  # kills a worker of Dask as soon as two parts are held
            [sys.executable, "-c", KILLER.format(folder=str(run.folder), pid=started[1].pid)]
        )
        results = run_parts(run, jobs.slow_sum, parts, progress=False, executor=on_dask(address))
        assert other.wait(240) == 0 and started[1].wait(240) == -signal.SIGKILL
        np.testing.assert_equal(results, whole)
        for part in run.parts().values():
            assert part.state == "done" and [row["step"] for row in part.metrics()] == list(range(1, 61))
        run.finish()
        # What fails is told by its name, when the others are done; a part that takes too long has failed.
        again = Run.open(tmp_path / "fails", {"a": 1})
        with pytest.raises(BadInput, match=r"^part one: x must not be 1, got 1$"):
            run_parts(again, jobs.fail, {"one": {"x": 1.0}, "two": {"x": 2.0}}, executor=on_dask(address))
        assert again.parts()["two"].done
        again.close()
        with (
            Run.open(tmp_path / "late", {"a": 1}) as late,
            pytest.raises(PartFailed, match="took longer than 1 s"),
        ):
            run_parts(late, jobs.deaf, {"a": {"seconds": 60}}, executor=on_dask(address), time_limit=1.0)
        # The scheduler dies: one line, and without it the same parts are finished here.
        with Run.open(tmp_path / "orphan", {"a": 1}) as orphan:
            killer = subprocess.Popen(
                [sys.executable, "-c", KILLER.format(folder=str(orphan.folder), pid=started[0].pid)]
            )
            with pytest.raises(BadInput, match="the same command goes on where it was"):
                run_parts(orphan, jobs.slow_sum, parts, progress=False, executor=on_dask(address))
            assert killer.wait(240) == 0
            end = time.monotonic() + 240
            while any(holder(orphan.part_folder(name)) is not None for name in parts) and time.monotonic() < end:
                time.sleep(0.1)
            np.testing.assert_equal(run_parts(orphan, jobs.slow_sum, parts, workers=0, progress=False), whole)
    assert verify([tmp_path / "run"]) == []


KILLER = """
import os, pathlib, signal, time
from meta_icl.runs.lock import holder
folder = pathlib.Path({folder!r})
while not any(holder(place) for place in folder.glob("parts/*")):
    time.sleep(0.05)
time.sleep(0.3)
os.kill({pid}, signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["slurm", "pbs"])
def test_the_script_of_a_job_is_that_of_dask_jobqueue(name, tmp_path, monkeypatch):
    jobqueue = pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    options = {"cores": 4, "memory": "8GB", "walltime": "02:00:00", "queue": "long", "account": "icl"}
    kind = {"slurm": jobqueue.slurm.SLURMJob, "pbs": jobqueue.pbs.PBSJob}[name]
    own = kind("tcp://127.0.0.1:1", name="dummy-name", **options).job_script()
    with queue_cluster(name, options | {"scheduler_options": {"host": "127.0.0.1"}}) as cluster:
        assert ADDRESS.sub("", cluster.job_script()) == ADDRESS.sub("", own)
    assert "long" in own and "icl" in own
    with pytest.raises(BadInput, match=r"\[cluster\] does not fit"):
        queue_cluster(name, {"colour": 4, "cores": 1, "memory": "1GB"})
    with pytest.raises(BadInput, match="did you mean 'slurm'"):
        queue_cluster("slurmm", {})
