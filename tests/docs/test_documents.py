"""The Python of README, CONTRIBUTING and the pages of the site runs, and so do the notebooks."""

import json
import re
import runpy
from pathlib import Path

import pytest

from meta_icl.apps.cli import main
from meta_icl.lm.packages import place
from meta_icl.runs import Run, write_atomically

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md") if path.name != "standing.md")
HOW_TO = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "howto").glob("*.md"))
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", *PAGES, *HOW_TO)}
FILE = re.compile(r"# my_paper/(\w+\.py)\n")  # the first line of a block that is a file of the example of a paper
FOUND = [(name, block) for name in TEXTS for block in re.findall(r"```python\n(.*?)```", TEXTS[name], re.DOTALL)]
FETCHED = place("smollm2").exists()
LOADS = [pytest.mark.slow, pytest.mark.skipif(not FETCHED, reason="meta-icl models get smollm2")]
FILES = {match[1]: block for _, block in FOUND if (match := FILE.match(block))}
BLOCKS = [
    pytest.param(block, id=f"{name}-{index}", marks=LOADS if "load_language_model(" in block else [])
    for index, (name, block) in enumerate(FOUND)
    if not FILE.match(block)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block):
    if "import torch" in block:
        pytest.importorskip("torch")
    exec(compile(block, "example", "exec"), {"__name__": "example"})


PLANS = [plan for text in TEXTS.values() for plan in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_of_a_sweep_is_understood(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(plan)
    assert main(["sweep", "plan.toml", "--dry-run", "--root", "runs"]) == 0
    assert "4 points" in capsys.readouterr().out


def reproduced(capsys, *arguments):
    """The verdicts of a reproduction by the command line."""
    assert main(["reproduce", *arguments, "--root", "runs", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    return {claim["id"]: claim["verdict"] for claim in told["claims"]}, Run.load(told["run"])


def test_the_example_of_a_paper_runs_on_workers(tmp_path, monkeypatch, capsys):
    """The folder of CONTRIBUTING, whose parts worker processes import by its place; later told of by `report`."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        write_atomically(tmp_path / "my_paper" / name, text.encode())
    verdicts, run = reproduced(capsys, "./my_paper", "--preset", "smoke", "--workers", "2")
    assert verdicts == {"example2026/E-1": "holds"} and run.config["own"]["file"] == str(tmp_path / "my_paper")
    assert run.name.startswith("my_paper-smoke-") and set(run.parts()) == {"seed0", "seed1"}
    assert main(["report", str(run.folder), "--out", "again.html"]) == 0
    assert "One gradient step (Nobody, 2026)" in Path("again.html").read_text()


def test_a_paper_in_a_single_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    order = ("experiments.py", "claims.py", "figures.py", "__init__.py")
    lines = "".join(FILES[name] for name in order).splitlines()
    Path("my_paper.py").write_text("\n".join(line for line in lines if not line.startswith("from .")))
    verdicts, run = reproduced(capsys, "my_paper.py", "--preset", "smoke", "--workers", "0")
    assert verdicts == {"example2026/E-1": "holds"} and run.name.startswith("my_paper-smoke-")


NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.py"))
SLOW = {  # half a minute and more, most of it compilation or loading
    *("circuits_of_meta_learning", "general_purpose_in_context_learner", "language_model_heads", "memory_league"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NOTEBOOKS]
)
def test_notebook_runs(name, monkeypatch):
    from meta_icl.plotting import draw

    if name == "language_model_heads" and not FETCHED:
        pytest.skip("meta-icl models get smollm2")
    monkeypatch.setenv("META_ICL_NOTEBOOK_STEPS", "20")
    monkeypatch.setattr("meta_icl.plotting.show", draw)
    runpy.run_path(str(ROOT / "notebooks" / f"{name}.py"))


def test_the_glossary_is_in_order_and_explains_the_words_of_the_command_line():
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = re.findall(r"^(\S.*)\n:", text, re.MULTILINE)
    assert terms == sorted(set(terms), key=str.lower)
    known = {part.strip().lower() for term in terms for part in re.split(r",|\(.*?\)", term)}
    words = "probe card run sweep task layout objective preset claim verdict seed part shift reference bayes knn"
    assert {*words.split(), "control", "gguf", "mixer", "checkpoint", "subject", "predictor", "prompt", "twin"} <= known
