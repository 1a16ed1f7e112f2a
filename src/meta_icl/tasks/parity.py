"""Sparse parity: a product of a few hidden coordinates of signs, to be found from examples."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.tasks.functions import Weighted


class SparseParity(Weighted):
    """f(x) = prod of the signs of `n_active` coordinates, chosen uniformly (Park et al., 2024): labels +-1."""

    n_active: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        require(1 <= self.n_active <= self.d, "n_active", self.n_active, f"from 1 to d = {self.d}")

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> Float[Array, "n d"]:
        limit = self.d if d_active is None else d_active
        order = draws.uniform(key, (n, self.d)) + 2.0 * (jnp.arange(self.d) >= limit)[None]
        return (jnp.argsort(jnp.argsort(order, axis=1), axis=1) < self.n_active) * 1.0

    def evaluate(self, parameters: Float[Array, " d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return jnp.prod(jnp.where(parameters[None] > 0, jnp.where(x >= 0, 1.0, -1.0), 1.0), axis=1)

    @property
    def variance(self) -> float:
        return 1.0
