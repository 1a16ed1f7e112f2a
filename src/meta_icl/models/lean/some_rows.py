"""The lean form of any network of which some rows are read: the last block computes these rows and nothing else."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from meta_icl.models.interventions import restricted
from meta_icl.models.mixers.attention import AttentionLayer
from meta_icl.models.network import Network


def last_row(network: Network, tokens: Any, visible: Bool[Array, "l t t"] | None = None) -> Float[Array, "b d_out"]:
    """The outputs of the last tokens of a batch; `visible` are the entries (layer, reader, read) that may be used."""
    mixers = [block.mixer for block in network.blocks if isinstance(block.mixer, AttentionLayer)]
    if visible is not None and not any(mixer.config.query_is_key for mixer in mixers):
        visible = visible[..., :-1]  # the query is no key

    if visible is not None:
        only = (restricted(visible),)
        return network.read(jax.vmap(lambda one: network.through(network.embedded(one), only)[0][-1])(tokens))
    return network.read(_stream(network, tokens, slice(-1, None))[:, 0])


def some_rows(network: Network, tokens: Any, rows: slice) -> Float[Array, "b q d_out"]:
    """The outputs of some tokens of a batch, such as those of the items, every second one."""
    return jax.vmap(network.read)(_stream(network, tokens, rows))


def _stream(network: Network, tokens: Any, rows: slice) -> Float[Array, "b q d"]:
    last = network.n_layers - 1

    def of_one(tokens: Any) -> Float[Array, "q d"]:
        h = network.embedded(tokens)
        if last < 0:
            return h[rows]
        h, _ = network.fold(lambda index, block, h: (block(h), None), h, stop=last)
        return network.block(last).some(h, rows)

    return jax.vmap(of_one)(tokens)
