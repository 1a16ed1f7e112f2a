"""A lock that keeps a second process out of a folder and that the death of its holder releases."""

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from meta_icl.errors import BadInput
from meta_icl.runs.files import CannotWrite, open_regular

MOST_KEPT = 100  # processes that the file remembers
LOCKING = os.O_RDWR | os.O_CREAT | os.O_APPEND
ATTEMPTS = 5  # a reader that asks `holder` takes the lock for an instant; that must not look like a second process


class Lock:
    """An exclusive lock on `folder/lock`, held from construction to `release` or the end of the process.

    Raises `BadInput`, naming the process that holds it, if another one does.
    """

    def __init__(self, folder: Path):
        self._file: IO[str] | None = _opened(folder, LOCKING, "a+")
        for attempt in range(ATTEMPTS):
            if _taken(self._file):
                if _in_place(self._file, folder):
                    break
                self._file.close()  # it was removed, with its folder, before it was ours: it keeps nobody out
                self._file = _opened(folder, LOCKING, "a+")
            elif attempt < ATTEMPTS - 1:
                time.sleep(0.01)
        else:
            pid = _pid(self._file)
            self._file.close()
            who = "this very process" if pid == os.getpid() else f"process {pid}"
            raise Locked(f"run {folder} is in use by {who}; wait for it, or stop it first", pid)
        if len(_pids(self._file)) >= MOST_KEPT:
            self._file.truncate(0)
        try:
            self._file.write(f"{os.getpid()}\n")  # after those who held it before
            self._file.flush()
        except OSError as error:
            with suppress(OSError):
                self._file.close()
            raise CannotWrite(folder / "lock", error) from None

    def release(self) -> None:
        """Give the folder free; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None


def locked(folder: Path) -> Lock:
    """The lock of a folder, which is made, also if it is collected while the lock is waited for."""
    for _ in range(ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return Lock(folder)
    raise FileNotFoundError(errno.ENOENT, "the folder is removed again and again")


class Locked(BadInput):
    """The folder is in use by process `pid`."""

    def __init__(self, message: str, pid: int | None):
        super().__init__(message)
        self.pid = pid


def holder(folder: Path) -> int | None:
    """The process that holds the folder's lock, or `None` (0 if it holds the lock but its number is unknown)."""
    try:
        with _opened(folder, os.O_RDONLY, "r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _pid(file) or 0
            return None
    except OSError:  # none, or something that is no lock: nobody can hold it
        return None


def last_holder(folder: Path) -> int | None:
    """The process that held the lock last, alive or dead."""
    pids = holders(folder)
    return pids[-1] if pids else None


def holders(folder: Path) -> list[int]:
    """The processes that held the lock, alive or dead, the last one last."""
    try:
        with _opened(folder, os.O_RDONLY, "r") as file:
            return _pids(file)
    except OSError:
        return []


def _opened(folder: Path, flags: int, mode: str) -> IO[str]:
    """The lock of a folder; a link is never followed, since what it points at may be anybody's."""
    return os.fdopen(open_regular(folder / "lock", flags | os.O_NOFOLLOW), mode, encoding="utf-8", errors="replace")


def _taken(file: IO[str]) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _in_place(file: IO[str], folder: Path) -> bool:
    """Whether an open lock is the one that the folder has now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(folder / "lock"))
    except FileNotFoundError:
        return False


def _pid(file: IO[str]) -> int | None:
    pids = _pids(file)
    return pids[-1] if pids else None


def _pids(file: IO[str]) -> list[int]:
    file.seek(0)
    return [int(line) for line in file.read().split() if line.isascii() and line.isdecimal()]
