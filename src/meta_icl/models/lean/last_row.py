"""The lean form of any network that is read at its last token: the last block computes that row and nothing else."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from meta_icl.models.interventions import restricted
from meta_icl.models.mixers.attention import AttentionLayer
from meta_icl.models.network import Network


def last_row(network: Network, tokens: Any, visible: Bool[Array, "l t t"] | None = None) -> Float[Array, "b d_out"]:
    """The outputs of the last tokens of a batch; `visible` are the entries (layer, reader, read) that may be used."""
    last = network.n_layers - 1
    mixers = [block.mixer for block in network.blocks if isinstance(block.mixer, AttentionLayer)]
    if visible is not None and not any(mixer.config.query_is_key for mixer in mixers):
        visible = visible[..., :-1]  # the query is no key

    def row(tokens: Any) -> Float[Array, " d"]:
        h = network.embedded(tokens)
        if visible is not None or last < 0:
            return network.through(h, () if visible is None else (restricted(visible),))[0][-1]
        h, _ = network.fold(lambda index, block, h: (block(h), None), h, stop=last)
        return network.block(last).last(h)[0]

    return network.read(jax.vmap(row)(tokens))
