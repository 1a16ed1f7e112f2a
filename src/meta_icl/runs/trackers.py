"""Trackers: where the rows of a run can go beside its folder, for those who watch their work elsewhere.

A tracker gets every row that a run and its parts log, in order, once per start of the command that computes them. It is
fed from a thread that reads the logs, so that it neither slows nor fails the run, wherever that computes: one that
raises is named once and dropped, one that hangs is left behind.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from meta_icl.errors import BadInput, choose
from meta_icl.runs.files import plain, remove
from meta_icl.runs.manifest import is_done
from meta_icl.runs.query import nested
from meta_icl.runs.run import Run

POLL_SECONDS = 1.0
GRACE_SECONDS = 30.0  # for what is left to send when the run has ended


@runtime_checkable
class Tracker(Protocol):
    """A sink of rows. `series` names the part, seed and swept values that a row is of: "" where there are none."""

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers that were logged at a step."""

    def close(self) -> None:
        """Finish: no row comes any more."""


Maker = Callable[[Path, Mapping[str, Any]], Tracker]  # of the run's folder and configuration


class TensorBoard:
    """Event files in RUN/tensorboard, a folder per series, for `tensorboard --logdir`."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        del config
        logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # NaN is what a training that diverged has to tell
        self._folder, self._writer = folder / "tensorboard", SummaryWriter
        self._open: dict[str, Any] = {}
        remove(self._folder)  # of an earlier start, whose rows come again

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in self._open:
            self._open[series] = self._writer(str(self._folder / series), write_to_disk=True)
        for name, value in values.items():
            self._open[series].add_scalar(name, value, step)

    def close(self) -> None:
        for writer in self._open.values():
            writer.close()


class WeightsAndBiases:
    """A run of W&B per series, offline in RUN/wandb unless WANDB_MODE says otherwise; `wandb sync` sends it later."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        common = {"project": "meta_icl", "group": folder.name, "dir": str(folder), "config": plain(dict(config))}
        self._begin = lambda series: wandb.init(
            name=series or folder.name, mode=mode, reinit="create_new", settings=wandb.Settings(silent=True), **common
        )
        self._open: dict[str, Any] = {}

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in self._open:
            self._open[series] = self._begin(series)
        self._open[series].log(dict(values), step=step)

    def close(self) -> None:
        for run in self._open.values():
            run.finish()


class MLflow:
    """A run of MLflow per series, in RUN/mlflow.db unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        self._client, self._command = MlflowClient(tracking_uri=uri), str(config.get("command", "reproduce"))
        known = self._client.get_experiment_by_name(folder.name)
        self._experiment = known.experiment_id if known else self._client.create_experiment(folder.name)
        self._open: dict[str, str] = {}

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in self._open:
            tags = {"command": self._command}
            made = self._client.create_run(self._experiment, run_name=series or None, tags=tags)
            self._open[series] = made.info.run_id
        for name, value in values.items():
            self._client.log_metric(self._open[series], name, value, step=step)

    def close(self) -> None:
        for run in self._open.values():
            self._client.set_terminated(run)


TRACKERS: dict[str, Maker] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def known_tracker(name: str) -> Maker:
    """The tracker of a name; `BadInput` if there is none, or its package is not installed."""
    from importlib.util import find_spec

    maker = TRACKERS[choose("tracker", name, TRACKERS)]
    if find_spec(PACKAGES[name]) is None:
        raise BadInput(f"the tracker {name} needs the package {PACKAGES[name]}: install the extra `trackers`")
    return maker


@contextmanager
def tracked(run: Run, makers: Mapping[str, Maker]) -> Iterator[None]:
    """While active, what the run and its parts log is sent to trackers; of a finished run nothing is."""
    if not makers or run.done:
        yield
        return
    feed, ended = _Feed(run.folder, run.config, makers), threading.Event()
    thread = threading.Thread(target=feed.work, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(GRACE_SECONDS)
        if thread.is_alive():
            _say(f"{feed.busy} still does not answer {GRACE_SECONDS:g} s after the run has ended, and is left behind")


class _Feed:
    """Reads the logs of a run and hands their rows to trackers, all in one thread."""

    def __init__(self, folder: Path, config: Mapping[str, Any], makers: Mapping[str, Maker]):
        self._folder, self._config, self._makers = folder, config, dict(makers)
        self._trackers: dict[str, Tracker] = {}
        self._sent: dict[Path, int] = {}  # rows of each log
        self._finished: set[Path] = set()  # whose rows have all been sent
        self.busy = "no tracker"

    def work(self, ended: threading.Event) -> None:
        """Make the trackers, feed them until the run has ended and nothing is left, close them."""
        for name, maker in self._makers.items():
            self._safely(name, lambda name=name, maker=maker: self._keep(name, maker(self._folder, self._config)))
        last = False
        while self._trackers and not last:
            last = ended.wait(POLL_SECONDS)
            self._send()
        for name, tracker in list(self._trackers.items()):
            self._safely(name, tracker.close)

    def _keep(self, name: str, tracker: Tracker) -> None:
        self._trackers[name] = tracker

    def _send(self) -> None:
        for folder in nested(self._folder):
            if folder in self._finished:
                continue
            done = is_done(folder)  # looked at first: nothing is logged after it
            try:
                rows = Run.load(folder).metrics()
            except BadInput:  # between two states of the log; what it holds is judged elsewhere
                continue
            part = "/".join(folder.relative_to(self._folder).parts[1::2])
            # A log that goes back to a checkpoint loses rows that come again just as they were.
            for row in rows[self._sent.get(folder, 0) :]:
                self._log(part, row)
            self._sent[folder] = max(len(rows), self._sent.get(folder, 0))
            if done:
                self._finished.add(folder)

    def _log(self, part: str, row: Mapping[str, Any]) -> None:
        labels = {name: value for name, value in row.items() if name == "seed" or "." in name}
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and name not in labels and isinstance(value, int | float)
        }
        told = [f"{name}={value:g}" for name, value in labels.items() if isinstance(value, int | float)]
        series = "/".join(filter(None, [part, ",".join(one for one in told if one not in part)]))
        if numbers and isinstance(row.get("step"), int):
            for name, tracker in list(self._trackers.items()):
                self._safely(name, lambda tracker=tracker: tracker.log(series, row["step"], numbers))

    def _safely(self, name: str, act: Callable[[], Any]) -> None:
        """Do something with a tracker; one that raises is named and dropped."""
        self.busy = f"tracker {name}"
        try:
            act()
        except (Exception, SystemExit) as error:
            self._trackers.pop(name, None)
            _say(f"tracker {name} is dropped: {type(error).__name__}: {' '.join(str(error).split())[:160]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
