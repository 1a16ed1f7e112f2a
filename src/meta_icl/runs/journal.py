"""The rows and checkpoints of a run: each checkpoint remembers the rows before it, to which a resumed run goes back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.errors import require
from meta_icl.runs import checkpoints
from meta_icl.runs.context import context, require_same_context
from meta_icl.runs.metrics import MetricsLog


class Journal:
    """The log of a run that is being worked on, opened when it is first needed."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        self._folder, self._config = folder, config
        self._open: MetricsLog | None = None
        # Step of the checkpoint read last and the rows when it was saved; -1 and nothing if there was none.
        self._mark: tuple[int, Mapping[str, Any] | None] | None = None

    @property
    def log(self) -> MetricsLog:
        """The log, open."""
        if self._open is None:
            self._open = MetricsLog(self._folder)
        return self._open

    def close(self) -> None:
        """Close the log, if it is open."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def rewind(self, step: int) -> None:
        """Drop rows as `Run.rewind` does."""
        if self._mark is None or self._mark[0] != step:
            self.log.rewind(step)
        elif self._mark[1] is None:
            self.log.drop_earlier()
        else:
            self.log.back_to(self._mark[1])

    def save_checkpoint(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Save a state with what its bits depend on, after the rows that it implies."""
        require(step >= 0, "step", step, "zero or more")
        self.log.sync()
        about = {**checkpoints.owner(self._folder, self._config), "context": context(), "rows": self.log.mark()}
        checkpoints.save_checkpoint(self._folder / "checkpoints", step, arrays, about)

    def latest_checkpoint(self, *, going_on: bool) -> tuple[int, dict[str, np.ndarray]] | None:
        """The newest checkpoint that verifies; where work goes on from it, one of this environment and these rows."""
        found = checkpoints.latest_checkpoint(self._folder / "checkpoints")
        if found is None:
            self._mark = -1, None
            return None
        checkpoints.require_belonging(found, self._folder, self._config)
        if going_on and found.about is not None:
            require_same_context(found.about["context"], found.path)
            self.log.verify(found.about["rows"])
            self._mark = found.step, found.about["rows"]
        return found.step, found.arrays
