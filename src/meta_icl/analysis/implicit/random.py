"""Networks in which every number is random, for identities that hold for any weights."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.models.network import Architecture, Network
from meta_icl.models.norms import NormLayer

TABLES = ("table", "labels")  # what is looked up is of size one, whatever the number of rows


def random_network(description: Architecture, seed: int) -> Network:
    """A network in which every number is random, also biases and norm scales, which a fresh network has at 0 and 1.

    Matrices are normal of variance 1 / fan_in, tables of variance 1, vectors of variance 0.09, norm scales about 1.
    Drawn by numpy, so that nothing is compiled.
    """
    rng = np.random.default_rng(seed)
    shapes = eqx.filter_eval_shape(description, key=jax.random.key(0))

    def fill(path: tuple[Any, ...], leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        in_layer = leaf.shape[1:] if _name(path[0]) == "blocks" else leaf.shape
        fan_in = 1 if _name(path[-1]) in TABLES else leaf.shape[-2] if len(in_layer) >= 2 else None
        values = rng.normal(size=leaf.shape) * (0.3 if fan_in is None else fan_in**-0.5)
        return jnp.asarray(values, leaf.dtype)

    network = jax.tree_util.tree_map_with_path(fill, shapes)
    return jax.tree.map(
        lambda leaf: (
            eqx.tree_at(lambda norm: norm.scale, leaf, leaf.scale + 1) if isinstance(leaf, NormLayer) else leaf
        ),
        network,
        is_leaf=lambda leaf: isinstance(leaf, NormLayer),
    )


def random_networks(description: Architecture, n: int, first_seed: int = 0) -> Network:
    """`n` networks of `random_network`, stacked on a leading axis of every array."""
    networks = [random_network(description, first_seed + i) for i in range(n)]
    arrays = [eqx.filter(network, eqx.is_array) for network in networks]
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), networks[0])


def _name(entry: Any) -> str:
    """The attribute at one step of a path."""
    return getattr(entry, "name", "")
