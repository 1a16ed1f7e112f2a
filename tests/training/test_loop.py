"""The training loop: what it computes, and that how it is run changes nothing."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from meta_icl.algorithms import GradientDescent, best_rate
from meta_icl.errors import BadInput
from meta_icl.evaluation import loss_on, mean_loss
from meta_icl.models import Learner, von_oswald
from meta_icl.prompt import Ensemble, Prompt
from meta_icl.tasks import LinearRegression, Uniform
from meta_icl.training import Optimiser, from_arrays, half_mse, record_steps, to_arrays, train

TASK = LinearRegression(d=3, n_context=4, x_law=Uniform(half_range=1.0))
MODEL = Learner(von_oswald(4))


class Memory:
    """A store in memory that can pretend to be killed after a number of checkpoints."""

    stopping = False

    def __init__(self):
        self.saved, self.rows, self.diverged = None, [], {}

    def latest_checkpoint(self):
        return self.saved

    def save_checkpoint(self, step, arrays):
        self.saved = (step, {name: array.copy() for name, array in arrays.items()})

    def log(self, row):
        self.rows.append(row)

    def rewind(self, step):
        self.rows = [row for row in self.rows if row["step"] <= step]

    def note_divergence(self, members):
        self.diverged = dict(members)


def leaves(ensemble: Ensemble) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(ensemble.stacked, eqx.is_array))]


def quick(**changes):
    settings = {"steps": 12, "key": jax.random.key(0), "batch": 8, "record": 4} | changes
    return train(TASK, MODEL, **settings)


def test_steps_are_those_of_a_plain_python_loop(x64):
    """Three Adam steps written out with optax, drawing from the documented keys (float64: Adam magnifies rounding)."""
    trained = quick(steps=3, seeds=[5], record=[1], optimiser=Optimiser(learning_rate=0.01))
    seed_key = jax.random.fold_in(jax.random.key(0), 5)
    model = MODEL(key=jax.random.fold_in(seed_key, 0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    adam = optax.adam(0.01)
    state = adam.init(params)
    for step in range(3):
        prompts = TASK.sample_batch(8, key=jax.random.fold_in(jax.random.fold_in(seed_key, 1), step))

        def loss(params, prompts=prompts):
            answers = jax.vmap(eqx.combine(params, static))(jax.vmap(Prompt.hidden)(prompts))
            return 0.5 * jnp.mean((answers - prompts.y[:, -1]) ** 2)

        updates, state = adam.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    for mine, theirs in zip(leaves(trained), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(mine[0], theirs, rtol=1e-10)


def test_seed_three_alone_is_seed_three_of_a_batch():
    together = quick(seeds=8, arrangement="vmap")
    alone = quick(seeds=[3], arrangement="sequence")
    np.testing.assert_allclose(together.history["loss"][1:, 3], alone.history["loss"][1:, 0], rtol=1e-5)
    for batch, single in zip(leaves(together), leaves(alone), strict=True):
        np.testing.assert_allclose(batch[3], single[0], rtol=1e-4, atol=1e-6)


def test_chunks_change_nothing():
    fine, coarse = quick(record=1), quick(record=[12])
    for a, b in zip(leaves(fine), leaves(coarse), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(fine.history["loss"][1:].mean(), coarse.history["loss"][1].mean(), rtol=1e-5)


@pytest.mark.parametrize("arrangement", ["sequence", pytest.param("vmap", marks=pytest.mark.slow)])
def test_resumed_training_is_bit_identical(arrangement, monkeypatch):
    monkeypatch.setattr("meta_icl.training.loop.CHECKPOINT_SECONDS", 0.0)
    settings = {"seeds": 2, "arrangement": arrangement, "probes": {"eval": lambda p, key: half_mse(p, TASK, 16, key)}}
    whole = quick(**settings)

    store = Memory()

    def killed(step, steps, loss):
        if step == 4:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        quick(**settings, store=store, progress=killed)
    assert store.saved[0] == 4
    store.rows.append({"step": 8, "seed": 0})  # logged after the checkpoint, before the kill
    resumed = quick(**settings, store=store)
    for a, b in zip(leaves(whole), leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in whole.history:
        np.testing.assert_array_equal(whole.history[name], resumed.history[name])
    assert [row["step"] for row in store.rows if row["seed"] == 0] == [0, 4, 8, 12]


def test_rows_before_the_first_checkpoint_are_logged_once():
    """A training killed before it has saved anything starts again: what it had logged is dropped."""
    store, undisturbed = Memory(), Memory()

    def killed(step, steps, loss):
        if step == 4:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        quick(store=store, progress=killed)
    assert store.saved is None and [row["step"] for row in store.rows] == [0, 4]
    quick(store=store)
    quick(store=undisturbed)
    np.testing.assert_equal(store.rows, undisturbed.rows)
    assert [row["step"] for row in store.rows] == [0, 4, 8, 12]


RATES = {"optimiser.learning_rate": (1e-3, 1e30)}  # the second overflows in its first step


@pytest.mark.parametrize("arrangement", ["sequence", pytest.param("vmap", marks=pytest.mark.slow)])
def test_divergence_is_seen_within_a_chunk_and_harms_nobody_else(arrangement):
    store = Memory()
    trained = quick(sweep=RATES, arrangement=arrangement, store=store, optimiser=Optimiser(name="sgd"))
    assert trained.diverged == {1: 4} and store.diverged == {"seed=0,optimiser.learning_rate=1e+30": 4}
    alone = quick(arrangement=arrangement, optimiser=Optimiser(name="sgd", learning_rate=1e-3))
    for both, single in zip(leaves(trained), leaves(alone), strict=True):
        if arrangement == "sequence":
            np.testing.assert_array_equal(both[0], single[0])
        else:
            np.testing.assert_allclose(both[0], single[0], rtol=1e-5, atol=1e-7)
    assert np.isfinite(trained.history["loss"][1:, 0]).all() and not np.isfinite(trained.history["loss"][1:, 1]).any()
    assert alone.diverged == {}


def test_a_resumed_training_knows_what_has_diverged():
    store = Memory()
    store.stopping = True
    settings = {"sweep": RATES, "optimiser": Optimiser(name="sgd"), "store": store}
    for _ in range(2):  # stopped at step 0, then at 4
        with pytest.raises(KeyboardInterrupt):
            quick(**settings)
    assert store.saved[0] == 4
    store.stopping, store.diverged = False, {}  # its note is lost: the checkpoint knows
    assert quick(**settings).diverged == {1: 4} and list(store.diverged.values()) == [4]


def test_a_training_that_has_diverged_wholly_may_stop():
    settings = {"optimiser": Optimiser(name="sgd", learning_rate=1e30), "record": 4}
    stopped, gone_on = quick(**settings, stop_when_diverged=True), quick(**settings)
    assert stopped.diverged == gone_on.diverged == {0: 4}
    assert stopped.history["step"].tolist() == [0, 4, 8, 12] and np.isnan(stopped.history["loss"][2:]).all()
    half = quick(sweep=RATES, optimiser=Optimiser(name="sgd"), stop_when_diverged=True)
    assert half.diverged == {1: 4} and np.isfinite(half.history["loss"][1:, 0]).all()


def test_a_training_whose_loss_stays_low_ends_and_so_does_its_history():
    settings = {"sweep": RATES, "optimiser": Optimiser(name="sgd")}
    store = Memory()
    ended = quick(stop_below=1e9, store=store)
    assert ended.history["step"].tolist() == [0, 4, 8] and store.saved[0] == 8  # no loss is known at step 0
    np.testing.assert_array_equal(leaves(quick(stop_below=1e9, store=store))[0], leaves(ended)[0])
    np.testing.assert_array_equal(leaves(quick(steps=8))[0], leaves(ended)[0])
    for going_on in (quick(stop_below=1e-9), quick(**settings, stop_below=1e9)):  # one member has diverged
        assert going_on.history["step"].tolist() == [0, 4, 8, 12]
    with pytest.raises(BadInput, match="stop_below must be a positive loss"):
        quick(stop_below=0.0)


def test_the_checkpoint_of_another_seed_is_refused():
    store = Memory()
    quick(seeds=[3], store=store)
    with pytest.raises(BadInput, match=r"other seeds or points.*\"seed\": 3.*\"seed\": 4"):
        quick(seeds=[4], store=store)


def test_stopping_saves_a_checkpoint_first():
    store = Memory()
    store.stopping = True
    with pytest.raises(KeyboardInterrupt):
        quick(store=store)
    assert store.saved[0] == 0


def test_checkpoint_of_another_model_is_refused():
    store = Memory()
    quick(store=store)
    with pytest.raises(BadInput, match="of another training"):
        train(TASK, Learner(von_oswald(4, n_layers=2)), steps=12, key=jax.random.key(0), batch=8, store=store)


@pytest.mark.parametrize(
    "change",
    [{"key": 7}, {"optimiser": 0.5}, {"batch": 9}, {"objective": lambda *given: 2 * half_mse(*given)}, {"steps": 8}],
)
def test_the_checkpoint_of_another_training_is_refused(change):
    store = Memory()
    whole = quick(store=store)
    with pytest.raises(BadInput, match=r"of another training|steps must be at least 12"):
        quick(store=store, **change)
    with pytest.raises(BadInput, match="of another training"):
        train(replace(TASK, noise=0.1), MODEL, steps=12, key=jax.random.key(0), batch=8, store=store)
    for a, b in zip(leaves(whole), leaves(quick(store=store)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert quick(store=store, steps=16).history["step"].tolist() == [0, 4, 8, 12, 16]


def test_a_stop_is_heard_between_records_far_apart(monkeypatch):
    """Chunks end within a record, where a stop is obeyed and from where the training goes on to the very same end."""
    undisturbed = quick(record=[12])
    monkeypatch.setattr("meta_icl.training.loop.LONGEST_CHUNK", 5)
    monkeypatch.setattr("meta_icl.training.loop.CHECKPOINT_SECONDS", 0.0)
    whole, store = quick(record=[12]), Memory()
    store.stopping = True
    for step in (0, 5, 10, 12):
        with pytest.raises(KeyboardInterrupt):
            quick(record=[12], store=store)
        assert store.saved[0] == step
    store.stopping = False
    for one in (quick(record=[12], store=store), whole):
        for a, b in zip(leaves(undisturbed), leaves(one), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.history["loss"], whole.history["loss"])
        np.testing.assert_allclose(one.history["loss"][1:], undisturbed.history["loss"][1:], rtol=1e-6)
    assert [row["step"] for row in store.rows] == [0, 12]


def test_records_may_lie_otherwise_when_a_training_goes_on(monkeypatch):
    """From within a record, with another spacing: no step is taken twice."""
    monkeypatch.setattr("meta_icl.training.loop.LONGEST_CHUNK", 5)
    store = Memory()
    store.stopping = True
    for _ in range(3):  # stopped at steps 0, 5 and 10
        with pytest.raises(KeyboardInterrupt):
            quick(record=[12], store=store)
    store.stopping = False
    resumed, undisturbed = quick(record=4, store=store), quick(record=[12])
    assert resumed.history["step"].tolist() == [0, 12]
    for a, b in zip(leaves(undisturbed), leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(resumed.history["loss"][1:], undisturbed.history["loss"][1:], rtol=1e-6)


def test_swept_values_are_those_of_separate_trainings():
    swept = quick(sweep={"task.noise": (0.0, 0.5), "optimiser.learning_rate": (1e-3, 1e-2)}, arrangement="vmap")
    assert [dict(r) for r in swept.replicas][2] == {"seed": 0, "task.noise": 0.5, "optimiser.learning_rate": 1e-3}
    noisy = LinearRegression(d=3, n_context=4, x_law=Uniform(half_range=1.0), noise=0.5)
    alone = train(
        noisy, MODEL, steps=12, key=jax.random.key(0), batch=8, record=4, optimiser=Optimiser(learning_rate=1e-2)
    )
    for grid, single in zip(leaves(swept), leaves(alone), strict=True):
        np.testing.assert_allclose(grid[3], single[0], rtol=1e-4, atol=1e-6)


def test_a_world_per_seed():
    worlds = train(lambda *, key: TASK.with_pool(2, key=key), MODEL, steps=2, key=jax.random.key(0), seeds=2, batch=4)
    assert len(worlds) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": -1}, "steps"),
        ({"batch": 0}, "batch"),
        ({"seeds": 0}, "seeds"),
        ({"record": [99]}, "record"),
        ({"arrangement": "zigzag"}, "arrangement"),
        ({"sweep": {"task.noize": (0.1,)}}, "did you mean 'noise'"),
        ({"sweep": {"task.d": (3,)}}, "cannot be swept"),
        ({"sweep": {"model.d": (3,)}}, "swept object"),
    ],
)
def test_bad_input_is_one_line(changes, message):
    with pytest.raises(BadInput, match=message) as error:
        quick(**changes)
    assert "\n" not in str(error.value)


def test_record_steps():
    assert record_steps(5, 12) == [0, 5, 10, 12]
    assert record_steps([3, 7], 9) == [0, 3, 7, 9]


def test_training_learns_the_gradient_step():
    prompts = TASK.sample_batch(2000, key=jax.random.key(9))
    trained = train(
        TASK,
        MODEL,
        steps=1500,
        key=jax.random.key(0),
        batch=256,
        optimiser=Optimiser(learning_rate=2e-3, b2=0.98, schedule="cosine", schedule_steps=1500, clip_norm=1e-3),
        probes={"eval": loss_on(prompts)},
    )
    gd = float(mean_loss(GradientDescent(rate=best_rate(TASK)), prompts))
    assert float(trained.history["eval"][-1, 0]) < 1.01 * gd


SCRIPT = """
import os, signal, sys, jax, numpy as np
from meta_icl.models import Learner, von_oswald
from meta_icl.runs import Run
from meta_icl.tasks import LinearRegression
from meta_icl.training import loop, train
from meta_icl.training import to_arrays

loop.CHECKPOINT_SECONDS = float(sys.argv[2])

def killed(step, steps, loss):
    if str(step) == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

with Run.open(sys.argv[1], {"what": "kill"}) as run:
    net = train(LinearRegression(d=3, n_context=4), Learner(von_oswald(4)), steps=6000, key=jax.random.key(0),
                batch=8, record=40, store=run, progress=killed)
    history = {f"history/{name}": values for name, values in net.history.items()}
    run.save_arrays("result", history | to_arrays(net.stacked, "net"))
    run.finish()
"""


def test_kill_minus_nine_then_the_same_command(tmp_path):
    """Killed before its first checkpoint, then at a random moment, a training ends with the very same bits and rows."""
    from meta_icl.runs import Run

    def start(folder, seconds=0.0, step=None):
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(seconds), str(step)], env=os.environ)

    undisturbed, checkpoints = start(tmp_path / "a"), tmp_path / "b" / "checkpoints"
    assert undisturbed.wait(timeout=240) == 0
    assert start(tmp_path / "b", seconds=1e9, step=120).wait(timeout=240) == -signal.SIGKILL
    assert not checkpoints.exists() and len(Run.load(tmp_path / "b").metrics()) == 4
    process = start(tmp_path / "b")
    begun = time.monotonic()
    while not list(checkpoints.glob("step_*")) and process.poll() is None and time.monotonic() - begun < 240:
        time.sleep(0.02)
    time.sleep(np.random.default_rng().uniform(0, 0.4))
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=240)
    assert start(tmp_path / "b").wait(timeout=240) == 0
    a, b = (Run.load(tmp_path / name) for name in ("a", "b"))
    np.testing.assert_equal(a.load_arrays("result"), b.load_arrays("result"))
    np.testing.assert_equal(a.metrics(), b.metrics())
    assert len(a.metrics()) == 151 and b.provenance["resumed"] == 2


def test_keys_come_back_with_their_generator():
    tree = {"key": jax.random.key(3, impl="rbg"), "x": jnp.arange(2)}
    back = from_arrays(tree, to_arrays(tree, "state"), "state")
    assert back["key"] == tree["key"] and jax.random.key_impl(back["key"]) == jax.random.key_impl(tree["key"])
