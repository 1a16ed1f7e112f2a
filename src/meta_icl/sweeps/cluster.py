"""Parts on a cluster of Dask: each is one task, which has a worker process compute it in the run's folder.

The folder must be on a file system that all machines share; nothing else passes between them but names. The part's lock
and `DONE` decide who computes it, so whatever dies (a task, a machine, the scheduler, the client), the same command
finishes what is left. Dask comes with the extra `cluster` and is imported when it is asked for; it pickles what it
sends, so that everybody who can reach its scheduler can run code there.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput, choose
from meta_icl.runs import Run, stop_requested
from meta_icl.runs.lock import holder
from meta_icl.runs.manifest import is_done
from meta_icl.runs.run import ERROR
from meta_icl.sweeps.local import STOPPED, start_worker
from meta_icl.sweeps.parts import Executor
from meta_icl.sweeps.progress import Progress
from meta_icl.sweeps.work import GRACE_SECONDS, failed, find_function, function_name, raise_kept_error

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
CONNECT_SECONDS = 20.0
POLL_SECONDS = 0.5
ALONE_SECONDS = 10.0  # without any worker, after which the one who waits is told
MISSING = "sweeps on a cluster need dask, distributed and dask-jobqueue: install the extra `cluster`"


def on_dask(address: str) -> Executor:
    """What computes parts on the cluster whose scheduler has an address such as tcp://10.0.0.1:8786.

    Raises `BadInput` if Dask is not installed or nobody answers there.
    """
    with client_of(address):
        pass

    def execute(
        run: Run, names: Sequence[str], function: Callable[..., Any], progress: Progress, time_limit: float | None
    ) -> None:
        with client_of(address) as client:
            _run_tasks(client, run, names, function, progress, time_limit)

    return execute


@contextmanager
def client_of(address: str) -> Iterator[Any]:
    """A client of the scheduler at an address."""
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"no Dask scheduler answers at {address!r} ({' '.join(str(error).split())[:160]})") from None
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=5)


def queue_cluster(queue: str, options: Mapping[str, Any]) -> Any:
    """The cluster whose workers are jobs of a batch system, by dask-jobqueue: its scheduler runs in this process.

    `options` are those of dask-jobqueue's class, such as cores, memory, walltime, queue, account, interface. No job is
    submitted before the cluster is scaled; `cluster.job_script()` is what will be.
    """
    try:
        import dask_jobqueue
    except ImportError:
        raise BadInput(MISSING) from None
    made = getattr(dask_jobqueue, QUEUES[choose("queue", queue, QUEUES)])
    scheduler = {"dashboard": False, **options.get("scheduler_options", {})}
    try:
        return made(**{**options, "scheduler_options": scheduler})
    except (TypeError, ValueError) as error:
        raise BadInput(f"[cluster] does not fit {made.__name__}: {' '.join(str(error).split())}") from None


def compute_part(folder: str, name: str, function: str, time_limit: float | None) -> str | None:
    """The task: have a worker process compute one part; `None` if it is done, else what is known of the reason.

    A process of its own has the threads, the import path and the time limit of any other worker, and stops with this
    one. A part that somebody else still holds, such as the worker of a machine that was given up, is waited for.
    """
    place = Run.load(folder).part_folder(name)
    status = 0
    while not is_done(place) and not failed(place):
        if holder(place) is not None:
            if _given_up():
                return "stopped"
            time.sleep(POLL_SECONDS)
            continue
        worker = start_worker(Path(folder), find_function(function), time_limit, name)
        try:
            status = _ended(worker)
        finally:
            _stop(worker)
        if status != 0:
            break
    return None if is_done(place) else f"exit status {status}"


def _ended(worker: subprocess.Popen[bytes]) -> int:
    """The exit status of a worker; the caller stops one whose task was given up."""
    while worker.poll() is None:
        if _given_up():
            return STOPPED
        time.sleep(POLL_SECONDS / 5)
    return worker.returncode


def _given_up() -> bool:
    """Whether nobody waits for this task any more: its client is gone, or its Dask worker closes."""
    from distributed import get_worker

    here = get_worker()
    task = here.state.tasks.get(here.get_current_task())
    return here.status.name != "running" or task is None or task.state == "cancelled"


def _stop(worker: subprocess.Popen[bytes]) -> None:
    if worker.stdin is not None:
        worker.stdin.close()  # it stops at its next checkpoint
    try:
        worker.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _run_tasks(
    client: Any,
    run: Run,
    names: Sequence[str],
    function: Callable[..., Any],
    progress: Progress,
    time_limit: float | None,
) -> None:
    """All parts as tasks; what one fails at is told when the others are done, so that calling again does the rest."""
    distributed = _distributed()
    folders = {name: run.part_folder(name) for name in names}
    for folder in folders.values():
        (folder / ERROR).unlink(missing_ok=True)
    told = str(run.folder.resolve()), function_name(function)
    mark = os.urandom(4).hex()  # Dask would take a task of the same name for the one of before
    keys = {name: f"{run.name}/{name}/{mark}" for name in names}
    futures = {client.submit(compute_part, told[0], name, told[1], time_limit, key=keys[name]): name for name in names}
    open_, reasons, company = set(futures), {}, _Company(client, progress)
    try:
        while open_:
            if stop_requested():
                raise KeyboardInterrupt
            if client.status not in ("running", "connecting"):
                raise BadInput("the Dask scheduler is gone; the same command goes on where it was")
            for future in [future for future in open_ if future.done()]:
                open_.remove(future)
                name = futures[future]
                reasons[name] = _reason(future, distributed)
                if is_done(folders[name]):
                    progress.finished(name)
            progress.running({name: folder for name, folder in folders.items() if holder(folder) is not None})
            company.look()
            time.sleep(POLL_SECONDS / 5)
    finally:
        with suppress(Exception):  # the scheduler may be gone, and then so are its tasks
            client.cancel(list(open_))
    for name, folder in folders.items():
        if not is_done(folder):
            raise_kept_error(name, folder)
            raise BadInput(f"part {name} was not finished ({reasons[name]}); the same command goes on where it was")


class _Company:
    """Whether the cluster has workers: who waits for parts is told once, each time that for a while it has none."""

    def __init__(self, client: Any, progress: Progress):
        self._client, self._progress = client, progress
        self._looked = self._seen = time.monotonic()
        self._told = False

    def look(self) -> None:
        now = time.monotonic()
        if now - self._looked < min(1.0, ALONE_SECONDS):
            return
        self._looked, workers = now, True
        with suppress(Exception):  # the scheduler may be gone, which is told elsewhere
            workers = bool(self._client.scheduler_info(n_workers=1)["workers"])
        if workers:
            self._seen, self._told = now, False
        elif now - self._seen >= ALONE_SECONDS and not self._told:
            self._progress.note("the cluster has no worker: parts wait until one comes")
            self._told = True


def _reason(future: Any, distributed: Any) -> str | None:
    """What a task that has ended tells."""
    try:
        return future.result()
    except (distributed.CancelledError, distributed.KilledWorker) as error:
        return type(error).__name__
    except Exception as error:  # whatever a task of another machine raised
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise BadInput(MISSING) from None
    return distributed
