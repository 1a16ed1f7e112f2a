"""Several accelerators, for which four virtual devices of a CPU stand in a process of their own."""

import os
import subprocess
import sys

import jax
import pytest

from meta_icl.errors import BadInput
from meta_icl.training.devices import Rounds, fitting, mesh_for

SCRIPT = """
import jax, numpy as np, equinox as eqx
from meta_icl.errors import BadInput
from meta_icl.models import Learner, von_oswald
from meta_icl.tasks import LinearRegression
from meta_icl.training import devices, train
from meta_icl.training.runner import Runner

class Memory:
    stopping, saved = False, None
    def latest_checkpoint(self): return self.saved
    def save_checkpoint(self, step, arrays): self.saved = step, arrays
    def log(self, row): pass
    def rewind(self, step): pass
    def note_divergence(self, members): pass

task, model, rounds, programs = LinearRegression(d=3, n_context=4), Learner(von_oswald(4)), [], []
made, lower = Runner.__init__, Runner.chunk
def remembered(self, *arguments):
    made(self, *arguments)
    rounds.append(self.rounds)
    programs.append(self)
Runner.__init__ = remembered

def text(runner):
    with runner.rounds.active():
        bounds = [jax.numpy.asarray(0)] * 2
        return runner._chunk.lower(runner.init()[0], runner.batches[0], *bounds).compile().as_text()

def quick(arrangement="vmap", **settings):
    return train(task, model, **{"steps": 4, "key": 0, "batch": 8, "record": 2, "arrangement": arrangement} | settings)

def same(a, b):
    for x, y in zip(*(jax.tree.leaves(eqx.filter(t.stacked, eqx.is_array)) for t in (a, b)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)

assert len(jax.local_devices()) == 4
# Six replicas (two points of three seeds): two on each of three devices. Seven: two on each of four, one of them twice.
sweep = {"optimiser.learning_rate": (1e-3, 1e-2)}
alone = quick("sequence", seeds=3, sweep=sweep)
same(quick(seeds=3, sweep=sweep), alone)
assert (rounds[-1].size, dict(rounds[-1].mesh.shape)) == (6, {"replicas": 3, "prompts": 1})
same(quick(seeds=7)[:3], alone[:3])  # those of the default rate, 1e-3
assert (rounds[-1].size, dict(rounds[-1].mesh.shape)) == (8, {"replicas": 4, "prompts": 1})
assert "all-reduce" not in text(programs[-1])  # replicas have nothing to tell each other
# A large network (here: any) of one seed: its batch is shared by all devices, and their gradients added up.
devices.LARGE = 1
store = Memory()
shared = quick(store=store)
program = text(programs[-1])
assert dict(rounds[-1].mesh.shape) == {"replicas": 1, "prompts": 4} and "all-reduce" in program
assert "f32[1,2,5,4]" in program.replace("f32[2,5,4]", "f32[1,2,5,4]"), program  # two of the eight prompts
same(shared, alone[:1])
same(quick(store=store), shared)  # from its last checkpoint
# With more devices or fewer, its bits would differ: refused.
devices.LARGE = 1_000_000
try:
    quick(store=store)
    raise AssertionError
except BadInput as error:
    assert "made with 1 replicas at once on 1 x 4 devices, here it is 1 replicas at once on 1 x 1 devices" in str(error)
# Where no more than one replica fits onto a device, they compute in rounds.
needs = []
real = Runner._bytes
def counted(self, some, replicas):
    needs.append(real(self, some, replicas))
    return needs[-1]
Runner._bytes = counted
devices.bytes_offered = lambda mesh: 1 << 40
quick(seeds=3, sweep=sweep)
assert len(needs) == 1 and needs[0] > 2 * 3 * 4 * 16 * 4, needs  # parameters and moments of two replicas
devices.bytes_offered = lambda mesh: needs[0] - 1
store = Memory()
in_rounds = quick(seeds=3, sweep=sweep, store=store)
assert (rounds[-1].size, len(rounds[-1].starts)) == (3, 2) and needs[-1] < needs[0]
same(in_rounds, alone)
same(quick(seeds=3, sweep=sweep, store=store), alone)
devices.bytes_offered = lambda mesh: 100
try:
    quick(seeds=3)
    raise AssertionError
except BadInput as error:
    assert "of a device that offers 1e-07 GB" in str(error) and "\\n" not in str(error)
"""


def test_replicas_and_batches_over_four_devices_are_those_of_one():
    flags = f"--xla_force_host_platform_device_count=4 {os.environ.get('XLA_FLAGS', '')}"  # XLA reads the first ones
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DEFAULT_PRNG_IMPL": "threefry2x32"}
    told = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr[-3000:]


def test_no_more_devices_than_there_is_work_for():
    four = jax.devices() * 4  # a mesh counts them
    for n, batch, parameters, shape in [
        (1, 8, 10, (1, 1)),
        (1, 8, 10**7, (1, 4)),
        (1, 9, 10**7, (1, 3)),
        (2, 8, 10**7, (2, 2)),
        (5, 8, 10**7, (3, 1)),
        (64, 8, 10, (4, 1)),
    ]:
        try:
            mesh = mesh_for(n, batch, parameters, four)
        except ValueError:
            pytest.skip("this version of jax refuses a device named twice")
        assert mesh.devices.shape == shape


def test_the_fewest_rounds_that_fit():
    mesh = mesh_for(64, 8, 10, jax.devices()[:1])

    def needed(rounds: Rounds) -> int:
        return 100 + 10 * rounds.size

    for limit, size in [(None, 64), (740, 64), (739, 32), (300, 16), (120, 2), (110, 1)]:
        assert fitting(64, mesh, needed, limit).size == size
    with pytest.raises(BadInput, match=r"needs 1\.1e-07 GB of a device that offers 1\.09e-07 GB"):
        fitting(64, mesh, needed, 109)
    rounds = Rounds(5, 2)
    assert rounds.divided("abcde") == [["a", "b"], ["c", "d"], ["e", "e"]] and [*rounds.starts] == [0, 2, 4]
