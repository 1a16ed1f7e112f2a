import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from meta_icl.errors import BadInput
from meta_icl.runs import Locked, Run, config_hash, lock
from meta_icl.runs.arrays import from_bytes, to_bytes
from meta_icl.runs.lock import holder


@dataclass(frozen=True)
class Config:
    steps: int = 10
    rates: tuple[float, ...] = (0.1, math.inf)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# Opening


def test_a_run_is_named_by_its_configuration(tmp_path):
    with Run.open(tmp_path, {"config": Config()}, name="paper") as run:
        assert run.folder.parent == tmp_path and run.name.startswith("paper-") and not run.done
        first = run.folder
        stated = json.loads((run.folder / "config.json").read_text())  # strict JSON, infinity included
        assert stated == {"format": 1, "config": {"config": {"steps": 10, "rates": [0.1, "Infinity"]}}}
    with Run.open(tmp_path, {"config": {"rates": [0.1, math.inf], "steps": 10}}, name="paper") as again:
        assert again.folder == first and again.provenance["resumed"] == 1
    with Run.open(tmp_path, {"config": Config(steps=11)}, name="paper") as other:
        assert other.folder != first
    assert config_hash({"a": 1, "b": (2,)}) == config_hash({"b": [2], "a": 1}) != config_hash({"a": 1, "b": [3]})


def test_a_configuration_is_the_same_however_the_run_is_opened(tmp_path):
    wanted = {"rates": [0.1, math.inf], "steps": 10}
    with Run.open(tmp_path / "r", wanted) as run:
        assert run.config == wanted
        with run.part("p", wanted) as part:
            assert part.config == wanted
    assert Run.load(tmp_path / "r").config == Run.load(tmp_path / "r" / "parts" / "p").config == wanted


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match=r"cannot make or use the run folder .*file/r: Not a directory"):
        Run.open(tmp_path / "file" / "r", {})
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_provenance(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        run.save_checkpoint(1, {})
        run.finish()
        told = run.provenance
    assert told["versions"]["numpy"] == np.__version__ and told["versions"]["python"]
    assert {"version"} <= set(told["code"])
    start = told["starts"][0]
    assert start["started"] <= start["ended"] and start["wall_seconds"] >= 0 and start["command"]
    assert told["resumed"] == 0 and told["generator"] == os.environ["JAX_DEFAULT_PRNG_IMPL"]
    with Run.open(tmp_path / "r", {}) as run:  # a finished run is not touched by asking again
        assert run.provenance == told


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ('{"format": 1, "config": {"steps": 3}}', r"was made with steps = 3, now it is 10; nothing was changed"),
        ('{"format": 1, "config": {}}', r"was made with steps = nothing, now it is 10"),
        ('{"format": 1, "config": {"steps": 1', r"config\.json cannot be read as JSON"),
        (
            '{"format": 2, "config": {"steps": 10}}',
            r"config\.json has format 2, this version of meta_icl reads format 1",
        ),
        ('{"steps": 10}', r"config\.json does not state its format"),
        ('{"format": 1, "config": [10]}', r"holds no configuration"),
        ("", r"config\.json cannot be read as JSON"),
    ],
)
def test_unusable_folders_are_one_line_and_left_alone(tmp_path, damage, message):
    with Run.open(tmp_path / "r", {"steps": 10}) as run:
        run.log({"step": 1})
    (tmp_path / "r" / "config.json").write_text(damage)
    before = snapshot(tmp_path)
    with pytest.raises(BadInput, match=message) as raised:
        Run.open(tmp_path / "r", {"steps": 10})
    assert "\n" not in str(raised.value)
    assert snapshot(tmp_path) == before


def test_folders_that_are_not_runs_are_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    before = snapshot(tmp_path)
    for name in ("thesis", "file"):
        with pytest.raises(BadInput, match=name):
            Run.open(tmp_path / name, {})
        with pytest.raises(BadInput, match="is not a run"):
            Run.load(tmp_path / name)
    for name in ("", "../up", "a/b", ".hidden", "x" * 200):
        with pytest.raises(BadInput, match="name must be"):
            Run.open(tmp_path, {}, name=name)
    with pytest.raises(BadInput, match="cannot write a object as JSON"):
        Run.open(tmp_path / "new", {"what": object()})
    assert snapshot(tmp_path) == before and not (tmp_path / "new").exists()


def test_a_second_process_is_kept_out_until_the_first_dies(tmp_path):
    script = f"""
        import sys, time
        from meta_icl.runs import Run
        run = Run.open({str(tmp_path / "r")!r}, {{"a": 1}})
        print("locked", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    before = snapshot(tmp_path)
    with pytest.raises(Locked, match=f"in use by process {process.pid}") as raised:
        Run.open(tmp_path / "r", {"a": 1})
    assert "\n" not in str(raised.value) and snapshot(tmp_path) == before
    assert holder(tmp_path / "r") == process.pid
    assert Run.load(tmp_path / "r").config == {"a": 1}  # reading needs no lock
    process.kill()
    process.wait()
    with Run.open(tmp_path / "r", {"a": 1}) as run:
        assert run.provenance["resumed"] == 1
        with pytest.raises(Locked, match="this very process"):
            Run.open(tmp_path / "r", {"a": 1})
    assert holder(tmp_path / "r") is None


def test_a_lock_that_was_removed_meanwhile_keeps_nobody_out(tmp_path, monkeypatch):
    """Whoever waits for a lock whose folder is collected makes the run anew, as if it had never been there."""
    folder = tmp_path / "run"
    with Run.open(folder, {"a": 1}):
        pass
    opened = lock._opened

    def collected(place, flags, mode):
        file = opened(place, flags, mode)
        monkeypatch.setattr(lock, "_opened", opened)
        shutil.rmtree(place)
        return file

    monkeypatch.setattr(lock, "_opened", collected)
    with Run.open(folder, {"a": 1}) as run:
        assert (folder / "config.json").exists() and holder(folder) == os.getpid()
        run.finish()
    assert Run.load(folder).done


def test_reading_only(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        run.part("a", {"x": 1}).close()
    read = Run.load(tmp_path / "r")
    for attempt in (
        lambda: read.log({"step": 1}),
        lambda: read.save_checkpoint(1, {}),
        lambda: read.save_json("x", 1),
        lambda: read.save_arrays("x", {}),
        lambda: read.part("new"),
        read.finish,
    ):
        with pytest.raises(BadInput, match="reading only"):
            attempt()
    assert read.part("a").config == {"x": 1} and set(read.parts()) == {"a"}


def test_parts(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        with run.part("K=2", {"k": 2}) as part:
            part.log({"step": 3, "loss": 0.5})
            part.finish()
        assert run.part("K=2").metrics() == [{"step": 3, "loss": 0.5}]  # done: for reading, with its own configuration
        assert run.part("K=2", {"k": 2}).done
        with pytest.raises(BadInput, match="was made with k = 2, now it is 3"):
            run.part("K=2", {"k": 3})
        with run.part("open", {"k": 4}):
            pass
        with run.part("open") as again:
            assert again.config == {"k": 4}
            again.log({"step": 0})


def test_arrays_of_parts(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        for name, value in (("seed-0", 1.0), ("seed-1", 2.0), ("other", 3.0)):
            with run.part(name, {}) as part:
                part.save_arrays("result", {"x": np.array([value])})
    read = Run.load(tmp_path / "r")
    assert read.part_arrays("other")["x"].tolist() == [3.0]
    assert {name: a["x"].tolist() for name, a in read.arrays_of_parts("seed-").items()} == {"0": [1.0], "1": [2.0]}


# Metrics


def test_metrics_survive_with_nan(tmp_path):
    rows = [
        {"step": 0, "loss": math.nan, "name": "a"},
        {"step": 1, "loss": -math.inf, "seeds": [0.5, math.inf, 1]},
        {"step": 2, "loss": 0.1, "good": True, "count": 2**40},
        {"step": 3, "loss": 1, "name": "ü 'quoted'"},
    ]
    with Run.open(tmp_path / "K=2", {}) as run:
        for row in rows:
            run.log(row)
        run.log({"step": np.int64(4), "loss": np.float32(0.5), "seeds": np.array([1.0, 2.0])})
        expected = [*rows, {"step": 4, "loss": 0.5, "seeds": [1.0, 2.0]}]
        assert repr(run.metrics()) == repr(expected)
        run.finish()
        assert not (run.folder / "metrics.jsonl").exists()
        finished = run.metrics()
    assert len(finished) == len(expected)
    for row, wanted in zip(finished, expected, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_equal(row[name], value)


@pytest.mark.parametrize(
    "row",
    [{"run": 1}, {"part": "x"}, {"x": {"nested": 1}}, {"x": ["a", "b"]}, {"x": object()}, {"": 1}, {"STEP": 2},
     {"step": True}, {"step": "one"}],
)  # fmt: skip
def test_rows_that_cannot_be_kept(tmp_path, row):
    with Run.open(tmp_path / "r", {}) as run:
        run.log({"step": 1})
        with pytest.raises(BadInput):
            run.log(row)
        run.log({"step": 1.5})
        assert run.metrics() == [{"step": 1}, {"step": 1.5}]
    with Run.open(tmp_path / "r", {}) as run:  # another start knows what was logged before
        with pytest.raises(BadInput):
            run.log(row)
        run.finish()
    assert Run.load(tmp_path / "r").metrics() == [{"step": 1}, {"step": 1.5}]


def test_torn_last_line_is_dropped(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        run.log({"step": 1})
        run.log({"step": 2})
    path = tmp_path / "r" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step":3,"lo')
    assert Run.load(tmp_path / "r").metrics() == [{"step": 1}, {"step": 2}]
    with Run.open(tmp_path / "r", {}) as run:
        run.log({"step": 4})
        assert run.metrics() == [{"step": 1}, {"step": 2}, {"step": 4}]
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(BadInput, match=r"metrics\.jsonl is damaged in line 1"):
        Run.load(tmp_path / "r").metrics()


def test_rewind(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        for step in range(6):
            run.log({"step": step, "loss": math.nan})
        run.log({"note": "no step"})
        run.rewind(3)
        run.log({"step": 4, "loss": 7.0})
        kept = [row.get("step") for row in run.metrics()]
        assert kept == [0, 1, 2, 3, None, 4]


# Checkpoints and results

DTYPES = ["float32", "float64", "float16", "int32", "int64", "uint8", "uint32", "bool", "complex64", "bfloat16"]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
def test_arrays_round_trip_exactly(data, dtype, shape):
    real = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    count = int(np.prod(shape))
    raw = data.draw(st.binary(min_size=count * real.itemsize, max_size=count * real.itemsize))
    if dtype == "bool":
        raw = bytes(byte % 2 for byte in raw)
    array = np.frombuffer(raw, real).reshape(shape)  # any bits: NaN payloads, infinities, signed zeros
    given = {"['a'].b[0]": array, "transposed": array.T, "strided": array[..., ::2] if shape else array}
    back = from_bytes(to_bytes(given))
    assert back.keys() == given.keys()
    assert all(same(back[name], np.array(given[name], order="C")) for name in given)
    assert all(value.flags.writeable for value in back.values())


def test_arrays_come_back_in_one_order():
    """By name, so that a report that is written again tells of the same things in the same order."""
    names = [f"{letter}/{number}" for letter in "cab" for number in range(10)]
    assert list(from_bytes(to_bytes({name: np.zeros(1) for name in names}))) == sorted(names)


def test_types_that_cannot_be_saved(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        for value in (np.array(["text"]), np.array([None]), np.zeros(2, np.complex128)):
            with pytest.raises(BadInput, match="array 'x' has type"):
                run.save_arrays("x", {"x": value})
        assert not run.has("x")


def test_checkpoints_keep_the_last_two(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        assert run.latest_checkpoint() is None
        for step in (0, 5, 1000, 10**9):
            run.save_checkpoint(step, {"key": np.array([step, 1], np.uint32), "x": np.float64(1 / 3)})
        assert sorted(p.name for p in (run.folder / "checkpoints").iterdir()) == ["step_00001000", "step_1000000000"]
        step, arrays = run.latest_checkpoint() or (0, {})
        assert step == 10**9 and same(arrays["key"], np.array([step, 1], np.uint32))
        assert same(arrays["x"], np.array(1 / 3))
        run.save_checkpoint(10**9, {"x": np.array(2.0)})  # the same step once more, after a rewind
        assert float((run.latest_checkpoint() or (0, {}))[1]["x"]) == 2


def test_damaged_checkpoints(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        for step in (1, 2):
            run.save_checkpoint(step, {"x": np.full(100, float(step))})
        newest, older = (run.folder / "checkpoints" / f"step_0000000{step}" / "state.safetensors" for step in (2, 1))
        data = bytearray(newest.read_bytes())
        data[-5] ^= 1
        newest.write_bytes(bytes(data))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step, arrays = run.latest_checkpoint() or (0, {})
        assert step == 1 and float(arrays["x"][0]) == 1
        assert len(caught) == 1 and str(newest) in str(caught[0].message) and "going on from" in str(caught[0].message)
        older.write_bytes(older.read_bytes()[:50])
        before = snapshot(tmp_path)
        with pytest.raises(BadInput, match="no checkpoint is left") as raised:
            run.latest_checkpoint()
        assert str(newest) in str(raised.value) and "\n" not in str(raised.value)
        assert snapshot(tmp_path) == before


def test_results(tmp_path):
    with Run.open(tmp_path / "r", {}) as run:
        run.save_arrays("curve", {"x": np.arange(3), "y": np.array([1.0, math.nan, 3.0])})
        run.save_json("numbers", {"a": [1, math.nan, {"b": None}], "c": np.float64(2.5), "d": "text"})
        assert run.has("curve") and run.has("numbers") and not run.has("other")
    read = Run.load(tmp_path / "r")
    np.testing.assert_equal(read.load_arrays("curve"), {"x": np.arange(3), "y": np.array([1.0, math.nan, 3.0])})
    np.testing.assert_equal(read.load_json("numbers"), {"a": [1, math.nan, {"b": None}], "c": 2.5, "d": "text"})
    for missing in (lambda: read.load_arrays("other"), lambda: read.load_json("other")):
        with pytest.raises(BadInput, match="does not exist"):
            missing()
    path = tmp_path / "r" / "arrays" / "curve.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadInput, match=r"curve\.safetensors cannot be read"):
        read.load_arrays("curve")


def test_a_run_whose_mark_is_lost_keeps_its_rows(tmp_path):
    """Its rows are in the Parquet file alone, and are lines again when work goes on."""
    with Run.open(tmp_path / "r", {}) as run:
        rows = [{"step": step, "loss": step / 2, "name": "a"} for step in range(4)]
        for row in rows:
            run.log(row)
        run.finish()
    (tmp_path / "r" / "DONE").unlink()
    with Run.open(tmp_path / "r", {}) as run:
        run.rewind(2)
        run.log(rows[3])
        assert run.metrics() == rows
