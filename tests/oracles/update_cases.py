"""Rows, programs and errors for tests of implicit updates."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.implicit import implicit_update


def random_rows(n, d, seed, dtype):
    rng = np.random.default_rng(seed + 1)
    return jnp.asarray(rng.normal(size=(n, d)), dtype), jnp.asarray(rng.normal(size=d), dtype)


@cache
def compiled(through, floor):
    """One program per shape: all outputs, and the answer with the context, without `removed`, and patched."""

    @eqx.filter_jit
    def everything(network, context, query, removed):
        patch = implicit_update(network, context, query, removed, through=through, floor=floor)
        rows, kept = jnp.concatenate([context, query[None]]), jnp.append(~removed, True)
        visible = jnp.stack([jnp.ones_like(kept), kept, kept])
        patches = jax.tree.map(lambda leaf: jnp.stack([0 * leaf, leaf, 0 * leaf]), patch)
        outputs, patched, without = jax.vmap(lambda v, p: network(rows, visible=v, patch=p)[0])(visible, patches)
        return outputs, patched[-1], without[-1], patch

    return everything


def off(found, wanted):
    """Relative L2 error."""
    return float(np.linalg.norm(np.asarray(found) - np.asarray(wanted)) / np.linalg.norm(np.asarray(wanted)))
