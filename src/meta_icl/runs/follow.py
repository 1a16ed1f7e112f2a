"""The rows of a run while it is trained: each look reads what was appended since the last one."""

import os
from pathlib import Path

from meta_icl.runs.files import open_regular, parse_json
from meta_icl.runs.metrics import LINES, Row
from meta_icl.runs.run import Run

CHECKED = 64  # bytes before the place where reading goes on, which must be those that were there


class Follower:
    """Follows the log of one run or part; links are not followed, and nothing in the folder is changed.

    A log that was rewound is read again from its beginning, that of a finished run once, as the run states it.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._rows: list[Row] = []
        self._end = 0
        self._before = b""
        self._file: int | None = None  # which file it was that the rows are of

    def rows(self) -> list[Row]:
        """All rows so far; a last line that is being written waits for its end.

        Raises `BadInput` for a log that is damaged.
        """
        path = self._folder / LINES
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                number = os.fstat(file.fileno()).st_ino
                file.seek(self._end - len(self._before))
                if number != self._file or file.read(len(self._before)) != self._before:
                    self._rows, self._end, self._before, self._file = [], 0, b"", number
                    file.seek(0)
                data = file.read()
        except OSError:  # not begun, or finished
            if self._file != 0:
                self._rows, self._end, self._before = Run.load(self._folder).metrics(), 0, b""
                self._file = 0 if Run.load(self._folder).done else None
            return self._rows
        whole = data[: data.rfind(b"\n") + 1]
        self._rows += [row for text in whole.split(b"\n")[:-1] if isinstance(row := parse_json(text, path), dict)]
        self._end += len(whole)
        self._before = (self._before + whole)[-CHECKED:]
        return self._rows
