"""A worker: computes the open parts of a run, one after the other, and exits when none is left.

    python -m meta_icl.sweeps.worker RUN_FOLDER

Any number of workers can share a run: each takes the first part that is neither done nor locked, and locks die with
their process. With `--watch-stdin` the worker stops when its standard input ends, that is, when its parent dies.
"""

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from meta_icl.errors import BadInput
from meta_icl.runs import Locked, Run, graceful_interrupts, stop_requested
from meta_icl.sweeps.work import GRACE_SECONDS, ORDER, compute, keep_error


def main() -> int:
    """Exit status: 0 no open part left, 1 a part failed (its error is in its folder), 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m meta_icl.sweeps.worker", description="Compute the parts of a run.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--watch-stdin", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()
    if arguments.watch_stdin:
        threading.Thread(target=_stop_when_stdin_ends, daemon=True).start()
    try:
        with graceful_interrupts():
            work(arguments.folder)
    except KeyboardInterrupt:
        return 130
    except BadInput as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt but the interpreter's own end
    return 0


def work(folder: Path) -> None:
    """Compute every part of the run that is open and not locked by another process."""
    run = Run.load(folder)
    names = run.load_json(ORDER) if run.has(ORDER) else sorted(run.parts())
    for name in names:
        if stop_requested():
            raise KeyboardInterrupt
        place = run.part_folder(name)
        if (place / "DONE").exists():
            continue
        try:
            part = Run.open(place, Run.load(place).config)
        except Locked:
            continue
        except BadInput as error:
            keep_error(place, error)
            raise
        with part:
            compute(part)


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
