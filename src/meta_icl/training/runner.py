"""Runs the program of a training over all replicas, by the rounds of `training.devices`."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.errors import BadInput
from meta_icl.training import devices
from meta_icl.training.devices import REPLICAS, Rounds
from meta_icl.training.program import OnTask, Probe, Program, State
from meta_icl.training.replicas import Replica, stack
from meta_icl.training.state import from_arrays, from_text, to_arrays, to_text
from meta_icl.training.trained import Trained


class Runner:
    """Runs a program over all replicas, in sequence or by `vmap`; a state per round, its replicas in front."""

    def __init__(
        self,
        program: Program,
        probes: dict[str, Probe | OnTask],
        replicas: list[Replica],
        labels: list[dict[str, float]],
        arrangement: str,
    ):
        self.program = program
        self.probe_arrays, probe_rest = eqx.partition(probes, eqx.is_array)
        self.labels = tuple(labels)
        together, n = arrangement == "vmap", len(replicas)
        if together:
            self._one = jax.eval_shape(program.init, replicas[0])
            parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self._one.params))
            mesh = devices.mesh_for(n, program.batch, parameters, jax.local_devices())
            self.rounds = Rounds(n, n, mesh)
        else:
            self.rounds = Rounds(n, 1)

        def over(function: Callable[..., Any], in_axes: Any = 0, **options: Any) -> Any:
            if not together:
                return jax.jit(_squeezed(function, in_axes), **options)
            mapped = jax.vmap(function, in_axes=in_axes, spmd_axis_name=REPLICAS)
            return jax.jit(mapped, out_shardings=self.rounds.sharding, **options)

        self._init = over(program.init)
        self._chunk = over(program.chunk, (0, 0, None, None), donate_argnums=0)
        self._measure = over(
            lambda state, replica, arrays: program.measure(state, replica, eqx.combine(arrays, probe_rest)),
            (0, 0, None),
        )
        if self.rounds.mesh is not None:
            limit = devices.bytes_offered(self.rounds.mesh)
            self.rounds = devices.fitting(n, self.rounds.mesh, lambda r: self._bytes(r, replicas), limit)
        self.batches = [self.rounds.placed(stack(some)) for some in self.rounds.divided(replicas)]

    def init(self) -> list[State]:
        with self.rounds.active():
            return [self._init(batch) for batch in self.batches]

    def chunk(self, states: list[State], start: int, stop: int) -> tuple[list[State], np.ndarray, np.ndarray]:
        bounds = jnp.asarray(start), jnp.asarray(stop)
        with self.rounds.active():
            results = [self._chunk(s, b, *bounds) for s, b in zip(states, self.batches, strict=True)]
        losses, finite = (self._joined([result[i] for result in results]) for i in (1, 2))
        return [result[0] for result in results], losses, finite

    def measure(self, states: list[State]) -> dict[str, np.ndarray]:
        with self.rounds.active():
            measured = [self._measure(s, b, self.probe_arrays) for s, b in zip(states, self.batches, strict=True)]
        return {name: self._joined([m[name] for m in measured]) for name in measured[0]}

    def finish(self, states: list[State], history: dict[str, np.ndarray], diverged: dict[int, int]) -> Trained:
        params = jax.tree.map(lambda *leaves: jnp.asarray(self._joined(leaves)), *[state.params for state in states])
        # Arrays that are not trained are the same in all replicas; in an ensemble every array has one entry for each.
        arrays, static = eqx.partition(self.program.static, eqx.is_array)
        arrays = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(self.labels), *leaf.shape)), arrays)
        return Trained(eqx.combine(params, arrays, static), history, self.labels, diverged=diverged)

    def saved(self, states: list[State]) -> dict[str, np.ndarray]:
        """The states of all replicas as named arrays, and how they were computed."""
        rounds = [to_arrays(state, "state[0]") for state in states]
        return {name: self._joined([one[name] for one in rounds]) for name in rounds[0]} | {
            "arrangement": from_text(self.rounds.text)
        }

    def restored(self, states: list[State], arrays: dict[str, np.ndarray], step: int) -> list[State]:
        """The states that `saved` made arrays of; `BadInput` if they were computed in another arrangement."""
        here = self.rounds.text
        stated = to_text(arrays["arrangement"]) if "arrangement" in arrays else here  # older ones state none
        if stated != here:
            raise BadInput(
                f"the checkpoint of step {step} was made with {stated}, here it is {here}, which would change the "
                "result: use as many devices, or remove it to start again"
            )
        named = {name: array for name, array in arrays.items() if name.startswith("state[0]")}
        if any(array.shape[:1] != (self.rounds.n,) for array in named.values()):
            raise BadInput(f"the checkpoint of step {step} is that of other seeds or of an older version; remove it")
        members = self.rounds.divided(range(self.rounds.n))
        rounds = [{name: array[some] for name, array in named.items()} for some in members]
        found = [from_arrays(state, some, "state[0]") for state, some in zip(states, rounds, strict=True)]
        return [self.rounds.placed(state) for state in found]

    def _joined(self, parts: Any) -> np.ndarray:
        """Arrays of all rounds with the replicas in front as one, without the copies that fill up the last round."""
        return np.concatenate([np.asarray(part) for part in parts])[: self.rounds.n]

    def _bytes(self, rounds: Rounds, replicas: list[Replica]) -> int:
        """The bytes that a device needs for a chunk of one round, with the states of the other rounds beside it."""
        batch = rounds.placed(stack(rounds.divided(replicas)[0]))
        index = jnp.asarray(0)
        with rounds.active():
            state = jax.eval_shape(self._init, batch)
            state = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=rounds.sharding), state)
            told = self._chunk.lower(state, batch, index, index).compile().memory_analysis()
        own = told.argument_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
        one = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(self._one))
        assert rounds.mesh is not None
        waiting = (len(rounds.starts) - 1) * rounds.size // rounds.mesh.shape[REPLICAS] * one
        return own + told.temp_size_in_bytes + waiting


def _squeezed(function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
    """Like `vmap` over a leading axis of length one, but without the batched program that vmap would make of it."""

    def call(*arguments: Any) -> Any:
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
        inner = [
            argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
            for argument, axis in zip(arguments, axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], function(*inner))

    return call
