"""What one forward pass leaves behind, and the one mechanism that captures and clamps it.

Names of the sites of a transformer block follow the field (TransformerLens): `resid_pre`, `q`, `k`, `v`, `scores`,
`pattern`, `z`, `attn_out`, `resid_mid`, `mlp_in`, `mlp_out`, `resid_post`. Other networks name their own.
"""

from collections.abc import Iterator, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from meta_icl.errors import choose


class Trace(eqx.Module):
    """Every named intermediate of one forward pass; sites inside layers carry a leading layer axis.

    Under `jit` the compiler removes the sites that nobody reads, so a trace that is dropped costs nothing.
    """

    sites: dict[str, Array]

    def __getitem__(self, site: str) -> Array:
        return self.sites[choose("trace site", site, self.sites)]

    def __contains__(self, site: str) -> bool:
        return site in self.sites

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)


class Intervention(eqx.Module):
    """Replace the entries of one site where `mask` holds by `value`: ablate (0), clamp (a constant), patch (a trace).

    `mask` and `value` broadcast against the site with its leading layer axis, for example shape "layers heads 1 1"
    for `pattern`. Differentiable: gradients flow through every entry that is left.
    """

    site: str = eqx.field(static=True)
    mask: Bool[Array, "..."]
    value: Float[Array, "..."]

    def __init__(self, site: str, mask: Shaped[Array, "..."] | bool, value: Shaped[Array, "..."] | float = 0.0):
        self.site = site
        self.mask = jnp.asarray(mask, bool)
        self.value = jnp.asarray(value, float)

    def at_layer(self, layer: int | Array, value: Array) -> Array:
        """The site's `value` in one layer after this intervention."""
        return jnp.where(_layer(self.mask, layer, value), _layer(self.value, layer, value), value)


def ablate_head(site: str, layer: int, head: int, *, n_layers: int, n_heads: int) -> Intervention:
    """Set one head's entry of a site of shape "layers heads ..." (`z`, `pattern`, `scores`) to zero."""
    mask = jnp.zeros((n_layers, n_heads, 1, 1), bool).at[layer, head].set(True)
    return Intervention(site, mask)


class Tap:
    """Captures the sites of one layer and applies the interventions on the way; a plain object inside a trace."""

    def __init__(self, interventions: Sequence[Intervention], layer: int | Array):
        self.interventions = interventions
        self.layer = layer
        self.sites: dict[str, Array] = {}

    def __call__(self, site: str, value: Array) -> Array:
        for intervention in self.interventions:
            if intervention.site == site:
                value = intervention.at_layer(self.layer, value)
        self.sites[site] = value
        return value


def check_sites(interventions: Sequence[Intervention], known: Sequence[str]) -> None:
    """Raise `BadInput` for an intervention on a site that the network does not have."""
    for intervention in interventions:
        choose("intervention site", intervention.site, known)


def _layer(leaf: Array, layer: int | Array, value: Array) -> Array:
    """The slice of a mask or value that belongs to one layer; leaves without a layer axis hold for every layer."""
    if leaf.ndim <= value.ndim:
        return leaf
    return leaf[0] if leaf.shape[0] == 1 else leaf[layer]
