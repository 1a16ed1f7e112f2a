"""What the probes of this package ask of a network: rows to read, a feed-forward half to patch, layers in order."""

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from meta_icl.errors import require
from meta_icl.models.block import BlockLayer
from meta_icl.models.embeddings import TokenEmbedding, VectorEmbedding
from meta_icl.models.layouts import LabelTokens
from meta_icl.models.network import Network
from meta_icl.models.patch import Patch

T = TypeVar("T")
FIELDS = ("weights", "vectors")  # of a patch
Rows = Float[Array, "n d_in"] | Int[Array, " n"] | LabelTokens  # vectors, numbers of a table, or items and labels
Row = Float[Array, " d_query"] | Int[Array, ""] | LabelTokens  # one of them
Queries = Float[Array, "k d_query"] | Int[Array, " k"] | LabelTokens  # several, each behind the same rows
Subset = Sequence[int] | Int[np.ndarray, "..."] | Bool[np.ndarray, "..."] | Bool[Array, "..."]


def in_float64(tree: T) -> T:
    """The same module or arrays with every real number in double precision (inside `jax.enable_x64`)."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree)


def length(rows: Any) -> int:
    """The number of rows."""
    return jax.tree.leaves(rows)[0].shape[0]


def joined(context: Any, query: Any) -> Any:
    """The rows of a context with the query behind them."""
    return jax.tree.map(lambda rows, row: jnp.concatenate([rows, row[None]]), context, query)


def checked(network: Network, context: Any, query: Any) -> Any:
    """`joined`, of rows that the network can read; else `BadInput`."""
    embedding, shape = network.embedding, jax.tree.leaves(context)[0].shape
    require(len(shape) >= 1 and shape[0] >= 1, "context", shape, "at least one token, shape (n, d)")
    if isinstance(embedding, VectorEmbedding):
        width = embedding.d_in or network.config.d_in or network.config.d_model
        require(len(shape) == 2 and shape[1] == width, "context", shape, f"tokens of width {width}, shape (n, d)")
    if isinstance(embedding, TokenEmbedding):
        _require_numbers("context", context, embedding.table.shape[0])
        _require_numbers("query", query, embedding.table.shape[0])
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(context)]
    found = [leaf.shape for leaf in jax.tree.leaves(query)]
    wanted = f"one token of width {shapes[0][0]}" if shapes[0] else "one token, like those of the context"
    require(found == shapes, "query", found[0] if len(found) == 1 else found, wanted)
    return joined(context, query)


def _require_numbers(field: str, numbers: Any, size: int) -> None:
    integers = isinstance(numbers, jax.Array) and jnp.issubdtype(numbers.dtype, jnp.integer)
    require(integers, field, getattr(numbers, "dtype", type(numbers).__name__), "integers: the network reads tokens")
    if not isinstance(numbers, jax.core.Tracer):
        fine = bool(jnp.all((numbers >= 0) & (numbers < size)))
        require(fine, field, np.asarray(numbers).tolist(), f"below {size} and not negative")


def subset_mask(subset: Subset | None, n: int) -> Bool[Array, " n"]:
    """The mask "n" of the context tokens named by positions or by a mask; all of them for `None`."""
    if subset is None:
        return jnp.ones(n, bool)
    if isinstance(subset, jax.Array | np.ndarray) and subset.dtype == bool:
        require(subset.shape == (n,), "subset", subset.shape, f"a mask of shape ({n},)")
        return jnp.asarray(subset)
    positions = np.asarray(subset, int).reshape(-1)
    require(bool(np.all((positions >= 0) & (positions < n))), "subset", positions.tolist(), f"positions below {n}")
    require(len(set(positions.tolist())) == len(positions), "subset", positions.tolist(), "free of repetitions")
    mask = np.zeros(n, bool)
    mask[positions] = True
    return jnp.asarray(mask)


def require_patchable(network: Network) -> None:
    """Raise `BadInput` where no change of a network's feed-forward halves can stand in for tokens.

    The last layer needs such a half, dense, gated or of experts. One before it may be without: what it lacks is made
    up for in the layer behind.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    for block in halves(network):
        require_half(block)
        for name, leaf in vars(block.feed_forward).items():
            if eqx.is_array(leaf):
                size = sizes.setdefault(name, leaf.shape[1:])
                require(
                    leaf.shape[1:] == size, "feed_forward", leaf.shape[1:], f"of one size in all layers: {name} {size}"
                )
    last = network.n_layers - 1
    with_half = last >= 0 and network.blocks[network.position_of(last)[0]].feed_forward is not None
    require(with_half, "feed_forward", None, "given in the last layer: a patch changes the weights of an MLP")


def require_half(block: BlockLayer) -> None:
    """Raise `BadInput` where a block has no feed-forward half that a patch can change, and the stream through it."""
    half, config = block.feed_forward, block.config
    known = all(hasattr(half, name) for name in ("reading_weights", "hidden", "out_name", "b_out"))
    require(known, "feed_forward", type(half).__name__, "one that names its matrices: dense, gated or experts")
    require(config.writes == "all", "writes", config.writes, "'all': a patch acts on every channel")
    require(config.dampening != 0, "dampening", config.dampening, "other than 0: a patch must reach the stream")


def halves(network: Network) -> list[BlockLayer]:
    """The blocks of the round that have a feed-forward half."""
    return [block for block in network.blocks if block.feed_forward is not None]


def in_order(parts: Sequence[tuple[Sequence[int], Patch]]) -> Patch:
    """One patch with a leading layer axis of what `Network.fold` gives by place in the round.

    A layer without a change of some name, which others have, gets one of zeros.
    """
    n = sum(len(layers) for layers, _ in parts)

    def spread(name: str, of: str) -> Any:
        having = [(layers, getattr(patch, of)[name]) for layers, patch in parts if name in getattr(patch, of)]
        at = np.concatenate([np.asarray(layers) for layers, _ in having])

        def stacked(*leaves: Array) -> Array:
            rows = jnp.concatenate(leaves)
            return jnp.zeros((n, *rows.shape[1:]), rows.dtype).at[at].set(rows)

        return jax.tree.map(stacked, *(change for _, change in having))

    names = {of: dict.fromkeys(name for _, patch in parts for name in getattr(patch, of)) for of in FIELDS}
    return Patch(*({name: spread(name, of) for name in names[of]} for of in FIELDS))
