"""Hundreds of damaged, exchanged, removed and added files: each is named or harmless, and none is silently wrong."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Check, Claim, Run, at_most, list_runs, query, verify

RNG = np.random.default_rng(19)
FLIPS = 8  # of single bits, in every file
SEEDS = ("seed=0", "seed=1")


def write(folder: Path, config: dict, *, shift: float) -> None:
    """A finished run of two finished parts, with a file of every kind in each."""
    with Run.open(folder, config) as run:
        for number, name in enumerate(SEEDS):
            with run.part(name, {"function": "a:b", "arguments": {"seed": number}}) as part:
                fill(part, shift + number)
                part.finish()
        fill(run, shift + 10)
        run.finish()
        run.save_claims([Claim("a/1", "It is small", "Fig. 1", (Check("x", at_most(99), [shift, shift + 1]),))])


def fill(run: Run, value: float) -> None:
    for step in range(4):
        run.log({"step": step, "loss": value / (1 + step), "name": f"row {value}"})
    run.save_checkpoint(3, {"x": np.full(5, value)})
    run.save_arrays("result", {"x": np.arange(6) + value})
    run.save_json("value", {"number": value, "list": [1, 2.5]})


def results(folder: Path, *, parts: bool = True) -> dict[str, Any]:
    """All that the reading functions tell of a finished run; not its state, which says whether it is finished."""
    run = Run.load(folder)
    checkpoint, log = run.latest_checkpoint(), run.log_file()
    told = {
        "config": run.config,
        "metrics": None if log is None else log.read_bytes(),  # verified; decoding it a thousand times takes a minute
        "arrays": run.load_arrays("result"),
        "json": run.load_json("value"),
        "claims": run.load_claims(),
        "checkpoint": None if checkpoint is None else (checkpoint[0], checkpoint[1]["x"].tolist()),
    }
    if parts:
        told["parts"] = {name: results(part.folder, parts=False) for name, part in run.parts().items()}
        told["arrays of parts"] = run.arrays_of_parts("seed=")
        told["part"] = run.part_arrays("seed=1")
    return told


def without_checkpoints(told: dict[str, Any]) -> dict[str, Any]:
    parts = told.get("parts", {})
    return told | {"checkpoint": None, "parts": {name: without_checkpoints(part) for name, part in parts.items()}}


def is_lost(told: Any) -> bool:
    """Whether a checkpoint of a finished run is gone, which may be (`runs gc` removes them)."""
    return told["checkpoint"] is None or any(is_lost(part) for part in told.get("parts", {}).values())


class Folder:
    """A folder that can be put back as it was."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    def put_back(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_symlink() or (path.is_file() and path not in self.files):
                path.unlink()
        for path, data in self.files.items():
            if not path.exists() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's bytes with single bits flipped, cut, emptied, extended."""
    for _ in range(FLIPS):
        place, bit = int(RNG.integers(len(data))), int(RNG.integers(8))
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place}", bytes(flipped)
    yield "cut", data[: int(RNG.integers(1, len(data)))]
    yield "without its last byte", data[:-1]
    yield "empty", b""
    yield "extended", data + b"\0"
    yield "with a byte order mark", b"\xef\xbb\xbf" + data
    yield "in another encoding", data.decode("latin-1").encode("utf-16")


def edited(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A JSON file with a number, a text or a name changed, something left out, and nested too deeply."""
    value = json.loads(data)
    for name, item in value.items():
        if isinstance(item, bool | int | float):
            yield f"{name} + 1", json.dumps(value | {name: item + 1}).encode()
        elif isinstance(item, str):
            yield f"{name} + 'x'", json.dumps(value | {name: item + "x"}).encode()
        elif isinstance(item, dict) and item:
            first = next(iter(item))
            yield f"{name} without {first}", json.dumps(value | {name: dict(list(item.items())[1:])}).encode()
        yield f"without {name}", json.dumps({key: one for key, one in value.items() if key != name}).encode()
        yield f"{name} null", json.dumps(value | {name: None}).encode()
    yield "nested", b"[" * 100_000 + b"]" * 100_000
    yield "half a character", json.dumps(value | {"x": "\ud800"}).encode()


def cases(kept: Folder, donors: dict[Path, bytes]) -> Iterator[tuple[str, Callable[[], None]]]:
    """(what is done, do it) for every file of a folder: damage, edits, exchange with a donor's, removal."""
    for path, data in kept.files.items():
        name = str(path.relative_to(kept.folder))
        if path.name == "lock":
            continue
        changed = [*damaged(data), *(edited(data) if path.suffix == ".json" or path.name == "DONE" else ())]
        for what, content in changed:
            yield f"{name}: {what}", lambda path=path, content=content: path.write_bytes(content)
        for other, content in donors.items():
            if other.name == path.name and content != data:
                yield f"{name}: {other}", lambda path=path, content=content: path.write_bytes(content)
        yield f"{name}: removed", path.unlink
        yield f"{name}: a loop of links", lambda path=path: (path.unlink(), path.symlink_to(path.name))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Folder, Path]:
    """A run whose files are damaged, and another from which files are copied into it."""
    root = tmp_path_factory.mktemp("finished")
    write(root / "run", {"steps": 3}, shift=0.5)
    write(root / "other", {"steps": 4}, shift=7.25)
    return Folder(root / "run"), root / "other"


def test_a_file_of_a_finished_run_is_what_it_was_or_is_named(finished):
    kept, other = finished
    whole = results(kept.folder)
    donors = {**kept.files, **Folder(other).files}
    count, named = 0, 0
    for what, do in cases(kept, donors):
        do()
        count += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = results(kept.folder)
            except BadInput as error:
                named += 1
                assert "\n" not in str(error), what  # noqa: PT017
            else:
                if is_lost(found):
                    found, expected = without_checkpoints(found), without_checkpoints(whole)
                else:
                    expected = whole
                np.testing.assert_equal(found, expected, err_msg=what)
        kept.put_back()
    np.testing.assert_equal(results(kept.folder), whole)
    assert [row["step"] for row in Run.load(kept.folder).metrics()] == [0, 1, 2, 3]
    assert count > 500 and named > 0.6 * count


def test_verify_names_what_was_done(finished):
    kept, other = finished
    assert verify([kept.folder, other]) == []

    def findings() -> list[tuple[str, str, str]]:
        told = [(one.part, one.file, one.text) for one in verify([kept.folder, other])]
        kept.put_back()
        return told

    run = kept.folder
    mine = run / "parts" / "seed=0" / "arrays" / "result.safetensors"
    mine.write_bytes((run / "parts" / "seed=1" / "arrays" / "result.safetensors").read_bytes())
    assert findings() == [
        ("seed=0", "arrays/result.safetensors", "exchanged: it is arrays/result.safetensors of run/seed=1")
    ]
    mine.write_bytes((other / "parts" / "seed=0" / "arrays" / "result.safetensors").read_bytes())
    assert findings()[0][2] == "exchanged: it is arrays/result.safetensors of other/seed=0"
    mine.write_bytes(mine.read_bytes()[:-1] + b"\x01")
    assert findings() == [("seed=0", "arrays/result.safetensors", "changed")]
    mine.unlink()
    assert findings() == [("seed=0", "arrays/result.safetensors", "missing")]
    shutil.copy(mine, mine.with_name("more.safetensors"))
    assert findings() == [("seed=0", "arrays/more.safetensors", "added")]
    shutil.rmtree(run / "parts" / "seed=0")
    assert findings() == [("", "parts/seed=0", "missing")]
    shutil.copytree(run / "parts" / "seed=0", run / "parts" / "seed=9")
    found = findings()
    assert ("", "parts/seed=9", "added") in found and "copied from part seed=0" in str(found)
    for donor in (run / "parts" / "seed=1", other / "parts" / "seed=0"):
        shutil.rmtree(run / "parts" / "seed=0")
        shutil.copytree(donor, run / "parts" / "seed=0")
        found = findings()
        assert found[0][:2] == ("", "parts/seed=0") and found[0][2].startswith("exchanged: it is ")
        assert "was copied from part" in found[1][2]
    (run / "claims.json").unlink()
    assert "claims.json is missing" in str(findings())
    shutil.rmtree(run / "checkpoints")  # `runs gc` does so
    assert findings() == []


def test_added_files_are_not_read(finished):
    kept, other = finished
    whole = results(kept.folder)
    for name in ("metrics.jsonl", "arrays/other.safetensors", "json/other.json", "report.html"):
        (kept.folder / name).write_text('{"step": 1, "loss": 5}\n')
        np.testing.assert_equal(results(kept.folder), whole, err_msg=name)
    for name in ("arrays", "json"):
        read = Run.load(kept.folder).load_arrays if name == "arrays" else Run.load(kept.folder).load_json
        with pytest.raises(BadInput, match="was added after the run was finished"):
            read("other")
    kept.put_back()
    shutil.copytree(other / "parts" / "seed=0", kept.folder / "parts" / "seed=2")
    with pytest.raises(BadInput, match=r"was copied from part seed=0|was added"):
        Run.load(kept.folder).parts()
    kept.put_back()


def test_lists_and_queries_name_a_damaged_run(finished):
    kept, _ = finished
    root = kept.folder.parent
    rows = query("SELECT run, part, step, loss FROM metrics ORDER BY ALL", root).rows
    path = kept.folder / "parts" / "seed=0" / "metrics.parquet"
    path.write_bytes(path.read_bytes().replace(b"row 0.5", b"row 0.7"))
    with pytest.raises(BadInput, match=r"seed=0/metrics\.parquet is not the file"):
        query("SELECT run, part, step, loss FROM metrics ORDER BY ALL", root)
    kept.put_back()
    (kept.folder / "DONE").write_text("{}")
    assert {info.name: info.state for info in list_runs(root)} == {"run": "unreadable", "other": "done"}
    kept.put_back()
    assert query("SELECT run, part, step, loss FROM metrics ORDER BY ALL", root).rows == rows


CONFIG = {"steps": 9}


def interrupted(folder: Path, config: dict, shift: float) -> None:
    """A run that was killed at step 7, with checkpoints of steps 3 and 6."""
    with Run.open(folder, config) as run:
        for step in range(8):
            run.log({"step": step, "loss": shift * step})
            if step in (3, 6):
                run.save_checkpoint(step, {"x": np.full(4, shift + step)})
        run.save_arrays("some", {"x": np.arange(4) + shift})
        run.save_arrays("other", {"x": np.arange(4) - shift})
        run.save_json("note", {"shift": shift, "not": float("nan")})


def resumed(folder: Path) -> tuple[Any, list[dict[str, Any]], Any]:
    """What a resumed training starts from: its state, the rows that it does not log again, and what it has kept."""
    with Run.open(folder, CONFIG) as run:
        saved = run.latest_checkpoint()
        run.rewind(-1 if saved is None else saved[0])
        kept = {name: run.load_arrays(name)["x"].tolist() for name in ("some", "other")}
        kept["note"] = str(run.load_json("note"))
        return None if saved is None else (saved[0], saved[1]["x"].tolist()), run.metrics(), kept


def test_an_interrupted_run_goes_on_as_it_was_or_names_the_file(tmp_path):
    interrupted(tmp_path / "run", CONFIG, 0.5)
    interrupted(tmp_path / "other", {"steps": 10}, 1.5)
    kept = Folder(tmp_path / "run")
    donors = {**kept.files, **Folder(tmp_path / "other").files}
    rows = [{"step": step, "loss": 0.5 * step} for step in range(8)]
    saved = {"some": [0.5, 1.5, 2.5, 3.5], "other": [-0.5, 0.5, 1.5, 2.5]}
    saved["note"] = "{'shift': 0.5, 'not': nan}"
    allowed = {6: ((6, [6.5] * 4), rows[:7], saved), 3: ((3, [3.5] * 4), rows[:4], saved)}
    count = named = 0
    for what, do in cases(kept, donors):
        do()
        count += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                state, left, values = resumed(kept.folder)
            except BadInput as error:
                named += 1
                assert "\n" not in str(error), what  # noqa: PT017
            else:
                assert state is not None, what
                assert (state, left, values) == allowed[state[0]], what
        kept.put_back()
    assert count > 250 and named > 0.2 * count
    assert resumed(kept.folder) == allowed[6]
    path = tmp_path / "run" / "arrays" / "some.safetensors"
    assert verify([tmp_path / "run"]) == []
    for donor, origin in (("run/arrays/other", "'other'"), ("other/arrays/some", "a run or part with another")):
        path.write_bytes((tmp_path / f"{donor}.safetensors").read_bytes())
        (found,) = verify([tmp_path / "run"])
        assert found.file == "arrays/some.safetensors" and f"was copied from {origin}" in found.text


def test_a_checkpoint_of_another_run_part_or_step_is_refused(tmp_path):
    interrupted(tmp_path / "run", CONFIG, 0.5)
    interrupted(tmp_path / "other", {"steps": 10}, 1.5)
    place = tmp_path / "run" / "checkpoints"
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step_00000006", place / "step_00000008")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert resumed(tmp_path / "run")[0] == (6, [6.5] * 4)  # its name is not that of its step: passed over
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "other" / "checkpoints", place)
    with pytest.raises(BadInput, match=r"was copied from a run or part with another configuration"):
        resumed(tmp_path / "run")
    # A part with the same configuration as another one, as where a seed stands in the name alone.
    with Run.open(tmp_path / "whole", {}) as run:
        for name in SEEDS:
            interrupted(run.part_folder(name), CONFIG, 1.0)
        parts = [run.part_folder(name) for name in SEEDS]
        shutil.rmtree(parts[1] / "checkpoints")
        shutil.copytree(parts[0] / "checkpoints", parts[1] / "checkpoints")
        with pytest.raises(BadInput, match="was copied from part seed=0, and here it is part seed=1"):
            resumed(parts[1])
