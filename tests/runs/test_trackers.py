"""Trackers get every row once, whatever happens to the run; whatever happens to them, the run does not notice."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Run, trackers
from meta_icl.runs.trackers import TensorBoard, known_tracker, tracked


class Fake:
    """Remembers what it is told; raises or hangs when asked to."""

    def __init__(self, folder: Path, config: dict):
        self.config, self.rows, self.closed = config, [], False

    def log(self, series, step, values):
        self.rows.append((series, step, dict(values)))

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(trackers, "POLL_SECONDS", 0.01)


def work(run: Run, seen=lambda: True) -> None:
    """Two parts, of which one goes back to its checkpoint, and rows of several members in one of them."""
    for name in ("seed=0", "both"):
        with run.part(name, {"part": name}) as part:
            part.begin_again()
            for step in range(4):
                if name == "both":
                    for seed in (1, 2):
                        part.log({"step": step, "seed": seed, "task.noise": 0.5, "loss": seed / (1 + step)})
                    continue
                part.log({"step": step, "seed": 0, "loss": 1 / (1 + step), "note": "words", "list": [1, 2]})
                if step == 1:
                    part.save_checkpoint(1, {"x": np.zeros(1)})
                if step == 3:
                    seen()
            if name == "seed=0":
                part.latest_checkpoint()
                part.rewind(1)
                for step in (2, 3):
                    part.log({"step": step, "seed": 0, "loss": 1 / (1 + step)})
            part.finish()
    run.finish()


WANTED = [("seed=0", step, {"loss": 1 / (1 + step)}) for step in range(4)]
WANTED += [(f"both/seed={s},task.noise=0.5", step, {"loss": s / (1 + step)}) for step in range(4) for s in (1, 2)]


def test_every_row_is_sent_once(tmp_path):
    made = []
    with Run.open(tmp_path / "run", {"a": 1}) as run:

        def make(folder, config):
            made.append(Fake(folder, config))
            return made[-1]

        def seen():  # the rows that are dropped and come again have been sent before
            end = threading.Event()
            for _ in range(3000):
                if made and len(made[0].rows) == 4:
                    return
                end.wait(0.01)
            raise AssertionError("nothing was sent while the run went on")

        with tracked(run, {"fake": make}):
            work(run, seen)
        (fake,) = made
        assert fake.closed and fake.config == {"a": 1} and sorted(fake.rows) == sorted(WANTED)
        assert [row for row in fake.rows if row[0] == "seed=0"] == WANTED[:4]
        with tracked(run, {"fake": make}):  # finished: nothing is computed, nothing sent
            pass
        assert len(made) == 1


@pytest.mark.parametrize("moment", ["making", "log", "close"])
def test_one_that_raises_is_named_once_and_dropped(tmp_path, moment, capsys):
    def make(folder, config):
        fake = Fake(folder, config)
        if moment == "making":
            raise SystemExit("no account")
        setattr(fake, moment, lambda *_: (_ for _ in ()).throw(ConnectionError("no\nnetwork")))
        return fake

    others = []
    with Run.open(tmp_path / "run", {"a": 1}) as run:
        other = lambda folder, config: others.append(Fake(folder, config)) or others[-1]  # noqa: E731
        with tracked(run, {"bad": make, "good": other}):
            work(run)
        assert run.done and len(run.parts()["seed=0"].metrics()) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tracker bad is dropped: ") and ("no network" in line or "no account" in line)
    assert sorted(others[0].rows) == sorted(WANTED)


def test_one_that_hangs_is_left_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "GRACE_SECONDS", 0.1)
    never = threading.Event()

    class Hangs(Fake):
        def log(self, *_):
            never.wait(600)

    with Run.open(tmp_path / "run", {"a": 1}) as run:
        with tracked(run, {"slow": Hangs}):
            work(run)
        assert run.done
    assert "tracker slow still does not answer 0.1 s after" in capsys.readouterr().err
    never.set()


def test_names():
    with pytest.raises(BadInput, match="did you mean 'tensorboard'"):
        known_tracker("tensorbord")
    for name, package in trackers.PACKAGES.items():
        script = f"import sys; sys.modules[{package!r}] = None; from meta_icl.runs import trackers; "
        script += f"trackers.known_tracker({name!r})"
        told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert told.returncode == 1 and "wandb" not in sys.modules
        assert f"the tracker {name} needs the package {package}" in told.stderr or "ValueError" in told.stderr


def events(folder: Path) -> list[tuple[str, int, float]]:
    """The scalars of event files: records of a length of 8 bytes, 4 of a checksum, the event, 4 of a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    for attempt in range(2):  # a second start replaces what the first has written
        with Run.open(tmp_path / "run", {"a": 1}) as run, tracked(run, {"tensorboard": TensorBoard}):
            if attempt:
                work(run)
            else:
                with run.part("seed=0", {"part": "seed=0"}) as part:
                    part.log({"step": 0, "seed": 0, "loss": 1.0})
    for series in dict.fromkeys(row[0] for row in WANTED):
        found = events(tmp_path / "run" / "tensorboard" / series)
        wanted = [(name, step, value) for s, step, row in WANTED if s == series for name, value in row.items()]
        np.testing.assert_allclose([row[1:] for row in found], [row[1:] for row in wanted], rtol=1e-6)
        assert {row[0] for row in found} == {"loss"}
