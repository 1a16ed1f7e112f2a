"""The log of a run in progress is read as it grows, is rewound, and is finished."""

import os

import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Run
from meta_icl.runs.follow import Follower
from meta_icl.runs.metrics import LINES


def steps(follower):
    return [row["step"] for row in follower.rows()]


def test_rows_are_read_as_they_are_appended(tmp_path):
    folder = tmp_path / "run"
    with Run.open(folder, {}) as run:
        follower = Follower(folder)
        assert steps(follower) == []
        run.log({"step": 1, "loss": 0.5})
        assert follower.rows() == [{"step": 1, "loss": 0.5}]
        run.log({"step": 2, "loss": float("nan")})
        run.log({"step": 3, "loss": 0.25})
        assert steps(follower) == [1, 2, 3]
        run.rewind(1)  # what is dropped is gone, also where as much was logged in the meantime
        run.log({"step": 7, "loss": 0.5})
        run.log({"step": 8, "loss": 0.25})
        assert steps(follower) == [1, 7, 8]
        run.finish()
        assert steps(follower) == [1, 7, 8]  # from the file that the finished run states
    assert steps(Follower(folder)) == [1, 7, 8]


def test_a_line_that_is_being_written_waits_for_its_end(tmp_path):
    with Run.open(tmp_path / "run", {}) as run:
        run.log({"step": 1})
    follower, log = Follower(run.folder), run.folder / LINES
    with log.open("ab") as file:
        file.write(b'{"step": 2, "lo')
        file.flush()
        assert steps(follower) == [1]
        file.write(b'ss": 1}\n')
    assert steps(follower) == [1, 2]
    os.truncate(log, len(b'{"step":1}\n'))
    with log.open("ab") as file:
        file.write(b'{"step": 5, "loss": 22222222}\n')
    assert steps(follower) == [1, 5]


def test_damage_is_told_and_links_are_not_followed(tmp_path):
    with Run.open(tmp_path / "run", {}) as run:
        run.log({"step": 1})
    with (run.folder / LINES).open("ab") as file:
        file.write(b"{nonsense}\n")
    with pytest.raises(BadInput, match="cannot be read as JSON"):
        Follower(run.folder).rows()
    (run.folder / LINES).rename(tmp_path / "elsewhere")
    (run.folder / LINES).symlink_to(tmp_path / "elsewhere")
    assert Follower(run.folder)._folder == run.folder
