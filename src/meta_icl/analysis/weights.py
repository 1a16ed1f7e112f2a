"""What the weight products of a linear transformer say: eigenvalues, copying, how close they are to a construction."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from meta_icl.analysis.constructions import gauge_fixed
from meta_icl.models import Network


class DescentWeights(NamedTuple):
    """How one head deviates from one step of gradient descent, after fixing the gauge.

    `corner` is the entry of B that writes targets into the query's slot (-rate / N in the construction);
    `off_read` and `off_write` are the largest entries of A - diag(1, .., 1, 0) and of B outside the corner.
    """

    corner: Float[Array, ""]
    off_read: Float[Array, ""]
    off_write: Float[Array, ""]


def descent_weights(network: Network, layer: int = 0, head: int = 0) -> DescentWeights:
    """Compare one head of a network for scalar targets with the gradient-descent construction."""
    qk, ov = gauge_fixed(network)
    a, b = qk[layer, head], ov[layer, head]
    d = a.shape[0] - 1
    ideal = jnp.eye(d + 1, dtype=a.dtype).at[d, d].set(0)
    return DescentWeights(b[d, d], jnp.max(jnp.abs(a - ideal)), jnp.max(jnp.abs(b.at[d, d].set(0))))


def eigenvalues(products: Float[Array | np.ndarray, "*l d d"]) -> Complex[np.ndarray, "*l d"]:
    """Eigenvalues of every matrix, by descending absolute value (float64)."""
    values = np.linalg.eigvals(np.asarray(products, np.float64)).astype(np.complex128)
    order = np.argsort(-np.abs(values), axis=-1)
    return np.take_along_axis(values, order, axis=-1)


def copying_score(products: Float[Array | np.ndarray, "*l d d"]) -> Float[np.ndarray, "*l"]:
    """sum Re(lambda) / sum |lambda|: 1 for a product that copies what it attends to, -1 for one that suppresses it.

    Source: Elhage et al. (2021), the eigenvalue form of the copying measure; 0 for a vanishing product.
    """
    values = eigenvalues(products)
    total = np.abs(values).sum(-1)
    return np.divide(np.real(values).sum(-1), total, out=np.zeros_like(total), where=total > 0)


def shuffled(tree: Any, seed: int) -> Any:
    """The same arrays of real numbers with the entries of each in another order."""
    rng = np.random.default_rng(seed)

    def mixed(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return jnp.asarray(rng.permutation(np.asarray(leaf).ravel()).reshape(leaf.shape), leaf.dtype)

    return jax.tree.map(mixed, tree)
