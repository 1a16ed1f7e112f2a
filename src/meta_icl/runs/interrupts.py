"""Ctrl-C, SIGTERM and SIGHUP ask for a stop at the next checkpoint; once more, they stop at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `kill` and batch systems, a closed terminal

_requested = threading.Event()


def stop_requested() -> bool:
    """Whether a stop was asked for; long work saves a checkpoint and raises `KeyboardInterrupt` when it sees it."""
    return _requested.is_set()


@contextmanager
def graceful_interrupts(say: str | None = None) -> Iterator[None]:
    """While active, the first of `SIGNALS` asks for a stop (and prints `say`), the second raises `KeyboardInterrupt`.

    In any thread but the main one, which alone may handle signals, it changes nothing.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if _requested.is_set():
            raise KeyboardInterrupt
        _requested.set()
        if say is not None:
            with suppress(OSError):  # the terminal may be gone
                os.write(2, f"\n{say}\n".encode())  # safe inside a signal handler, unlike print

    with handled(handle):
        try:
            yield
        finally:
            _requested.clear()


@contextmanager
def interrupts() -> Iterator[None]:
    """While active, SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does."""
    with handled(signal.default_int_handler):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While active, `handler` gets the `SIGNALS`, but for a SIGHUP that is ignored, as under `nohup`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
