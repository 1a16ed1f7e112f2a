"""Which examples of a prompt move the weights, in which layer, and which of them move them alike."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from meta_icl.analysis.implicit.updates import update_between
from meta_icl.errors import choose, require
from meta_icl.models.blocks import BlockNetwork, Patch, weight_norm

ORDERS = ("removed", "appended")


class ExampleUpdates(NamedTuple):
    """The weight update of every example of a prompt, in every layer."""

    size: Float[Array, "layers examples"]  # Frobenius norm of the change of the matrices that the MLP reads with
    relative: Float[Array, "layers examples"]  # the same as a share of those matrices' norm
    similarity: Float[Array, "layers examples examples"]  # cosine of two examples' updates; 0 where one is zero
    patches: Patch  # leaves "examples layers ..."


def example_updates(
    network: BlockNetwork,
    context: Float[Array, "n d_in"],
    query: Float[Array, " d_in"],
    examples: Int[Array, "..."] | Int[np.ndarray, "..."] | None = None,
    *,
    order: str = "removed",
) -> ExampleUpdates:
    """The implicit update of every example of a prompt.

    `examples` gives the example 0 .. m-1 of every context token, -1 for tokens of none, which always stay (default:
    every token is an example). `order` "removed" patches for one example left out of the whole prompt; "appended" for
    each one added to those before it.
    """
    n = context.shape[0]
    owner = np.arange(n) if examples is None else np.asarray(examples)
    require(owner.shape == (n,), "examples", owner.shape, f"one number per context token, shape ({n},)")
    count = int(owner.max(initial=-1)) + 1
    known = set(owner.tolist()) - {-1}
    require(known == set(range(count)) and count >= 1, "examples", sorted(known), "0 .. m-1, each at least once, or -1")
    choose("order", order, ORDERS)
    return _measured(network, context, query, jnp.asarray(owner), count, order)


def class_similarity(
    similarity: Float[Array, "layers n n"], labels: Int[Array, " n"] | Int[np.ndarray, " n"]
) -> tuple[Float[Array, " layers"], Float[Array, " layers"]]:
    """The mean similarity of two different examples of one class, and of two examples of different classes."""
    labels = np.asarray(labels)
    same = labels[:, None] == labels[None, :]
    pairs = same & ~np.eye(len(labels), dtype=bool)
    require(bool(pairs.any()) and not bool(same.all()), "labels", labels.tolist(), "two classes, one of them twice")
    return similarity[:, pairs].mean(-1), similarity[:, ~same].mean(-1)


@eqx.filter_jit
def _measured(
    network: BlockNetwork, context: Array, query: Array, owner: Array, count: int, order: str
) -> ExampleUpdates:
    tokens = jnp.concatenate([context, query[None]])
    always = jnp.append(owner == -1, True)

    def update(e: Array) -> Patch:
        mine = jnp.append(owner == e, False)
        if order == "removed":
            return update_between(network, tokens, jnp.ones_like(mine), ~mine)
        before = always | jnp.append(owner < e, False)
        return update_between(network, tokens, before | mine, before)

    patches = jax.vmap(update)(jnp.arange(count))
    reads = Patch(patches.without(*patches.residual).weights, {})
    size = reads.norm()
    across = jax.vmap(lambda one: jax.vmap(one.inner)(reads))(reads)
    lengths = size[:, None] * size[None]
    similarity = jnp.where(lengths > 0, across / jnp.where(lengths > 0, lengths, 1), 0)
    whole = weight_norm({name: getattr(network.blocks.mlp, name) for name in reads.weights})
    return ExampleUpdates(size.T, size.T / whole[:, None], jnp.moveaxis(similarity, -1, 0), patches)
