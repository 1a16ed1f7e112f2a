"""Runs the parts of a run: finished ones are loaded, the others computed on worker processes or in this one."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from meta_icl.errors import BadInput, require
from meta_icl.runs import Run, graceful_interrupts, reuse_parts, stop_requested
from meta_icl.runs.config import write_config
from meta_icl.runs.manifest import is_done
from meta_icl.runs.run import ERROR
from meta_icl.sweeps.environment import compute_like_a_worker, default_workers, worker_threads
from meta_icl.sweeps.local import run_on_workers
from meta_icl.sweeps.progress import Progress
from meta_icl.sweeps.work import GRACE_SECONDS, PartFailed, compute, find_function, function_name

STOPPING = "stopping at the next checkpoint; press Ctrl-C again to stop at once; the same command goes on from there"

Executor = Callable[[Run, Sequence[str], Callable[..., Any], Progress, float | None], None]

__all__ = ["Executor", "PartFailed", "run_parts"]


def run_parts(
    run: Run,
    function: Callable[..., Mapping[str, Any]],
    parts: Mapping[str, Mapping[str, Any]],
    *,
    workers: int | None = None,
    progress: bool | None = None,
    cost: Mapping[str, float] | None = None,
    steps: int | None = None,
    grace: float = GRACE_SECONDS,
    time_limit: float | None = None,
    executor: Executor | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Call `function(part, **arguments) -> {name: array}` for every `{name: arguments}` and return the arrays.

    `function` is a top-level function and `arguments` are JSON; both stand in the part's `config.json`, so that a
    finished part is never computed again and an unfinished one resumes from its checkpoint. `workers` processes
    (default: one per core, or none on an accelerator) take the parts in turn, those of higher `cost` first; 0 or 1
    computes them in this process, unless jax already computes in it with other threads than a worker's, on which bits
    depend: then in one worker. `progress`: True shows a bar, False nothing, None a bar on a terminal and a line per
    part elsewhere; where all parts log as many `steps`, the bar moves with them. After Ctrl-C workers have `grace`
    seconds to reach a checkpoint; those that need longer are stopped, and go on from their last one. A part that takes
    longer than `time_limit` seconds has failed. An `executor` computes the parts elsewhere, in place of `workers`.
    Of a run that was asked for some `experiments` only, patterns of names as `fnmatch` reads them, other parts are left
    out; what another run has finished is taken from there (`runs.reuse`).

    Raises `PartFailed` with the end of the traceback if a part fails, `BadInput` for bad input, and
    `KeyboardInterrupt` after Ctrl-C, once the workers have saved their checkpoints.
    """
    require(workers is None or workers >= 0, "workers", workers, "zero or more")
    only = run.config.get("experiments")
    if only is not None:
        parts = {name: each for name, each in parts.items() if any(fnmatchcase(name, pattern) for pattern in only)}
    name_of_function = function_name(function)
    for name, arguments in parts.items():
        write_config(run.part_folder(name), {"function": name_of_function, "arguments": dict(arguments)})
    unfinished = [name for name in parts if not is_done(run.part_folder(name))]
    if cost is not None:
        unfinished.sort(key=lambda name: -cost.get(name, 0.0))
    taken = reuse_parts(run, unfinished)
    unfinished = [name for name in unfinished if name not in taken]
    for source, n in Counter(taken.values()).items():
        if progress is not False:
            print(f"{n} of {len(parts)} parts reused from {source}", file=sys.stderr, flush=True)
    if unfinished:
        if find_function(name_of_function) is not function:
            raise BadInput(f"{name_of_function} is not the function given: parts need a top-level function of a module")
        wanted = default_workers() if workers is None else workers
        # By default even a single open part, such as the last one of a run that was killed, has a worker.
        here = executor is None and time_limit is None and (wanted == 0 or workers == 1) and compute_like_a_worker()
        with (
            Progress(len(parts), len(parts) - len(unfinished), progress, steps) as shown,
            graceful_interrupts(STOPPING),
        ):
            if here:
                _run_here(run, unfinished, function, shown)
            elif executor is not None:
                executor(run, unfinished, function, shown, time_limit)
            else:
                n_workers = min(max(wanted, 1), len(unfinished))
                run_on_workers(run, unfinished, function, n_workers, shown, grace, time_limit)
    return {name: run.part_arrays(name) for name in parts}


def _run_here(run: Run, names: Sequence[str], function: Callable[..., Any], progress: Progress) -> None:
    for name in names:
        folder = run.part_folder(name)
        progress.running({name: folder})
        with Run.open(folder, Run.load(folder).config) as part, worker_threads():
            (folder / ERROR).unlink(missing_ok=True)
            try:
                compute(part, function)
            except BadInput as error:
                raise BadInput(f"part {name}: {error}") from error
        progress.finished(name)
        if stop_requested():
            raise KeyboardInterrupt
