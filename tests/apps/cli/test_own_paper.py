"""A paper of the user's own: what a folder or a file lacks is told in one line, and nothing is written."""

from pathlib import Path

import pytest

from meta_icl.apps import cli
from meta_icl.apps.cli import reproduce
from meta_icl.apps.cli.listing import load_paper
from meta_icl.apps.cli.reproduce import made_before
from meta_icl.runs import Run
from meta_icl.sweeps.modules import load_path
from meta_icl.sweeps.work import find_function, function_name

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
        ({}, "./none", "paper './none': there is no file /"),
        ({}, "none.py", "paper 'none.py': there is no file /"),
        ({"p/experiments.py": ""}, "./p", "/p has no __init__.py"),
        ({"p/__init__.py": "IDS = ()"}, "./p", "got a file without PRESETS, run, claims, figures"),
        ({"p.py": WHOLE.replace("def claims", "def claim")}, "./p.py", "got a file without claims"),
        ({"p.py": WHOLE + "PRESETS = {}"}, "p.py", "paper 'p.py' must have PRESETS = {name: object of a dataclass}"),
        ({"p.py": WHOLE + "PRESETS = {'small': Config}"}, "p.py", "must have PRESETS = {name: object of a dataclass}"),
        ({"p.txt": WHOLE}, "./p.txt", "p.txt is no Python file (its name must end with .py)"),
        ({"p.py": "x = 1\nimport no_such_thing"}, "p.py", "ModuleNotFoundError: No module named 'no_such_thing' ("),
        ({"p.py": "x = 1\nx = = 1"}, "p.py", "paper 'p.py' cannot be imported: SyntaxError"),
        ({"p/__init__.py": WHOLE}, "p", "'p' is no paper of this package; your own is run by: meta-icl reproduce ./p"),
        ({"p/__init__.py": WHOLE, "p/reasons.toml": "T-1 = 3"}, "./p", "/p/reasons.toml: the reason of T-1 must be a"),
        ({"p/__init__.py": WHOLE, "p/reasons.toml": "T-1 ="}, "./p", "cannot read "),
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
    first, again, other = (load_path(Path(name, "paper.py")) for name in ("a", "a", "b"))
    assert first is again and first is not other
    assert find_function(function_name(first.f)) is first.f and find_function(function_name(other.f)) is other.f


def test_a_failed_import_leaves_nothing_behind():
    Path("p").mkdir()
    Path("p/__init__.py").write_text("from .part import x")
    Path("p/part.py").write_text("y = 1")
    with pytest.raises(ImportError, match="cannot import name 'x'"):
        load_path(Path("p"))
    Path("p/__init__.py").write_text(WHOLE)
    assert load_paper("./p")[0] == "p"


def test_a_name_is_not_a_place():
    Path("rossi2024").mkdir()
    name, _, record = load_paper("rossi2024")
    assert name == "rossi2024_understanding_icl" and record is None


def test_a_known_reason_is_told_and_not_kept(capsys):
    """In the details and in the report; the claims of the run hold what the run itself says."""
    claim = "from meta_icl.runs import Check, Claim, at_least\n"
    failing = 'def claims(run): return [Claim("p/T-1", "s", "f", (Check("x", at_least(2), [1.0]),))]'
    Path("p").mkdir()
    Path("p/__init__.py").write_text(claim + WHOLE.replace("def claims(run): return []", failing))
    Path("p/reasons.toml").write_text('T-1 = "the step is too long"')
    assert cli.main(["reproduce", "./p", "--details"]) == 0
    assert "note: the step is too long" in capsys.readouterr().out
    (run,) = Path("runs").iterdir()
    assert "the step is too long" in (run / "report.html").read_text("utf-8")
    assert "the step is too long" not in (run / "claims.json").read_text("utf-8")


def test_a_claim_that_does_not_come_is_named(capsys):
    Path("p.py").write_text(WHOLE)
    assert cli.main(["reproduce", "./p.py"]) == 2
    assert "claims must be some of T-1; the run is kept, got []" in capsys.readouterr().err


def test_smoke_counts_for_nothing(capsys):
    """So it says, and so does the title of its report."""
    Path("p.py").write_text(WHOLE.replace('("T-1",)', "()").replace('"small"', '"smoke"'))
    assert cli.main(["reproduce", "./p.py", "--preset", "smoke"]) == 0
    assert "its verdicts count for nothing" in capsys.readouterr().out
    (report,) = Path("runs").glob("*/report.html")
    assert "its verdicts count for nothing" in report.read_text("utf-8")


def test_parts_of_other_code_are_told(tmp_path, monkeypatch):
    with Run.open(tmp_path / "run", {}) as run:
        with run.part("a", {}) as part:
            part.finish()
        assert made_before(run) == ""
        monkeypatch.setattr(reproduce, "code", lambda: {"version": "another"})
        assert "1 of 1 that are done were made by other code" in made_before(run)
