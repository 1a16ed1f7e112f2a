"""The one mechanism that changes a forward pass: entries of a site are replaced where a mask holds.

An intervention is a pytree of arrays, so it can be batched, depend on the prompt and on the weights, and be there in
training: gradients flow through every entry that is left.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from meta_icl.errors import require


class Intervention(eqx.Module):
    """Replace the entries of one site where `mask` holds by `value`: ablate (0), clamp (a constant), patch (a trace).

    `mask` and `value` broadcast against the site with its leading layer axis, for example shape "layers heads 1 1"
    for `pattern`.
    """

    site: str = eqx.field(static=True)
    mask: Bool[Array, "..."]
    value: Float[Array, "..."]

    def __init__(
        self,
        site: str,
        mask: Shaped[Array | np.ndarray, "..."] | bool,
        value: Shaped[Array | np.ndarray, "..."] | float = 0.0,
    ):
        self.site = site
        self.mask = jnp.asarray(mask, bool)
        self.value = jnp.asarray(value, float)

    def at_layer(self, layer: int | Array, value: Array) -> Array:
        """The site's `value` in one layer after this intervention."""
        return jnp.where(_layer(self.mask, layer, value), _layer(self.value, layer, value), value)


class Intervened(eqx.Module):
    """A network that always runs with some interventions, before those of a call."""

    network: Any
    interventions: tuple[Intervention, ...]

    def __call__(self, tokens: Any, interventions: Sequence[Intervention] = ()) -> Any:
        return self.network(tokens, (*self.interventions, *interventions))


def ablate_head(site: str, layer: int, head: int, *, n_layers: int, n_heads: int) -> Intervention:
    """Set one head's entry of a site of shape "layers heads ..." (`z`, `pattern`, `scores`) to zero.

    Layers and heads count from 0 here; in tables of probes from 1. Raises `BadInput` for one that is not there.
    """
    for field, value, n in (("layer", layer, n_layers), ("head", head, n_heads)):
        require(0 <= value < n, field, value, f"from 0 to {n - 1}")
    mask = jnp.zeros((n_layers, n_heads, 1, 1), bool).at[layer, head].set(True)
    return Intervention(site, mask)


def restricted(visible: Bool[Array | np.ndarray, "l t s"]) -> Intervention:
    """Every head attends to the entries (layer, reader, read) where `visible` holds, and to nothing else."""
    return Intervention("scores", ~jnp.asarray(visible)[:, None], -jnp.inf)


def _layer(leaf: Array, layer: int | Array, value: Array) -> Array:
    """The slice of a mask or value that belongs to one layer; leaves without a layer axis hold for every layer."""
    if leaf.ndim <= value.ndim:
        return leaf
    return leaf[0] if leaf.shape[0] == 1 else leaf[layer]
