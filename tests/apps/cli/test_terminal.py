"""What a terminal shows at any width and in any encoding, and what a broken output or Ctrl-C does."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meta_icl.apps import cli
from meta_icl.apps.cli import COMMANDS, listing, streams, tables
from meta_icl.runs import Check, Claim, at_least, at_most

PYTHON = (sys.executable, "-m", "meta_icl")
WORDS = "The trained layer makes the predictions of gradient descent at every context length"
CLAIMS = [
    Claim(f"paper2024/R-{i}", WORDS, "Fig. 1", (Check("loss ± its error", at_most(0.5), (0.1, 0.2, 0.3)),) * i)
    for i in (1, 2)
] + [
    Claim("paper2024/R-10", WORDS, "Fig. 2", (Check("η → ∞", at_least(0.5), 0.25),), note="it is small"),
    Claim("paper2024/R-11", WORDS, "Fig. 3", undecided="a GPU is needed"),
]


@pytest.fixture
def width(monkeypatch):
    return lambda columns: monkeypatch.setenv("COLUMNS", str(columns))


def shown(capsys, *grids: tables.Grid) -> list[str]:
    for grid in grids:
        tables.show(grid)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [40, 60, 80, 140])
def test_nothing_of_a_table_is_lost(width, capsys, columns):
    width(columns)
    names = ["a_very_long_name_of_a_run-0123456789", "short"]
    rows = [(names[0], 1234567.0, "some words about it that are many"), (names[1], 1e-05, None)]
    grid = tables.plain_table(("name of the run", "loss", "remark"), rows, "runs")
    lines = shown(capsys, grid)
    text = " ".join(" ".join(lines).split())
    assert all(len(line) <= columns for line in lines)
    for whole in (*names, "1.23457e+06", "1e-05", "loss", "remark", *rows[0][2].split()):
        assert re.search(rf"(?<!\S){re.escape(whole)}:?(?!\S)", text), whole


def test_columns_stand_side_by_side_where_they_fit(width, capsys):
    width(80)
    lines = shown(capsys, tables.plain_table(("run", "loss"), [("a", 0.5), ("bb", 10.25)]))
    assert lines == ["run   loss", "──────────", "a      0.5", "bb   10.25"]


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_the_claim_table_has_a_line_per_claim_and_details_have_the_checks(width, capsys, columns):
    width(columns)
    lines = shown(capsys, tables.claim_table("paper", CLAIMS))
    assert all(len(line) <= columns for line in lines)
    heads = [line for line in lines if line.startswith("paper2024/")]
    assert [head.split()[0] for head in heads] == [claim.id for claim in CLAIMS]
    assert [re.split(r"\s{2,}", head)[1:3] for head in heads] == [
        ["holds", "1 of 1"], ["holds", "2 of 2"], ["fails", "0 of 1"], ["not decided", "-"],
    ]  # fmt: skip
    assert columns < 140 or len(lines) == 3 + len(CLAIMS)
    told = tables.claim_details(CLAIMS)
    assert all(len(line) <= columns for line in told.splitlines())
    flat = " ".join(told.split())
    assert "✓ loss ± its error: expected at most 0.5, measured 0.2 [0.1, 0.3]" in flat
    assert (
        "✗ η → ∞: expected at least 0.5, measured 0.25" in flat and "a GPU is needed" in flat and "it is small" in flat
    )


def test_markup_and_escape_codes_are_shown_as_text(width, capsys, tmp_path, monkeypatch):
    width(140)
    nasty = "[red]run[/red]-\x1b[31m\x07\u202e[/]"
    (line,) = shown(capsys, tables.plain_table(("",), [(nasty,)]))
    assert line == r"[red]run[/red]-\x1b[31m\x07\u202e[/]"
    monkeypatch.chdir(tmp_path)
    assert cli.main(["runs", "list", "--root", nasty]) == 0
    assert capsys.readouterr().out == f"no runs in {line}\n"
    assert cli.main(["runs", "show", "x", "--root", nasty]) == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_output_of_every_encoding(encoding, tmp_path):
    script = (
        "from meta_icl.apps.cli import streams, tables, options\n"
        "streams.prepare()\n"
        "tables.show(tables.plain_table(('sign', 'α'), [('±✓✗→∞×…é', 1.0), ('x', 2.0)], 'title ─'))\n"
        "options.say('日本 ± \\udcff'); print('│ ± ℝ')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode(encoding)
    if encoding == "ascii":
        assert "+-+x->infx...e" in out and "alpha" in out and "title -" in out and "| +- R" in out
        assert r"\u65e5\u672c +- \udcff" in out
    lines = [line for line in out.splitlines() if line.endswith((" 1", " 2"))]
    assert len({len(line) for line in lines}) == 1  # columns stay below each other


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
@pytest.mark.parametrize("arguments", [("papers",), ("papers", "rossi2024"), ("train", "--help"), ("nonsense",)])
def test_commands_print_in_every_encoding(encoding, arguments):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "60"}
    done = subprocess.run([*PYTHON, *arguments], capture_output=True, check=False, env=environment)
    assert done.returncode == (2 if arguments == ("nonsense",) else 0) and b"Traceback" not in done.stderr


def test_signs_have_one_plain_form():
    assert streams.plain("±") == "+-" and streams.plain("é") == "e" and streams.plain("日") == r"\u65e5"
    assert all(plain.isascii() for plain in streams.ASCII.values())


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("--help",), ("papers",), ("papers", "--json"), ("runs", "--help")])
def test_a_full_disk_is_told_in_one_line(arguments):
    with FULL.open("w") as full:
        done = subprocess.run([*PYTHON, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "meta-icl: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("arguments", [("--help",), ("papers",), ("papers", "--json"), ("runs", "--help")])
def test_a_closed_pipe_is_silent(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PYTHON, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode != 0 and done.stderr == ""


def test_ctrl_c_ends_a_league(tmp_path):
    """At once while it is being prepared (here: jax is being imported), whatever swallows the exception."""
    process = subprocess.Popen(
        [*PYTHON, "league", "--only", "deltanet"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    maps = Path(f"/proc/{process.pid}/maps")
    for _ in range(4800):  # until jax is being imported, however long a busy machine takes
        if not maps.exists() or "jaxlib" in maps.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130 and "meta-icl: interrupted; the same command goes on" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("status", "taken_apart"), [(130, False), (0, True), (2, True)])
def test_what_is_interrupted_leaves_without_taking_the_interpreter_apart(status, taken_apart):
    """That costs most of a second of a core once jax is there, and seconds on a busy machine."""
    code = f"""if True:
        import atexit
        from meta_icl.apps import cli
        atexit.register(print, "taken apart")
        def main():
            print("told", flush=False)
            return {status}
        cli.main = main
        cli.program()"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == status and not done.stderr
    assert done.stdout.split("\n")[:2] == (["told", "taken apart"] if taken_apart else ["told", ""])


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_as_wide_as_the_terminal(width, capsys, columns, command):
    width(columns)
    assert cli.main([command, "--help"] if command else ["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    too_long = [line for line in lines if len(line) > columns and len(line.split()) > 1 and '"' not in line]
    assert not too_long
    column = max(line.find("show this help") for line in lines)
    for line, below in itertools.pairwise(lines) if column > 0 else ():  # a text goes on until the line is full
        if line[column:] and line[:column].endswith("  ") and below[column:] and not below[:column].strip():
            assert len(line) + 1 + len(below.split()[0]) > columns, line


def test_papers_at_every_width(width, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without a folder of results: those of the installation
    for columns in (60, 80, 140):
        width(columns)
        assert cli.main(["papers"]) == 0
        out = capsys.readouterr().out
        assert all(len(line) <= columns for line in out.splitlines())
        assert all(paper.name in out for paper in listing.papers())
    assert "no kept results" not in out
