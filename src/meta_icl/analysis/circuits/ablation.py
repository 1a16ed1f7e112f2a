"""What single heads do: their outputs set to zero, with later patterns free or kept (Olsson 2022, Singh 2024).

A `Forward` maps one input and interventions to (output, trace), such as `learner.trace`; `score(output, input)` is any
number of it, such as a loss or a correct answer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from meta_icl.models.interventions import Intervention
from meta_icl.models.trace import Trace

Forward = Callable[[Any, Sequence[Intervention]], tuple[Any, Trace]]
Score = Callable[[Any, Any], Float[Array, "*scores"]]


def without_heads(
    forward: Forward,
    score: Score,
    inputs: Any,
    removed: Bool[Array, "*sets layers heads"],
    *,
    keep: Sequence[str] = (),
) -> Float[Array, "..."]:
    """The score, averaged over a batch of inputs, with each set of heads removed (their `z` set to zero).

    The sites named in `keep`, such as ("pattern",) or ("pattern", "v"), are frozen at their values in the untouched
    network: what is left is the direct effect of the heads on the output. Otherwise later layers react.
    """

    def one(heads: Bool[Array, "layers heads"]) -> Array:
        def of(item: Any) -> Array:
            frozen: tuple[Intervention, ...] = ()
            if keep:
                _, trace = forward(item, ())
                frozen = tuple(Intervention(site, True, trace[site]) for site in keep)
            output, _ = forward(item, (*frozen, Intervention("z", heads[:, :, None, None])))
            return score(output, item)

        return jax.vmap(of)(inputs).mean(0)

    lead = removed.shape[:-2]
    found = jax.lax.map(one, removed.reshape(-1, *removed.shape[-2:]))
    return found.reshape(*lead, *found.shape[1:])


def each_head(n_layers: int, n_heads: int) -> Bool[Array, "layers heads layers heads"]:
    """The sets that hold one head each."""
    return jnp.eye(n_layers * n_heads, dtype=bool).reshape(n_layers, n_heads, n_layers, n_heads)


def all_but_one(layer: int, n_layers: int, n_heads: int) -> Bool[Array, "heads layers heads"]:
    """For every head of a layer the set of all other heads of that layer."""
    sets = jnp.zeros((n_heads, n_layers, n_heads), bool)
    return sets.at[:, layer].set(~jnp.eye(n_heads, dtype=bool))
