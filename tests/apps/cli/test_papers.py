"""What `papers` tells of results, and papers of the user's own from end to end."""

import dataclasses
import json
from pathlib import Path

import pytest
from commands import call

from meta_icl.apps.cli import listing, results
from meta_icl.runs import Check, Claim, Run, at_least

ROOT = Path(__file__).parents[3]

MINE = '''"""A paper of mine (Me, 2026)."""

from dataclasses import dataclass

import numpy as np

from meta_icl.runs import Check, Claim, at_most
from meta_icl.sweeps import run_parts

from .experiments import work

IDS = ("M-1", "M-2")
NEEDS = {"M-1": ("sm*",), "M-2": ("small", "large")}


@dataclass(frozen=True)
class Config:
    seeds: int = 2


PRESETS = {"small": Config()}


def run(config, run):
    run_parts(run, work, {name: {"size": len(name), "seeds": config.seeds} for name in ("small", "large")})


def claims(run):
    found = {"M-1": "small", "M-2": "large"}
    checks = {id: Check("size", at_most(9), run.part_arrays(n)["sizes"]) for id, n in found.items() if n in run.parts()}
    return [Claim(f"mine/{id}", "It is small", "here", (check,)) for id, check in checks.items()]


def figures(run):
    return {}
'''
EXPERIMENTS = """import numpy as np


def work(part, *, size, seeds):
    return {"sizes": np.full(seeds, float(size))}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a paper of the user's own, in which commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("META_ICL_RUNS", raising=False)
    monkeypatch.setenv("META_ICL_WORKERS", "1")
    (tmp_path / "my_paper").mkdir()
    (tmp_path / "my_paper" / "__init__.py").write_text(MINE)
    (tmp_path / "my_paper" / "experiments.py").write_text(EXPERIMENTS)
    return tmp_path


def test_the_short_form_in_the_package_is_that_of_the_results(tmp_path):
    """If not: `make verdicts`."""
    results.write_short(ROOT / "results", tmp_path / "verdicts.json")
    packaged = ROOT / "src" / "meta_icl" / "papers" / listing.SHORT
    assert (tmp_path / "verdicts.json").read_text("utf-8") == packaged.read_text("utf-8")
    # Independently of the code that writes it: ids and verdicts are those of the files.
    short = json.loads(packaged.read_text("utf-8"))
    full = {path.parent.name: json.loads(path.read_text("utf-8")) for path in ROOT.glob("results/*/claims.json")}
    assert set(short) == set(full)
    for name, told in short.items():
        expected = [(claim["id"], claim["verdict"]) for claim in full[name]["claims"]]
        assert [(id, verdict) for id, verdict, _ in told["claims"]] == expected


def test_one_paper(folder, capsys):
    status, out, _ = call(capsys, "papers", "minegishi")
    assert status == 0 and "preset sweeps" in out and "smoke" in out
    told = json.loads(call(capsys, "papers", "rossi2024", "--json")[1])
    run = told["kept"]["rossi2024_understanding_icl"]
    assert told["times"]["small"] and {"id", "verdict", "statement"} == set(run["claims"][0])
    status, _, err = call(capsys, "papers", "rosi2024")
    assert status == 2 and "did you mean 'rossi2024'" in err


def test_a_paper_of_the_user_s_own_trains_what_its_claims_need(folder, capsys):
    status, out, err = call(capsys, "reproduce", "./my_paper", "--claims", "M-1", "--workers", "2", "--json")
    assert status == 0, err
    told = json.loads(out)
    run = Run.load(told["run"])
    assert [claim["id"] for claim in told["claims"]] == ["mine/M-1"] and set(run.parts()) == {"small"}
    assert run.config["own"]["file"] == str(folder / "my_paper") and run.config["experiments"] == ["sm*"]

    status, out, err = call(capsys, "reproduce", "./my_paper", "--workers", "0", "--json")
    whole = json.loads(out)
    assert status == 0 and len(whole["claims"]) == 2 and whole["run"] != told["run"]
    assert set(Run.load(whole["run"]).parts()) == {"small", "large"}
    assert call(capsys, "report", "last")[0] == 0

    (folder / "my_paper" / "experiments.py").write_text(EXPERIMENTS + "\n")
    status, _, err = call(capsys, "report", "last")
    assert status == 2 and "my_paper has changed since this run was made" in err


def test_what_a_run_that_is_named_has_finished_is_reused(folder, capsys):
    mine = ("reproduce", "./my_paper", "--workers", "0")
    first = json.loads(call(capsys, *mine, "--claims", "M-1", "--json")[1])["run"]
    status, _, err = call(
        capsys, *mine, "--claims", "M-2", "M-1", "--reuse", Path(first).name[:-2], "--results", "kept"
    )
    assert status == 0 and f"1 of 2 parts reused from {Path(first).name}" in err
    (kept,) = Path("kept").glob("*/provenance.json")
    assert list(json.loads(kept.read_text())["seconds_of_reused_parts"]) == ["small"]
    commit = str(Run.load(first).part("small").provenance["code"].get("commit"))[:10]
    assert f"1 of 2 parts reused from runs of `{commit}`, 0 minutes." in Path("kept/README.md").read_text()

    status, _, err = call(capsys, *mine, "--seeds", "3", "--reuse", first)
    assert status == 0 and f"nothing reused from {first}: it has finished no part that this run needed" in err
    status, _, err = call(capsys, *mine, "--seeds", "4", "--reuse", "nobody")
    assert status == 2 and "unknown run 'nobody'" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("./none", "there is no file"), ("./no_paper.py", "got a file without IDS, PRESETS, run, claims, figures")],
)
def test_what_is_no_paper(folder, capsys, text, message):
    (folder / "no_paper.py").write_text("x = 1\n")
    status, _, err = call(capsys, "reproduce", text)
    assert status == 2 and message in err and err.count("\n") == 1


def test_which_run(folder, capsys):
    status, _, err = call(capsys, "runs", "show", "last")
    assert status == 2 and "there is no last run: runs holds no runs" in err
    for seeds in ("2", "3"):
        call(capsys, "reproduce", "./my_paper", "--seeds", seeds, "--workers", "0")
    status, out, _ = call(capsys, "runs", "show", "last", "--json")
    assert json.loads(out)["config"]["config"]["seeds"] == 3
    status, _, err = call(capsys, "runs", "show", "my_paper")
    first, *lines = err.splitlines()
    assert status == 2 and "run 'my_paper' is ambiguous" in first
    assert [line.split()[-1] for line in lines] == ["config.seeds=3", "config.seeds=2"]  # the newest first
    for name, message in (
        ("./none", "there is no folder /"),
        ("./my_paper", "my_paper is not a run: it has no"),
    ):
        status, _, err = call(capsys, "compare", name)
        assert status == 2 and message in err
    status, _, err = call(capsys, "probe", "./none")
    assert status == 2 and "there is no folder" in err and "to probe" in err
    status, _, err = call(capsys, "probe", "./my_paper")
    assert status == 2 and "holds neither a run nor a language model: it has no config.json" in err


def test_a_failing_claim_is_told_with_the_reason_that_is_known(tmp_path):
    """Only those that fail, each reason once, behind what the run itself noted."""
    (tmp_path / "reasons.toml").write_text('F-1 = """\n the step\n is too long"""\nF-2 = "never told"\n')
    known = listing.reasons(tmp_path)
    fails = Claim("one2024/F-1", "s", "f", (Check("x", at_least(2), [1.0]),), note="seen")
    holds = Claim("one2024/F-2", "s", "f", (Check("x", at_least(2), [3.0]),))
    told = listing.explained([fails, holds, dataclasses.replace(fails, id="one2024/F-3")], known)
    assert [claim.note for claim in told] == ["seen; the step is too long", None, "seen"]
    assert listing.explained(told, known) == told
    assert listing.reasons(tmp_path / "none") == {}
