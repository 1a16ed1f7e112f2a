"""Laws of inputs on which learners trained on N(0, I) are tested (Garg et al., 2022).

In a group of n rows the last one is the query and the others are its context. Scaled inputs, scaled weights and noisy
labels are fields of the tasks (`x_scale`, `y_scale`, `noise`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.tasks.covariance import covariance_from, power_spectrum, random_rotation
from meta_icl.tasks.laws import Law, Normal


def skewed_law(d: int, *, key: Key[Array, ""]) -> Normal:
    """Normal inputs whose covariance has eigenvalues proportional to 1/i^2 in random directions, of trace d.

    The directions are drawn once, for all prompts, context and query alike.
    """
    return Normal(covariance=covariance_from(power_spectrum(d, 2.0, float(d)), random_rotation(d, key=key)))


def half_subspace_law(d: int, *, key: Key[Array, ""]) -> Normal:
    """Normal inputs inside a random subspace of dimension floor(d / 2), of expected squared norm d, drawn once."""
    inside = np.arange(d) < d // 2
    return Normal(covariance=covariance_from(inside * (d / inside.sum()), random_rotation(d, key=key)))


class Orthants(Law):
    """The context of a prompt lies in one random orthant, |z| times a random sign vector; the query is N(0, I)."""

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        key, sign_key = jax.random.split(key)
        z = draws.normal(key, (batch, n, d))
        signs = jax.random.rademacher(sign_key, (batch, 1, d), z.dtype)
        return jnp.concatenate([jnp.abs(z[:, :-1]) * signs, z[:, -1:]], axis=1)


class OrthogonalQuery(Law):
    """N(0, I) inputs whose query is projected off the span of the context and rescaled to its norm before.

    The context says nothing about the value of a linear function there. Needs fewer than d context rows.
    """

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        require(n <= d, "n", n, f"at most d = {d}: a context that leaves a direction free, and a query")
        x = draws.normal(key, (batch, n, d))
        context, query = x[:, :-1], x[:, -1]
        basis = jnp.linalg.qr(jnp.swapaxes(context, 1, 2))[0]
        for _ in range(2):  # the second time removes what rounding left of the first
            query = query - jnp.einsum("bdk,bk->bd", basis, jnp.einsum("bdk,bd->bk", basis, query))
        norms = jnp.linalg.norm(x[:, -1], axis=-1, keepdims=True) / jnp.linalg.norm(query, axis=-1, keepdims=True)
        return jnp.concatenate([context, (query * norms)[:, None]], axis=1)


class MatchingQuery(Law):
    """N(0, I) inputs whose query is one of the context rows, chosen at random."""

    def rows(self, n: int, d: int, batch: int, *, key: Key[Array, ""]) -> Float[Array, "b n d"]:
        key, choice_key = jax.random.split(key)
        context = draws.normal(key, (batch, n - 1, d))
        chosen = jax.random.randint(choice_key, (batch,), 0, n - 1)
        query = jnp.take_along_axis(context, chosen[:, None, None], axis=1)
        return jnp.concatenate([context, query], axis=1)
