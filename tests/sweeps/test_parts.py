import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import jobs
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from meta_icl.errors import BadInput
from meta_icl.runs import Run
from meta_icl.runs.config import write_config
from meta_icl.runs.lock import Lock, holder, holders, last_holder
from meta_icl.sweeps import PartFailed, local, run_parts
from meta_icl.sweeps.environment import import_path, worker_environment
from meta_icl.sweeps.local import _explain
from meta_icl.sweeps.work import find_function, function_name, keep_error, raise_kept_error
from meta_icl.sweeps.worker import work

PATIENCE = 240.0  # seconds after which something hangs; a busy machine takes as many as it needs


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", {"a": 1}) as opened:
        yield opened


def calls(run: Run) -> list[str]:
    path = run.folder / "calls.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_parts_in_this_process(run, capfd):
    arguments = {f"x={x}": {"x": float(x)} for x in (3, -2, 5)}
    results = run_parts(run, jobs.square, arguments, workers=0)
    assert list(results) == list(arguments)
    assert {name: float(result["square"]) for name, result in results.items()} == {"x=3": 9, "x=-2": 4, "x=5": 25}
    assert "3/3 x=5 done" in capfd.readouterr().err  # not a terminal: a line per part

    # Finished parts are loaded, a new one is computed, and its config is enough to compute it again.
    more = run_parts(run, jobs.square, {**arguments, "x=7": {"x": 7.0}}, workers=1, progress=False)
    assert float(more["x=7"]["square"]) == 49 and calls(run) == ["x=3", "x=-2", "x=5", "x=7"]
    part = run.parts()["x=7"]
    assert part.config == {"function": "jobs:square", "arguments": {"x": 7.0}} and part.done
    assert part.metrics() == [{"step": 1, "loss": 7.0}]
    assert run_parts(run, jobs.square, {}) == {}


def test_order_by_cost(run):
    names = {f"x={x}": {"x": float(x)} for x in range(4)}
    results = run_parts(run, jobs.square, names, workers=0, progress=False, cost={"x=2": 5.0, "x=3": 9.0})
    assert calls(run) == ["x=3", "x=2", "x=0", "x=1"] and list(results) == list(names)


def test_two_workers_share_the_parts(run):
    results = run_parts(run, jobs.square, {f"x={x}": {"x": float(x)} for x in range(6)}, workers=2, progress=False)
    assert [float(results[f"x={x}"]["square"]) for x in range(6)] == [0, 1, 4, 9, 16, 25]
    assert sorted(calls(run)) == [f"x={x}" for x in range(6)]  # each exactly once
    pids = {line.split()[1] for line in (run.folder / "calls.txt").read_text().splitlines()}
    assert str(os.getpid()) not in pids
    if not os.environ.get("JAX_PLATFORMS", "cpu").startswith("cuda"):
        assert int(results["x=0"]["threads"]) == 1


def test_killed_worker_is_resumed_as_if_never_killed(run):
    arguments = {"whole": {"steps": 12}, "killed": {"steps": 12, "dies_at": 7}}
    results = run_parts(run, jobs.fragile, arguments, workers=2, progress=False)
    assert float(results["killed"]["total"]) == float(results["whole"]["total"]) == 12 * 13 / 2
    killed = run.parts()["killed"]
    assert (killed.folder / "starts.txt").read_text().split() == ["0", "6"]  # step 7 was logged, not saved
    assert killed.metrics() == run.parts()["whole"].metrics()
    assert killed.provenance["resumed"] == 1


def test_part_that_kills_every_worker_is_given_up(run):
    with pytest.raises(PartFailed, match=r"part a: 2 workers died of SIGKILL"):
        run_parts(run, jobs.fragile, {"a": {"steps": 5, "dies_at": 3, "deaths": 9}}, workers=2, progress=False)
    # and asking again goes on from where it was
    with pytest.raises(PartFailed):
        run_parts(run, jobs.fragile, {"a": {"steps": 5, "dies_at": 3, "deaths": 9}}, workers=2, progress=False)
    assert (run.part_folder("a") / "starts.txt").read_text().split() == ["0", "2", "2", "2"]


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_name_the_part(run, workers):
    with pytest.raises(BadInput, match=r"^part one: x must not be 1, got 1$"):
        run_parts(run, jobs.fail, {"one": {"x": 1.0}}, workers=workers, progress=False)
    error = ZeroDivisionError if workers == 0 else PartFailed
    with pytest.raises(error, match="the test divides by zero") as raised:
        run_parts(run, jobs.fail, {"zero": {"x": 0.0}, "two": {"x": 2.0}}, workers=workers, progress=False)
    if workers:
        assert "part zero failed:" in str(raised.value) and "jobs.py" in str(raised.value)
    # The parts that did not fail can be had, and what failed is not taken for finished.
    assert float(run_parts(run, jobs.fail, {"two": {"x": 2.0}}, workers=workers, progress=False)["two"]["x"]) == 2
    assert not run.parts()["zero"].done and holder(run.part_folder("zero")) is None


def prepared(run: Run, function, parts: dict[str, dict]) -> None:
    """Makes parts without computing them."""
    for name, arguments in parts.items():
        write_config(run.part_folder(name), {"function": function_name(function), "arguments": arguments})


def test_a_part_that_failed_is_not_taken_again(run):
    """A worker that comes in the moment after another has failed leaves the part, and its error, for the parent."""
    prepared(run, jobs.fail_once, {"one": {}})
    with pytest.raises(BadInput, match="the first call fails"):
        work(run.folder, jobs.fail_once)
    work(run.folder, jobs.fail_once)  # the other worker, when the part is open and the parent has not looked yet
    assert calls(run) == ["one"] and Run.load(run.part_folder("one")).state == "failed"
    with pytest.raises(BadInput, match=r"^part one: the first call fails$"):
        raise_kept_error("one", run.part_folder("one"))
    # The next call takes it again, and what was logged without a checkpoint is logged anew.
    assert run_parts(run, jobs.fail_once, {"one": {}}, workers=2, progress=False) == {"one": {}}
    part = Run.load(run.part_folder("one"))
    assert calls(run) == ["one", "one"] and part.state == "done" and part.metrics() == [{"note": "called"}]


def test_a_part_that_a_worker_of_another_process_failed_at_ends_the_call(run, monkeypatch):
    """Nobody takes it, so the parent must not wait for it."""
    monkeypatch.setattr(local, "start_worker", lambda *_: subprocess.Popen([sys.executable, "-c", ""], stdin=-1))
    monkeypatch.setattr(local, "_waiting", lambda *_: (keep_error(run.part_folder("one"), BadInput("no")), False)[1])
    with pytest.raises(BadInput, match=r"^part one: no$"):
        run_parts(run, jobs.square, {"one": {"x": 1.0}}, workers=2, progress=False)


def test_a_worker_runs_nothing_that_only_a_folder_names(run, tmp_path):
    """A run may come from anybody: what it computes is what the caller says, never a name in its files."""
    write_config(run.part_folder("a"), {"function": "os:mkdir", "arguments": {"mode": 511}})
    with pytest.raises(BadInput, match="is not that of a part of square"):
        work(run.folder, jobs.square)
    with pytest.raises(BadInput, match=r"made with .* = 511|made with .*function"):
        run_parts(run, jobs.square, {"a": {"mode": 511}}, workers=0, progress=False)


def test_workers_import_nothing_from_the_current_folder(run, tmp_path, monkeypatch):
    """A file that is called like a module of a library is no such module, even where Python would look there first."""
    here = tmp_path / "here"
    here.mkdir()
    for name in ("duckdb", "numpy", "argparse", "json"):
        (here / f"{name}.py").write_text(f"raise ImportError('{name} of the current folder')\n")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    assert str(here) not in import_path(jobs.square)
    results = run_parts(run, jobs.square, {"a": {"x": 3.0}}, workers=2, progress=False)
    assert float(results["a"]["square"]) == 9
    monkeypatch.chdir(Path(jobs.__file__).parent)  # where the function stands: last, behind every library
    assert import_path(jobs.square)[-1] == str(Path(jobs.__file__).parent.resolve())


def test_a_full_disk_is_one_line_and_then_it_goes_on(run):
    """Limited here by the size of a file, in the workers too, which inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    parts = {name: {"bytes": 100_000} for name in ("a", "b")}
    for workers in (0, 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
        try:
            with pytest.raises(BadInput, match=r"^part [ab]: cannot write .*result\.safetensors: File too large"):
                run_parts(run, jobs.large, parts, workers=workers, progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run_parts(run, jobs.large, parts, workers=0, progress=False)["b"]["zeros"].size == 100_000
    for part in run.parts().values():
        assert part.state == "done" and part.metrics() == [{"step": 1, "loss": 0.5}]
        assert not [path for path in part.folder.rglob("*") if ".tmp-" in path.name]


def test_a_worker_that_cannot_even_say_why_has_its_exit_status(run):
    worker = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({os.EX_IOERR})"], stdin=subprocess.PIPE)
    with pytest.raises(BadInput, match=r"a worker cannot write to .*, perhaps for lack of space; the same command"):
        _explain(run, worker, {"a": run.part_folder("a")}, Counter())


def test_threads_do_not_depend_on_the_number_of_workers(run, monkeypatch):
    """Where jax computes already with other threads than a worker's, parts have a worker, also with `workers=0`."""
    monkeypatch.setattr("meta_icl.sweeps.parts.compute_like_a_worker", lambda: False)
    run_parts(run, jobs.square, {"a": {"x": 1.0}}, workers=0, progress=False)
    (pid,) = [line.split()[1] for line in (run.folder / "calls.txt").read_text().splitlines()]
    assert pid != str(os.getpid())


BITS = """
import sys
sys.path.insert(0, {tests!r})
import jobs
from meta_icl.runs import Run, verify
from meta_icl.sweeps import run_parts
with Run.open({folder!r}, {{"a": 1}}) as run:
    run_parts(run, jobs.tiny_training, {{"seed": {{"seed": 1}}}}, workers={workers}, progress=False)
"""


def test_the_bits_of_a_seed_do_not_depend_on_workers(tmp_path):
    """Processes that nobody has told how many threads to use, as a user starts them.

    With two threads the sum would have other bits, so that a worker or process with more than one would be seen.
    """
    with threadpool_limits(2):
        by_two = jobs.shared_sum()
    with threadpool_limits(1):
        by_one = jobs.shared_sum()
    if by_one == by_two:
        pytest.skip("numpy computes here with one thread, whatever it is told")
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=1"
    results = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        script = BITS.format(tests=str(Path(jobs.__file__).parent), folder=str(folder), workers=workers)
        process = subprocess.Popen([sys.executable, "-c", script], env=environment)
        assert process.wait(timeout=PATIENCE) == 0
        part = Run.load(folder).parts()["seed"]
        results.append(part.load_arrays("result"))
        assert (int(results[-1].pop("pid")) == process.pid) == (workers == 0)
        assert part.metrics() and part.provenance["resumed"] == 0
    np.testing.assert_equal(results[0], results[1])
    assert results[0]["sum"] == by_one and results[0]["threads of jax"] == 1


def test_other_arguments_for_a_part_are_refused(run):
    run_parts(run, jobs.square, {"a": {"x": 2.0}}, workers=0, progress=False)
    with pytest.raises(BadInput, match=r"was made with arguments\.x = 2\.0, now it is 3\.0"):
        run_parts(run, jobs.square, {"a": {"x": 3.0}}, workers=0, progress=False)
    with pytest.raises(BadInput, match="function"):
        run_parts(run, jobs.fail, {"a": {"x": 2.0}}, workers=0, progress=False)


def test_functions_must_be_importable(run):
    with pytest.raises(BadInput, match="top-level function"):
        run_parts(run, lambda part: {}, {"a": {}}, workers=0)
    assert find_function(function_name(jobs.square)) is jobs.square
    for name in ("jobs:nothing", "no_such_module:f", ":f"):
        with pytest.raises(BadInput, match="cannot be imported"):
            find_function(name)
    with pytest.raises(BadInput, match="workers"):
        run_parts(run, jobs.square, {"a": {"x": 1.0}}, workers=-1)


SCRIPT = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` has ignored
sys.path.insert(0, {tests!r})
import jobs
from meta_icl.runs import Run, verify
from meta_icl.sweeps import run_parts
with Run.open({folder!r}, {{"a": 1}}) as run:
    try:
        run_parts(run, jobs.endless, {{"a": {{}}, "b": {{}}}}, workers={workers})
    except KeyboardInterrupt:
        sys.exit(130)
"""


def start_endless(folder: Path, workers: int) -> subprocess.Popen:
    script = textwrap.dedent(SCRIPT).format(tests=str(Path(jobs.__file__).parent), folder=str(folder), workers=workers)
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("workers", "number"), [(2, signal.SIGINT), (1, signal.SIGTERM), (2, signal.SIGHUP)], ids=str)
def test_interrupt_saves_checkpoints(tmp_path, workers, number):
    parent = start_endless(tmp_path / "run", workers)
    names = ("a", "b")[:workers]
    folders = [tmp_path / "run" / "parts" / name for name in names]
    wait_for(lambda: all((folder / "metrics.jsonl").exists() for folder in folders))
    parent.send_signal(number)
    _, err = parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 130 and "stopping at the next checkpoint" in err and "Traceback" not in err
    for folder in folders:
        assert holder(folder) is None and not (folder / "DONE").exists()
        step, arrays = Run.load(folder).latest_checkpoint() or (0, {})
        assert step >= 1 and int(arrays["step"]) == step == Run.load(folder).metrics()[-1]["step"]


def test_workers_stop_when_their_parent_dies(tmp_path):
    parent = start_endless(tmp_path / "run", 2)
    folders = [tmp_path / "run" / "parts" / name for name in "ab"]
    wait_for(lambda: all((folder / "metrics.jsonl").exists() for folder in folders))
    parent.kill()
    parent.communicate()
    wait_for(lambda: all(holder(folder) is None for folder in folders))
    assert all(Run.load(folder).latest_checkpoint() is not None for folder in folders)
    pids = [last_holder(folder) for folder in folders]
    wait_for(lambda: not any(pid and Path(f"/proc/{pid}").exists() for pid in pids))


def test_second_interrupt_stops_at_once(tmp_path):
    script = SCRIPT.replace("jobs.endless", "jobs.deaf").replace(
        '{{"a": {{}}, "b": {{}}}}', '{{"a": {{"seconds": 900}}}}'
    )
    script = script.format(tests=str(Path(jobs.__file__).parent), folder=str(tmp_path / "run"), workers=2)
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    part = tmp_path / "run" / "parts" / "a"
    wait_for((part / "sleeping").exists)
    parent.send_signal(signal.SIGINT)
    assert parent.stderr is not None
    while "stopping at the next checkpoint" not in parent.stderr.readline():  # two at once would be one
        assert parent.poll() is None
    time.sleep(0.5)
    assert parent.poll() is None  # the worker does not listen
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 130 and holder(part) is None


def test_a_part_computed_elsewhere_is_waited_for(run):
    """Any executor may start workers on the same folder; nothing is computed twice."""
    arguments = {f"x={x}": {"x": float(x)} for x in range(4)}
    prepared(run, jobs.square, arguments)
    other = subprocess.Popen(
        [sys.executable, "-P", "-m", "meta_icl.sweeps.worker", str(run.folder), "jobs:square"],
        env=worker_environment(jobs.square),
    )
    results = run_parts(run, jobs.square, arguments, workers=2, progress=False)
    assert other.wait(timeout=PATIENCE) == 0
    assert len(calls(run)) == 4 and np.isclose(float(results["x=3"]["square"]), 9)


def test_a_lock_remembers_who_held_it(tmp_path):
    """A dead worker's part is known even when another worker has taken it already."""
    (tmp_path / "lock").write_text("11\n12\n")
    lock = Lock(tmp_path)
    assert holders(tmp_path) == [11, 12, os.getpid()] and holder(tmp_path) == os.getpid()
    lock.release()
    assert holder(tmp_path) is None and last_holder(tmp_path) == os.getpid()


def test_the_part_of_a_dead_worker_may_be_finished_by_another(run):
    """No failure: the death counts against the part, and only the second one gives it up."""
    folder = run.part_folder("a")
    folder.mkdir(parents=True)
    (folder / "DONE").touch()
    deaths: Counter[str] = Counter()

    def dead_worker():
        worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        worker.kill()
        (folder / "lock").write_text(f"{worker.pid}\n{os.getpid()}\n")
        return worker

    _explain(run, dead_worker(), {"a": folder}, deaths)
    assert deaths == {"a": 1}
    with pytest.raises(PartFailed, match="part a: 2 workers died of SIGKILL"):
        _explain(run, dead_worker(), {"a": folder}, deaths)
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stranger.kill()
    (run.folder / "workers.log").touch()
    with pytest.raises(PartFailed, match="a worker failed"):
        _explain(run, stranger, {"a": folder}, deaths)


def test_a_part_that_takes_too_long_has_failed(run):
    with pytest.raises(PartFailed, match=r"part a failed:\n.*TimeoutError: took longer than 0.5 s"):
        run_parts(run, jobs.deaf, {"a": {"seconds": 60}}, workers=1, progress=False, time_limit=0.5)
    assert run.parts()["a"].state == "failed" and holder(run.part_folder("a")) is None
    assert run_parts(run, jobs.square, {"b": {"x": 2.0}}, workers=1, progress=False, time_limit=60)["b"]["square"] == 4
