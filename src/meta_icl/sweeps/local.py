"""Worker processes on this machine: started, watched, replaced when they die, stopped together."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs import Run, stop_requested
from meta_icl.runs.lock import holder, holders, last_holder
from meta_icl.runs.manifest import is_done
from meta_icl.runs.run import ERROR
from meta_icl.sweeps.environment import worker_environment
from meta_icl.sweeps.progress import Progress
from meta_icl.sweeps.work import GRACE_SECONDS, ORDER, PartFailed, failed, function_name, raise_kept_error

POLL_SECONDS = 0.1
WORKER = "meta_icl.sweeps.worker"
STOPPED = 130  # exit status of a worker that was asked to stop, with its checkpoint saved
LOG = "workers.log"  # what workers print
MOST_DEATHS = 2  # of workers on the same part, before the part is given up


def run_on_workers(
    run: Run,
    names: Sequence[str],
    function: Callable[..., Any],
    n_workers: int,
    progress: Progress,
    grace: float = GRACE_SECONDS,
    time_limit: float | None = None,
) -> None:
    """Have worker processes compute the named parts by a function, in this order; returns when all are done."""
    run.save_json(ORDER, list(names))
    every = {name: run.part_folder(name) for name in names}
    folders = dict(every)  # of the parts that are not done
    workers: list[subprocess.Popen[bytes]] = []
    deaths: Counter[str] = Counter()
    for folder in folders.values():
        (folder / ERROR).unlink(missing_ok=True)
    try:
        workers += [start_worker(run.folder, function, time_limit) for _ in range(n_workers)]
        while folders:
            for name in [name for name, folder in folders.items() if is_done(folder)]:
                del folders[name]
                progress.finished(name)
            if stop_requested():
                raise KeyboardInterrupt
            for worker in [worker for worker in workers if worker.poll() is not None]:
                workers.remove(worker)
                _explain(run, worker, every, deaths)
            for name, folder in folders.items():  # also what a worker of another process has failed at
                if failed(folder) and holder(folder) is None:
                    raise_kept_error(name, folder)
            # A worker leaves when it finds every part done or taken; a part that is open again, because its worker
            # died, needs another.
            if len(workers) < n_workers and _waiting(folders, workers):
                workers.append(start_worker(run.folder, function, time_limit))
            alive = {worker.pid for worker in workers}
            progress.running({name: folder for name, folder in folders.items() if last_holder(folder) in alive})
            if folders:
                time.sleep(POLL_SECONDS)
    finally:
        _stop(workers, grace)


def start_worker(
    folder: Path, function: Callable[..., Any], time_limit: float | None = None, part: str | None = None
) -> subprocess.Popen[bytes]:
    """A worker process on the parts of a run, or on one of them; close its standard input to have it stop."""
    command = [sys.executable, "-P", "-m", WORKER, str(folder.resolve()), function_name(function), "--watch-stdin"]
    command += [] if time_limit is None else ["--time-limit", str(time_limit)]
    command += [] if part is None else ["--part", part]
    # In a session of its own, so that Ctrl-C reaches the parent alone, which passes it on. The pipe to its standard
    # input ends when this process does, however that happens.
    with open(folder / LOG, "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=worker_environment(function),
            start_new_session=True,
        )


def _waiting(folders: dict[str, Path], workers: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Whether more parts wait than workers that are still on their way to a part."""
    taken_by = {last_holder(folder) for folder in folders.values()}
    on_their_way = sum(worker.pid not in taken_by for worker in workers)
    free = sum(holder(folder) is None and not is_done(folder) for folder in folders.values())
    return free > on_their_way


def _explain(run: Run, worker: subprocess.Popen[bytes], folders: dict[str, Path], deaths: Counter[str]) -> None:
    """Raise if a worker that has ended failed; count it as a death of its part if it was killed."""
    status = worker.wait()
    _close(worker)
    if status == 0:
        return
    for name, folder in folders.items():
        raise_kept_error(name, folder)
    # Another worker may have taken the part already, or even finished it; only the dead one's last part can be open.
    held = [name for name, folder in folders.items() if worker.pid in holders(folder)]
    name = next((name for name in held if not is_done(folders[name])), held[-1] if held else None)
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    if status == os.EX_IOERR:
        where = run.folder if name is None else folders[name]
        raise BadInput(f"a worker cannot write to {where}, perhaps for lack of space; the same command goes on")
    if status == STOPPED and name is None:  # asked to stop before it had a part
        return
    if status not in (STOPPED, *range(-64, 0)) or name is None:
        lines = (run.folder / LOG).read_text(errors="replace").splitlines()[-8:]
        raise PartFailed("\n".join([f"a worker failed ({how}){'' if name is None else f' in part {name}'}:", *lines]))
    deaths[name] += 1
    if deaths[name] >= MOST_DEATHS:
        raise PartFailed(f"part {name}: {deaths[name]} workers died of {how} on it, perhaps for lack of memory")


def _stop(workers: Sequence[subprocess.Popen[bytes]], grace: float) -> None:
    """Ask for a stop at the next checkpoint, then insist; Ctrl-C in the meantime kills at once."""
    try:
        for number, seconds in ((signal.SIGINT, grace), (signal.SIGINT, grace / 3)):
            for worker in workers:
                if worker.poll() is None:
                    os.kill(worker.pid, number)
            end = time.monotonic() + seconds
            while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
                time.sleep(POLL_SECONDS / 4)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            _close(worker)


def _close(worker: subprocess.Popen[bytes]) -> None:
    if worker.stdin is not None:
        worker.stdin.close()
