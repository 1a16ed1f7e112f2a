"""`meta-icl bench`: what it measures, how it compares losses, and what it keeps. No test asks how fast anything is."""

import dataclasses
import importlib
import json

import numpy as np
import pytest
from commands import call

from meta_icl.apps.cli import bench


def test_a_way_is_measured_in_a_process_of_its_own(capsys):
    status, out, _ = call(capsys, "bench", "--only", "gemm", "--ways", "numpy", "--rounds", "1", "--json")
    told = json.loads(out)
    values = told["workloads"]["gemm"]["ways"]["numpy"]
    assert status == 0 and told["unlike"] == [] and told["machine"]["processor"]
    assert values["cpu_ms"] > 0 and values["ready_cpu_s"] > 0 and values["peak_mb"] > 10
    assert values["ratio"] == 1


def test_workloads_are_listed_with_their_ways(capsys):
    listed = json.loads(call(capsys, "bench", "--list", "--json")[1])
    names = [work["name"] for work in listed]
    assert len(set(names)) == len(names) and {"linear", "minegishi", "decoder-3", "lstm", "titans"} <= set(names)
    trained = [work["ways"] for work in listed if "meta_icl" in work["ways"]]
    assert all(ways.startswith("meta_icl") for ways in trained)  # ratios are to the first


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--only", "linaer"), "linear"),
        (("--rounds", "0"), "rounds must be a positive integer"),
        (("--keep", "a/b"), "keep must be the name of a file"),
        (("--only", "lstm", "--ways", "tensorflow"), "tensorflow"),
        (("--optimisers", "--only", "titans"), "titans"),
        (("--optimisers", "--only", "lstm", "--ways", "lion"), "lion"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, told):
    status, out, err = call(capsys, "bench", *arguments)
    assert status == 2 and out == "" and err.count("\n") == 1 and told in err


def test_optimisers_race_to_a_given_loss(capsys, monkeypatch):
    bench.load_harness()
    optimisers = importlib.import_module("optimisers")
    short = dataclasses.replace(optimisers.RACES["linear"], steps=60, batch=16, target=1.9, rates={"sgd": (0.1, 1e-9)})
    monkeypatch.setitem(optimisers.RACES, "linear", short)
    status, out, _ = call(capsys, "bench", "--optimisers", "--only", "linear", "--seeds", "1", "--json")
    (told,) = json.loads(out)["optimisers"]
    assert status == 0 and told["race"] == "linear" and told["cpu_ms"] > 0
    assert set(told["reached"]) == set(told["lowest"]) == {"0.1", "1e-09"}


def test_the_loss_is_reached_by_two_records_in_a_row():
    bench.load_harness()
    first_below = importlib.import_module("optimisers").first_below
    steps = np.arange(10, 70, 10)
    assert first_below(steps, np.array([3, 0.5, 3, 0.5, 0.4, 0.3]), 1.0) == 40
    assert first_below(steps, np.array([3, 0.5, 3, 0.5, np.nan, 0.3]), 1.0) is None


def test_losses_that_differ_are_told(monkeypatch):
    harness = bench.load_harness()
    ways = {
        "meta_icl": {"loss": 1.0},
        "torch": {"loss": 1.09},
        "jax loop": {"loss": 1.11},
        "torch compiled": {"missing": "x"},
    }
    assert harness.mismatches("linear", ways) == ["linear: jax loop has loss 1.11, meta_icl 1"]
    known = harness.workloads() | {"linear": dataclasses.replace(harness.workloads()["linear"], apart=("jax loop",))}
    monkeypatch.setattr(harness, "workloads", lambda: known)
    assert harness.mismatches("linear", ways) == []


def test_what_is_kept_names_the_machine_and_is_added_to(tmp_path):
    path = tmp_path / "results" / "here.json"
    bench.keep(path, workloads={"a": {"ways": {}}, "b": 1})
    bench.keep(path, optimisers={"a": []})
    bench.keep(path, workloads={"b": 2})
    kept = json.loads(path.read_text())
    of = {kind: {name: one["measured"] for name, one in kept[kind].items()} for kind in ("workloads", "optimisers")}
    assert of == {"workloads": {"a": {"ways": {}}, "b": 2}, "optimisers": {"a": []}}
    assert kept["workloads"]["a"]["code"]["version"]
    assert kept["machine"]["cores"] >= 1


def test_the_share_of_the_peak_stands_beside_the_first_way():
    work = {"about": "", "unit": "step", "flops": 2e9, "ways": {"meta_icl": _took(40.0)}}
    found = {"gemm": {"flops": 1e9, "ways": {"jax": _took(10.0), "numpy": _took(20.0)}}, "decoder": work}
    assert bench.peak_of(found) == pytest.approx(100)  # 1e9 operations in 10 ms
    line = next(row for row in bench.rows(found) if row[0] == "decoder")
    assert line[2] == "40 (50%)"


def _took(milliseconds: float) -> dict[str, float]:
    return {"cpu_ms": milliseconds, "ratio": 1.0, "ready_cpu_s": 1.0, "peak_mb": 100.0}
