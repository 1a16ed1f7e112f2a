"""The README's and CONTRIBUTING's Python runs, and so do the notebooks."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(block, id=f"{name}-{index}")
    for name in ("README.md", "CONTRIBUTING.md")
    for index, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block):
    exec(compile(block, "example", "exec"), {"__name__": "example"})


def test_the_paper_example_holds(tmp_path):
    """The smallest paper of CONTRIBUTING, run for real in a run folder."""
    from meta_icl.runs import Run

    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def claims" in b)
    paper: dict = {"__name__": "example"}
    exec(compile(block, "example", "exec"), paper)
    with Run.open(tmp_path / "run", {"paper": "example"}) as run:
        paper["run"](paper["Config"](), run)
        (claim,) = paper["claims"](run)
    assert claim.verdict == "holds"


NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.py"))
SLOW = {"general_purpose_in_context_learner"}  # minutes, most of them compilation


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NOTEBOOKS]
)
def test_notebook_runs(name, monkeypatch):
    from meta_icl.plotting import draw

    monkeypatch.setenv("META_ICL_NOTEBOOK_STEPS", "20")
    monkeypatch.setattr("meta_icl.plotting.show", draw)
    runpy.run_path(str(ROOT / "notebooks" / f"{name}.py"))
