import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Run, collect, default_root, find_run, list_runs, query


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A finished run with a finished and an open part, an unfinished run, and something that is not a run."""
    tmp_path = tmp_path_factory.mktemp("prepared")
    with Run.open(tmp_path, {"a": 1}, name="first") as run:
        run.log({"step": 1, "loss": 4.0})
        with run.part("K=2", {}) as part:
            for step in range(3):
                part.log({"step": step, "loss": 1.0 / (step + 1), "acc": True})
            part.save_checkpoint(2, {"x": np.zeros(10)})
            part.finish()
        with run.part("K=3", {}) as part:
            part.log({"step": 5, "loss": math.nan, "note": "it's open"})
            part.save_checkpoint(5, {"x": np.zeros(10)})
        run.finish()
    with Run.open(tmp_path, {"a": 2}, name="second") as run:
        run.log({"step": 2, "loss": 3})
    (tmp_path / "notes").mkdir()
    return tmp_path


@pytest.fixture
def root(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "root"))


def test_sql_over_all_runs(root):
    table = query("SELECT part, step, loss FROM metrics WHERE run LIKE 'first-%' ORDER BY part, step", root)
    assert table.columns == ("part", "step", "loss")
    np.testing.assert_equal(
        [list(row) for row in table.rows],
        [["", 1, 4.0], ["K=2", 0, 1.0], ["K=2", 1, 0.5], ["K=2", 2, 1 / 3], ["K=3", 5, math.nan]],
    )
    everything = query("SELECT * FROM metrics", root)
    assert set(everything.columns) == {"run", "part", "step", "loss", "acc", "note"} and len(everything.rows) == 6
    assert query("SELECT state, parts_done, parts FROM runs ORDER BY run", root).rows == [
        ("done", 1, 2),
        ("unfinished", 0, 0),
    ]


@pytest.mark.parametrize(
    "sql",
    ["SELECT nothing FROM metrics", "SELEC", "SELECT * FROM read_text('/etc/hostname')", "COPY metrics TO 'x.csv'"],
)
def test_bad_sql_is_one_line_and_touches_no_file(root, sql, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="the query failed") as raised:
        query(sql, root)
    assert "\n" not in str(raised.value) and not Path("x.csv").exists()


def test_nothing_to_query(tmp_path):
    with pytest.raises(BadInput, match="holds no run that has logged metrics"):
        query("SELECT 1", tmp_path / "none")


def states(root: Path) -> dict[str, str]:
    return {info.name.split("-")[0]: info.state for info in list_runs(root)}


def test_list(root):
    with Run.open(root, {"a": 2}, name="second"):
        assert {info.name.split("-")[0]: info.state for info in list_runs(root)} == {
            "first": "done",
            "second": "running",
        }
    assert {info.name.split("-")[0]: info.state for info in list_runs(root)} == {
        "first": "done",
        "second": "unfinished",
    }
    first = next(info for info in list_runs(root) if info.state == "done")
    assert (first.parts_done, first.parts) == (1, 2) and first.bytes > 0 and first.wall_seconds is not None
    (first.folder / "config.json").write_text("{")
    assert next(info for info in list_runs(root) if info.folder == first.folder).state == "unreadable"
    assert list_runs(root / "none") == []


def test_find(root, monkeypatch):
    names = sorted(info.name for info in list_runs(root))
    for asked in (names[0], "first", root / names[0]):
        assert find_run(asked, root).name == names[0]
    with pytest.raises(BadInput, match="did you mean"):
        find_run(names[0][:-1] + "x", root)
    with pytest.raises(BadInput, match="ambiguous"):
        find_run("", root)
    with pytest.raises(BadInput, match="holds no runs"):
        find_run("first", root / "none")
    monkeypatch.delenv("META_ICL_RUNS", raising=False)
    assert default_root() == Path("runs")
    monkeypatch.setenv("META_ICL_RUNS", str(root))
    assert default_root() == root


def test_collect(root):
    done = next(info.folder for info in list_runs(root) if info.state == "done")
    open_run = next(info.folder for info in list_runs(root) if info.state == "unfinished")
    checkpoints = done / "parts" / "K=2" / "checkpoints"

    def targets(**options: bool) -> set[Path]:
        return {removal.folder for removal in collect(root, **options)}

    assert targets() == {checkpoints} and checkpoints.exists()  # the open part keeps its own
    assert targets(unfinished=True) == {checkpoints, open_run} and open_run.exists()
    with Run.open(open_run, Run.load(open_run).config):
        assert targets(unfinished=True, delete=True) == {checkpoints}  # somebody works on it
    assert open_run.exists() and not checkpoints.exists() and (done / "parts" / "K=3" / "checkpoints").exists()
    assert targets(unfinished=True, delete=True) == {open_run} and not open_run.exists()
    assert len(Run.load(done).part("K=2").metrics()) == 3
