"""One training as pure functions of one replica: what is compiled, whatever the devices and the number of replicas."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from meta_icl.training.objectives import Objective
from meta_icl.training.replicas import Replica

Probe = Callable[[Any, Key[Array, ""]], Mapping[str, Array] | Array]


@dataclass(frozen=True)
class OnTask:
    """A probe that also gets the replica's own task, such as the world of its seed: function(predictor, task, key)."""

    function: Callable[[Any, Any, Key[Array, ""]], Mapping[str, Array] | Array]


class State(eqx.Module):
    """What a step changes: the trained leaves of the predictor and the optimiser's state."""

    params: PyTree
    opt_state: PyTree


@dataclass(frozen=True)
class Program:
    """The pure functions of one training, for one replica; `static` is what of the predictor is not trained."""

    model: Callable[..., Any]
    static: Any
    objective: Objective
    batch: int
    freeze: Callable[[Any], Any] | None

    def init(self, replica: Replica) -> State:
        """The predictor as drawn from the init key, with a fresh optimiser state."""
        params = eqx.filter(self.model(key=replica.init_key), eqx.is_inexact_array)
        return State(params, replica.optimiser.build().init(params))

    def chunk(
        self, state: State, replica: Replica, start: Int[Array, ""], stop: Int[Array, ""]
    ) -> tuple[State, Float[Array, ""], Bool[Array, ""]]:
        """Steps start <= i < stop; returns the new state, the mean loss, and whether it and all parameters are finite.

        The bounds are traced: one compilation.
        """
        transformation = replica.optimiser.build()

        def loss_of(params: PyTree, i: Int[Array, ""]) -> Float[Array, ""]:
            key = jax.random.fold_in(replica.data_key, i)
            return self.objective(eqx.combine(params, self.static), replica.task.at_step(i), self.batch, key)

        def step(i: Int[Array, ""], carry: tuple[State, Float[Array, ""]]) -> tuple[State, Float[Array, ""]]:
            state, total = carry
            loss, gradient = jax.value_and_grad(loss_of)(state.params, i)
            updates, opt_state = transformation.update(self.held(gradient), state.opt_state, state.params)
            updates = self.held(updates)  # weight decay would still move them
            return State(optax.apply_updates(state.params, updates), opt_state), total + loss

        dtype = jnp.result_type(*jax.tree.leaves(state.params))
        state, total = lax.fori_loop(start, stop, step, (state, jnp.zeros((), dtype)))
        loss = total / (stop - start).astype(dtype)
        finite = [jnp.isfinite(leaf).all() for leaf in (loss, *jax.tree.leaves(state.params))]
        return state, loss, jnp.stack(finite).all()

    def held(self, changes: PyTree) -> PyTree:
        """Changes of the parameters, none of those that stay as drawn."""
        for which in (untrained_leaves, self.freeze):
            if which is not None and jax.tree.leaves(which(changes)):
                changes = eqx.tree_at(which, changes, replace_fn=jnp.zeros_like)
        return changes

    def measure(self, state: State, replica: Replica, probes: dict[str, Probe | OnTask]) -> dict[str, Array]:
        """All probes of the predictor; a probe that returns a mapping contributes "probe/name" entries."""
        predictor = eqx.combine(state.params, self.static)
        measured: dict[str, Array] = {}
        for name, probe in probes.items():
            if isinstance(probe, OnTask):
                values = probe.function(predictor, replica.task, replica.eval_key)
            else:
                values = probe(predictor, replica.eval_key)
            if isinstance(values, Mapping):
                measured |= {f"{name}/{part}": jnp.asarray(value) for part, value in values.items()}
            else:
                measured[name] = jnp.asarray(values)
        return measured


def untrained_leaves(tree: Any) -> list[Any]:
    """The leaves that modules themselves hold as drawn: those that their method `untrained_leaves` returns."""
    found: list[Any] = []
    for node in jax.tree.leaves(tree, is_leaf=lambda node: hasattr(node, "untrained_leaves")):
        if hasattr(node, "untrained_leaves"):
            found += node.untrained_leaves()
            found += untrained_leaves(list(vars(node).values()))
    return found


def untrained(model: Callable[..., Any], key: Key[Array, ""]) -> Any:
    """What of the predictor is not trained; it is drawn only if arrays beside weights are in it, whose values count."""

    def is_trained(leaf: Any) -> bool:
        shape_alone = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.issubdtype(leaf.dtype, jnp.inexact) if shape_alone else eqx.is_inexact_array(leaf)

    static = eqx.partition(eqx.filter_eval_shape(model, key=key), is_trained)[1]
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(static)):
        return eqx.partition(model(key=key), eqx.is_inexact_array)[1]
    return static
