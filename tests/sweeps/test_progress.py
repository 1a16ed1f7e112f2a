from meta_icl.runs import Run
from meta_icl.sweeps import progress
from meta_icl.sweeps.progress import Progress


def test_running_parts_tell_step_loss_and_speed(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = Progress(2, 0, False)
    with Run.open(tmp_path / "run", {}) as run:
        shown.running({"seed=0": run.folder})
        assert shown.now() == "seed=0"  # nothing logged yet
        run.log({"step": 400, "loss": 0.5})  # resumed at step 400: what was before is not of this process
        assert shown.now() == "seed=0 step 400 loss 0.5"
        clock[0] += 2
        run.log({"step": 500, "loss": 0.25})
        assert shown.now() == "seed=0 step 500 loss 0.25 50 steps/s"


def test_the_bar_moves_with_the_steps(tmp_path):
    """One part of four is done and two are at half and three quarters of their steps."""
    shown = Progress(4, 1, True, steps=1000)
    with Run.open(tmp_path / "a", {}) as a, Run.open(tmp_path / "b", {}) as b:
        a.log({"step": 500, "loss": 0.5})
        b.log({"step": 750, "loss": 0.5})
        shown.running({"a": a.folder, "b": b.folder})
        shown.now()
        assert shown._bar.tasks[0].completed == 2.25
        shown.finished("b")
        shown.running({"a": a.folder})
        shown.now()
        assert shown._bar.tasks[0].completed == 2.5


def test_a_note_is_a_line_where_progress_is_shown(capsys):
    for show, told in (None, "no worker\n"), (False, ""), (True, "no worker"):
        Progress(2, 0, show).note("no worker")
        found = capsys.readouterr()
        assert (told in found.err) and bool(found.err) == bool(told) and not found.out
