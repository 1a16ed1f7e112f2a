"""The training loop: one compiled program per training, run in chunks that return to Python between them.

A replica is one seed at one point of a sweep. The key of a seed is `fold_in(key, seed)`; its init, data, eval and world
keys are `fold_in` 0, 1, 2 and 3 of that, and step i draws from `fold_in(data key, i)`. So the data of a seed depend
neither on the other replicas nor on where chunks begin.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from meta_icl.conversions import random_key
from meta_icl.data.cache import digest
from meta_icl.errors import BadInput, require
from meta_icl.prompt import Task
from meta_icl.training import arguments
from meta_icl.training.program import Program, State, untrained
from meta_icl.training.replicas import Replica, make_replicas
from meta_icl.training.runner import Runner
from meta_icl.training.state import from_text, to_arrays, to_text
from meta_icl.training.trained import Trained
from meta_icl.words import in_words

CHECKPOINT_SECONDS = 20.0
LONGEST_CHUNK = 1_000  # steps after which Ctrl-C and the clock are looked at, however far apart records are


@runtime_checkable
class Store(Protocol):
    """Where a training leaves its rows and checkpoints; a run folder is one.

    When `stopping` (Ctrl-C), the training saves a checkpoint and raises `KeyboardInterrupt`. A training that starts
    without a checkpoint rewinds to before its first step, because what was logged then was lost with the checkpoint.
    """

    @property
    def stopping(self) -> bool: ...
    def latest_checkpoint(self) -> tuple[int, dict[str, np.ndarray]] | None: ...
    def save_checkpoint(self, step: int, arrays: dict[str, np.ndarray]) -> None: ...
    def log(self, row: dict[str, Any]) -> None: ...
    def rewind(self, step: int) -> None: ...
    def note_divergence(self, members: Mapping[str, int]) -> None: ...


def train(
    task: Any,
    model: Any,
    *,
    steps: int,
    key: Any,
    seeds: Any = 1,
    batch: int = 512,
    optimiser: Any = None,
    objective: Any = None,
    sweep: Any = None,
    record: int | Sequence[int] | None = None,
    probes: Any = None,
    freeze: Callable[[Any], Any] | None = None,
    arrangement: str | None = None,
    stop_when_diverged: bool = False,
    stop_below: float | None = None,
    store: Store | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Train `model(key=...)` on `task` from every seed and return all the predictors.

    `task` may also be a function `(*, key) -> Task` that draws a world per seed, and `model` any function of a key, or
    a predictor that is trained on. `key` is a random key or its number, `seeds` how many, or which. `optimiser` is an
    `Optimiser`, one of optax, a name, or the learning rate of Adam; `objective` a function, its name, or that of the
    task's kind (half the mean squared error for real targets). What `model` answers is checked against what the task
    asks before anything is trained. `sweep` varies number fields of the task or the optimiser, as a grid, for example
    {"task.noise": (0, 0.1), "optimiser.learning_rate": (1e-3, 1e-2)}, or as a list of points, [{"task.noise": 0.1}].
    `training.arguments` reads all of these.
    `record` is the spacing of records, or the steps themselves; at each, `probes[name](predictor, eval key)` is
    evaluated (`OnTask` probes see the task too). A probe that is a module hands its arrays to the compiled program as
    arguments; those of a closure are constants, which every compilation works on. `freeze(predictor)` names the leaves
    that stay as drawn. `arrangement` is "sequence" (replicas one after the other within a chunk; the default on CPU) or
    "vmap". A member that diverges stops nothing, unless with `stop_when_diverged` all have: then no more steps are
    taken, and the records that are left measure the state as it is, with a loss of NaN. Once the training losses of all
    members have been below `stop_below` at two records in a row, training ends there, and so does the history. With a
    `store`, a killed training resumes from the last checkpoint and ends bit for bit as if it had never been killed.
    """
    for name, value, least in (("steps", steps, 0), ("batch", batch, 1)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        require(whole and int(value) >= least, name, value, f"an integer from {least} on")
    positive = stop_below is None or (isinstance(stop_below, int | float | np.number) and stop_below > 0)
    require(positive, "stop_below", stop_below, "a positive loss, or nothing")
    require(freeze is None or callable(freeze), "freeze", freeze, "a function of the predictor, or nothing")
    arrangement = arrangement or ("sequence" if jax.default_backend() == "cpu" else "vmap")
    require(arrangement in ("sequence", "vmap"), "arrangement", arrangement, "'sequence' or 'vmap'")
    key, task = random_key(key), arguments.given_task(task)
    model = arguments.with_layout(model, task if isinstance(task, Task) else task(key=key))
    draw = arguments.alike(arguments.drawing(model))
    optimiser, swept = arguments.given_optimiser(optimiser), arguments.given_sweep(sweep)
    replicas, labels = make_replicas(task, optimiser, key, seeds, swept)
    objective = arguments.given_objective(objective, replicas[0].task)
    arguments.require_fit(objective, draw, replicas[0].task, batch, key)
    program = Program(draw, untrained(draw, key), objective, batch, freeze)
    runner = Runner(program, arguments.given_probes(probes), replicas, labels, arrangement)
    stops = Stops(stop_when_diverged, stop_below)
    asked = digest_of(replicas, model, objective, batch) if store is not None else ""
    trained = _run(runner, steps, record_steps(record, steps), stops, store, progress, asked)
    return Trained(trained.stacked, trained.history, trained.replicas, arguments.kept(model), trained.diverged)


@dataclass(frozen=True)
class Stops:
    """When a training takes no more steps: all members diverged, or all losses below a level."""

    when_diverged: bool
    below: float | None

    def at_rest(self, losses: Sequence[np.ndarray]) -> bool:
        """Whether the losses of the last two records are below the level, for all members."""
        return self.below is not None and len(losses) > 1 and bool((np.stack(losses[-2:]) < self.below).all())


def _run(
    runner: Runner,
    steps: int,
    records: list[int],
    stops: Stops,
    store: Store | None,
    progress: Callable[[int, int, float], None] | None,
    asked: str,
) -> Trained:
    states = runner.init()
    rows: dict[str, list[np.ndarray]] = {}
    names = [json.dumps(label) for label in runner.labels]
    diverged: dict[int, int] = {}
    done, step = -1, 0  # the last step that is recorded, and the last that is taken
    total = np.zeros(len(runner.labels))  # of the losses between them
    if store is not None:
        if (saved := store.latest_checkpoint()) is not None:
            step, arrays = saved
            require(step <= steps, "steps", steps, f"at least {step}, of which the newest checkpoint is")
            states, rows, diverged = _restore(runner, states, arrays, step, names, asked)
            done, total = int(rows["step"][-1]), arrays.get("total", total)
            _note(store, runner, diverged)
        store.rewind(step if rows else -1)
    saved_at = time.monotonic()
    loss = np.full(len(runner.labels), np.nan)

    def keep() -> None:
        nonlocal saved_at
        assert store is not None
        kept = _checkpoint(runner, states, rows, diverged, names)
        store.save_checkpoint(step, kept | {"total": total, "asked": from_text(asked)})
        saved_at = time.monotonic()

    start = step if rows else -1
    for target in (record for record in records if record > start):
        if stops.at_rest(rows.get("loss", [])):
            break
        stopped = stops.when_diverged and len(diverged) == len(runner.labels)
        if target > step and not stopped:
            finite = np.isfinite(total)
            for stop in (*range(max(done, 0) + LONGEST_CHUNK, target, LONGEST_CHUNK), target):
                if stop <= step:
                    continue
                states, loss, fine = runner.chunk(states, step, stop)
                total, finite = total + (stop - step) * loss.astype(float), finite & fine
                step = stop
                if store is not None and stop < target:
                    stopping = store.stopping
                    if stopping or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                        keep()
                    if stopping:
                        raise KeyboardInterrupt
            if target - max(done, 0) > LONGEST_CHUNK:
                loss = (total / (target - max(done, 0))).astype(loss.dtype)
            seen = {int(member): target for member in np.flatnonzero(~finite) if int(member) not in diverged}
            if seen:
                diverged |= seen
                _note(store, runner, diverged)
        elif stopped:
            loss = np.full_like(loss, np.nan)
        step, total = target, np.zeros(len(runner.labels))
        done = target
        measured = runner.measure(states)
        _append(rows, step, loss, measured)
        if store is not None:
            _log(store, runner.labels, step, loss, measured)
            stopping = store.stopping
            last = target == records[-1] or stops.at_rest(rows["loss"])
            if stopping or last or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                keep()
            if stopping:
                raise KeyboardInterrupt
        if progress is not None:
            progress(step, steps, float(np.mean(loss)))
    return runner.finish(states, {name: np.stack(values) for name, values in rows.items()}, diverged)


def record_steps(record: int | Sequence[int] | None, steps: int) -> list[int]:
    """The steps at which to record, ascending, always with 0 and `steps`: every `record` steps (default a 50th)."""
    if record is None:
        record = max(1, steps // 50)
    if isinstance(record, int | np.integer):
        require(record >= 1, "record", record, "a positive integer")
        record = range(0, steps, int(record))
    listed = isinstance(record, Sequence | np.ndarray) and not isinstance(record, str)
    whole = listed and all(isinstance(r, int | np.integer) and 0 <= r <= steps for r in record)
    require(whole, "record", record, f"a spacing, or steps between 0 and steps = {steps}")
    return sorted({0, *map(int, record), steps})


def _append(rows: dict[str, list[np.ndarray]], step: int, loss: np.ndarray, measured: dict[str, np.ndarray]) -> None:
    for name, value in ({"step": np.asarray(step), "loss": loss} | measured).items():
        rows.setdefault(name, []).append(value)


def _log(
    store: Store, labels: Sequence[dict[str, float]], step: int, loss: np.ndarray, measured: dict[str, np.ndarray]
) -> None:
    """One row per replica with its scalar measures; larger ones stay in the history."""
    scalars = {name: value for name, value in measured.items() if value.ndim == 1}
    for index, label in enumerate(labels):
        row = {name: float(value[index]) for name, value in scalars.items()}
        store.log({"step": step, **label, "loss": float(loss[index]), **row})


def _note(store: Store | None, runner: Runner, diverged: Mapping[int, int]) -> None:
    if store is not None and diverged:
        store.note_divergence({_words(runner.labels[member]): at for member, at in diverged.items()})


def _words(label: Mapping[str, float]) -> str:
    """The seed and the swept values of a member, such as "seed=3,task.noise=0.1"."""
    return ",".join(f"{name}={in_words(value)}" for name, value in label.items())


def _checkpoint(
    runner: Runner, states: list[State], rows: dict[str, list[np.ndarray]], diverged: dict[int, int], names: list[str]
) -> dict[str, np.ndarray]:
    history = {f"history/{name}": np.stack(values) for name, values in rows.items()}
    ends = np.array([diverged.get(member, -1) for member in range(len(names))])
    return runner.saved(states) | history | {"replicas": from_text("\n".join(names)), "diverged": ends}


def digest_of(replicas: Sequence[Replica], model: Any, objective: Any, batch: int) -> str:
    """Names what a training is of, as far as it can be told: numbers by value, what is no number by its text."""
    arrays = {f"batch {batch}": np.zeros(0)} | to_arrays(model, "model")
    arrays |= {name: a for i, replica in enumerate(replicas) for name, a in to_arrays(replica, f"replica {i}").items()}
    about = (replicas[0].task, replicas[0].optimiser, model, arguments.called(objective))
    words = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(about))
    return digest(arrays | {"words": from_text(words)}).hex()


def _restore(
    runner: Runner, states: list[State], arrays: dict[str, np.ndarray], step: int, names: list[str], asked: str
) -> tuple[list[State], dict[str, list[np.ndarray]], dict[int, int]]:
    history = {name.removeprefix("history/"): a for name, a in arrays.items() if name.startswith("history/")}
    if "step" not in history or not int(history["step"][-1]) <= step:
        raise BadInput(f"the checkpoint of step {step} does not hold its own history; remove it to start again")
    stated = to_text(arrays["replicas"]).split("\n") if "replicas" in arrays else names  # older ones state none
    if stated != names:
        theirs = f"{len(stated)} members from {stated[0]}, here {len(names)} from {names[0]}"
        raise BadInput(f"the checkpoint of step {step} is that of other seeds or points: {theirs}")
    if "asked" in arrays and to_text(arrays["asked"]) != asked:  # older ones state nothing
        raise BadInput(
            f"the checkpoint of step {step} is that of another training: of another task, model, optimiser, objective, "
            "key or batch; give this one a folder of its own, or remove the checkpoint to start again"
        )
    ends = arrays.get("diverged", np.full(len(names), -1))
    return (
        runner.restored(states, arrays, step),
        {name: [np.asarray(row) for row in values] for name, values in history.items()},
        {member: int(end) for member, end in enumerate(ends) if end >= 0},
    )
