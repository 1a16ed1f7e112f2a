"""Functions that the parts of the tests compute; in a module of their own, because workers import them by name."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.errors import BadInput
from meta_icl.runs import Run


def square(part: Run, *, x: float) -> dict[str, np.ndarray]:
    """x^2, with a note of every call."""
    with open(part.folder.parent.parent / "calls.txt", "a") as calls:
        calls.write(f"{part.name} {os.getpid()}\n")
    part.log({"step": 1, "loss": x})
    return {"square": np.float64(x) ** 2, "threads": np.array(int(os.environ.get("OMP_NUM_THREADS", "0")))}


def fail(part: Run, *, x: float) -> dict[str, np.ndarray]:
    """Fails for x = 0 with an error of the program's, for x = 1 with an error of the user's."""
    if x == 0:
        raise ZeroDivisionError("the test divides by zero")
    if x == 1:
        raise BadInput("x must not be 1, got 1")
    return {"x": np.array(x)}


def fail_once(part: Run) -> dict[str, np.ndarray]:
    """Fails when called first, with a note of every call; called again it would succeed."""
    calls = part.folder.parent.parent / "calls.txt"
    with open(calls, "a") as file:
        file.write(f"{part.name} {os.getpid()}\n")
    part.log({"note": "called"})
    if len(calls.read_text().splitlines()) == 1:
        raise BadInput("the first call fails")
    return {}


def large(part: Run, *, bytes: int) -> dict[str, np.ndarray]:
    """Leaves a result of this size after a checkpoint of a few bytes."""
    saved = part.latest_checkpoint()
    part.rewind(-1 if saved is None else saved[0])
    if saved is None:
        part.log({"step": 1, "loss": 0.5})
        part.save_checkpoint(1, {"x": np.zeros(1)})
    return {"zeros": np.zeros(bytes, np.uint8)}


def tiny_training(part: Run, *, seed: int) -> dict[str, np.ndarray]:
    """A few steps of a network, and a sum of numpy whose bits depend on the number of threads that share it."""
    import jax

    from meta_icl.models import LinearAttention
    from meta_icl.runs.context import context
    from meta_icl.tasks import LinearRegression
    from meta_icl.training import to_arrays, train

    task, model = LinearRegression(d=15, n_context=20), LinearAttention(16)
    trained = train(task, model, steps=4, key=jax.random.key(0), seeds=[seed], batch=64, record=2, store=part)
    arrays = {f"history/{name}": values for name, values in trained.history.items()}
    arrays |= {"sum": shared_sum(), "threads of jax": np.array(context()["CPU threads"])}
    return arrays | to_arrays(trained.stacked, "predictor") | {"pid": np.array(os.getpid())}


def shared_sum() -> np.ndarray:
    """A sum of 2^20 products, which every thread adds up for a share of them."""
    x = np.random.default_rng(0).normal(size=1 << 20)
    return np.asarray(x @ x)


def fragile(part: Run, *, steps: int, dies_at: int | None = None, deaths: int = 1) -> dict[str, np.ndarray]:
    """Adds up the steps with a checkpoint at each; the process is killed at step `dies_at`, `deaths` times."""
    saved = part.latest_checkpoint()
    step, state = saved if saved is not None else (0, {"total": np.array(0.0)})
    part.rewind(step)
    started = part.folder / "starts.txt"
    with open(started, "a") as starts:
        starts.write(f"{step}\n")
    total = state["total"]
    while step < steps:
        step += 1
        total = total + step
        part.log({"step": step, "loss": float(total)})
        if step == dies_at and len(started.read_text().splitlines()) <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        part.save_checkpoint(step, {"total": total})
    return {"total": total}


def slow_sum(part: Run, *, x: float, steps: int) -> dict[str, np.ndarray]:
    """Adds up for a second, with a checkpoint at every seventh step."""
    saved = part.latest_checkpoint()
    step, state = saved if saved is not None else (0, {"total": np.array(x)})
    part.rewind(-1 if saved is None else step)
    total = state["total"]
    while step < steps:
        step += 1
        total = np.sin(total) + step
        part.log({"step": step, "loss": float(total)})
        time.sleep(0.02)
        if step % 7 == 0:
            part.save_checkpoint(step, {"total": total})
    return {"total": total}


def endless(part: Run, **arguments: Any) -> dict[str, np.ndarray]:
    """Trains until it is asked to stop."""
    step = 0
    while True:
        step += 1
        part.log({"step": step})
        time.sleep(0.02)
        if part.stopping:
            part.save_checkpoint(step, {"step": np.array(step)})
            raise KeyboardInterrupt


def deaf(part: Run, *, seconds: float) -> dict[str, np.ndarray]:
    """Sleeps without looking whether it should stop."""
    Path(part.folder / "sleeping").touch()
    time.sleep(seconds)
    return {}
