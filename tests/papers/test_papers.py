"""Every paper, end to end at its smoke preset: complete claims, drawable figures, and again without training."""

import ast
import importlib
import json
import pkgutil
import re
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

import meta_icl.papers
from meta_icl.plotting import draw
from meta_icl.runs import LeftOut, Run
from meta_icl.runs.claims_json import claims_to_json

NAMES = [module.name for module in pkgutil.iter_modules(meta_icl.papers.__path__) if not module.name.startswith("_")]

# The claims that each paper must carry, and those that hold even without training (constructions, closed forms).
EXPECTED = {
    "vonoswald2022_gradient_descent": ({f"VO-{i}" for i in range(1, 25)}, {"VO-1", "VO-2", "VO-24"}),
    "rossi2024_understanding_icl": ({f"R-{i}" for i in range(1, 13)}, {"R-1"}),
    "dherin2025_learning_without_training": (
        {f"D{i}" for i in range(1, 17)},
        {f"D{i}" for i in (1, 2, 3, 4, 5, 6, 7, 10, 13)},
    ),
    "goldwaser2025_prompt_weight_equivalence": ({f"G{i}" for i in range(1, 8)}, {"G1", "G2", "G3", "G5"}),
    "innocenti2025_icl_as_weight_updates": ({"I1", "I2"}, {"I1", "I2"}),
    "mazzawi2025_transmuting_prompts": ({"M1"}, set()),
    "ahn2023_preconditioned_gd": ({f"A-{i}" for i in range(1, 12)}, {"A-6"}),
    "zhang2025_linear_attention_dynamics": ({f"Z{i}" for i in range(1, 12)}, {"Z2", "Z3", "Z6"}),
    "he2025_softmax_regression": ({f"H{i}" for i in range(1, 15)}, set()),
    "garg2022_function_classes": (
        {f"F-{i}" for i in range(1, 20)} | {f"B-{i}" for i in range(1, 7)} | {f"T-{i}" for i in range(1, 6)},
        {"F-19"},
    ),
    "raventos2023_task_diversity": ({f"V-{i}" for i in range(1, 14)} | {"B-1", "T-1", "T-2"}, set()),
    "kirsch2022_gpicl": ({f"G{i}" for i in range(1, 15)}, set()),
    "minegishi2025_multi_phase_circuits": ({f"M{i}" for i in range(1, 33)}, set()),
    "olsson2022_induction_heads": ({f"O{i}" for i in range(1, 11)}, set()),
    "chan2022_data_properties": ({f"C{i}" for i in range(1, 10)}, set()),
    "reddy2023_abrupt_icl": ({f"R{i}" for i in range(1, 10)}, set()),
    "singh2024_induction_formation": ({f"S{i}" for i in range(1, 11)}, set()),
    "behrouz2025_titans": ({f"T-{i}" for i in range(1, 9)} | {"F-1", "F-5"}, {"F-1"}),
    "schlag2021_fast_weights": (
        {*(f"F-{i}" for i in (2, 3, 4)), *(f"{k}-{i}" for k in "LMPQR" for i in (1, 2)), "Q-3", "R-3", "G-1"},
        set(),
    ),
    "brown2020_few_shot": ({f"B-{i}" for i in (1, 2, 3)} | {f"L-{i}" for i in range(1, 5)}, set()),
    "hendel2023_task_vectors": ({f"T-{i}" for i in range(1, 6)}, set()),
    "han2024_task_encoding": ({f"H-{i}" for i in range(1, 20)} | {"B-1"}, set()),
}


# All claims of these need everything that is trained, or there is one training.
WHOLE = {"innocenti2025_icl_as_weight_updates", "mazzawi2025_transmuting_prompts", "hendel2023_task_vectors"}
LATER = {"ahn2023_preconditioned_gd": {"settled-0"}}  # parts that start from what others have found
NOT_PARTS = (  # what a run computes beside its parts
    *("ladder", "times", "three_parameter_descent", "variant_rows", "load"),
    *("measure_constructions", "measure_best_rates"),
)


@pytest.mark.parametrize("name", NAMES)
def test_what_claims_need_are_parts_of_a_preset(name, tmp_path, monkeypatch):
    """Every pattern names a part of some preset, so that no claim asked for alone is left without its experiment."""
    for method in ("save_arrays", "save_json"):
        monkeypatch.setattr(Run, method, lambda *_: None)
    paper = importlib.import_module(f"meta_icl.papers.{name}")
    needs = getattr(paper, "NEEDS", {})
    assert set(needs) <= set(paper.IDS) and bool(needs) != (name in WHOLE)
    if not needs:
        return
    parts = set(LATER.get(name, ()))
    experiments = importlib.import_module(f"meta_icl.papers.{name}.experiments")
    monkeypatch.setattr(experiments, "run_parts", lambda run, function, names, **_: parts.update(names))
    for replaced in NOT_PARTS:
        if hasattr(experiments, replaced):
            monkeypatch.setattr(experiments, replaced, lambda *_, **__: (np.zeros(1), np.zeros(1)))
    for preset, config in paper.PRESETS.items():
        if preset != "language":
            with Run.open(tmp_path, {"paper": name, "experiments": []}, name=f"{name}-{preset}") as run:
                paper.run(config, run)
    for id, patterns in needs.items():
        for pattern in patterns:
            assert any(fnmatchcase(part, pattern) for part in parts), (id, pattern)


class SomeOf:
    """A finished run as if it had been asked for one claim: without the parts that the claim does not need."""

    def __init__(self, run, id, patterns):
        self.whole, self.config = run, run.config | {"claims": [id], "experiments": list(patterns)}
        self.names = [name for name in run.parts() if any(fnmatchcase(name, pattern) for pattern in patterns)]

    def parts(self):
        return {name: self.whole.parts()[name] for name in self.names}

    def part_arrays(self, name):
        if name not in self.names:
            raise LeftOut(name)
        return self.whole.part_arrays(name)

    def part(self, name):
        return self.whole.part(self.names[self.names.index(name)])

    def arrays_of_parts(self, start=""):
        return {name.removeprefix(start): self.part_arrays(name) for name in self.names if name.startswith(start)}

    def load_arrays(self, name):
        return self.whole.load_arrays(name)

    def has(self, name):
        return self.whole.has(name)


def tell_the_same_of_each_claim(paper, run):
    """A claim that is asked for alone is judged from the parts that it needs as from all, and its figures are drawn."""
    whole = {claim.id.rpartition("/")[2]: claim for claim in paper.claims(run)}
    for id, patterns in getattr(paper, "NEEDS", {}).items():
        some = SomeOf(run, id, patterns)
        (alone,) = (claim for claim in paper.claims(some) if claim.id.endswith(f"/{id}"))
        assert json.dumps(claims_to_json([alone])) == json.dumps(claims_to_json([whole[id]]))
        assert set(paper.figures(some)) <= set(paper.figures(run))


# A minute or more each, so on demand: `make smoke`. In every run the small papers of tests/cli and CONTRIBUTING go from
# end to end.
@pytest.mark.slow
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
    tell_the_same_of_each_claim(paper, run)


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_states_what_it_is(name):
    """Citation, times for every preset, and the three presets."""
    paper = importlib.import_module(f"meta_icl.papers.{name}")
    assert re.search(r"\b20\d\d\b", paper.__doc__.splitlines()[0])
    assert f"meta-icl reproduce {name.split('_')[0]}" in paper.__doc__
    assert {"smoke", "small", "paper"} <= set(paper.PRESETS)
    assert set(paper.TIMES) == set(paper.PRESETS)
    assert len(paper.IDS) == len(EXPECTED[name][0]) and set(paper.IDS) == EXPECTED[name][0]


def imported_siblings(file):
    """The files of its own folder that a file of a paper imports."""
    tree = ast.walk(ast.parse(file.read_text()))
    return {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.level == 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_is_a_folder_in_order(name):
    """Small files; `__init__` shows them, experiments know neither claims nor figures; no circle."""
    folder = Path(meta_icl.papers.__file__).parent / name
    files = {file.stem: file for file in folder.glob("*.py")}
    assert {"__init__", "experiments", "claims", "figures"} <= set(files)
    assert max(len(file.read_text().splitlines()) for file in files.values()) <= 400
    graph = {stem: imported_siblings(file) for stem, file in files.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) == set(files) and order[-1] == "__init__"
    readers = {"claims", "figures"}
    assert not any(graph[stem] & readers for stem in set(files) - readers - {"__init__"})
