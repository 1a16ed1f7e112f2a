import itertools
import json
import re
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from sklearn import linear_model, neighbors

from meta_icl.apps import cli
from meta_icl.apps.cli import train as command
from meta_icl.apps.cli.compare import members_of, reference
from meta_icl.errors import BadInput
from meta_icl.evaluation import query_losses
from meta_icl.models import Learner, von_oswald
from meta_icl.prompt import answer_batch
from meta_icl.runs import Run
from meta_icl.runs.config import checked_name
from meta_icl.tasks import LinearRegression, Normal, SineRegression, Uniform
from meta_icl.training import Optimiser, to_arrays, train

ARGUMENTS = (
    *("train", "linear_regression", "von_oswald", "--task", "d=2", "n_context=3", "x_law=uniform:half_range=1.0"),
    *("--model", "d_model=3", "--steps", "6", "--batch", "8", "--record", "3", "--learning-rate", "0.01"),
    *("--seeds", "2", "--sweep", "task.noise=0.5", "--workers", "0"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with one finished training of two seeds at one swept value."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("META_ICL_WORKERS", "1")  # one part per seed, as on a CPU
        patch.setattr(command, "default_workers", lambda: 1)
        assert cli.main([*ARGUMENTS, "--root", str(folder)]) == 0
    return folder


def only_run(root: Path) -> Run:
    (folder,) = [path.parent for path in root.glob("*/config.json")]
    return Run.load(folder)


def test_train_is_the_library_s_training(root):
    run = only_run(root)
    assert run.done and run.name.startswith("train-LinearRegression-von_oswald-")
    parts = run.parts()
    assert set(parts) == {f"task.noise=0.5,seed={seed}" for seed in (0, 1)}
    trained = train(
        LinearRegression(d=2, n_context=3, x_law=Uniform(half_range=1.0), noise=0.5),
        Learner(von_oswald(d_model=3)),
        steps=6,
        key=jax.random.key(0),
        seeds=[1],
        batch=8,
        optimiser=Optimiser(learning_rate=0.01),
        record=3,
    )
    result = parts["task.noise=0.5,seed=1"].load_arrays("result")
    np.testing.assert_array_equal(result["history/step"], [0, 3, 6])
    np.testing.assert_allclose(result["history/loss"], trained.history["loss"], rtol=1e-6)
    weights = to_arrays(trained.stacked, "predictor")
    assert weights and set(weights) < set(result)
    for name, values in weights.items():
        np.testing.assert_allclose(result[name], values, rtol=1e-5)
    assert parts["task.noise=0.5,seed=1"].metrics()[-1]["task.noise"] == 0.5


def test_asking_again_or_resuming_shows_the_finished_run(root, capsys, monkeypatch):
    monkeypatch.setattr(command, "default_workers", lambda: 1)
    monkeypatch.setenv("META_ICL_WORKERS", "1")
    name = only_run(root).name
    for arguments in (ARGUMENTS, ("train", "--resume", "train-Lin")):
        assert cli.main([*arguments, "--root", str(root), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert Path(told["run"]).name == name
        (point,) = told["points"]
        losses = [part.load_arrays("result")["history/loss"] for part in only_run(root).parts().values()]
        assert point["point"] == "task.noise = 0.5" and point["seeds"] == 2
        np.testing.assert_allclose(point["initial_loss"], np.mean([one[1] for one in losses]), rtol=1e-6)
        final = [float(one[-1, 0]) for one in losses]
        np.testing.assert_allclose(point["final_loss"], np.mean(final), rtol=1e-6)
        assert (point["lowest"], point["highest"]) == (min(final), max(final))
    assert cli.main(["train", "linear_regression", "lstm", "--resume", name, "--root", str(root)]) == 2
    assert "--resume must be given without a task" in capsys.readouterr().err


def test_parts_keep_their_arrangement(root, capsys, monkeypatch):
    """A run begun with one part per seed goes on so, where one process would now train everything together."""
    monkeypatch.setattr(command, "default_workers", lambda: 0)
    assert cli.main(["train", "--resume", "train-Lin", "--root", str(root), "--json"]) == 0
    assert "all" not in only_run(root).parts()
    assert json.loads(capsys.readouterr().out)["points"][0]["seeds"] == 2


@pytest.mark.parametrize("together", [True, False])
def test_every_point_of_a_sweep_is_told_by_itself(together):
    sweep = {"task.noise": [0.0, 0.5], "optimiser.learning_rate": [0.1, 0.2]}
    parts = command.parts_of({"command": "train", "seeds": 2, "sweep": sweep}, together=together)
    # The last loss of a member tells its point and its seed.
    losses = [n + r + seed / 1000 for n, r in itertools.product(*sweep.values()) for seed in (0, 1)]
    groups = [losses] if together else [[loss] for loss in losses]
    results = {
        name: {"history/loss": np.array([[np.nan] * len(g), [9.0] * len(g), g])}
        for name, g in zip(parts, groups, strict=True)
    }
    rows = {row["point"]: row for row in command.summaries(parts, results)}
    assert len(rows) == 4
    row = rows["task.noise = 0.5, optimiser.learning_rate = 0.1"]
    assert row["seeds"] == 2 and row["initial_loss"] == 9
    np.testing.assert_allclose([row["final_loss"], row["lowest"], row["highest"]], [0.6005, 0.6, 0.601])


def test_points_that_agree_in_six_digits_are_two():
    sweep = {"task.noise": [0.1234567, 0.1234568, 0.2]}
    parts = command.parts_of({"command": "train", "seeds": 1, "sweep": sweep}, together=False)
    assert list(parts) == ["task.noise=0.1234567,seed=0", "task.noise=0.1234568,seed=0", "task.noise=0.2,seed=0"]
    many = {f"task.{'x' * 20}{i}": [0.5, 0.25] for i in range(7)}
    names = list(command.parts_of({"command": "train", "seeds": 2, "sweep": many}, together=False))
    assert len(set(names)) == 2 * 2**7 and all(checked_name(name) for name in names)


def test_members_are_in_the_order_of_their_seeds(tmp_path, monkeypatch):
    """As words, seed 10 comes before seed 2."""
    monkeypatch.setattr(command, "default_workers", lambda: 1)  # a part per seed
    arguments = ["linear_regression", "von_oswald", "--task", "d=2", "n_context=3", "--model", "d_model=3"]
    sizes = ["--steps", "1", "--batch", "2", "--seeds", "11", "--root", str(tmp_path), "--workers", "0"]
    assert cli.main(["train", *arguments, *sizes]) == 0
    run = only_run(tmp_path)
    ((_, members),) = members_of(run).values()
    for seed in (1, 2, 10):
        kept = run.part_arrays(f"seed={seed}")
        for name, array in to_arrays(members[seed], "predictor").items():
            np.testing.assert_array_equal(array, kept[name][0])


def test_compare(root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ["compare", "train", "--with", "gd,zero", "--n-prompts", "50"]
    more = ["--contexts", "1,3", "--shift", "w_scale=1,2"]
    assert cli.main([*arguments, *more, "--root", str(root), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert told["point"] == "task.noise = 0.5"
    rows = told["rows"]
    assert set(rows) == {"trained", "gd", "zero"}
    assert len(rows["trained"]["loss"]["members"]) == 2 and rows["gd"]["loss_ratio"]["mean"] == 1
    # The whole context is the last of the context lengths.
    for name, row in rows.items():
        np.testing.assert_allclose(told["curves"][name][1]["mean"], row["loss"]["mean"], rtol=1e-5)
    assert told["shifts"]["w_scale"]["values"] == [1, 2]
    for name in ("trained", "gd"):
        one, two = (estimate["mean"] for estimate in told["shifts"]["w_scale"]["curves"][name])
        np.testing.assert_allclose(one, rows[name]["loss"]["mean"], rtol=1e-5)
        assert two > one
    for wrong, message in (
        ("w_scal=1", "unknown field 'w_scal'; did you mean 'w_scale'"),
        ("noise=-1", "noise must be zero or positive"),
        ("noise=a", "--shift noise must be a number, got 'a'"),
    ):
        assert cli.main([*arguments[:2], "--shift", wrong, "--root", str(root)]) == 2
        assert message in capsys.readouterr().err
    assert cli.main([*arguments, "--root", str(root)]) == 0
    assert re.search(r"^gd +\S+ ± \S+ .* 1 ± 0", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["compare", "train", "--with", "gradient", "--root", str(root)]) == 2
    assert "unknown reference 'gradient'" in capsys.readouterr().err


def test_references_know_the_task():
    task = LinearRegression(d=3, n_context=5, noise=0.5, w_scale=2.0, w_law=Normal(std=0.5))
    prompts = task.sample_batch(50, key=jax.random.key(0))
    one = jax.tree.map(lambda leaf: leaf[0], prompts)
    x, y = (np.asarray(part, np.float64) for part in one.context)

    def answer(name, task=task):
        return eqx.filter_jit(reference(name, task, prompts))(one)

    # Noise variance 1/4, weights of variance (2 / 2)^2 = 1.
    ridge = linear_model.Ridge(alpha=0.25, fit_intercept=False).fit(x, y).predict(np.asarray(one.query.x)[None])
    for name in ("ridge", "Bayes", "ridge:penalty=0.25"):
        np.testing.assert_allclose(answer(name), ridge.ravel(), rtol=2e-4)
    np.testing.assert_array_equal(answer("zero"), 0)
    nearest = neighbors.KNeighborsRegressor(3).fit(x, y).predict(np.asarray(one.query.x)[None])
    np.testing.assert_allclose(answer("knn")[-1], nearest.ravel(), rtol=1e-5)
    pool = task.with_pool(1, key=jax.random.key(1))  # one possible task: the prior says all
    truth = 2.0 * np.asarray(pool.pool)[0].T @ np.asarray(one.query.x)
    np.testing.assert_allclose(answer("bayes", pool), truth, rtol=1e-5)
    # The best rate: no other does better on the prompts it was found on. Answers of one step are linear in its rate.
    answers = answer_batch(reference("gd", task, prompts), prompts)
    losses = [float(query_losses(share * answers, prompts).mean()) for share in (1.0, 0.9, 1.1)]
    assert losses[0] < min(losses[1:])
    for name, message in (("gd:rate=1", "gd takes no fields"), ("bayez", "did you mean 'bayes'")):
        with pytest.raises(BadInput, match=message):
            reference(name, task, prompts)
    with pytest.raises(BadInput, match="bayes needs a task with noise"):
        reference("bayes", SineRegression(), prompts)
    with pytest.raises(BadInput, match="w_law must be Normal for bayes"):
        reference("bayes", LinearRegression(d=3, n_context=5, w_law=Uniform()), prompts)


def test_report_of_a_training(root, capsys, tmp_path):
    assert cli.main(["report", "train", "--root", str(root), "--out", str(tmp_path / "r.html")]) == 0
    assert "task.noise = 0.5" in (tmp_path / "r.html").read_text()


def test_only_runs_of_train_can_be_compared(tmp_path, capsys):
    with Run.open(tmp_path / "other", {"a": 1}) as run:
        run.finish()
    for arguments in (["compare", "other"], ["train", "--resume", "other"]):
        assert cli.main([*arguments, "--root", str(tmp_path)]) == 2
        assert "was not made by `meta-icl train`" in capsys.readouterr().err


@pytest.mark.parametrize("option", [(), ("--stop-when-diverged",)])
def test_a_point_that_diverges_harms_no_other_and_is_the_exit_status(tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr(command, "default_workers", lambda: 1)  # one part per point
    given = [*ARGUMENTS[: ARGUMENTS.index("--seeds")], "--optimiser", "name=sgd", "--workers", "0", *option]
    rates = ("--sweep", "optimiser.learning_rate=0.01,1e30")
    assert cli.main([*given, *rates, "--root", str(tmp_path), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    name = "optimiser.learning_rate=1e+30,seed=0"
    assert told["diverged"] == {name: 3}  # steps 0, 3, 6 are recorded
    good, bad = told["points"]
    assert np.isfinite(good["final_loss"]) and bad["final_loss"] in ("NaN", "Infinity")
    run = only_run(tmp_path)
    assert run.state == run.parts()[name].state == "diverged"
    assert run.parts()["optimiser.learning_rate=0.01,seed=0"].state == "done"
    alone = [*given, "--root", str(tmp_path / "alone"), "--json"]
    assert cli.main(alone) == 0
    capsys.readouterr()
    np.testing.assert_equal(
        run.part_arrays("optimiser.learning_rate=0.01,seed=0"), only_run(tmp_path / "alone").part_arrays("seed=0")
    )
    assert cli.main([*given, *rates, "--root", str(tmp_path)]) == 3  # asked again, it is shown
    out = capsys.readouterr().out
    assert f"diverged {name}: NaN or infinite when seen at step 3" in out
    assert "NaN" in out if option else re.search("NaN|inf", out)
