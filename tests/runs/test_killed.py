"""A process that writes a run is killed, by itself at every kind of moment, or by us at random ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from meta_icl.runs import Run, verify

WRITER = """
import os, signal, sys
import numpy as np
from meta_icl.runs import Run
from meta_icl.runs import run as module

folder, kill_at, wait = sys.argv[1], sys.argv[2], len(sys.argv) > 3

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

if kill_at in ("write_manifest", "made_manifest", "compact"):
    setattr(module, kill_at, die)  # in the middle of `finish`
run = Run.open(folder, {"steps": 90})
saved = run.latest_checkpoint()
step, state = saved or (0, {"x": np.arange(2000.0)})
run.rewind(-1 if saved is None else step)
x = state["x"]
print("going", flush=True)
while step < 90:
    step += 1
    if wait:
        __import__("time").sleep(0.01)  # 25 steps at most between two kills
    x = np.sin(x) + step
    run.log({"step": step, "loss": float(x.sum()), "noise": [1.0, float("nan")]})
    if step % 3 == 0:
        run.log({"note": f"row without a step before {step}"})
    if str(step) == kill_at:
        die()
    if step % 3 == 0:
        run.save_checkpoint(step, {"x": x})
run.save_arrays("result", {"x": x})
if kill_at == "result":
    die()
run.finish()
"""


def write(folder: Path, kill_at: str = "", seconds: float | None = None) -> int:
    """Runs the writer, killed by itself at a moment of its work, or by us after so many seconds."""
    command = [sys.executable, "-c", WRITER, str(folder), kill_at, *(["wait"] if seconds is not None else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "going\n"
    if seconds is not None:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return process.returncode


def assert_equal_runs(killed: Run, whole: Run, starts: int) -> None:
    np.testing.assert_array_equal(killed.load_arrays("result")["x"], whole.load_arrays("result")["x"], strict=True)
    np.testing.assert_equal(killed.metrics(), whole.metrics())
    assert [row["step"] for row in killed.metrics() if "step" in row] == list(range(1, 91))
    assert killed.provenance["resumed"] == starts - 1 and killed.done
    assert not [path for path in killed.folder.rglob("*") if ".tmp-" in path.name]
    assert verify([killed.folder]) == [] and os.listdir(killed.folder / "checkpoints")


def test_killed_at_every_kind_of_moment_ends_as_if_never_killed(tmp_path):
    """Before the first checkpoint, just before and just after one, with the result saved, and while it is finished."""
    moments = ("2", "3", "4", "90", "result", "compact", "made_manifest", "write_manifest")
    for moment in moments:
        assert write(tmp_path / "killed", moment) == -signal.SIGKILL
        assert not (tmp_path / "killed" / "DONE").exists()
    assert write(tmp_path / "killed") == write(tmp_path / "whole") == 0
    assert_equal_runs(Run.load(tmp_path / "killed"), Run.load(tmp_path / "whole"), len(moments) + 1)


@pytest.mark.slow
def test_killed_again_and_again_ends_as_if_never_killed(tmp_path):
    random = np.random.default_rng(0)
    starts = 0
    while not (tmp_path / "killed" / "DONE").exists():
        write(tmp_path / "killed", seconds=float(random.uniform(0.02, 0.25)) if starts < 5 else None)
        starts += 1
    assert starts >= 3
    assert write(tmp_path / "whole") == 0
    assert_equal_runs(Run.load(tmp_path / "killed"), Run.load(tmp_path / "whole"), starts)
