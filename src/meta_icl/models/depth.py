"""How a computation passes through the layers of a network: a round of blocks again and again, scanned where deep."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

# Layers from which on one compiled round of blocks is scanned, to save compilation. Its backward pass computes a block
# again, but for the products with its weights: on CPU, copying all that it would need into stacked arrays takes twice
# the time of a step, and copying these products less than computing them (0.92 of a step of 12 layers of width 256).
SCAN_FROM = 6


def through_depth(
    body: Callable[..., tuple[Any, Any]],
    carry: Any,
    blocks: tuple[Any, ...],
    n: int,
    looped: bool = False,
    each: tuple[Any, ...] | None = None,
) -> tuple[Any, list[tuple[list[int], Any]]]:
    """Run `body(index, block, carry) -> (carry, out)` through `n` layers, whose weights stand in `blocks`.

    `blocks` has one entry per place in the round, stacked over the layers there (layer i: place i modulo the round's
    length); where they are `looped`, the first of each is used again and again. Returns the last carry and, for every
    place, the layers there and their outs stacked. `each` holds per place what `body` gets as a fourth argument.
    """
    period = len(blocks)
    rounds = n // period if n >= SCAN_FROM and n // period >= 2 else 0

    def one(index: Any, place: int, row: Any, carry: Any) -> tuple[Any, Any]:
        extra = () if each is None else (at(each[place], row),)
        return body(index, at(blocks[place], 0 if looped else row), carry, *extra)

    outs: list[list[Any]] = [[] for _ in range(period)]
    if rounds:
        arrays, static = eqx.partition(blocks, eqx.is_array)
        if not looped:
            arrays = jax.tree.map(lambda leaf: leaf if leaf.shape[0] == rounds else leaf[:rounds], arrays)

        def scanned(carry: Any, item: tuple[Any, Any, Any]) -> tuple[Any, tuple[Any, ...]]:
            r, weights, extras = item
            found = []
            for place in range(period):
                own = at(arrays[place], 0) if looped else jax.tree.map(_from_bits, weights[place])
                extra = () if extras is None else (extras[place],)
                carry, out = body(r * period + place, eqx.combine(own, static[place]), carry, *extra)
                found.append(out)
            return carry, tuple(found)

        extras = None if each is None else at(each, slice(rounds))
        items = (jnp.arange(rounds), None if looped else arrays, extras)
        kept = jax.checkpoint(scanned, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
        carry, stacks = lax.scan(kept, carry, items)
        for place in range(period):
            outs[place].append(stacks[place])
    for index in range(rounds * period, n):
        carry, out = one(index, index % period, index // period, carry)
        outs[index % period].append(jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), out))
    parts = []
    for place in range(min(period, n)):
        stack = outs[place][0] if len(outs[place]) == 1 else jax.tree.map(_concatenated, *outs[place])
        parts.append((list(range(place, n, period)), stack))
    return carry, parts


def at(tree: Any, row: Any) -> Any:
    """One entry, or several, of what is stacked along the leading axis of every array."""
    return jax.tree.map(lambda leaf: _from_bits(leaf[row]) if eqx.is_array(leaf) else leaf, tree)


def in_bits(network: Any) -> Any:
    """The network with stacked weights that are kept as bfloat16 given as the integers of their bits, without a copy.

    For a compiled pass on a CPU, where XLA slices no bfloat16 but turns the weights of all layers into float32 before
    the first; integers are sliced, and made float32 a layer at a time. Elsewhere the network is returned as it is.
    """

    def bits(leaf: Any) -> Any:
        if not (eqx.is_array(leaf) and leaf.dtype == jnp.bfloat16):
            return leaf
        return jax.device_put(np.asarray(leaf).view(np.uint16), may_alias=True)

    if jax.default_backend() != "cpu" or not any(
        eqx.is_array(leaf) and leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(network)
    ):
        return network
    return eqx.tree_at(lambda n: n.blocks, network, jax.tree.map(bits, network.blocks))


def _from_bits(leaf: Array) -> Array:
    """Weights of one layer in float32 where they are given as the bits of bfloat16; all others as they are."""
    return lax.bitcast_convert_type(leaf, jnp.bfloat16).astype(jnp.float32) if leaf.dtype == jnp.uint16 else leaf


def _concatenated(*leaves: Array) -> Array:
    return jnp.concatenate(leaves)
