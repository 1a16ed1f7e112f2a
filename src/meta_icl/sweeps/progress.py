"""Progress of parts: a bar on a terminal, one line per finished part elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from meta_icl.runs.metrics import last_row


class Progress:
    """Shows how many of `total` parts are done and what the running ones last logged, on standard error.

    `show`: True a bar, False nothing, None a bar on a terminal and lines elsewhere. Where every part logs as many
    `steps`, the running ones count by their share of them, so that the time left is that of the steps.
    """

    def __init__(self, total: int, done: int, show: bool | None, steps: int | None = None):
        self._total, self._done, self._steps = total, done, steps
        self._lines = show is None and not sys.stderr.isatty()
        self._began = time.monotonic()
        self._folders: Mapping[str, Path] = {}
        self._seen: dict[str, tuple[float, float]] = {}  # part -> when its first step was seen, and which
        self._bar: Any = None
        if show or (show is None and not self._lines):
            self._bar = _bar(self.now)
            self._parts = self._bar.add_task("parts", total=total, completed=done)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def finished(self, name: str) -> None:
        """Count a part as done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._parts, completed=self._done)
        if self._lines:
            seconds = time.monotonic() - self._began
            print(f"{self._done}/{self._total} {name} done after {seconds:.0f} s", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Say what whoever waits should know, in a line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        if self._lines:
            print(text, file=sys.stderr, flush=True)

    def running(self, folders: Mapping[str, Path]) -> None:
        """Show what the parts in these folders log, from now on."""
        self._folders = dict(folders)

    def now(self) -> str:
        """The running parts with their last step and loss, and the steps per second since they were first seen."""
        if self._steps and self._bar is not None:
            rows = [last_row(folder) or {} for folder in self._folders.values()]
            begun = sum(min(1.0, row.get("step", 0) / self._steps) for row in rows)
            self._bar.update(self._parts, completed=self._done + begun)
        return "   ".join(self._described(name, folder) for name, folder in self._folders.items())

    def _described(self, name: str, folder: Path) -> str:
        row = last_row(folder) or {}
        words = [f"{key} {row[key]:.4g}" for key in ("step", "loss") if isinstance(row.get(key), int | float)]
        if isinstance(row.get("step"), int | float):
            now = time.monotonic()
            began, first = self._seen.setdefault(name, (now, row["step"]))
            if row["step"] > first and now > began:
                words.append(f"{(row['step'] - first) / (now - began):.3g} steps/s")
        return " ".join([name, *words])


def _bar(now: Callable[[], str]) -> Any:
    """A bar on standard error that ends with the text of `now()`, asked for again at every refresh."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Now(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            return Text(now())

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), Now()
    return Bar("parts", *columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
