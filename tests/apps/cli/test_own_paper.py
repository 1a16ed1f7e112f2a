"""A paper of the user's own: what a folder or a file lacks is told in one line, and nothing is written."""

import sys
from pathlib import Path

import pytest

from meta_icl.apps import cli
from meta_icl.apps.cli.own_paper import load_paper
from meta_icl.errors import BadInput
from meta_icl.runs import Run
from meta_icl.sweeps.own import load_own
from meta_icl.sweeps.work import compute, find_function, function_name

WHOLE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    seeds: int = 1

IDS, PRESETS = ("T-1",), {"small": Config()}

def run(config, run): pass
def claims(run): return []
def figures(run): return {}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "asked", "message"),
    [
        ({}, "./none", "none cannot be imported: there is no such file or folder"),
        ({}, "none.py", "none.py cannot be imported: there is no such file or folder"),
        ({"p/experiments.py": ""}, "./p", "p cannot be imported: it has no __init__.py"),
        ({"p/__init__.py": "IDS = ()"}, "./p", "./p is no paper: it lacks PRESETS, run, claims, figures"),
        ({"p.py": WHOLE.replace("def claims", "def claim")}, "./p.py", "./p.py is no paper: it lacks claims"),
        ({"p.py": WHOLE + "PRESETS = {}"}, "p.py", "p.py is no paper: PRESETS must be {name: object of a dataclass}"),
        ({"p.py": WHOLE + "PRESETS = {'small': Config}"}, "p.py", "PRESETS must be {name: object of a dataclass}"),
        ({"p.txt": WHOLE}, "./p.txt", "p.txt cannot be imported: not a Python file"),
        ({"p.py": "x = 1\nimport no_such_thing"}, "p.py", "ModuleNotFoundError: No module named 'no_such_thing' ("),
        ({"p.py": "x = 1\nx = = 1"}, "p.py", "p.py cannot be imported: SyntaxError"),
        ({"p/__init__.py": WHOLE}, "p", "unknown paper 'p'; for the one that is in this folder, write ./p"),
        ({"p.py": WHOLE}, "p.py --preset smal", "unknown preset 'smal'; did you mean 'small'"),
        ({"p.py": WHOLE}, "p.py --claims T-2", "unknown claim 'T-2'"),
    ],
)
def test_what_is_no_paper(capsys, files, asked, message):
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    assert cli.main(["reproduce", *asked.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not Path("runs").exists()


def test_one_place_is_one_module_and_two_places_are_two():
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "paper.py").write_text("def f(part): return {}")
    first, again, other = (load_own(Path(name, "paper.py")) for name in ("a", "a", "b"))
    assert first is again and first is not other
    assert find_function(function_name(first.f)) is first.f and find_function(function_name(other.f)) is other.f


def test_a_part_runs_code_of_the_place_that_its_run_names_and_no_other():
    for name in ("a", "b"):
        Path(f"{name}.py").write_text("def f(part): return {'x': 1.0}")
    function = function_name(load_own(Path("a.py")).f)
    del sys.modules[function.partition(":")[0]]  # as in a process that starts
    for place in ("b.py", "a.py"):
        with (
            Run.open(f"run-{place}", {"paper": str(Path(place).resolve())}) as run,
            run.part("p", {"function": function, "arguments": {}}) as part,
        ):
            if place == "b.py":
                with pytest.raises(BadInput, match="cannot be imported"):
                    compute(part)
            else:
                compute(part)
                assert part.done and part.load_arrays("result")["x"] == 1


def test_a_failed_import_leaves_nothing_behind():
    Path("p").mkdir()
    Path("p/__init__.py").write_text("from .part import x")
    Path("p/part.py").write_text("y = 1")
    with pytest.raises(BadInput, match="cannot import name 'x'"):
        load_own(Path("p"))
    Path("p/__init__.py").write_text(WHOLE)
    assert load_paper("./p").name == "p"


def test_a_name_is_not_a_place():
    Path("rossi2024").mkdir()
    assert load_paper("rossi2024").recorded == "rossi2024_understanding_icl"
