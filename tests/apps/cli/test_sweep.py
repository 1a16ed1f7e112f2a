"""`meta-icl sweep`: its points are trainings of the library, or reproductions of papers."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from meta_icl.apps import cli
from meta_icl.apps.cli import planned, sweep, sweep_report
from meta_icl.models import Learner, von_oswald
from meta_icl.runs import Run
from meta_icl.sweeps import PartFailed
from meta_icl.sweeps.plan import read_plan
from meta_icl.tasks import LinearRegression, Uniform
from meta_icl.training import Optimiser, train

SETTINGS = """
steps = 6
batch = 8
seeds = 2
record = 3
task = { name = "linear_regression", d = 2, n_context = 3, x_law = { name = "uniform", half_range = 1.0 } }
model = "von_oswald:d_model=3"
"""
SWEEP = """
[sweep.zip]
optimiser.learning_rate = [0.01, 0.02]
task.x_law.half_range = [1.0, 2.0]
"""
PAPER = """
from dataclasses import dataclass
import numpy as np
from meta_icl.runs import Check, Claim, within
from meta_icl.sweeps import run_parts

@dataclass(frozen=True)
class Config:
    seeds: int = 1
    size: int = 2

IDS, PRESETS = ("T-1",), {"small": Config()}

def double(part, *, x):
    return {"x": np.array(2 * x)}

def run(config, run):
    run_parts(run, double, {"a": {"x": config.size}})

def claims(run):
    measured = float(run.part_arrays("a")["x"])
    return [Claim("own/T-1", "twice two is four", "Figure 1", (Check("x", within(3.9, 4.1), (measured,)),))]

def figures(run):
    return {}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("META_ICL_WORKERS", "1")  # one part per point and seed, as on a CPU
    return tmp_path


def told(capsys, text: str, *options: str) -> dict:
    """What the sweep of a file tells as JSON."""
    Path("rates.toml").write_text(text)
    assert cli.main(["sweep", "rates.toml", "--yes", "--workers", "0", "--root", "runs", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_points_are_the_library_s_trainings(capsys, monkeypatch):
    monkeypatch.setattr(planned, "PART_SIZE", 0)  # a part per point and seed
    found = told(capsys, SETTINGS + SWEEP)
    assert [row["point"] for row in found["points"]] == [
        "optimiser.learning_rate = 0.01, task.x_law.half_range = 1",
        "optimiser.learning_rate = 0.02, task.x_law.half_range = 2",
    ]
    for row, rate, reach in zip(found["points"], (0.01, 0.02), (1.0, 2.0), strict=True):
        trained = train(
            LinearRegression(d=2, n_context=3, x_law=Uniform(half_range=reach)),
            Learner(von_oswald(d_model=3)),
            steps=6,
            key=jax.random.key(0),
            seeds=2,
            batch=8,
            optimiser=Optimiser(learning_rate=rate),
            record=3,
        )
        last = trained.history["loss"][-1]
        wanted = [np.median(last), last.min(), last.max()]
        np.testing.assert_allclose([row["final_loss"], row["lowest"], row["highest"]], wanted, rtol=1e-5)
    run = Run.load(found["run"])
    assert run.done and len(run.parts()) == 4 and run.name.startswith("rates-")
    page = (run.folder / "report.html").read_text()
    assert "x_law.half_range = 2" in page and "Final loss by setting" in page
    # The same command tells the same; on an accelerator all points of a group are one part with the same losses.
    assert told(capsys, SETTINGS + SWEEP) == found
    monkeypatch.setattr(sweep, "default_workers", lambda: 0)
    assert told(capsys, SETTINGS + SWEEP) == found  # begun parts keep their arrangement
    together = told(capsys, SETTINGS + SWEEP, "--root", "other")
    (part,) = Run.load(together["run"]).parts()
    assert part == "0,optimiser.learning_rate=0.01,task.x_law.half_range=1,points=2"
    for row, same in zip(together["points"], found["points"], strict=True):
        assert row == same | {name: pytest.approx(same[name], rel=1e-5) for name in list(row)[2:]}


def test_numbers_share_a_training_and_sizes_do_not(folder, monkeypatch):
    monkeypatch.setattr(planned, "PART_SIZE", 0)
    grid = "[sweep.grid]\ntask.noise = [0, 0.5]\nmodel.n_layers = [1, 2]\nsteps = [1, 2]\ntask.d = [2]\n"
    (folder / "a.toml").write_text(SETTINGS.replace("steps = 6", "") + grid)
    work = planned.work_of(read_plan(folder / "a.toml"))
    assert [group.places for group in work.groups] == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert [group.numbers[1] for group in work.groups] == [{"task.noise": 0.5}] * 4
    assert {part["training"]["steps"] for part in work.parts(False).values()} == {1, 2}
    assert work.steps is None and len(work.parts(False)) == 16 and len(work.parts(True)) == 4
    # 2 layers of 4 matrices of 3 x 3 at most: no more memory than a process takes.
    assert planned.PROCESS_BYTES < work.bytes_per_process < planned.PROCESS_BYTES + 1e5


def test_small_points_share_a_part(folder, monkeypatch):
    """6 steps of 8 prompts, 2 seeds: as many points as make up the size of a part."""
    (folder / "a.toml").write_text(SETTINGS + "[sweep.grid]\ntask.noise = [0, 1, 2, 3, 4]\n")
    plan = read_plan(folder / "a.toml")
    one = planned.work_of(plan)
    (n,) = {planned.parameters_of(part["training"]) for part in one.parts(False).values()}
    assert [len(part["sweep"]) for part in one.parts(False).values()] == [5]
    monkeypatch.setattr(planned, "PART_SIZE", 2.5 * n * 6 * 8 * 2)
    work = planned.work_of(plan)
    assert list(work.parts(False)) == [f"{i},task.noise={i},points={min(2, 5 - i)}" for i in (0, 2, 4)]
    assert [point for part in work.parts(False).values() for point in part["sweep"]] == [*work.groups[0].numbers]
    assert all(part["seeds"] == [0, 1] for part in work.parts(False).values())
    assert [planned.alike(n, most) for n, most in ((5, 2), (64, 21), (64, 64), (64, 999), (7, 1))] == [2, 16, 64, 64, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SETTINGS + "[sweep.grid]\ntask.nose = [1]", "unknown field of LinearRegression 'nose'; did you mean 'noise'"),
        (SETTINGS + "[sweep.grid]\ntask.noise = [0, -1]", "noise must be"),
        (SETTINGS + "[sweep.grid]\nmodel = ['von_oswald:d_model=3', 'nothing']", "unknown model 'nothing'"),
        (SETTINGS + "[sweep.grid]\nmodel.d_model = [3, 4]", "do not fit together"),
        (SETTINGS + "[sweep.grid]\nseeds = [1, 2]", "every point has all seeds"),
        (SETTINGS + "[sweep.grid]\ntask.x_law.wide = [1]", "wide"),
        (SETTINGS + "[sweep.grid]\ntask.w_law.wide = [1]", "task.w_law.wide is no number of task LinearRegression"),
        (SETTINGS.replace("batch = 8", "batch = 'x'"), "batch must be an integer, got 'x'"),
        (SETTINGS.replace("batch", "bach"), "unknown setting of a sweep 'bach'; did you mean 'batch'"),
        (SETTINGS + "[sweep]\ngrids = {}", "unknown part of [sweep] 'grids'"),
        ("[task]\nname = 'linear_regression'", "train needs a task and a model"),
        ("[paper]\nname = 'rosi2024'", "did you mean 'rossi2024'"),
        ("[paper]\nname = 'rossi2024'\npreset = 'smok'", "unknown preset 'smok'"),
        ("[paper]\nname = 'rossi2024'\n[sweep.grid]\ntask.d = [1]", "paper.name, paper.preset or a field"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(capsys, text, message):
    Path("a.toml").write_text(text)
    assert cli.main(["sweep", "a.toml", "--yes", "--root", "runs"]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--on", "moon"), "unknown --on 'moon'"),
        (("--on", "dask"), "--on must be local, dask:ADDRESS or a batch system, got 'dask'"),
        (("--time-limit", "0"), "--time-limit must be positive seconds"),
        (("--retries", "-1"), "--retries must be zero or more"),
        ((), "--yes must be given where nobody can be asked"),
    ],
)
def test_options_are_checked(capsys, options, message):
    Path("a.toml").write_text(SETTINGS + SWEEP)
    assert cli.main(["sweep", "a.toml", "--root", "runs", *options]) == 2
    assert message in capsys.readouterr().err and not Path("runs").exists()


def test_the_plan_is_shown_first(capsys, monkeypatch):
    Path("a.toml").write_text(SETTINGS + SWEEP)
    monkeypatch.setattr(sweep, "probed_seconds", lambda work: (2.0, 0.125))
    assert cli.main(["sweep", "a.toml", "--dry-run", "--workers", "2", "--root", "runs"]) == 0
    out = capsys.readouterr().out
    points, told = out.splitlines()[:2], out.splitlines()[2]
    swept = "optimiser.learning_rate = {}, task.x_law.half_range = {}"
    assert points == [swept.format(0.01, 1), swept.format(0.02, 2)]
    assert told == "2 points in 1 group of equal shape; 4 runs in 1 part on 2 processes"
    assert "about 13 s" in out  # (2 + 4 * 6 * 8 * 0.125) / 2
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert cli.main(["sweep", "a.toml", "--root", "runs"]) == 0
    assert not Path("runs").exists()


def test_the_probe_times_steps_of_the_first_part(folder):
    (folder / "a.toml").write_text(SETTINGS + SWEEP)
    start, per_prompt = sweep.probed_seconds(planned.work_of(read_plan(folder / "a.toml")))
    assert start > 0 and 0 < per_prompt < start


def test_papers(capsys):
    Path("mine.py").write_text(PAPER)
    text = '[paper]\nname = "./mine.py"\n[sweep.grid]\npaper.size = [2, 3]\n'
    found = told(capsys, text)
    assert [(row["point"], row["holds"], row["fails"]) for row in found["points"]] == [
        ("paper.size = 2", 1, 0),
        ("paper.size = 3", 0, 1),
    ]
    workers = told(capsys, text, "--root", "others", "--workers", "2")  # which import the paper by its place
    assert workers["points"] == found["points"]
    part = Run.load(workers["run"]).parts()["0,paper.size=2"]
    assert [claim.verdict for claim in part.load_claims()] == ["holds"]
    assert "paper.size = 3" in (Path(found["run"]) / "report.html").read_text()


def test_retries_go_on_after_a_part_has_failed(capsys, monkeypatch):
    calls = []

    def run_parts(*arguments, **options):
        calls.append(options["time_limit"])
        if len(calls) < 3:
            raise PartFailed("part a failed:\nof something")
        return real(*arguments, **options | {"time_limit": None})

    real = sweep.run_parts
    monkeypatch.setattr(sweep, "run_parts", run_parts)
    Path("rates.toml").write_text(SETTINGS)
    command = ["sweep", "rates.toml", "--yes", "--workers", "0", "--root", "runs", "--time-limit", "9"]
    assert cli.main([*command, "--retries", "1"]) == 1
    assert re.search("part a failed", capsys.readouterr().err)
    calls[:] = [9.0]
    assert cli.main([*command, "--retries", "1"]) == 0 and calls == [9.0, 9.0, 9.0]
    assert "part a failed: trying again" in capsys.readouterr().err


def test_a_point_that_diverges_is_named_and_the_others_go_on(capsys):
    Path("rates.toml").write_text(SETTINGS + "[sweep.grid]\noptimiser.learning_rate = [1e-3, 1e30]\n")
    assert cli.main(["sweep", "rates.toml", "--yes", "--workers", "0", "--root", "runs", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert np.isfinite(found["points"][0]["final_loss"]) and found["points"][1]["final_loss"] == "NaN"
    assert len(found["diverged"]) == 2 and all("1e+30" in point for point in found["diverged"])


def test_two_things_that_vary_are_a_heat_map():
    rows = [{"point": f"a = {i}, b = {j}", "final_loss": 10.0 * i + j} for j in (5, 6) for i in (1, 2, 3)]
    (panel,) = sweep_report.heat_maps(rows).panels
    np.testing.assert_array_equal(panel.matrix, [[15, 16], [25, 26], [35, 36]])
    assert list(panel.y_labels) == ["a = 1", "a = 2", "a = 3"] and list(panel.x_labels) == ["b = 5", "b = 6"]
    assert sweep_report.heat_maps(rows[:-1]) is None
    assert sweep_report.heat_maps([{"point": "a = 1", "final_loss": 1.0}]) is None
    more = [{"point": f"{row['point']}, c = {c}", "final_loss": row["final_loss"] * c} for row in rows for c in (2, -1)]
    more[-1]["final_loss"] = float("nan")
    maps = sweep_report.heat_maps(more)
    assert [np.shape(panel.matrix) for panel in maps.panels] == [
        (3, 2),
        (3, 2),
        (2, 2),
    ] and "lowest over" in maps.caption
    np.testing.assert_array_equal(maps.panels[0].matrix, [[-15, -16], [-25, -26], [-35, 72]])


def test_what_varies_is_drawn_as_parallel_axes():
    points = [("m", 0.001, 4.0), ("m", 0.1, 1.0), ("n", 0.01, float("nan"))]
    rows = [{"point": f"model = {m}, rate = {r:g}, same = 1", "final_loss": loss} for m, r, loss in points]
    chart = sweep_report.parallel(rows)
    assert [axis.name for axis in chart.axes] == ["model", "rate", "final loss"]
    assert chart.axes[1].log and not chart.axes[2].log and chart.axes[0].words == ["m", "n"]
    np.testing.assert_array_equal(chart.axes[2].values, [1, 4, np.nan])  # the best first
    np.testing.assert_allclose(chart.axes[1].values, [0.1, 0.001, 0.01])
    assert sweep_report.parallel(rows[:1]) is None


@pytest.mark.parametrize(
    ("asked", "size", "processes", "workers"),
    [(7, 1e18, 1, 7), (None, 1e18, None, 1), (None, 1.0, None, 64), (None, 1.0, 5, 5), (None, 1.0, 65, 64)],
)
def test_no_more_workers_than_fit_into_memory_or_are_worth_it(asked, size, processes, workers, monkeypatch):
    monkeypatch.setattr(sweep, "default_workers", lambda: 64)
    work = planned.Work({}, print, (), lambda together: {}, bytes_per_process=size, processes=processes)
    assert sweep.workers_here(asked, work) == workers


def test_a_sweep_of_small_trainings_is_worth_one_process(folder):
    """Of 64 of 192 steps of 8 prompts by a layer of 36 numbers; a thousand times as many steps are worth several."""
    grid = f"[sweep.grid]\ntask.noise = {list(range(64))}\n"
    for steps, few in ((192, True), (192_000, False)):
        (folder / "a.toml").write_text(SETTINGS.replace("steps = 6", f"steps = {steps}") + grid)
        work = planned.work_of(read_plan(folder / "a.toml"))
        (n,) = {planned.parameters_of(part["training"]) for part in work.parts(False).values()}
        assert work.processes == max(1, n * 64 * 2 * steps * 8 // int(4 * planned.PART_SIZE))
        assert (work.processes == 1) == few


TRACKER = """
import json
class Mine:
    def __init__(self, folder, config):
        self.file, self.command = folder / "mine.txt", config["command"]
    def log(self, series, step, values):
        with open(self.file, "a") as file:
            file.write(json.dumps([self.command, series, step, sorted(values)]) + "\\n")
    def close(self):
        raise ConnectionError("no network")
"""


def test_rows_go_to_a_tracker_of_one_s_own_too(capsys):
    Path("mine.py").write_text(TRACKER)
    found = told(capsys, SETTINGS + SWEEP, "--track", "./mine.py")
    rows = [json.loads(line) for line in (Path(found["run"]) / "mine.txt").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 3 and all(
        row[0] == "sweep" and "loss" in row[3] for row in rows
    )  # points, seeds, records
    assert len({row[1] for row in rows}) == 4 and [row[2] for row in rows if row[1] == rows[0][1]] == [0, 3, 6]
    assert cli.main(["sweep", "rates.toml", "--yes", "--track", "tensorbord"]) == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err
