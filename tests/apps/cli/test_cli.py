import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call

from meta_icl.apps.cli import COMMANDS, doctor, listing, reproduce
from meta_icl.errors import BadInput
from meta_icl.runs import Check, Claim, Run, at_most, list_runs

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("empty_folder")


# Help


def test_help_is_immediate_and_imports_no_jax():
    script = (
        "import sys, resource; from meta_icl.apps.cli import main; status = main(['--help']); "
        "heavy = {'jax', 'equinox', 'numpy', 'tyro', 'matplotlib', 'duckdb', 'torch'} & set(sys.modules); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        "print(status, sorted(heavy), used.ru_utime + used.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    status, heavy, seconds = re.fullmatch(r"(\d) (\[.*\]) ([\d.]+)", done.stdout.splitlines()[-1]).groups()
    assert status == "0" and heavy == "[]" and float(seconds) < 0.3
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(capsys, command):
    status, out, err = call(capsys, command, "--help")
    assert status == 0 and not err
    assert f"usage: meta-icl {command}" in out and "examples:" in out and f"  meta-icl {command}" in out


def test_help_of_commands_imports_no_jax():
    script = (
        "import sys\nfrom meta_icl.apps.cli import main\n"
        f"for name in {list(COMMANDS)}:\n"
        "    try:\n        main([name, '--help'])\n    except SystemExit:\n        pass\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_module_entry_and_version():
    done = subprocess.run([sys.executable, "-m", "meta_icl", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)
    bad = subprocess.run([sys.executable, "-m", "meta_icl", "reproduc"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and "did you mean 'reproduce'" in bad.stderr


# Bad input

LINEAR = ("train", "linear_regression", "von_oswald", "--task", "d=3", "n_context=4")
FITTING = (*LINEAR, "--model", "d_model=4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("paper",), "unknown command 'paper'; did you mean 'papers'"),
        (("papers", "--jso"), "Unrecognized options: --jso; did you mean --json?"),
        (("doctor", "extra"), "Unrecognized options: extra"),
        (("papers", "extra"), "unknown paper 'extra'"),
        (("reproduce",), "Missing from meta-icl reproduce: PAPER"),
        (("reproduce", "rosi2024"), "unknown paper 'rosi2024'; did you mean 'rossi2024'"),
        (
            ("reproduce", "tiny", "--preset", "smol"),
            "unknown preset 'smol'; did you mean 'small'?",
        ),
        (("reproduce", "tiny", "--seeds", "many"), "--seeds must be an integer, got 'many'"),
        (("reproduce", "tiny", "--seeds", "0"), "--seeds must be a positive integer, got 0"),
        (("reproduce", "tiny", "--workers", "-1"), "--workers must be zero or more, got -1"),
        (("reproduce", "tiny", "--set", "stps=3"), "unknown field of Config 'stps'; did you mean 'steps'"),
        (("reproduce", "tiny", "--set", "steps=x"), "steps must be an integer, got 'x'"),
        (("reproduce", "tiny", "--set", "steps=-1"), "steps must be an integer of at least 1, got -1"),
        (("reproduce", "tiny", "--set", "sizes=4,-2"), "sizes must be integers of at least 1, got (4, -2)"),
        (("reproduce", "tiny", "--set", "steps"), "expected field=value, got 'steps'"),
        (("reproduce", "tiny", "--claims", "T-1", "T-9"), "unknown claim 'T-9'"),
        (("reproduce", "tiny", "--root"), "Missing value for argument '--root'"),
        (("runs", "lst"), "unknown action 'lst'; did you mean 'list'"),
        (("runs", "show"), "runs show needs the name of a run"),
        (("runs", "show", "none"), "there is no run 'none': runs holds no runs"),
        (("runs", "query", "SELECT 1"), "runs holds no run that has logged metrics"),
        (("report", "none"), "there is no run 'none'"),
        (("compare", "none"), "there is no run 'none'"),
        (("compare", "none", "--n-prompts", "1"), "--n-prompts must be at least 2, got 1"),
        (("compare", "none", "--contexts", "2,x"), "--contexts must be an integer, got 'x'"),
        (("train",), "train needs a task and a model"),
        (
            ("train", "linear_regresion", "von_oswald"),
            "unknown task 'linear_regresion'; did you mean 'LinearRegression'",
        ),
        (("train", "uniform", "von_oswald"), "unknown task 'uniform'"),
        (LINEAR[:3], "LinearRegression needs d=..., n_context=..."),
        ((*LINEAR[:2], "von_oswld"), "unknown model 'von_oswld'; did you mean 'von_oswald'"),
        ((*LINEAR[:2], "von_oswld", *LINEAR[3:]), "unknown model 'von_oswld'; did you mean 'von_oswald'"),
        (LINEAR, "model von_oswald needs d_model=..."),
        ((*LINEAR, "x_law=unifrm"), "unknown x_law (Law) 'unifrm'; did you mean 'Uniform'"),
        ((*LINEAR, "x_law=uniform:half_rnge=1"), "unknown field of Uniform 'half_rnge'; did you mean 'half_range'"),
        (
            (*LINEAR, "x_law=uniform:half_range=wide"),
            "half_range must be a number or a nested list of numbers, got 'wide'",
        ),
        ((*LINEAR, "d=4"), "d is given twice: '3' and '4'"),
        ((*FITTING, "n_layers=-1"), "n_layers must be zero or more, got -1"),
        ((*FITTING, "n_layers=1.5"), "n_layers must be an integer, got '1.5'"),
        ((*FITTING, "attention=sofmax"), "unknown attention 'sofmax'; did you mean 'softmax'"),
        ((*FITTING, "looped=perhaps"), "looped must be true or false, got 'perhaps'"),
        ((*FITTING, "--steps", "0"), "--steps must be a positive integer, got 0"),
        ((*FITTING, "--record", "0"), "--record must be a positive integer, got 0"),
        ((*FITTING, "--learning-rate", "-1"), "learning_rate must be zero or positive, got -1.0"),
        ((*FITTING, "--learning-rate", "nan"), "learning_rate must be zero or positive, got nan"),
        ((*FITTING, "--optimiser", "b2=1"), "b2 must be at least 0 and below 1, got 1.0"),
        ((*FITTING, "--sweep", "optimiser.learning_rate=1e-3,-1"), "learning_rate must be zero or positive, got -1.0"),
        ((*FITTING, "--sweep", "task.noise="), "--sweep task.noise must be one or more numbers, all different, got []"),
        ((*FITTING, "--sweep", "task.noise=0,0"), "all different, got [0.0, 0.0]"),
        ((*FITTING, "--root", "/dev/null/runs"), "cannot make or use the run folder /dev/null/runs"),
        ((*FITTING, "--batch", "0"), "--batch must be a positive integer, got 0"),
        ((*FITTING, "--objective", "mse"), "unknown objective 'mse'"),
        ((*FITTING, "--optimiser", "name=adem"), "unknown optimiser 'adem'; did you mean 'adam'"),
        ((*FITTING, "--layout", "separat"), "unknown layout 'separat'; did you mean 'Separate'"),
        ((*FITTING, "--sweep", "task.nose=0,1"), "unknown field of LinearRegression 'nose'; did you mean 'noise'"),
        ((*FITTING, "--sweep", "task.noise=0,-1"), "noise must be zero or positive"),
        ((*FITTING, "--sweep", "task.d=3,2"), "do not fit together (a token has 3 channels): "),
        ((*FITTING, "--sweep", "task.d=3,2"), " (at task.d = 2)"),
        ((*FITTING, "--sweep", "model.n_layers=1,x"), "n_layers must be an integer, got 'x'"),
        ((*FITTING, "--sweep", "model.layers=1,2"), "did you mean 'n_layers'"),
        ((*FITTING, "--sweep", "n_layers=1,2"), "unknown swept object 'n_layers'"),
        ((*FITTING, "--name", "a/b"), "--name must be letters, digits, dots, dashes and underscores"),
        ((*FITTING, "--sweep", "task.noise=a,b"), "--sweep task.noise must be a number, got 'a'"),
        (
            (*LINEAR, "--model", "d_model=7"),
            "von_oswald and Concatenated and LinearRegression do not fit together (a token has 4 channels): ",
        ),
        (("train", "--resume", "none"), "there is no run 'none'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(capsys, tiny_paper, empty_folder, arguments, message):
    status, out, err = call(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.startswith("meta-icl: ") and err.count("\n") == 1 and message in err
    assert not list(empty_folder.iterdir())


def test_interrupt_says_how_to_go_on(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "main", interrupted)
    status, _, err = call(capsys, "doctor", "--json")
    assert (
        status == 130
        and err == "meta-icl: interrupted; the same command goes on where it was: meta-icl doctor --json\n"
    )


# Papers


def test_listing_reads_files_without_importing_them():
    names = [paper.name for paper in listing.papers()]
    folders = [path.parent.name for path in (ROOT / "src/meta_icl/papers").glob("*/__init__.py")]
    assert names == sorted(folders)
    for paper in listing.papers():
        module = importlib.import_module(f"meta_icl.papers.{paper.name}")
        assert module.__doc__.startswith(paper.title) and paper.times == module.TIMES
        assert set(paper.times) == set(module.PRESETS)


def test_papers_are_found_by_author_or_topic():
    wanted = "behrouz2025_titans"
    assert {listing.find_paper(name) for name in (wanted, "behrouz2025", "titans2025", "behrouz")} == {wanted}
    with pytest.raises(BadInput, match="'titan2025'"):
        listing.find_paper("titan2025")


def test_papers(capsys, tiny_paper):
    status, out, _ = call(capsys, "papers")
    assert status == 0 and re.search(r"^tiny2020_little +1 s", out, re.MULTILINE)
    assert "no kept results: tiny2020_little" in out
    _, out, _ = call(capsys, "papers", "tiny2020")
    assert "A tiny paper (Nobody, 2020)" in out and re.search(r"^other +2 s", out, re.MULTILINE)
    call(capsys, "reproduce", "tiny", "--results", "results")
    told = json.loads(call(capsys, "papers", "--json")[1])
    mine = next(row for row in told if row["paper"] == "tiny2020_little")
    assert mine["claims"] == 4 and mine["verdicts"] == dict.fromkeys(
        ("holds", "fails", "not decided", "not converged"), 1
    )
    assert re.search(r"^T-2 +fails +The loss is large", call(capsys, "papers", "tiny2020")[1], re.MULTILINE)
    kept = {str(path.relative_to("results")) for path in Path("results").rglob("*") if path.is_file()}
    names = ("claims.json", "config.json", "provenance.json", "figures/loss.svg")
    assert kept == {f"tiny2020_little/{name}" for name in names} | {"README.md"}
    page = (Path("results") / "README.md").read_text()
    assert (
        "1 hold, 1 fail, 1 not decided, 1 not converged" in page and "[loss](tiny2020_little/figures/loss.svg)" in page
    )
    assert re.search(r"^\| tiny2020/T-2 \| .* -- missed: .*expected .*, measured .* \| fails \|$", page, re.MULTILINE)
    told = "It would hold -- 0 of 3 seeds converged (loss / best at most 1) -- revised: Fig. 4 of the second edition"
    assert f"| tiny2020/T-4 | {told} | not converged |" in page
    call(capsys, "reproduce", "tiny", "--preset", "other", "--results", "results")
    page = (Path("results") / "README.md").read_text()
    assert Path("results/tiny2020_little-other/claims.json").exists() and "\n## tiny2020_little-other\n" in page
    assert "\n## tiny2020_little\n" in page  # what another preset found stays
    (Path("results") / "tiny2020_little" / "claims.json").write_text("{")
    status, _, err = call(capsys, "papers")
    assert status == 2 and "claims.json cannot be read as JSON" in err


def test_reproduce(capsys, tiny_paper):
    status, out, _ = call(capsys, "reproduce", "tiny2020", "--seeds", "5", "--set", "sizes=4,5,6")
    import meta_icl.papers.tiny2020_little as tiny

    assert status == 0 and [tiny.Config(seeds=5, sizes=(4, 5, 6))] == tiny.CALLS
    verdicts = ("holds", "fails", "not decided", "not converged")
    assert all(text in out for text in ("tiny2020/T-1", "1 of 1", "0 of 1", *verdicts)) and "at most 0.5" not in out
    _, out, _ = call(capsys, "reproduce", "tiny2020", "--seeds", "5", "--set", "sizes=4,5,6", "--details")
    assert "✗ loss: expected at least 0.5, measured 0.2 [0, 0.4]" in out and "source: Fig. 2" in out
    assert "0 of 5" in out and "revised:" in out
    (info,) = list_runs("runs")
    run = Run.load(info.folder)
    assert run.done and run.name.startswith("tiny2020_little-small-") and run.folder.joinpath("report.html").exists()
    assert [claim.verdict for claim in run.load_claims()] == ["holds", "fails", "not decided", "not converged"]
    assert run.config["config"] == {"seeds": 5, "steps": 10, "sizes": [4, 5, 6]}
    assert run.metrics() == [{"step": 10, "loss": 0.5}]

    # Asked again it is shown, not computed; a claim can be chosen, and its failure can be the exit status.
    again = ("reproduce", "tiny2020", "--seeds", "5", "--set", "sizes=4,5,6", "--strict", "--json")
    status, out, _ = call(capsys, *again, "--claims", "T-1")
    assert status == 0 and len(tiny.CALLS) == 1 and [one["id"] for one in json.loads(out)["claims"]] == ["tiny2020/T-1"]
    assert call(capsys, *again, "--claims", "T-4")[0] == 0  # it did not fail
    status, out, _ = call(capsys, *again)
    assert status == 1 and Path(json.loads(out)["report"]).exists()
    status, _, err = call(capsys, *again, "--claims", "T-9")
    assert status == 2 and "unknown claim 'T-9'" in err


def test_a_misspelt_claim_costs_no_training(capsys, tiny_paper):
    status, _, err = call(capsys, "reproduce", "tiny", "--claims", "T-9")
    assert status == 2 and "unknown claim 'T-9'" in err and err.count("\n") == 1
    assert list_runs("runs") == []


def test_a_run_in_use_is_left_alone(capsys, tiny_paper):
    call(capsys, "reproduce", "tiny")
    (info,) = list_runs("runs")
    with Run.open(info.folder, Run.load(info.folder).config):
        status, _, err = call(capsys, "reproduce", "tiny")
        assert status == 2 and "is in use by" in err and err.count("\n") == 1
    (info.folder / "config.json").write_text("{")
    status, _, err = call(capsys, "reproduce", "tiny")
    assert status == 2 and "config.json cannot be read as JSON" in err and err.count("\n") == 1
    assert (info.folder / "config.json").read_text() == "{"


def test_chosen_claims():
    claims = [Claim(f"p/{name}", "s", "f", (Check("q", at_most(1), 0),)) for name in ("A-1", "A-2")]
    assert reproduce.chosen(claims, ()) == claims
    assert reproduce.chosen(claims, ("A-2", "p/A-1")) == claims[::-1]
