"""The user's own task, model, predictor, mixer, probe: taken by path, recorded, loaded again or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call

from meta_icl.apps.cli import own, spec
from meta_icl.errors import BadInput
from meta_icl.runs import Run
from meta_icl.sweeps import work

MINE = '''
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from meta_icl.models import Trace
from meta_icl.prompt import BatchTask, Prompt, Task
from meta_icl.tasks.laws import number


class MyTask(Task):
    """y = sin(w x)."""

    n_context: int = eqx.field(static=True, default=3)
    noise: jax.Array = eqx.field(default=0.0, converter=number)

    def sample(self, *, key):
        x_key, w_key = jax.random.split(key)
        x = jax.random.normal(x_key, (self.n_context + 1, 1))
        return Prompt(x, jnp.sin(jax.random.normal(w_key) * x))


@dataclass(frozen=True)
class MyModel:
    """A scale."""

    start: float = 0.5

    def __call__(self, *, key):
        return Scale(jnp.asarray(self.start))


class Scale(eqx.Module):
    scale: jax.Array

    def __call__(self, prompt):
        return self.scale * prompt.query.x


class FromKey(eqx.Module):
    weights: jax.Array

    def __init__(self, *, key, size=1):
        self.weights = jax.random.normal(key, (size, 1))

    def __call__(self, tokens, interventions=()):
        return tokens * self.weights[0][None], Trace({})


def from_key(*, key, start: float = 1.0):
    return Scale(start + jax.random.normal(key))


def my_fit(prompt):
    return 0.5 * prompt.query.x


@dataclass(frozen=True)
class Fit:
    factor: float

    def __call__(self, prompt):
        return self.factor * prompt.query.x


number_of_mine = 3
'''

PROBE = '''"""My probe: what I look at."""


def check(subject): ...
def measure(subject): return {"x": subject.prompts.x.mean()}
def rows(arrays): return [{"mean of x": float(arrays["x"])}]
def figures(measured): return {}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file of the user's own, in which commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("META_ICL_RUNS", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "probing.py").write_text(PROBE)
    return tmp_path


ANY = own.Kind("thing", "anything", lambda found: True)
FEW = ("--steps", "2", "--batch", "4", "--workers", "0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("./mine.py:MyTask", (Path("mine.py"), "", "MyTask", "")),
        ("mine.py", (Path("mine.py"), "", "", "")),
        ("/a/mine.py:Fit:factor=0.5,b=1", (Path("/a/mine.py"), "", "Fit", "factor=0.5,b=1")),
        ("./my_paper", (Path("my_paper"), "", "", "")),
        ("package.module:Name", (None, "package.module", "Name", "")),
        ("module:Name:a=1", (None, "module", "Name", "a=1")),
        ("ridge:penalty=0.5", None),
        ("uniform:half_range=1.0", None),
        ("gd", None),
        ("linear_regression", None),
    ],
)
def test_what_is_a_place(text, expected):
    found = own.place(text)
    assert (found and tuple(found)) == expected


def test_what_is_found_is_recorded_and_loaded_again(folder):
    found, record = own.find(ANY, "./mine.py:my_fit")
    assert found.__name__ == "my_fit" and record["file"] == str(folder / "mine.py")
    assert own.again(record) is found
    (folder / "mine.py").write_text(MINE + "\n# changed\n")
    with pytest.raises(BadInput, match=r"mine.py has changed since this run was made \(SHA-256 "):
        own.again(record)
    (folder / "mine.py").unlink()
    with pytest.raises(BadInput, match="is gone"):
        own.again(record)


def test_a_module_is_found_by_its_name_but_never_in_the_current_folder(folder, monkeypatch):
    with pytest.raises(BadInput, match=r"there is no module 'mine'; for the file mine.py write ./mine.py:"):
        own.find(ANY, "mine:MyTask")
    done = subprocess.run(
        [sys.executable, "-m", "meta_icl", "train", "mine:MyTask", "mine:MyModel", *FEW],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 2 and "there is no module 'mine'; for the file" in done.stderr
    monkeypatch.syspath_prepend(str(folder / "packages"))
    (folder / "packages").mkdir()
    (folder / "packages" / "of_mine.py").write_text(MINE)
    found, record = own.find(ANY, "of_mine:MyModel")
    assert own.again(record) is found and record["file"] == str(folder / "packages" / "of_mine.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./missing.py:A", "there is no file /"),
        ("./empty", "has no __init__.py"),
        ("./mine.py:MyTsk", "did you mean 'MyTask'"),
        ("./mine.py:number_of_mine", "must be a class of one, got int 3"),
        ("./mine.py:my_fit", "got the function my_fit"),
        ("./mine.py", "needs a name, as ./mine.py:Name; several could be meant: MyTask, MyModel"),
        ("./bad.py:A", "ZeroDivisionError: division by zero (/"),
        ("./bad.py:A", "line 4: return 1 / 0)"),
        ("./syntax.py:A", "SyntaxError: "),
        ("./syntax.py:A", "line 1: def"),
        ("./imports.py:A", "ModuleNotFoundError: No module named 'nothing_of_this_name' (/"),
        ("./exits.py:A", "SystemExit: 3"),
        ("no_module_of_this_name:A", "there is no module 'no_module_of_this_name'"),
    ],
)
def test_what_cannot_be_taken_is_told_in_one_line(folder, text, message):
    (folder / "empty").mkdir()
    (folder / "bad.py").write_text("def broken():\n    # a comment\n\n    return 1 / 0\n\nbroken()\n")
    (folder / "syntax.py").write_text("def (\n")
    (folder / "imports.py").write_text("import nothing_of_this_name\n")
    (folder / "exits.py").write_text("raise SystemExit(3)\n")
    kind = own.Kind("task", "a class of one", lambda found: isinstance(found, type))
    with pytest.raises(BadInput) as raised:
        own.find(kind, text)
    assert (
        message in str(raised.value) and "\n" not in str(raised.value) and repr(text) in str(raised.value) + repr(text)
    )


def test_a_package_of_the_user_s_own(folder):
    package = folder / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from .parts import work\n")
    (package / "parts.py").write_text("def work(part):\n    return 7\n")
    found, record = own.find(ANY, "./pack:work")
    assert found(None) == 7
    # A worker finds its functions by path, whatever its folder and import path are.
    name = work.function_name(found)
    assert name == f"{package}!parts:work" and work.find_function(name) is found
    script = f"from meta_icl.sweeps.work import find_function; print(find_function({name!r})(None))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "7\n"
    before = record["sha256"]
    (package / "parts.py").write_text("def work(part):\n    return 8\n")
    assert own.digest(package) != before


def test_fields_and_objects(folder):
    fit = spec.described(ANY, "./mine.py:Fit:factor=2", [], {})
    assert fit["fields"] == {"factor": 2.0} and spec.built(fit, {}).factor == 2.0
    with pytest.raises(BadInput, match="thing Fit needs factor="):
        spec.described(ANY, "./mine.py:Fit", [], {})
    with pytest.raises(BadInput, match="is an object already and takes no 'a=1'"):
        spec.described(ANY, "./mine.py:my_fit:a=1", [], {})


def test_train_compare_and_probe_take_the_user_s_own(folder, capsys):
    arguments = ("train", "./mine.py:MyTask", "./mine.py:MyModel", "--task", "noise=0.5", *FEW, "--name", "mine")
    status, out, err = call(capsys, *arguments, "--sweep", "model.start=0.25,2", "task.noise=0.1,0.2")
    assert status == 0, err
    (run,) = [Run.load(path.parent) for path in Path("runs").glob("*/config.json")]
    assert run.name.startswith("mine-") and run.config["task"]["own"]["file"] == str(folder / "mine.py")
    assert run.config["model"]["own"]["sha256"] == own.digest(folder / "mine.py")
    assert {name.split(",")[0] for name in run.parts()} == {"model.start=0.25", "model.start=2"}

    compared = ("compare", "last", "--with", "./mine.py:my_fit,zero", "./mine.py:Fit:factor=0.5", "--n-prompts", "20")
    status, out, err = call(capsys, *compared, "--json")
    told = json.loads(out)["comparisons"]
    assert status == 0 and len(told) == 4 and told[0]["point"] == "model.start = 0.25, task.noise = 0.1"
    # The function and the object are the same predictor.
    assert told[0]["rows"]["./mine.py:Fit:factor=0.5"]["loss"] == told[0]["rows"]["./mine.py:my_fit"]["loss"]

    (folder / "mine.py").write_text(MINE + "\n# changed\n")
    for again in (compared, ("train", "--resume", "last")):
        status, _, err = call(capsys, *again)
        assert status == 2 and "mine.py has changed since this run was made" in err and err.count("\n") == 1


@pytest.mark.parametrize("model", ["FromKey", "from_key", "MyModel"])
def test_models_of_every_form(folder, model, capsys):
    status, _, err = call(capsys, "train", "./mine.py:MyTask", f"./mine.py:{model}", *FEW)
    assert (status, err) == (0, "") or "done after" in err
    (run,) = [Run.load(path.parent) for path in Path("runs").glob("*/config.json")]
    assert (run.config["layout"] is None) == (model != "FromKey")  # which reads tokens


def test_a_probe_of_the_user_s_own(folder, capsys):
    model = ("--model", "d_model=3")
    call(capsys, "train", "linear_regression", "von_oswald", "--task", "d=2", "n_context=3", *model, *FEW)
    status, out, err = call(capsys, "probe", "last", "--probe", "./probing.py", "--json")
    assert status == 0, err
    assert set(json.loads(out)["probes"]["probing"]) == {"seed 0", "untrained"}
    status, _, err = call(capsys, "probe", "last", "--probe", "./mine.py")
    assert status == 2 and "must be a file that defines check, measure, rows, figures" in err


def test_a_worker_imports_by_path(folder, capsys):
    """In a process of its own, started in another folder, with another module of the same name in the way."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.py").write_text("raise ImportError('the wrong one')\n")
    environment = {**os.environ, "JAX_DEFAULT_PRNG_IMPL": "threefry2x32"}
    arguments = ("train", "../mine.py:MyTask", "../mine.py:MyModel", "--steps", "2", "--batch", "4", "--workers", "2")
    done = subprocess.run(
        [sys.executable, "-m", "meta_icl", *arguments], capture_output=True, text=True, check=False, cwd=elsewhere,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
