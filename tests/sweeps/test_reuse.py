"""Parts that another run has finished: when they are taken, what they are then, and when they are computed again."""

import shutil

import jobs
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Run, provenance, reused, verify
from meta_icl.sweeps import run_parts

WORK = {"paper": "example2026", "preset": "small"}
CLEAN = {"version": "1.0", "commit": "a" * 40, "dirty": False}
PARTS = {f"x={x}": {"x": float(x)} for x in (3, 5)}


@pytest.fixture(autouse=True)
def code(monkeypatch):
    """The commit that computes now; a list, so that a test can go on to another one."""
    now = [CLEAN]
    monkeypatch.setattr(provenance, "code", lambda: now[0])
    return now


def opened(root, *ids, **changed):
    asked = {"claims": list(ids), "experiments": [f"x={id}" for id in ids]} if ids else {}
    return Run.open(root, WORK | asked | changed, name="example2026-small")


def squared(run, parts=PARTS):
    found = run_parts(run, jobs.square, parts, workers=0, progress=False)
    return {name: float(result["square"]) for name, result in found.items()}


def computed(run):
    path = run.folder / "calls.txt"  # of the folder in which `jobs.square` was called
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def finished(root, *ids, **changed):
    with opened(root, *ids, **changed) as run:
        squared(run)
        run.finish()
    return run


def test_what_was_trained_for_one_claim_is_not_trained_again_for_two(tmp_path):
    first = finished(tmp_path, 3)
    assert computed(first) == ["x=3"]
    with opened(tmp_path, 3, 5) as both:
        assert squared(both) == {"x=3": 9, "x=5": 25} and computed(both) == ["x=5"]
        both.finish()
    assert reused(both) == {"x=3": f"{first.name}, part x=3"}
    assert [finding.text for finding in verify([first.folder, both.folder])] == []
    old, new = first.part("x=3"), both.part("x=3")
    assert new.metrics() == old.metrics() and new.config == old.config
    assert new.provenance == old.provenance | {"reused_from": f"{first.name}, part x=3"}

    everything = finished(tmp_path)  # and both for everything; what was lent on says where it comes from
    assert computed(everything) == []
    assert reused(everything) == {"x=3": f"{first.name}, part x=3", "x=5": f"{both.name}, part x=5"}


def test_an_unfinished_run_lends_what_it_has_finished(tmp_path):
    with opened(tmp_path, 3) as first:
        squared(first)
        with opened(tmp_path) as everything:
            assert squared(everything) == {"x=3": 9, "x=5": 25} and computed(everything) == ["x=5"]


OTHERS = {"commit": {"commit": "b" * 40}, "changes": {"dirty": True}, "version": {"version": "1.1"}}


@pytest.mark.parametrize("now", OTHERS.values(), ids=OTHERS)
def test_other_code_computes_again_unless_a_run_is_named(tmp_path, code, now):
    first = finished(tmp_path, 3)
    code[0] = CLEAN | now
    with opened(tmp_path, 3, 5) as both:
        squared(both)
    assert computed(both) == ["x=3", "x=5"] and reused(both) == {}
    with opened(tmp_path) as everything:
        everything.lenders = (first.folder,)
        squared(everything)
        assert reused(everything)["x=3"] == f"{first.name}, part x=3"
        assert everything.part("x=3").provenance["code"] == CLEAN


def test_dirty_code_lends_nothing_to_itself(tmp_path, code):
    code[0] = CLEAN | {"dirty": True}
    finished(tmp_path, 3)
    with opened(tmp_path) as everything:
        squared(everything)
        assert computed(everything) == ["x=3", "x=5"]


def test_other_libraries_compute_again(tmp_path, monkeypatch):
    finished(tmp_path, 3)
    monkeypatch.setattr(provenance, "versions", lambda packages: {"jax": "99"})
    with opened(tmp_path) as everything:
        squared(everything)
        assert computed(everything) == ["x=3", "x=5"]


def test_other_work_is_not_taken(tmp_path):
    first = finished(tmp_path, 3)
    with opened(tmp_path, preset="full") as other:  # another configuration does not lend by itself
        squared(other)
        assert computed(other) == ["x=3", "x=5"]
    with opened(tmp_path, preset="paper") as other:  # nor does a part of a name, called with other arguments
        other.lenders = (first.folder,)
        assert squared(other, {"x=3": {"x": -3.5}}) == {"x=3": 12.25} and reused(other) == {}


def test_a_part_that_was_begun_goes_on(tmp_path):
    with opened(tmp_path) as everything:
        with everything.part("x=3", {"function": "jobs:square", "arguments": PARTS["x=3"]}):
            pass
        finished(tmp_path, 3)
        squared(everything)
        assert computed(everything) == ["x=3", "x=5"]


@pytest.mark.parametrize("file", ["arrays/result.safetensors", "metrics.parquet", "provenance.json", "DONE"])
def test_a_damaged_part_is_never_taken(tmp_path, file):
    first = finished(tmp_path, 3)
    path = first.part_folder("x=3") / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with opened(tmp_path) as everything:
        assert squared(everything) == {"x=3": 9, "x=5": 25} and computed(everything) == ["x=3", "x=5"]
    with opened(tmp_path, 3, 5) as both:
        both.lenders = (first.folder,)
        with pytest.raises(BadInput):
            squared(both)


def test_a_kill_while_a_part_is_taken_loses_nothing(tmp_path, monkeypatch):
    first = finished(tmp_path, 3)
    with monkeypatch.context() as patch, opened(tmp_path) as everything:
        patch.setattr("meta_icl.runs.reuse.write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            squared(everything)
        assert not everything.part_folder("x=3").joinpath("DONE").exists()
    everything = finished(tmp_path)
    assert everything.part("x=3").metrics() == first.part("x=3").metrics()
    assert np.array_equal(everything.part_arrays("x=3")["square"], 9.0)
    assert verify([everything.folder]) == []


def test_a_copy_by_hand_is_still_told(tmp_path):
    first = finished(tmp_path, 3)
    with opened(tmp_path) as everything:
        shutil.copytree(first.part_folder("x=3"), everything.part_folder("x=3"))
        with pytest.raises(BadInput, match="another configuration"):
            squared(everything)
