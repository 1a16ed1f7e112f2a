"""`runs`, `report` and `doctor`."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from commands import call

from meta_icl.apps.cli import doctor
from meta_icl.apps.cli.compare import split_names
from meta_icl.errors import BadInput
from meta_icl.runs import Run, list_runs

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("empty_folder")


def test_runs(capsys, tiny_paper):
    assert "no runs in runs" in call(capsys, "runs")[1]
    call(capsys, "reproduce", "tiny")
    (told,) = json.loads(call(capsys, "runs", "list", "--json")[1])
    assert told["state"] == "done" and told["name"] in call(capsys, "runs", "list")[1]
    shown = json.loads(call(capsys, "runs", "show", "tiny", "--json")[1])
    assert shown["config"]["config"]["steps"] == 10 and len(shown["claims"]) == 4
    assert '"steps": 10' in call(capsys, "runs", "show", "tiny")[1]
    rows = json.loads(call(capsys, "runs", "query", "SELECT step, loss FROM metrics", "--json")[1])
    assert rows == [{"step": 10, "loss": 0.5}]
    assert "0.5" in call(capsys, "runs", "query", "SELECT loss FROM metrics")[1]
    status, _, err = call(capsys, "runs", "query", "SELECT los FROM metrics")
    assert status == 2 and err.count("\n") == 1

    with Run.open("runs/other", {"a": 1}) as run:
        run.save_checkpoint(1, {"x": np.zeros(3)})
    assert "0 folders" in call(capsys, "runs", "gc")[1]
    assert "add --delete" in call(capsys, "runs", "gc", "--unfinished")[1] and Path("runs/other").exists()
    assert json.loads(call(capsys, "runs", "gc", "--unfinished", "--delete", "--json")[1])["removed"] is True
    assert not Path("runs/other").exists() and len(list_runs("runs")) == 1


def test_runs_verify(capsys, tiny_paper):
    call(capsys, "reproduce", "tiny")
    call(capsys, "reproduce", "tiny", "--preset", "other")
    status, out, _ = call(capsys, "runs", "verify")
    assert status == 0 and "2 runs: all is as it was left" in out
    names = sorted(info.name for info in list_runs("runs"))
    mine, theirs = (Path("runs") / name / "arrays" / "loss.safetensors" for name in names)  # of "other", of "small"
    mine.write_bytes(theirs.read_bytes()[:-1] + b"\x07")
    status, out, _ = call(capsys, "runs", "verify", names[1])
    assert status == 0 and "1 run: all is as it was left" in out
    assert "2 runs: 1 files or parts are not" in call(capsys, "runs", "verify")[1]
    status, out, _ = call(capsys, "runs", "verify", "--json")
    (finding,) = json.loads(out)["findings"]
    assert status == 1 and finding == {
        "run": names[0], "part": "", "file": "arrays/loss.safetensors", "kind": "changed", "origin": "",
    }  # fmt: skip
    status, _, err = call(capsys, "reproduce", "tiny", "--preset", "other")  # judges anew
    assert status == 2 and "is not the file with which the run was finished" in err and err.count("\n") == 1


def test_a_platform_that_is_not_here_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "meta_icl", "doctor"],
        env={**os.environ, "JAX_PLATFORMS": "rocm"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("meta-icl: JAX_PLATFORMS is 'rocm', and jax finds") and done.stderr.count("\n") == 1


def test_a_contradicted_verdict_in_kept_results_is_told(capsys, tiny_paper):
    call(capsys, "reproduce", "tiny", "--results", "results")
    path = Path("results/tiny2020_little/claims.json")
    told = json.loads(path.read_text())
    told["claims"][1]["verdict"] = "holds"
    path.write_text(json.dumps(told))
    status, _, err = call(capsys, "papers", "--results", "results")
    assert status == 2 and "claims.json was changed since it was written" in err
    path.write_text(json.dumps({"format": 1, "claims": told["claims"]}))  # as before claims were bound to anything
    status, _, err = call(capsys, "papers", "--results", "results")
    assert status == 2 and "says 'holds' of claim tiny2020/T-2, but its checks say 'fails'" in err


def test_errors_of_the_system_are_one_line(capsys, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", "somewhere/file")

    monkeypatch.setattr("meta_icl.apps.cli.runs._list", full)
    status, _, err = call(capsys, "runs", "list")
    assert status == 2 and err == "meta-icl: somewhere/file: No space left on device\n"


def test_report_of_runs(capsys, tiny_paper):
    call(capsys, "reproduce", "tiny")
    call(capsys, "reproduce", "tiny", "--preset", "other")
    names = sorted(info.name for info in list_runs("runs"))
    status, out, _ = call(capsys, "report", *names, "--out", "both.html")
    assert status == 0 and "both.html" in out
    page = Path("both.html").read_text()
    assert all(name in page for name in names)
    status, _, err = call(capsys, "report", "tiny")
    assert status == 2 and "ambiguous" in err
    call(capsys, "reproduce", "tiny", "--root", "elsewhere")
    (same,) = list_runs("elsewhere")
    status, out, _ = call(capsys, "report", f"runs/{same.name}", f"elsewhere/{same.name}", "--out", "same.html")
    assert status == 0 and Path("same.html").read_text().count(f'class="sort">{same.name}</button>') == 2
    status, _, err = call(capsys, "report", names[0], "--out", "both.html/report.html")
    assert status == 2 and err.startswith("meta-icl: cannot write both.html/report.html: ") and err.count("\n") == 1
    with Run.open("runs/other", {"a": 1}):
        pass
    status, _, err = call(capsys, "report", "other")
    assert status == 2 and "is not finished" in err


def test_doctor(capsys):
    import jax

    told = json.loads(call(capsys, "doctor", "--json")[1])
    assert len(told["devices"]) == len(jax.devices()) and told["versions"]["jax"] == jax.__version__
    assert told["workers"] >= 0 and told["first_program_seconds"] > 0
    assert "compilation cache" in call(capsys, "doctor")[1]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras)


def test_doctor_suggests_what_is_there(monkeypatch, tmp_path):
    """In a checkout the checkout; elsewhere the requirements themselves, never a name that no index may have."""
    assert doctor.how_to_install("lm") == f"pip install -e '{ROOT}[lm]'"
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "site-packages/meta_icl/apps/cli/doctor.py"))
    told = ["jax>=0.10", "torch>=2.6; extra == 'lm'", 'gguf>=1 ; extra == "lm"', "ruff; extra == 'dev'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: told)
    assert doctor.how_to_install("lm") == "pip install 'torch>=2.6' 'gguf>=1'"
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: None)
    assert "pip" not in doctor.how_to_install("lm")


def test_reference_names():
    assert split_names(("gd,ridge:penalty=1,bayes", "GradientDescent:rate=0.1,steps=2", "zero")) == [
        "gd", "ridge:penalty=1", "bayes", "GradientDescent:rate=0.1,steps=2", "zero",
    ]  # fmt: skip
    with pytest.raises(BadInput, match="at least one"):
        split_names((",",))
