"""What one forward pass leaves behind: every intermediate under the name that the field gives it.

Sites of a block (names of TransformerLens where it has one): `resid_pre`, `q`, `k`, `v`, `scores`, `pattern`, `z`,
`mixer_out`, `resid_mid`, `mlp_in`, `mlp_out`, `resid_post`. A mixer without attention names those that it has.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from meta_icl.errors import choose, require

if TYPE_CHECKING:
    from meta_icl.models.interventions import Intervention


class Trace(eqx.Module):
    """Every named intermediate of one forward pass, stacked over the layers that have it.

    `layers` holds, for the sites that only some layers have, which ones these are. Under `jit` the compiler removes the
    sites that nobody reads, so a trace that is dropped costs nothing.
    """

    sites: dict[str, Array]
    layers: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True, default=())

    def __getitem__(self, site: str) -> Any:  # an array, or the shape of one
        return self.sites[choose("trace site", site, self.sites)]

    def __contains__(self, site: str) -> bool:
        return site in self.sites

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)

    def layers_of(self, site: str) -> tuple[int, ...]:
        """The layers that the rows of a site belong to."""
        return dict(self.layers).get(site, tuple(range(self[site].shape[0])))


class Tap:
    """Captures the sites of one layer and applies the interventions on the way; a plain object inside a trace."""

    def __init__(self, interventions: "Sequence[Intervention]" = (), layer: int | Array = 0):
        self.interventions = interventions
        self.layer = layer
        self.sites: dict[str, Array] = {}

    def __call__(self, site: str, value: Array) -> Array:
        for intervention in self.interventions:
            if intervention.site == site:
                value = intervention.at_layer(self.layer, value)
        self.sites[site] = value
        return value

    def changes(self, *sites: str) -> bool:
        """Whether an intervention changes one of these sites."""
        return any(intervention.site in sites for intervention in self.interventions)


def merged(parts: "Sequence[tuple[Sequence[int], dict[str, Array]]]") -> Trace:
    """The trace of sites that were stacked for some layers at a time: `parts` holds the layers and their sites."""
    total = sum(len(indices) for indices, _ in parts)
    sites: dict[str, Array] = {}
    partial: list[tuple[str, tuple[int, ...]]] = []
    for name in dict.fromkeys(name for _, found in parts for name in found):
        having = [(indices, found[name]) for indices, found in parts if name in found]
        shapes = {stack.shape[1:] for _, stack in having}
        if len(shapes) > 1:  # layers of unlike widths: each keeps its own entry
            own = {f"{name}.{i}": (stack[at], i) for indices, stack in having for at, i in enumerate(indices)}
            sites |= {entry: value for entry, (value, _) in own.items()}
            partial += [(entry, (i,)) for entry, (_, i) in own.items()]
            continue
        order = [i for indices, _ in having for i in indices]
        stacked = having[0][1] if len(having) == 1 else jnp.concatenate([stack for _, stack in having])
        ranks = sorted(range(len(order)), key=order.__getitem__)
        sites[name] = stacked if ranks == list(range(len(order))) else stacked[jnp.asarray(ranks)]
        if len(order) < total:
            partial.append((name, tuple(sorted(order))))
    return Trace(sites, tuple(partial))


def check_sites(interventions: "Sequence[Intervention]", trace: Trace, n_layers: int) -> None:
    """Raise `BadInput` for an intervention on a site that the network does not have, or for other layers than it has.

    The inputs of queries, keys and values are sites of attention that only appear where they are changed.
    """
    ranks = {site.partition(".")[0]: array.ndim + ("." in site) for site, array in trace.sites.items()}
    if "pattern" in ranks:
        ranks |= dict.fromkeys(("q_input", "k_input", "v_input"), 3)
    for intervention in interventions:
        rank = ranks[choose("intervention site", intervention.site, ranks)]
        for leaf in (intervention.mask, intervention.value):
            rows = leaf.shape[0] if leaf.ndim == rank else 1
            require(rows in (1, n_layers), f"layers of {intervention.site}", rows, f"1 or n_layers = {n_layers}")
