"""Every paper, end to end at its smoke preset: complete claims, drawable figures, and again without training."""

import importlib
import pkgutil
import re

import pytest

import meta_icl.papers
from meta_icl.plotting import draw
from meta_icl.runs import Run

NAMES = [module.name for module in pkgutil.iter_modules(meta_icl.papers.__path__) if not module.name.startswith("_")]

# The claims that each paper must carry, and those that hold even without training (constructions, closed forms).
EXPECTED = {
    "vonoswald2022_gradient_descent": ({f"VO-{i}" for i in range(1, 25)}, {"VO-1", "VO-2", "VO-24"}),
    "rossi2024_understanding_icl": ({f"R-{i}" for i in range(1, 13)}, {"R-1"}),
    "garg2022_function_classes": (
        {f"F-{i}" for i in range(1, 20)} | {f"B-{i}" for i in range(1, 7)} | {"T-1"},
        {"F-19"},
    ),
    "raventos2023_task_diversity": ({f"V-{i}" for i in range(1, 14)} | {"B-1"}, set()),
    "han2024_task_encoding": ({f"H-{i}" for i in range(1, 20)} | {"B-1"}, set()),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_smoke(name, tmp_path, monkeypatch):
    monkeypatch.setenv("META_ICL_WORKERS", "0")
    paper = importlib.import_module(f"meta_icl.papers.{name}")
    config = paper.PRESETS["smoke"]
    with Run.open(tmp_path / "run", {"paper": name}) as run:
        paper.run(config, run)
        run.finish()
    run = Run.load(tmp_path / "run")
    claims = {claim.id.split("/")[1]: claim for claim in paper.claims(run)}
    all_ids, certain = EXPECTED[name]
    assert set(claims) == all_ids
    assert {id for id in certain if claims[id].verdict == "holds"} == certain
    figures = paper.figures(run)
    assert figures
    for chart in figures.values():
        draw(chart)


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_states_what_it_is(name):
    """Citation, times for every preset, and the three presets."""
    paper = importlib.import_module(f"meta_icl.papers.{name}")
    assert re.search(r"\b20\d\d\b", paper.__doc__.splitlines()[0])
    assert f"meta-icl reproduce {name.split('_')[0]}" in paper.__doc__
    assert {"smoke", "small", "paper"} <= set(paper.PRESETS)
    assert set(paper.TIMES) == set(paper.PRESETS)
