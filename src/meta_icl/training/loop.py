"""The training loop: one compiled program per training, run in chunks that return to Python between them.

A replica is one seed at one point of a sweep. The key of a seed is `fold_in(key, seed)`; its init, data, eval and world
keys are `fold_in` 0, 1, 2 and 3 of that, and step i draws from `fold_in(data key, i)`. So the data of a seed depend
neither on the other replicas nor on where chunks begin.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from meta_icl.conversions import random_key
from meta_icl.errors import BadInput, require
from meta_icl.prompt import Task
from meta_icl.training import arguments
from meta_icl.training.objectives import Objective
from meta_icl.training.replicas import Replica, joined, make_replicas, stack
from meta_icl.training.state import from_arrays, from_text, to_arrays, to_text
from meta_icl.training.trained import Trained

CHECKPOINT_SECONDS = 20.0

Probe = Callable[[Any, Key[Array, ""]], Mapping[str, Array] | Array]


@dataclass(frozen=True)
class OnTask:
    """A probe that also gets the replica's own task, such as the world of its seed: function(predictor, task, key)."""

    function: Callable[[Any, Any, Key[Array, ""]], Mapping[str, Array] | Array]


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


class State(eqx.Module):
    """What a step changes: the trained leaves of the predictor and the optimiser's state."""

    params: PyTree
    opt_state: PyTree


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
    taken, and the records that are left measure the state as it is, with a loss of NaN. With a `store`, a killed
    training resumes from the last checkpoint and ends bit for bit as if it had never been killed.
    """
    for name, value, least in (("steps", steps, 0), ("batch", batch, 1)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        require(whole and int(value) >= least, name, value, f"an integer from {least} on")
    arrangement = arrangement or ("sequence" if jax.default_backend() == "cpu" else "vmap")
    require(arrangement in ("sequence", "vmap"), "arrangement", arrangement, "'sequence' or 'vmap'")
    key, task = random_key(key), arguments.given_task(task)
    model = arguments.with_layout(model, task if isinstance(task, Task) else task(key=key))
    draw = arguments.alike(arguments.drawing(model))
    optimiser, swept = arguments.given_optimiser(optimiser), arguments.given_sweep(sweep)
    replicas, labels = make_replicas(task, optimiser, key, seeds, swept)
    objective = arguments.given_objective(objective, replicas[0].task)
    arguments.require_fit(objective, draw, replicas[0].task, batch, key)
    program = Program(draw, _untrained(draw, key), objective, batch, freeze)
    runner = Runner(program, arguments.given_probes(probes), replicas, labels, arrangement)
    trained = _run(runner, steps, record_steps(record, steps), stop_when_diverged, store, progress)
    return Trained(trained.stacked, trained.history, trained.replicas, arguments.kept(model), trained.diverged)


@dataclass(frozen=True)
class Program:
    """The pure functions of one training, for one replica; `static` is what of the predictor is not trained."""

    model: Callable[..., Any]
    static: Any
    objective: Objective
    batch: int
    freeze: Callable[[Any], Any] | None

    def init(self, replica: Replica) -> State:
        """The predictor as drawn from the init key, with a fresh optimiser state."""
        params = eqx.filter(self.model(key=replica.init_key), eqx.is_inexact_array)
        return State(params, replica.optimiser.build().init(params))

    def chunk(
        self, state: State, replica: Replica, start: Int[Array, ""], stop: Int[Array, ""]
    ) -> tuple[State, Float[Array, ""], Bool[Array, ""]]:
        """Steps start <= i < stop; returns the new state, the mean loss, and whether it and all parameters are finite.

        The bounds are traced: one compilation.
        """
        transformation = replica.optimiser.build()

        def loss_of(params: PyTree, i: Int[Array, ""]) -> Float[Array, ""]:
            key = jax.random.fold_in(replica.data_key, i)
            return self.objective(eqx.combine(params, self.static), replica.task.at_step(i), self.batch, key)

        def step(i: Int[Array, ""], carry: tuple[State, Float[Array, ""]]) -> tuple[State, Float[Array, ""]]:
            state, total = carry
            loss, gradient = jax.value_and_grad(loss_of)(state.params, i)
            if self.freeze is not None:
                gradient = eqx.tree_at(self.freeze, gradient, replace_fn=jnp.zeros_like)
            updates, opt_state = transformation.update(gradient, state.opt_state, state.params)
            if self.freeze is not None:  # weight decay would still move them
                updates = eqx.tree_at(self.freeze, updates, replace_fn=jnp.zeros_like)
            return State(optax.apply_updates(state.params, updates), opt_state), total + loss

        dtype = jnp.result_type(*jax.tree.leaves(state.params))
        state, total = lax.fori_loop(start, stop, step, (state, jnp.zeros((), dtype)))
        loss = total / (stop - start).astype(dtype)
        finite = [jnp.isfinite(leaf).all() for leaf in (loss, *jax.tree.leaves(state.params))]
        return state, loss, jnp.stack(finite).all()

    def measure(self, state: State, replica: Replica, probes: dict[str, Probe | OnTask]) -> dict[str, Array]:
        """All probes of the predictor; a probe that returns a mapping contributes "probe/name" entries."""
        predictor = eqx.combine(state.params, self.static)
        measured: dict[str, Array] = {}
        for name, probe in probes.items():
            if isinstance(probe, OnTask):
                values = probe.function(predictor, replica.task, replica.eval_key)
            else:
                values = probe(predictor, replica.eval_key)
            if isinstance(values, Mapping):
                measured |= {f"{name}/{part}": jnp.asarray(value) for part, value in values.items()}
            else:
                measured[name] = jnp.asarray(values)
        return measured


class Runner:
    """Runs a program over all replicas, in sequence or by `vmap`; states are always kept stacked per arrangement."""

    def __init__(
        self,
        program: Program,
        probes: dict[str, Probe | OnTask],
        replicas: list[Replica],
        labels: list[dict[str, float]],
        arrangement: str,
    ):
        self.program = program
        self.probe_arrays, probe_rest = eqx.partition(probes, eqx.is_array)
        self.labels = tuple(labels)
        # One vmapped batch of all replicas, or one batch per replica: the rest of the code does not care which.
        self.batches = [stack(replicas)] if arrangement == "vmap" else [stack([r]) for r in replicas]
        over = jax.vmap if arrangement == "vmap" else _squeezed
        self._init = jax.jit(over(program.init))
        self._chunk = jax.jit(over(program.chunk, in_axes=(0, 0, None, None)), donate_argnums=0)
        self._measure = jax.jit(
            over(
                lambda state, replica, arrays: program.measure(state, replica, eqx.combine(arrays, probe_rest)),
                in_axes=(0, 0, None),
            )
        )

    def init(self) -> list[State]:
        return [self._init(batch) for batch in self.batches]

    def chunk(self, states: list[State], start: int, stop: int) -> tuple[list[State], np.ndarray, np.ndarray]:
        bounds = jnp.asarray(start), jnp.asarray(stop)
        results = [self._chunk(s, b, *bounds) for s, b in zip(states, self.batches, strict=True)]
        losses, finite = (np.concatenate([np.asarray(result[i]) for result in results]) for i in (1, 2))
        return [result[0] for result in results], losses, finite

    def measure(self, states: list[State]) -> dict[str, np.ndarray]:
        measured = [self._measure(s, b, self.probe_arrays) for s, b in zip(states, self.batches, strict=True)]
        return {name: np.concatenate([np.asarray(m[name]) for m in measured]) for name in measured[0]}

    def finish(self, states: list[State], history: dict[str, np.ndarray], diverged: dict[int, int]) -> Trained:
        params = joined([state.params for state in states])
        # Arrays that are not trained are the same in all replicas; in an ensemble every array has one entry for each.
        arrays, static = eqx.partition(self.program.static, eqx.is_array)
        arrays = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(self.labels), *leaf.shape)), arrays)
        return Trained(eqx.combine(params, arrays, static), history, self.labels, diverged=diverged)


def _run(
    runner: Runner,
    steps: int,
    records: list[int],
    stop_when_diverged: bool,
    store: Store | None,
    progress: Callable[[int, int, float], None] | None,
) -> Trained:
    states = runner.init()
    rows: dict[str, list[np.ndarray]] = {}
    names = [json.dumps(label) for label in runner.labels]
    diverged: dict[int, int] = {}
    done = -1  # the last recorded step
    if store is not None:
        if (saved := store.latest_checkpoint()) is not None:
            done, arrays = saved
            states, rows, diverged = _restore(states, arrays, done, names)
        store.rewind(done)
    saved_at = time.monotonic()
    step = max(done, 0)
    loss = np.full(len(runner.labels), np.nan)
    for target in (record for record in records if record > done):
        stopped = stop_when_diverged and len(diverged) == len(runner.labels)
        if target > step and not stopped:
            states, loss, finite = runner.chunk(states, step, target)
            seen = {int(member): target for member in np.flatnonzero(~finite) if int(member) not in diverged}
            if seen:
                diverged |= seen
                if store is not None:
                    store.note_divergence({_words(runner.labels[member]): at for member, at in diverged.items()})
        elif stopped:
            loss = np.full_like(loss, np.nan)
        step = target
        measured = runner.measure(states)
        _append(rows, step, loss, measured)
        if store is not None:
            _log(store, runner.labels, step, loss, measured)
            stopping = store.stopping
            if stopping or target == records[-1] or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                store.save_checkpoint(step, _checkpoint(states, rows, diverged, names))
                saved_at = time.monotonic()
            if stopping:
                raise KeyboardInterrupt
        if progress is not None:
            progress(step, steps, float(np.mean(loss)))
    return runner.finish(states, {name: np.stack(values) for name, values in rows.items()}, diverged)


def record_steps(record: int | Sequence[int] | None, steps: int) -> list[int]:
    """The steps at which to record, ascending, always with 0 and `steps`: every `record` steps (default a 50th)."""
    if record is None:
        record = max(1, steps // 50)
    if isinstance(record, int):
        require(record >= 1, "record", record, "a positive integer")
        record = range(0, steps, record)
    require(all(0 <= r <= steps for r in record), "record", list(record), f"between 0 and steps = {steps}")
    return sorted({0, *record, steps})


def _untrained(model: Callable[..., Any], key: Key[Array, ""]) -> Any:
    """What of the predictor is not trained; it is drawn only if arrays beside weights are in it, whose values count."""

    def is_trained(leaf: Any) -> bool:
        shape_alone = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.issubdtype(leaf.dtype, jnp.inexact) if shape_alone else eqx.is_inexact_array(leaf)

    static = eqx.partition(eqx.filter_eval_shape(model, key=key), is_trained)[1]
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(static)):
        return eqx.partition(model(key=key), eqx.is_inexact_array)[1]
    return static


def _squeezed(function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
    """Like `vmap` over a leading axis of length one, but without the batched program that vmap would make of it."""

    def call(*arguments: Any) -> Any:
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
        inner = [
            argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
            for argument, axis in zip(arguments, axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], function(*inner))

    return call


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


def _words(label: Mapping[str, float]) -> str:
    """The seed and the swept values of a member, such as "seed=3,task.noise=0.1"."""
    return ",".join(f"{name}={value:g}" for name, value in label.items())


def _checkpoint(
    states: list[State], rows: dict[str, list[np.ndarray]], diverged: dict[int, int], names: list[str]
) -> dict[str, np.ndarray]:
    history = {f"history/{name}": np.stack(values) for name, values in rows.items()}
    ends = np.array([diverged.get(member, -1) for member in range(len(names))])
    return to_arrays(states, "state") | history | {"replicas": from_text("\n".join(names)), "diverged": ends}


def _restore(
    states: list[State], arrays: dict[str, np.ndarray], step: int, names: list[str]
) -> tuple[list[State], dict[str, list[np.ndarray]], dict[int, int]]:
    history = {name.removeprefix("history/"): a for name, a in arrays.items() if name.startswith("history/")}
    if "step" not in history or int(history["step"][-1]) != step:
        raise BadInput(f"the checkpoint of step {step} does not hold its own history; remove it to start again")
    stated = to_text(arrays["replicas"]).split("\n") if "replicas" in arrays else names  # older ones state none
    if stated != names:
        theirs = f"{len(stated)} members from {stated[0]}, here {len(names)} from {names[0]}"
        raise BadInput(f"the checkpoint of step {step} is that of other seeds or points: {theirs}")
    ends = arrays.get("diverged", np.full(len(names), -1))
    return (
        from_arrays(states, arrays, "state"),
        {name: [np.asarray(row) for row in values] for name, values in history.items()},
        {member: int(end) for member, end in enumerate(ends) if end >= 0},
    )
