"""The dashboard without a browser: its views are built and their callbacks driven directly."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from meta_icl.apps.cli import main
from meta_icl.apps.dashboard import compared, runs, subjects
from meta_icl.apps.dashboard.app import TABS, Dashboard, Settings
from meta_icl.apps.dashboard.claims import Line, board, chosen
from meta_icl.apps.dashboard.drawing import bars, plain_text
from meta_icl.apps.dashboard.folder import RunsFolder
from meta_icl.apps.dashboard.inspection import ChoiceInspection, RegressionInspection, inspection_of
from meta_icl.apps.dashboard.playground import CONTEXT, Playground, RegressionView
from meta_icl.apps.dashboard.runs import RunsView
from meta_icl.apps.dashboard.subjects import Trained
from meta_icl.errors import BadInput
from meta_icl.models import Learner, LinearAttention, Shifted, kirsch
from meta_icl.runs import Check, Claim, Run, is_true
from meta_icl.tasks import LinearRegression, RandomPoints

HOSTILE = '<img src=x onerror=alert(1)>"&$$x$$'
TASK = LinearRegression(d=1, n_context=6, noise=0.1)


def logged(folder, name, rows=(), finish=True):
    with Run.open(folder / name, {"of": name}) as run:
        for row in rows:
            run.log(row)
        if finish:
            run.finish()


def judged(folder, name, verdicts):
    with Run.open(folder / name, {"of": name}) as run:
        run.save_claims(
            [Claim(id, f"statement of {id}", "Fig. 1", [Check("q", is_true(), [v])]) for id, v in verdicts.items()]
        )
        run.finish()


# Runs


def test_runs_are_filtered_by_state_and_name(tmp_path):
    logged(tmp_path, "first"), logged(tmp_path, "second", finish=False)
    infos = RunsFolder(tmp_path).infos()
    assert {i.name for i in runs.fitting(infos, "done")} == {"first"}
    assert {i.name for i in runs.fitting(infos, text="SEC")} == {"second"}
    assert runs.as_html([]) == '<p class="note">No run fits.</p>'


def test_curves_are_of_every_log_seed_and_entry():
    rows = [
        {"step": s, "seed": seed, "task.noise": 0.5, "loss": float(s + seed)} for s in (0, 1) for seed in (0, 1)
    ] + [{"step": 2, "seed": 0, "task.noise": 0.5, "loss": float("nan")}]
    found = {s.name: (s.x.tolist(), s.y.tolist()) for s in runs.curves({"run": rows}, "loss")}
    assert found == {
        "run: seed = 0, task.noise = 0.5": ([0, 1], [0, 1]),
        "run: seed = 1, task.noise = 0.5": ([0, 1], [1, 2]),
    }
    listed = runs.curves({"run": [{"step": 0, "errors": [1.0, 2.0]}]}, "errors")
    assert [s.name for s in listed] == ["run: errors 1", "run: errors 2"]
    odd = {"held_out": 1.0, "note": "text", "flag": True, "loss": 0.0}
    assert runs.columns_of({"run": [*rows, odd]}) == ["loss", "held_out"]


def test_curves_of_a_training_in_progress_grow(tmp_path):
    with Run.open(tmp_path / "live", {}) as run:
        run.log({"step": 1, "loss": 0.5})
        view = RunsView(RunsFolder(tmp_path))
        assert view.infos[0].state == "running" and view.chosen.value == ["live"]
        (source,) = view.plot._sources["live"].values()
        assert source.data["y"].tolist() == [0.5]
        run.log({"step": 2, "loss": 0.25})
        view.tick()
        assert source.data["x"].tolist() == [1, 2] and source.data["y"].tolist() == [0.5, 0.25]
        run.log({"step": 3, "loss": -1.0, "other": 7.0})
        view.tick()
        assert "not logarithmic" in view.told.object and view.column.options == ["loss", "other"]
        view.column.value = "other"
        assert view.plot._sources["live"]["curve"].data["y"].tolist() == [7.0]
    view.chosen.value = []
    assert "nothing logged" in view.told.object


def test_hostile_names_are_text(tmp_path):
    logged(tmp_path, HOSTILE, [{"step": 0, "loss": 1.0}])
    judged(tmp_path, "claims" + HOSTILE, {f"{HOSTILE[:20]}/A": 1})
    made = Dashboard(Settings(tmp_path, tmp_path / "none"))
    made.runs.chosen.value = [info.name for info in made.runs.infos]
    made.claims.show()
    shown = (made.runs.listed, made.runs.plot.names, made.runs.claims, made.claims.told)
    for pane in shown:
        assert "&lt;img" in pane.object and "<img" not in pane.object
    assert plain_text(HOSTILE).count("$$") == 0 and "<b>" not in bars(["<b>"], [1.0], "p")


@pytest.mark.parametrize("name", ["..", "../outside", "/etc", ".", "", "linked", "missing"])
def test_no_path_outside_of_the_folder_is_reachable(tmp_path, name):
    root = tmp_path / "runs"
    logged(root, "inside"), logged(tmp_path, "outside")
    (root / "linked").symlink_to(tmp_path / "outside")
    folder = RunsFolder(root)
    assert [info.name for info in folder.infos()] == ["inside"]
    with pytest.raises(BadInput, match="holds no run"):
        folder.run(name)
    with pytest.raises(BadInput, match="holds no run"):
        folder.parts(name)


# Claims


def test_the_board_has_kept_verdicts_and_those_of_runs(tmp_path):
    judged(tmp_path / "runs", "mine", {"rossi2024/R-2": 0, "own/A-1": 1})
    lines = board(tmp_path / "none", RunsFolder(tmp_path / "runs"))
    kept = json.loads(Path("src/meta_icl/papers/verdicts.json").read_text())
    assert len(lines) == len({claim[0] for told in kept.values() for claim in told["claims"]} | {"own/A-1"})
    by_id = {line.id: line for line in lines}
    ours = by_id["rossi2024/R-2"]
    assert ours.runs == {"mine": "fails"} and ours.kept["rossi2024_understanding_icl"] == "holds" and ours.differs
    assert by_id["own/A-1"].kept == {} and not by_id["own/A-1"].differs
    assert {line.id for line in chosen(lines, differing=True)} == {"rossi2024/R-2"}
    assert {line.id for line in chosen(lines, paper="own", verdict="holds")} == {"own/A-1"}


def test_claims_are_found_by_words():
    lines = [Line("a/1", "Ridge is best"), Line("b/2", "ridge loses")]
    assert [line.id for line in chosen(lines, text="best RIDGE")] == ["a/1"]
    assert chosen(lines, paper="b", text="best") == []


# Playground


@pytest.fixture(scope="module")
def one_head():
    """A layer of linear attention with one head, neither trained nor zero."""
    learner = LinearAttention(d_model=2, init_scale=0.3)(key=jax.random.key(0))
    return Trained(learner, TASK)


def test_references_and_removed_heads_are_what_they_should_be(one_head):
    inspection = inspection_of(one_head)
    assert isinstance(inspection, RegressionInspection) and inspection.heads == [(0, 0)] and inspection.layers == (0,)
    x, y = inspection.points()
    along, answers = inspection.curves()
    assert along[-1] == pytest.approx(float(inspection.prompt.x[-1, 0]))
    slope = (x @ y) / (x @ x + 0.1**2)  # noise variance over weight variance
    np.testing.assert_allclose(answers["ridge"], slope * along, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answers["Bayes"], slope * along, rtol=1e-4, atol=1e-6)
    steps = np.polyfit(along * (x @ y) / len(x), answers["gradient descent"], 1)  # one step from zero
    assert 0.5 < steps[0] < 4 and abs(steps[1]) < 1e-6
    whole = answers["network"]
    assert np.abs(whole).max() > 0
    inspection.toggle((0, 0))
    answers = inspection.curves()[1]
    np.testing.assert_allclose(answers["network"], 0, atol=1e-7)  # nothing else writes into the slot of the answer
    np.testing.assert_allclose(answers["network, whole"], whole, rtol=1e-5)
    inspection.toggle((0, 0))
    q, k = (np.asarray(inspection.predictor.trace(inspection.prompt.hidden())[1][site][0, 0]) for site in "qk")
    np.testing.assert_allclose(inspection.patterns()[0, 0], (q @ k.T)[:, :-1], rtol=1e-4, atol=1e-6)


def test_points_are_dragged_and_the_task_is_moved(one_head):
    inspection = RegressionInspection(one_head)
    x, y = inspection.points()
    inspection.drag(x + 1, y * 2)
    np.testing.assert_allclose(inspection.points(), [x + 1, y * 2], rtol=1e-6)
    for bad in ((x[1:], y[1:]), (x * np.nan, y)):
        with pytest.raises(BadInput, match="points"):
            inspection.drag(*bad)
    assert set(inspection.fields()) == {"x_scale", "w_scale", "noise"}
    inspection.move("noise", 0.0)
    inspection.move("w_scale", 3.0)
    x, y = inspection.points()
    np.testing.assert_allclose(y / x, (y / x)[0], rtol=1e-4)
    w = (y / x)[0]
    inspection.move("w_scale", 1.0)
    assert (inspection.points()[1] / inspection.points()[0])[0] == pytest.approx(w / 3, rel=1e-4)
    inspection.n_context = 2
    inspection.draw()
    assert len(inspection.points()[0]) == 2 and inspection.task.noise == 0


def test_the_playground_follows_what_is_moved_dragged_and_clicked(one_head):
    ground = Playground({"mine": lambda: one_head, "broken": lambda: (_ for _ in ()).throw(BadInput("no <b>such</b>"))})
    assert ground.current is None
    ground.open()
    view = ground.current
    assert isinstance(view, RegressionView)
    source = view.plot._sources[CONTEXT]["curve"]
    before = view.plot._sources["network"]["curve"].data["y"]
    source.data = {**source.data, "y": 2 * source.data["y"]}  # as the tool does that drags points
    np.testing.assert_allclose(view.inspection.points()[1], source.data["y"], rtol=1e-6)
    assert not np.allclose(view.plot._sources["network"]["curve"].data["y"], before)
    view.query.value = 1.5
    assert view.plot._sources["query"]["curve"].data["x"].tolist() == [1.5]
    view.sliders["noise"].value = 0.5
    assert float(view.inspection.task.noise) == 0.5 and float(view.inspection.prompt.x[-1, 0]) == 1.5
    view.again.clicks += 1
    assert view.inspection.number == 1
    view.heads.click((0, 0))
    assert view.inspection.removed == {(0, 0)} and "network, whole" in view.plot._sources
    assert view.heads._maps[(0, 0)]._heading.text.endswith("removed")
    view.heads.removed.value = []
    assert view.inspection.removed == set() and "network, whole" not in view.plot._sources
    ground.paint("dark")
    ground.choice.value = "broken"
    assert ground.current is None and "no &lt;b&gt;such" in ground.stage[0].object


def test_labels_are_answered_with_probabilities():
    task = RandomPoints(d=3, n_context=4, n_labels=2)
    network = kirsch(d_model=8, n_layers=1, n_heads=2, n_positions=5, d_in=5, d_out=2)
    inspection = inspection_of(Trained(Learner(network, Shifted(n_labels=2))(key=jax.random.key(0)), task))
    assert isinstance(inspection, ChoiceInspection) and inspection.heads == [(0, 0), (0, 1)]
    names, values = inspection.choices()
    assert (
        set(names) == {"label 0", "label 1"}
        and sum(values) == pytest.approx(1, abs=1e-5)
        and inspection.right() in names
    )
    np.testing.assert_allclose(inspection.patterns().sum(-1), 1, rtol=1e-5)


def trained_run(root, *arguments):
    given = ["train", "linear_regression", "von_oswald", "--task", "d=1", "n_context=6", "--model", "d_model=2"]
    sizes = ["--steps", "2", "--batch", "4", "--workers", "0", "--root", str(root), "--json"]
    assert main([*given, *sizes, *arguments]) == 0


def test_runs_are_offered_and_compared_on_the_same_prompts(tmp_path, capsys):
    trained_run(tmp_path, "--name", "a", "--sweep", "task.noise=0,0.5")
    capsys.readouterr()
    folder = RunsFolder(tmp_path)
    (name,) = [info.name for info in folder.infos()]
    labels = [f"run {name}, task.noise = {noise}" for noise in ("0", "0.5")]
    found = subjects.offered(folder)
    assert list(found)[:4] == [*labels, *subjects.BUILT_IN]
    opened = found[labels[1]]()
    assert float(opened.task.noise) == 0.5 and inspection_of(opened).heads == [(0, 0)]
    table = compared.on_same_prompts([folder.run(name)], n_prompts=20)
    assert list(table.rows)[:2] == [f"{name}, task.noise = {noise}" for noise in ("0", "0.5")]
    assert {"gradient descent", "ridge", "Bayes"} <= set(table.rows)
    assert "gradient descent" in compared.as_html(table)
    with pytest.raises(BadInput, match="choose one"):
        compared.on_same_prompts([])


def test_code_of_the_users_own_runs_only_when_it_is_named(tmp_path):
    config = {"command": "train", "model": {"name": "Mine", "own": {"file": "/somewhere.py"}}, "seeds": 1, "sweep": {}}
    with Run.open(tmp_path / "own", config) as run:
        run.finish()
    assert not any(label.startswith("run ") for label in subjects.offered(RunsFolder(tmp_path)))
    with pytest.raises(BadInput, match="without code of your own"):
        compared.on_same_prompts([Run.load(tmp_path / "own")])


# The page and the command


def test_the_page_holds_all_views(tmp_path):
    made = Dashboard(Settings(tmp_path, tmp_path))
    assert len(made.tabs) == len(TABS)
    made.page.dark_theme = True
    assert made.runs.plot._scheme == "dark"


def test_what_is_missing_or_taken_is_one_line(tmp_path, monkeypatch, capsys):
    import socket

    root = ["--root", str(tmp_path)]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["dashboard", "--port", port, *root]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err
    assert main(["dashboard", "--port", "70000", *root]) == 2
    assert "--port must be from 0 to 65535" in capsys.readouterr().err
    assert main(["dashboard", "nothing", *root]) == 2
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "panel" else found(name))
    capsys.readouterr()
    assert main(["dashboard", *root]) == 2
    told = capsys.readouterr().err
    assert "needs the extra dashboard" in told and told.count("\n") == 1
