"""`meta-icl sweep FILE.toml`: a plan of trainings or reproductions, shown first, then run here or on a cluster."""

import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from meta_icl.apps.cli import planned, report, tables
from meta_icl.apps.cli.catalogue import model_of, objective_of, optimiser_of, task_of
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.sweep_report import points_told
from meta_icl.apps.cli.tracking import trackers_of
from meta_icl.apps.cli.training_config import drawn, point_label
from meta_icl.apps.cli.which import checked_name
from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import Run, default_root
from meta_icl.runs.config import config_hash
from meta_icl.runs.trackers import tracked
from meta_icl.sweeps import PartFailed, compute_like_a_worker, default_workers, run_parts, use_compilation_cache
from meta_icl.sweeps.cluster import QUEUES, on_dask, queue_cluster
from meta_icl.sweeps.parts import Executor
from meta_icl.sweeps.plan import Point, label, read_plan

EXAMPLES = (
    "rates.toml",
    "rates.toml --dry-run",
    "rates.toml --yes --workers 2 --retries 1 --time-limit 600",
    "rates.toml --yes --on dask:tcp://10.0.0.1:8786",
    "rates.toml --on slurm --jobs 8 --dry-run",
)
PROBED_STEPS = 20  # of the first group, to tell how long the sweep takes
POINTS_SHOWN = 12  # of the plan, before it is run


@dataclass(frozen=True)
class Options:
    """Run a sweep: a TOML file with [task], [model], [optimiser], steps, batch, seeds, or with [paper], and [sweep].

    [sweep.grid] holds lists of which every combination is taken (task.noise = [0, 0.1]), [sweep.zip] lists of one
    length that are read side by side, [sweep.random] draws, seed and ranges (optimiser.learning_rate = { log = [1e-4,
    1e-1] }). The plan is shown first. Points that differ only in numbers share one compiled training. The same command
    again finishes what was interrupted, wherever it ran. A cluster needs the extra `cluster` and a folder of runs that
    all its machines share; batch systems take the options of dask-jobqueue from [cluster], such as cores, memory and
    walltime.
    """

    file: tyro.conf.Positional[Path]
    """The TOML file."""
    on: Annotated[str, tyro.conf.arg(metavar="WHERE")] = "local"
    """Where it runs: local, dask:ADDRESS of a scheduler, or a batch system (slurm, pbs, lsf, sge)."""
    jobs: int = 4
    """Jobs that a batch system is asked for."""
    yes: bool = False
    """Do not ask."""
    dry_run: bool = False
    """Show the plan, and the script of a batch system's jobs, and stop."""
    retries: int = 0
    """How often to go on when a part has failed, from its last checkpoint."""
    time_limit: float | None = None
    """Seconds that one part may take (default: any)."""
    workers: int | None = None
    """Worker processes here (default: one per core, as many as fit into memory and the work is worth)."""
    track: tuple[str, ...] = ()
    """Also send what is logged to tensorboard, wandb (offline unless WANDB_MODE says otherwise), mlflow (extra
    `trackers`), or a class of your own as ./file.py:Name; a tracker never fails a run."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; exit status 3 if a training has diverged."""
    options = parse(Options, arguments, command="sweep", examples=EXAMPLES)
    require(options.workers is None or options.workers >= 0, "--workers", options.workers, "zero or more")
    require(options.jobs >= 1, "--jobs", options.jobs, "a positive integer")
    require(options.retries >= 0, "--retries", options.retries, "zero or more")
    require(
        options.time_limit is None or options.time_limit > 0, "--time-limit", options.time_limit, "positive seconds"
    )
    where, _, address = options.on.partition(":")
    choose("--on", where, ("local", "dask", *QUEUES))
    require((where == "dask") == bool(address), "--on", options.on, "local, dask:ADDRESS or a batch system")
    use_compilation_cache()
    compute_like_a_worker()
    makers = trackers_of(options.track)
    plan = read_plan(options.file)
    cluster = planned.table("cluster", plan.settings.get("cluster", {}))
    work = planned.work_of(plan)
    name = checked_name(str(plan.settings.get("name", re.sub(r"[^A-Za-z0-9_.-]+", "_", options.file.stem)))) or ""
    folder = options.root / f"{name}-{config_hash(work.config)}"
    workers = workers_here(options.workers, work) if where == "local" else None
    begun = folder.exists()
    if options.dry_run or not (options.yes or begun):
        if not (options.dry_run or sys.stdin.isatty()):
            raise BadInput("--yes must be given where nobody can be asked (--dry-run shows the plan)")
        show_plan(work, plan.points, workers, folder)
        if where in QUEUES:
            with queue_cluster(where, cluster) as made:
                say(made.job_script())
        if options.dry_run or not agreed("run it? [y/N] "):
            return 0
    with (
        Run.open(options.root, work.config, name=name) as run,
        tracked(run, makers),
        executor_on(where, address, cluster, options) as executor,
    ):
        names = run.parts()  # keep their arrangement, also where there is now an accelerator or none
        separate = work.parts(False)
        together = not set(names) <= set(separate) if names else where == "local" and default_workers() == 0
        parts = work.parts(together)
        results = compute(run, work, parts, workers, executor, options)
        if not run.done:
            run.finish()
        content = report.told_by(run)
        report.write(run.folder / "report.html", content)
        diverged = diverged_in(run, parts)
    rows = points_told(run, parts, results)
    if options.json:
        print_json({"run": run.folder, "points": rows, "diverged": diverged})
    else:
        columns = [column.replace("_", " ") for column in rows[0]]
        tables.show(tables.plain_table(columns, [list(row.values()) for row in rows]))
        say(f"run      {run.folder}\nreport   {run.folder / 'report.html'}")
        for point, step in diverged.items():
            say(f"diverged {point}: NaN or infinite when seen at step {step}")
    return 3 if diverged else 0


def agreed(question: str) -> bool:
    """Whether a question is answered by yes; the end of the input (Ctrl-D) is a no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def compute(
    run: Run,
    work: planned.Work,
    parts: Mapping[str, Mapping[str, Any]],
    workers: int | None,
    executor: Executor | None,
    options: Options,
) -> dict[str, dict[str, np.ndarray]]:
    """The results of all parts; goes on where parts have failed as often as was asked for."""
    progress = False if "papers" in work.config and (workers or 0) <= 1 else None  # a paper shows its own
    for left in range(options.retries, -1, -1):
        try:
            return run_parts(
                run,
                work.function,
                parts,
                workers=workers,
                progress=progress,
                steps=work.steps,
                time_limit=options.time_limit,
                executor=executor,
            )
        except PartFailed as error:
            if left == 0:
                raise
            print(f"{str(error).splitlines()[0]} trying again", file=sys.stderr, flush=True)
    raise AssertionError("unreachable: the last attempt returns or raises")


def workers_here(asked: int | None, work: planned.Work) -> int:
    """As many worker processes as asked for, else one per core, no more than fit into what memory is free, nor than the
    work is worth: one, which is this process, for a sweep of small trainings."""
    if asked is not None:
        return asked
    try:
        found = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:  # not on Linux: nothing is known of memory
        found = None
    most = default_workers() if work.processes is None else min(default_workers(), work.processes)
    return most if found is None else min(most, max(1, int(int(found[1]) * 1024 // work.bytes_per_process)))


@contextlib.contextmanager
def executor_on(where: str, address: str, cluster: Mapping[str, Any], options: Options) -> Iterator[Executor | None]:
    """What computes the parts elsewhere; `None` for this machine."""
    if where == "local":
        yield None
    elif where == "dask":
        yield on_dask(address)
    else:
        with queue_cluster(where, cluster) as made:
            made.scale(jobs=options.jobs)
            yield on_dask(made.scheduler_address)


def show_plan(work: planned.Work, points: Sequence[Point], workers: int | None, folder: Path) -> None:
    """Tell how many runs there are, in which groups, and how long they will take."""
    parts = work.parts(False)
    shown = [label(point) for point in points[:POINTS_SHOWN] if point]
    more = [f"... {len(points)} points in all"] if len(points) > POINTS_SHOWN else []
    cores = "a cluster" if workers is None else tables.counted(workers, "process", "es")
    runs = tables.counted(sum(members(part) for part in parts.values()), "run")
    groups = f"{tables.counted(len(points), 'point')} in {tables.counted(len(work.groups), 'group')} of equal shape"
    say("\n".join([*shown, *more, f"{groups}; {runs} in {tables.counted(len(parts), 'part')} on {cores}"]))
    say(f"at least {work.bytes_per_process / 1e9:.2g} GB of memory per process; run {folder}")
    if "groups" not in work.config:
        say("times: see `meta-icl papers NAME`")
        return
    start, per_prompt = probed_seconds(work)
    prompts = [members(part) * part["training"]["steps"] * part["training"]["batch"] for part in parts.values()]
    total = len(parts) * start + per_prompt * sum(prompts)
    each = (
        f"about {total / max(workers, 1):.0f} s" if workers is not None else f"about {total:.0f} s of one core in all"
    )
    say(f"{each}, if all runs take what the first does ({start:.1f} s to start, {per_prompt:.2g} s a prompt)")


def members(part: Mapping[str, Any]) -> int:
    """How many runs a part consists of."""
    from meta_icl.training.replicas import points_of

    return len(part["seeds"]) * len(points_of(part["sweep"])) if "sweep" in part else 1


def probed_seconds(work: planned.Work) -> tuple[float, float]:
    """How long the first part takes to start and, once it runs, for each prompt, by a few of its steps."""
    import jax

    from meta_icl import training

    first = next(iter(work.parts(False).values()))
    config = first["training"]
    task = task_of(config)
    began, times = time.perf_counter(), []
    training.train(
        task,
        model_of(config),
        steps=2 * PROBED_STEPS,
        key=jax.random.key(0),
        seeds=first["seeds"],
        batch=config["batch"],
        optimiser=optimiser_of(config),
        objective=objective_of(config, drawn(task)),
        sweep=first["sweep"],
        record=PROBED_STEPS,
        progress=lambda *_: times.append(time.perf_counter()),
    )
    return times[-2] - began, (times[-1] - times[-2]) / PROBED_STEPS / config["batch"] / members(first)


def diverged_in(run: Run, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """{point and seed: the step when it was seen not to be finite}."""
    found = {}
    for name, part in run.parts().items():
        size = point_label(parts[name].get("sizes", {}))
        found |= {", ".join(filter(None, (size, member))): step for member, step in part.diverged.items()}
    return found
