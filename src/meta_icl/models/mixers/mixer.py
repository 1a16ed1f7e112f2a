"""What a sequence mixer is: a layer that maps a sequence "t d" to a sequence "t d", causally, with a state.

A mixer's description is a frozen dataclass called as `description(d_model, key=key)`. The module it gives has
`initial_state()` and `step(state, x) -> (state, y)`; its call on a whole sequence is by default a scan of `step`, and
families that have a faster parallel form define it. Nothing has to be subclassed: anything with `initial_state` and
`step` is a mixer for `mix`, `state_size` and `operations`.
"""

import math
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.extend
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree


@runtime_checkable
class MixerDescription(Protocol):
    """Draws a mixer of a width from a key."""

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> Any: ...


class Mixer(eqx.Module):
    """A causal map of a sequence with a state of fixed size; subclasses define `initial_state` and `step`."""

    def initial_state(self) -> PyTree:
        """The state before the first token: a pytree of arrays whose shapes never change."""
        raise TypeError(f"{type(self).__name__} does not define initial_state")

    def step(self, state: PyTree, x: Float[Array, " d"]) -> tuple[PyTree, Float[Array, " d"]]:
        """Take in one token; returns the next state and the output at this token."""
        raise TypeError(f"{type(self).__name__} does not define step")

    def __call__(self, x: Float[Array, "t d"]) -> Float[Array, "t d"]:
        """The outputs at all tokens of a sequence that starts from the initial state."""
        return by_steps(self, x)


def by_steps(mixer: Any, x: Array) -> Array:
    """The outputs of `mixer.step` along a sequence."""
    # A bound method of a module with arrays is not hashable, as scan wants it.
    return lax.scan(lambda state, row: mixer.step(state, row), mixer.initial_state(), x)[1]  # noqa: PLW0108


def mix(mixer: Any, x: Float[Array, "t d"]) -> Float[Array, "t d"]:
    """The outputs of anything with `initial_state` and `step`: by its own call where it has one."""
    call = getattr(mixer, "__call__", None)  # noqa: B004
    return by_steps(mixer, x) if call is None else call(x)


def state_size(mixer: Any) -> int:
    """Real numbers that a mixer carries from token to token (positions and counters are not counted)."""
    leaves = jax.tree.leaves(jax.eval_shape(mixer.initial_state))
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
