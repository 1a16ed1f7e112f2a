"""Hostile or broken surroundings: links, pipes, patterns in paths, deep JSON, full disks, other environments."""

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Check, Claim, Run, at_least, at_most, collect, list_runs, query, read_json, verify
from meta_icl.runs.context import context, require_same_context
from meta_icl.runs.files import CannotWrite, write_json
from meta_icl.runs.interrupts import graceful_interrupts, interrupts, stop_requested
from meta_icl.runs.judged import read_claims
from meta_icl.runs.lock import holder, holders


def finished(folder: Path, loss: float = 1.0) -> Path:
    with Run.open(folder, {"loss": loss}) as run:
        run.log({"step": 1, "loss": loss})
        run.save_checkpoint(1, {"x": np.full(3, loss)})
        run.save_arrays("result", {"x": np.full(3, loss)})
        run.finish()
    return folder


# Links, pipes, patterns


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    """Nothing is written into, or cut off from, what a link in a received folder points at."""
    victim = tmp_path / "victim"
    victim.write_text("precious\n" * 300)
    folder = tmp_path / "run"
    with Run.open(folder, {}):
        pass
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(victim)
    with pytest.raises(BadInput, match="cannot make or use the run folder"):
        Run.open(folder, {})
    assert victim.read_text() == "precious\n" * 300
    assert holder(folder) is None and holders(folder) == []


def test_gc_follows_no_links(tmp_path):
    elsewhere = finished(tmp_path / "elsewhere" / "run")
    root = tmp_path / "runs"
    run = finished(root / "run")
    (root / "linked").symlink_to(elsewhere)  # a run elsewhere
    for path in (run / "checkpoints").rglob("*.*"):
        path.unlink()
    (run / "checkpoints" / "step_00000001").rmdir()
    (run / "checkpoints").rmdir()
    (run / "checkpoints").symlink_to(elsewhere / "checkpoints")
    (run / "parts").symlink_to(elsewhere.parent)  # and parts elsewhere
    half = root / "half"
    with Run.open(half, {"a": 1}) as opened:
        opened.log({"step": 1})
    (half / "link").symlink_to(elsewhere)
    removed = collect(root, unfinished=True, delete=True)
    assert [removal.folder for removal in removed] == [half] and not half.exists()
    assert (elsewhere / "checkpoints" / "step_00000001" / "state.safetensors").exists() and (root / "linked").exists()
    assert Run.load(elsewhere).latest_checkpoint() is not None


def test_loops_of_links_end(tmp_path):
    run = finished(tmp_path / "run")
    (run / "parts").mkdir()
    (run / "parts" / "again").symlink_to(run)  # a part that is the run itself
    assert Run.load(run).parts() == {} and [info.parts for info in list_runs(tmp_path)] == [0]
    assert verify([run]) == []
    (run / "DONE").unlink()
    (run / "DONE").symlink_to(run / "DONE")
    with pytest.raises(BadInput, match="DONE cannot be read"):
        Run.load(run)
    assert collect(tmp_path, unfinished=True) == []  # finished, however wrongly: nothing to throw away


@pytest.mark.parametrize("name", ["DONE", "config.json", "provenance.json", "arrays/result.safetensors", "lock"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, name):
    run = finished(tmp_path / "run")
    (run / name).unlink()
    os.mkfifo(run / name)

    def read() -> None:
        with Run.open(run, {"loss": 1.0}) as opened:
            _ = opened.provenance, opened.load_arrays("result")

    with pytest.raises(BadInput, match=r"is not a regular file|is not a run") as raised:
        read()
    assert "\n" not in str(raised.value)


def test_patterns_in_paths_match_nothing_else(tmp_path):
    """DuckDB takes `[`, `*` and `?` in the name of a file for a pattern."""
    values = {"runs[1]": 1.0, "runs1": 2.0, "run*": 3.0, "runs?": 4.0}
    for root, value in values.items():
        finished(tmp_path / root / f"{root}", value)
        with Run.open(tmp_path / root / "open", {}) as run:
            run.log({"step": 0, "loss": -value})
    for root, value in values.items():
        rows = query("SELECT loss FROM metrics ORDER BY loss", tmp_path / root).rows
        assert rows == [(-value,), (value,)]
        assert Run.load(tmp_path / root / root).metrics() == [{"step": 1, "loss": value}]


# Contents


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"a":' * 100_000, b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"a": "\\ud800"}', b"\0", b'"\xe9"'],
)
def test_json_that_is_none_of_ours(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.json cannot be read as JSON") as raised:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(raised.value)


def test_queries_have_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["meta_icl.runs.query"], "QUERY_MEMORY", "50MB")
    finished(tmp_path / "run")
    endless = (
        "SELECT count(*) FROM range(100000) a, range(100000) b, range(100) c WHERE a.range * b.range = c.range + 7"
    )
    with pytest.raises(BadInput, match=r"took more than 0\.2 seconds and was stopped"):
        query(endless, tmp_path, seconds=0.2)
    with pytest.raises(BadInput, match=r"the query failed: .*[mM]emory"):
        query("SELECT list(range) FROM range(1000000000)", tmp_path)
    with pytest.raises(BadInput, match=r"rows of the answer must be fewer"):
        query("SELECT range FROM range(1000002)", tmp_path)
    with pytest.raises(BadInput, match="configuration has been locked"):
        query("SET memory_limit = '99GB'", tmp_path)


# Claims


def test_claims_belong_to_a_configuration_and_results(tmp_path):
    claims = [Claim("a/1", "It is small", "Fig. 1", (Check("x", at_most(2), [1.0]),))]
    for name, loss in (("run", 1.0), ("other", 2.0)):
        with Run.open(tmp_path / name, {"loss": loss}) as run:
            run.save_arrays("result", {"x": np.full(3, loss)})
            run.save_claims(claims)  # before the run is finished: bound to its results when it is
            run.finish()
        assert Run.load(tmp_path / name).load_claims() == claims
    mine, theirs = (tmp_path / name / "claims.json" for name in ("run", "other"))
    kept = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(BadInput, match="claims of another configuration"):
        Run.load(tmp_path / "run").load_claims()
    mine.write_bytes(kept.replace(b'"verdict": "holds"', b'"verdict": "fails"'))
    with pytest.raises(BadInput, match=r"claims\.json was changed since it was written"):
        Run.load(tmp_path / "run").load_claims()
    with Run.open(tmp_path / "again", {"loss": 1.0}) as run:  # the same configuration with other results
        run.save_arrays("result", {"x": np.zeros(3)})
        run.finish()
        run.save_claims(claims)
    mine.write_bytes((tmp_path / "again" / "claims.json").read_bytes())
    with pytest.raises(BadInput, match="judged on other results"):
        Run.load(tmp_path / "run").load_claims()
    with Run.open(tmp_path / "run", {"loss": 1.0}) as run:  # judged again
        run.save_claims(claims)
    assert Run.load(tmp_path / "run").load_claims() == claims and verify([tmp_path / "run"]) == []


def test_a_verdict_that_its_checks_contradict_is_told(tmp_path):
    """Also in kept results of before claims were bound to anything."""
    check = {"quantity": "x", "rule": {"kind": "at_least", "a": 2.0, "b": 0.0}, "share": None, "measured": [1.0]}
    claim = {"id": "a/1", "statement": "s", "source": "f", "undecided": None, "note": None, "checks": [check]}
    for verdict in ("holds", "fails"):
        write_json(tmp_path / "claims.json", {"format": 1, "claims": [claim | {"verdict": verdict}]})
        if verdict == "fails":
            assert read_claims(tmp_path) == [Claim("a/1", "s", "f", (Check("x", at_least(2), [1.0]),))]
        else:
            with pytest.raises(BadInput, match=r"says 'holds' of claim a/1, but its checks say 'fails'"):
                read_claims(tmp_path)


def test_runs_of_an_older_format_stay_readable(tmp_path):
    run = finished(tmp_path / "run")
    write_json(run / "DONE", {"format": 1, "finished": "2026-01-01T00:00:00+00:00"})
    old = Run.load(run)
    assert old.state == "done" and old.metrics() == [{"step": 1, "loss": 1.0}]
    assert old.load_arrays("result")["x"].tolist() == [1.0] * 3
    (finding,) = verify([run])
    assert (finding.file, finding.kind) == ("DONE", "older format")


# Environments


@pytest.mark.parametrize(
    ("name", "other", "remedy"),
    [
        ("jax_default_prng_impl", "rbg", r"set JAX_DEFAULT_PRNG_IMPL='rbg'"),
        ("jax_threefry_partitionable", "no", "set JAX_THREEFRY_PARTITIONABLE='no'"),
        ("jax_enable_x64", "yes", "set JAX_ENABLE_X64='yes'"),
        ("XLA_FLAGS", "--xla_many=1", "set XLA_FLAGS='--xla_many=1'"),
        ("platform", "gpu", "set JAX_PLATFORMS='gpu'"),
        ("device", "NVIDIA H100", "use NVIDIA H100"),
        ("CPU threads", "8", "use 8 threads"),
        ("version of jax", "0.1", r"install jax 0\.1"),
        ("version of meta_icl", "0.0", r"install meta_icl 0\.0"),
    ],
)
def test_another_environment_is_refused_with_both_values(tmp_path, monkeypatch, name, other, remedy):
    stated = context()
    assert name in stated
    with Run.open(tmp_path / "run", {}) as run:
        monkeypatch.setattr("meta_icl.runs.journal.context", lambda: stated | {name: other})
        run.save_checkpoint(3, {"x": np.zeros(2)})
    with Run.open(tmp_path / "run", {}) as run:
        wanted = rf"made with {name} = '{other}', here it is {stated[name]!r}.*: {remedy}, or remove .* to start again"
        with pytest.raises(BadInput, match=wanted) as raised:
            run.latest_checkpoint()
        assert "\n" not in str(raised.value)
    assert Run.load(tmp_path / "run").latest_checkpoint() is not None  # reading it goes on with nothing


def test_the_context_follows_jax():
    here = context()
    with jax.enable_x64(True), pytest.raises(BadInput, match="made with jax_enable_x64 = False, here it is True"):
        require_same_context(here, Path("checkpoints/step_00000001"))
    require_same_context({"something new": 1}, Path("checkpoints/step_00000001"))  # which this process does not know


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_act_as_ctrl_c_does(number):
    before = signal.signal(number, signal.SIG_DFL)  # under `nohup` a hangup is ignored
    try:
        acts_as_ctrl_c(number)
        assert signal.getsignal(number) is signal.SIG_DFL and not stop_requested()
    finally:
        signal.signal(number, before)


def acts_as_ctrl_c(number):
    with graceful_interrupts():
        os.kill(os.getpid(), number)
        assert stop_requested()
        with pytest.raises(KeyboardInterrupt):
            send(number)
    with interrupts(), pytest.raises(KeyboardInterrupt):
        send(number)


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(60)  # until the signal comes


def test_an_ignored_hangup_stays_ignored():
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


# A full disk


@contextmanager
def full_beyond(limit: int) -> Iterator[None]:
    """While active, no file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def train(folder: Path) -> None:
    """A training of 20 steps with a checkpoint at every fifth, which goes on where it was; a row takes a kilobyte."""
    with Run.open(folder, {"steps": 20}) as run:
        step, state = run.latest_checkpoint() or (-1, {"x": np.arange(2_000.0)})
        run.rewind(step)
        x, step = state["x"], max(step, 0)
        while step < 20:
            step += 1
            x = np.sin(x) + step
            run.log({"step": step, "loss": float(x.sum()), "some": x[:55]})
            if step % 5 == 0:
                run.save_checkpoint(step, {"x": x})
        run.save_arrays("result", {"x": x, "more": np.zeros(8_000)})
        run.finish()


@pytest.mark.parametrize(
    ("limit", "name", "saved"),
    [
        (3, "lock", None),
        (60, "provenance.json", None),
        (3_000, "metrics.jsonl", None),
        (8_000, "state.safetensors", None),
        (17_500, "metrics.jsonl", 15),
        (40_000, "result.safetensors", 20),
    ],
)
def test_a_full_disk_loses_nothing(tmp_path, limit, name, saved):
    train(tmp_path / "whole")
    folder = tmp_path / "full"
    with full_beyond(limit), pytest.raises(CannotWrite, match=rf"^cannot write .*{name}: .*stays as it was$") as raised:
        train(folder)
    assert "\n" not in str(raised.value) and holder(folder) is None
    if saved is not None:
        assert (Run.load(folder).latest_checkpoint() or (None,))[0] == saved
    train(folder)
    run, whole = Run.load(folder), Run.load(tmp_path / "whole")
    np.testing.assert_equal(run.load_arrays("result"), whole.load_arrays("result"))
    assert run.log_file().read_bytes() == whole.log_file().read_bytes() and verify([folder]) == []
    assert not [path for path in folder.rglob("*") if ".tmp-" in path.name]


def test_a_disk_that_is_full_when_a_run_is_finished(tmp_path):
    with Run.open(tmp_path / "run", {}) as run:
        rows = [{"step": step, "some": list(np.random.default_rng(step).normal(size=100))} for step in range(20)]
        for row in rows:
            run.log(row)
        with full_beyond(8_000), pytest.raises(CannotWrite, match=r"metrics\.parquet"):
            run.finish()
        assert not run.done and run.metrics() == rows
        run.finish()
        assert run.done and run.metrics() == rows
