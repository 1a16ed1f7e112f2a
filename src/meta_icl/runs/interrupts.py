"""Ctrl-C asks for a stop at the next checkpoint; pressed again it stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_requested = threading.Event()


def stop_requested() -> bool:
    """Whether a stop was asked for; long work saves a checkpoint and raises `KeyboardInterrupt` when it sees it."""
    return _requested.is_set()


@contextmanager
def graceful_interrupts(say: str | None = None) -> Iterator[None]:
    """While active, the first SIGINT asks for a stop (and prints `say`), the second raises `KeyboardInterrupt`.

    In any thread but the main one, which alone may handle signals, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if _requested.is_set():
            raise KeyboardInterrupt
        _requested.set()
        if say is not None:
            os.write(2, f"\n{say}\n".encode())  # safe inside a signal handler, unlike print

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        _requested.clear()
