"""Thought patches: one patch for many queries."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from meta_icl.analysis.implicit import thought_errors
from meta_icl.models.blocks import BlockNetwork
from meta_icl.runs import Run

from .config import Config
from .identities import EVAL_KEY, random_blocks

N_TEST, N_CONTEXTS = 50, 5  # queries on which thought patches are tested, and contexts per random block


def stacked(rows: Sequence[Mapping[str, Array]]) -> dict[str, np.ndarray]:
    """Measurements of several seeds, stacked."""
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def random_thoughts(part: Run, c: Config) -> dict[str, np.ndarray]:
    """Thought patches of random blocks without skips, whose readings fill all their channels."""
    del part
    sizes = tuple(sorted({*c.calibration, c.d_model, 4 * c.d_model}))
    with jax.enable_x64(True):
        networks, contexts, _ = random_blocks(c, "no skip")
        each = [
            jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, networks)
            for i in range(min(c.seeds, c.n_blocks))
        ]
        return thoughts(c, each, contexts[:N_CONTEXTS], sizes)


def thoughts(
    c: Config, networks: Sequence[BlockNetwork], contexts: Array, sizes: tuple[int, ...], zero_last: bool = False
) -> dict[str, np.ndarray]:
    """Errors of thought patches by number of calibration queries; `zero_last` empties the queries' last channel."""
    rng = np.random.default_rng(EVAL_KEY + 1)
    queries = rng.normal(size=(contexts.shape[0], max(sizes) + N_TEST, contexts.shape[-1]))
    if zero_last:
        queries[..., -1] = 0
    queries = jnp.asarray(queries, contexts.dtype)
    rows = [thought_errors(net, contexts, queries[:, :-N_TEST], queries[:, -N_TEST:], sizes) for net in networks]
    return stacked([row._asdict() for row in rows]) | {"sizes": np.array(sizes)}
