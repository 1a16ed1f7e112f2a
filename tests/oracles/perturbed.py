"""Networks of which every weight shows: biases, norms and mixtures that start at 0 and 1 are moved."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def perturbed(network, seed=0):
    leaves, structure = jax.tree.flatten(network)
    rng = np.random.default_rng(seed)
    moved = [leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def drawn(architecture, seed=0):
    """The perturbed network of a description, drawn by one program."""
    return perturbed(eqx.filter_jit(architecture)(key=jax.random.key(seed)), seed)
