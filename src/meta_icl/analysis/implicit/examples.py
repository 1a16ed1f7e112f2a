"""Which examples of a prompt move the weights, in which layer, and which of them move them alike."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from meta_icl.analysis.implicit.layers import Row, Rows, checked, length
from meta_icl.analysis.implicit.updates import update_between
from meta_icl.errors import choose, require
from meta_icl.models.network import Network
from meta_icl.models.patch import Patch, weight_norm

ORDERS = ("removed", "appended")


class ExampleUpdates(NamedTuple):
    """The weight update of every example of a prompt, in every layer; zero in one without an MLP."""

    size: Float[Array, "layers examples"]  # Frobenius norm of the change of the matrices that the MLP reads with
    relative: Float[Array, "layers examples"]  # the same as a share of those matrices' norm
    similarity: Float[Array, "layers examples examples"]  # cosine of two examples' updates; 0 where one is zero
    patches: Patch  # leaves "examples layers ..."


def example_updates(
    network: Network,
    context: Rows,
    query: Row,
    examples: Int[Array, "..."] | Int[np.ndarray, "..."] | None = None,
    *,
    order: str = "removed",
) -> ExampleUpdates:
    """The implicit update of every example of a prompt.

    `examples` gives the example 0 .. m-1 of every context token, -1 for tokens of none, which always stay (default:
    every token is an example). `order` "removed" patches for one example left out of the whole prompt; "appended" for
    each one added to those before it.
    """
    tokens, n = checked(network, context, query), length(context)
    owner = np.arange(n) if examples is None else np.asarray(examples)
    require(owner.shape == (n,), "examples", owner.shape, f"one number per context token, shape ({n},)")
    count = int(owner.max(initial=-1)) + 1
    known = set(owner.tolist()) - {-1}
    require(known == set(range(count)) and count >= 1, "examples", sorted(known), "0 .. m-1, each at least once, or -1")
    choose("order", order, ORDERS)
    return _measured(network, tokens, jnp.asarray(owner), count, order)


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
def _measured(network: Network, tokens: Any, owner: Array, count: int, order: str) -> ExampleUpdates:
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
    whole = _reading_norms(network, tuple(reads.weights))[:, None]
    relative = jnp.where(whole > 0, size.T / jnp.where(whole > 0, whole, 1), 0)
    return ExampleUpdates(size.T, relative, jnp.moveaxis(similarity, -1, 0), patches)


def _reading_norms(network: Network, names: tuple[str, ...]) -> Float[Array, " layers"]:
    """The norm of the matrices of these names in every layer; 0 where there are none."""

    def norms(half: Any) -> Array:
        own = {name: getattr(half, name) for name in names if hasattr(half, name)}
        return weight_norm(own) if own else jnp.zeros(network.n_layers)

    by_place = [norms(block.feed_forward) for block in network.blocks]
    return jnp.stack([by_place[place][row] for place, row in map(network.position_of, range(network.n_layers))])
