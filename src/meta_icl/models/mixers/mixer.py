"""What a sequence mixer is: a layer that maps a sequence "t d" to a sequence "t d", causally, with a state.

A mixer's description is a frozen dataclass called as `description(d_model, key=key)`. The module it gives has
`initial_state()` and `step(state, x) -> (state, y)`; its call on a whole sequence, `mixer(x, visible=, tap=)`, is by
default a scan of `step`, and families that have a faster parallel form define `outputs`. Nothing has to be subclassed:
anything with `initial_state` and `step`, or that maps rows to rows, is a mixer for a block.
"""

import inspect
import math
from typing import Any

import equinox as eqx
import jax
import jax.extend
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key, PyTree

from meta_icl.errors import require
from meta_icl.models.trace import Tap


class MixerDescription:
    """A description of a mixer, which can be named on the command line: `description(d_model, key=key)` draws one."""

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> Any:
        """The mixer of a stream of `d_model` channels."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


class Mixer(eqx.Module):
    """A causal map of a sequence with a state of fixed size; subclasses define `initial_state` and `step`."""

    def initial_state(self) -> PyTree:
        """The state before the first token: a pytree of arrays whose shapes never change."""
        raise TypeError(f"{type(self).__name__} does not define initial_state")

    def step(self, state: PyTree, x: Float[Array, " d"]) -> tuple[PyTree, Float[Array, " d"]]:
        """Take in one token; returns the next state and the output at this token."""
        raise TypeError(f"{type(self).__name__} does not define step")

    def outputs(self, x: Float[Array, "t d_in"], tap: Tap) -> Float[Array, "t d"]:
        """The outputs at all tokens of a sequence that starts from the initial state; a parallel form overrides it."""
        del tap
        return by_steps(self, x)

    def __call__(
        self, x: Float[Array, "t d_in"], *, visible: Bool[Array, " t"] | None = None, tap: Tap | None = None
    ) -> Float[Array, "t d"]:
        """The outputs at all tokens; those that are not `visible` leave the state untouched."""
        return self.outputs(x, tap or Tap()) if visible is None else by_steps(self, x, visible)


def by_steps(mixer: Any, x: Array, visible: Bool[Array, " t"] | None = None) -> Array:
    """The outputs of `mixer.step` along a sequence; tokens that are not visible leave the state untouched."""

    def step(state: PyTree, row: tuple[Array, Array | None]) -> tuple[PyTree, Array]:
        x, there = row
        after, y = mixer.step(state, x)
        if there is not None:
            after = jax.tree.map(lambda new, old: jnp.where(there, new, old), after, state)
        return after, y

    return lax.scan(step, initial_state(mixer, x.shape[0]), (x, visible))[1]


def mix(
    mixer: Any, x: Float[Array, "t d_in"], *, visible: Bool[Array, " t"] | None = None, tap: Tap | None = None
) -> Float[Array, "t d"]:
    """The outputs of any mixer: a module of the house, one that takes rows alone, or one that has steps and no more."""
    call = getattr(mixer, "__call__", None)  # noqa: B004
    options = {} if call is None else {n: v for n, v in (("visible", visible), ("tap", tap)) if _takes(call, n)}
    steps = hasattr(mixer, "step") and hasattr(mixer, "initial_state")
    if call is not None and (visible is None or "visible" in options or not steps):
        hides = visible is None or "visible" in options
        require(hides, "mixer", type(mixer).__name__, "one with steps, or that takes `visible`, to hide rows")
        return call(x, **options)
    require(steps, "mixer", type(mixer).__name__, "one that can be called, or has initial_state() and step(state, x)")
    return by_steps(mixer, x, visible)


def initial_state(mixer: Any, capacity: int | None = None) -> PyTree:
    """The state of any mixer before the first of at most `capacity` tokens."""
    has = hasattr(mixer, "initial_state") and hasattr(mixer, "step")
    require(has, "mixer", type(mixer).__name__, "one with initial_state() and step(state, x), to go token by token")
    start = mixer.initial_state
    return start(capacity=capacity) if _takes(start, "capacity") else start()


def _takes(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters


def state_size(mixer: Any, n_tokens: int | None = None) -> int:
    """Real numbers that a mixer carries past `n_tokens` to the next (positions and counters are not counted)."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda: initial_state(mixer, n_tokens)))
    return sum(math.prod(leaf.shape) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating))


def inner_flops(mixer: Any, t: int, d_model: int) -> int:
    """Floating-point operations of the forward pass over `t` tokens, projections included, in the form that is run.

    A matrix product of (m, k) and (k, n) counts 2 m k n, anything else one per number it makes.
    """
    return operations(jax.make_jaxpr(lambda x: mix(mixer, x))(jnp.zeros((t, d_model))).jaxpr)


def operations(jaxpr: Any) -> int:
    """The operations of a jaxpr; a scan counts its body once per round."""
    total = 0
    for equation in jaxpr.eqns:
        made = sum(math.prod(v.aval.shape) for v in equation.outvars if jnp.issubdtype(v.aval.dtype, jnp.floating))
        inner = sum(operations(sub) for sub in _inside(equation.params))
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * made * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == "scan":
            total += equation.params["length"] * inner
        elif inner:
            total += inner
        elif equation.primitive.name not in _FREE:
            total += made
    return total


_FREE = {  # they only move numbers
    *("broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "dynamic_update_slice"),
    *(
        "expand_dims",
        "gather",
        "iota",
        "pad",
        "reshape",
        "rev",
        "slice",
        "split",
        "squeeze",
        "stop_gradient",
        "transpose",
    ),
}


def _inside(parameters: dict[str, Any]) -> list[Any]:
    """The jaxprs that an equation calls."""
    leaves = jax.tree.leaves(list(parameters.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
    return [leaf if isinstance(leaf, jax.extend.core.Jaxpr) else leaf.jaxpr for leaf in leaves if hasattr(leaf, "eqns")]
