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
