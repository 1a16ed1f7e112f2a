"""A worker: computes the open parts of a run, one after the other, and exits when none is left.

    python -P -m meta_icl.sweeps.worker RUN_FOLDER MODULE:FUNCTION

Any number of workers can share a run: each takes the first part that is neither done nor failed nor locked, and locks
die with their process. It computes nothing but that function, whatever the folder says, and with -P imports nothing
from the current folder. With `--watch-stdin` the worker stops when its standard input ends, that is, when its parent
dies. With `--part NAME` it computes that one alone. A part that takes longer than `--time-limit` seconds has failed,
and the worker ends; from the part's last checkpoint the next call goes on.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs import Locked, Run, graceful_interrupts, stop_requested
from meta_icl.runs.files import CannotWrite
from meta_icl.runs.interrupts import SIGNALS
from meta_icl.runs.manifest import is_done
from meta_icl.sweeps.work import GRACE_SECONDS, ORDER, compute, failed, find_function, keep_error


def main() -> int:
    """Exit status: 0 no open part left, 1 a part failed (its error is in its folder), 74 it could not be written, 130
    interrupted."""
    parser = argparse.ArgumentParser(prog="python -m meta_icl.sweeps.worker", description="Compute the parts of a run.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("function", help="module:name of the function of the parts")
    parser.add_argument("--watch-stdin", action="store_true", help="stop when standard input ends")
    parser.add_argument("--part", help="compute this part alone")
    parser.add_argument("--time-limit", type=float, help="seconds that a part may take")
    arguments = parser.parse_args()
    if arguments.watch_stdin:
        threading.Thread(target=_stop_when_stdin_ends, daemon=True).start()
    try:
        with graceful_interrupts():
            function = find_function(arguments.function)
            work(arguments.folder, function, only=arguments.part, time_limit=arguments.time_limit)
    except KeyboardInterrupt:
        return 130
    except CannotWrite as error:
        print(error, file=sys.stderr)
        return os.EX_IOERR
    except BadInput as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        for number in SIGNALS:  # nothing is left to interrupt but the interpreter's own end
            signal.signal(number, signal.SIG_IGN)
    return 0


def work(
    folder: Path, function: Callable[..., Any], *, only: str | None = None, time_limit: float | None = None
) -> None:
    """Compute every part of the run, or `only` one, that is neither done nor failed nor locked by another process."""
    run = Run.load(folder)
    names = [only] if only else run.load_json(ORDER) if run.has(ORDER) else sorted(run.parts())
    for name in names:
        if stop_requested():
            raise KeyboardInterrupt
        place = run.part_folder(name)
        if is_done(place):
            continue
        try:
            part = Run.open(place, Run.load(place).config)
        except Locked:
            continue
        except BadInput as error:
            with suppress(CannotWrite):
                keep_error(place, error)
            raise
        with part:
            if not failed(place):  # looked at under the lock: its error is there before the lock of who failed is gone
                with _limited(place, time_limit):
                    compute(part, function)


@contextmanager
def _limited(place: Path, seconds: float | None) -> Iterator[None]:
    """End this process, with an error kept for its parent, if what is inside takes longer than so many seconds."""

    def end() -> None:
        with suppress(CannotWrite):
            keep_error(place, TimeoutError(f"took longer than {seconds:g} s; its last checkpoint is kept"))
        os._exit(1)

    timer = threading.Timer(seconds, end) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _stop_when_stdin_ends() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)  # stop at the next checkpoint
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGINT)  # stop now
    time.sleep(GRACE_SECONDS)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
