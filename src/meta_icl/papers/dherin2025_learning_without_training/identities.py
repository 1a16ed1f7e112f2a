"""Identities of a context and a weight patch on random blocks."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from meta_icl.analysis.implicit import (
    answer,
    factorised_descent,
    first_matrix,
    implicit_descent,
    implicit_update,
    prefix_readings,
    random_networks,
    replacement_error,
    suffix_readings,
)
from meta_icl.models import Attention, LowRank, Network, Patch, contextual
from meta_icl.runs import Run

from .config import Config

EVAL_KEY, TRAIN_KEY = 2025, 0
PRECISIONS = {"float64": True, "float32": False}
IDENTITIES = ("no skip", "skip around", "residual", "pre-LN")


def identities(part: Run, c: Config, *, precision: str) -> dict[str, np.ndarray]:
    """Relative errors of every identity, one number per random block."""
    del part
    with jax.enable_x64(PRECISIONS[precision]):
        found: dict[str, Any] = {}
        for kind in IDENTITIES:
            found |= {f"{kind}/{name}": value for name, value in measured(random_identity(c, kind)).items()}
        found |= {f"chains/{name}": value for name, value in measured(random_chains(c)).items()}
        found |= {f"stack/{name}": value for name, value in measured(random_identity(c, "pre-LN", c.depth)).items()}
        return found


def measured(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Device arrays as numpy arrays."""
    return {name: np.asarray(value) for name, value in arrays.items()}


def random_blocks(c: Config, kind: str, depth: int = 1) -> tuple[Network, Array, Array]:
    """Random networks, contexts "n_blocks N d" and pairs of queries "n_blocks 2 d"."""
    description = contextual(c.d_model, c.d_mlp, depth, kind, Attention(n_heads=c.n_heads))
    networks = random_networks(description, c.n_blocks)
    rng = np.random.default_rng(EVAL_KEY)
    contexts = rng.normal(size=(c.n_blocks, c.n_context, c.d_model))
    queries = rng.normal(size=(c.n_blocks, 2, c.d_model))
    return networks, jnp.asarray(contexts, float), jnp.asarray(queries, float)


def random_identity(c: Config, kind: str, depth: int = 1) -> dict[str, Array]:
    """Errors with the whole and half of the context removed; of wrong patches; and against the pseudo-inverse."""

    def one(network: Network, context: Array, queries: Array) -> dict[str, Array]:
        query, other = queries
        everything, half = jnp.ones(c.n_context, bool), jnp.arange(c.n_context) % 2 == 0
        own, of_half, of_other = unstacked(
            jax.vmap(lambda query, subset: implicit_update(network, context, query, subset))(
                jnp.stack([query, query, other]), jnp.stack([everything, half, everything])
            )
        )
        tried = {
            "all": (everything, own),
            "half": (half, of_half),
            "other query": (everything, of_other),
            "no patch": (everything, own.zeroed(*own.weights, *own.vectors)),
            "no bias patch": (everything, own.zeroed(*own.residual)),
        }
        removed, patches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tried.values())
        answers = jax.vmap(lambda subset, patch: answer(network, context, query, subset, patch))(removed, patches)
        wanted = answer(network, context, query)
        errors = jnp.linalg.norm(answers - wanted[None], axis=-1)
        found: dict[str, Any] = {"absolute": errors[0]}
        found |= zip(tried, errors / jnp.linalg.norm(wanted), strict=True)
        if depth == 1:
            readings = prefix_readings(network, context, query)
            a_0, a_1, w = readings.mlp_in[0], readings.mlp_in[-1], first_matrix(network)
            dense = own.weights["w_in"].dense()[0]
            least = jnp.linalg.pinv(a_0[None]) @ ((a_1 - a_0) @ w)[None]
            found["least norm"] = jnp.linalg.norm(dense - least) / jnp.linalg.norm(least)
            found["rank"] = jnp.linalg.matrix_rank(dense).astype(dense.dtype)
        return found

    return eqx.filter_jit(eqx.filter_vmap(one))(*random_blocks(c, kind, depth))


def unstacked(patches: Patch) -> list[Patch]:
    """The patches along the first axis."""
    n = jax.tree.leaves(patches)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], patches) for i in range(n)]


def random_chains(c: Config) -> dict[str, Array]:
    """Errors of the additive and the factorised chain in blocks without skips."""

    def one(network: Network, context: Array, queries: Array) -> dict[str, Array]:
        query, w = queries[0], first_matrix(network)
        prefixes, suffixes = prefix_readings(network, context, query), suffix_readings(network, context, query)
        additive, factorised = implicit_descent(w, prefixes.mlp_in), factorised_descent(w, suffixes.mlp_in)
        wanted = answer(network, context, query)

        def off(found: Array, expected: Array) -> Array:
            return jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)

        def patch(change: LowRank) -> Patch:
            return Patch({"w_in": LowRank(change.inputs[None], change.outputs[None])}, {})

        def without(i: Array) -> Array:
            """The answer behind the first i tokens removed, with the first i factors in the weights."""
            kept = (jnp.arange(c.n_context) < i)[:, None]
            steps = factorised.steps
            change = LowRank(steps.inputs[:, 0], jnp.where(kept, steps.outputs[:, 0], 0))
            return off(answer(network, context, query, jnp.arange(c.n_context) < i, patch(change)), wanted)

        one_shot = implicit_update(network, context, query).weights["w_in"].dense()[0]

        def factor(product: Array, i: Array) -> tuple[Array, None]:
            b, before = suffixes.mlp_in[i + 1], suffixes.mlp_in[i]
            return product + factorised.step_sizes[i] * jnp.outer(b, (before - b) @ product), None

        # The product itself, as the paper writes it, transposed.
        product, _ = jax.lax.scan(factor, w, jnp.arange(c.n_context))
        total = factorised.after(c.n_context)
        return {
            "additive end": off(additive.after(c.n_context).dense(), one_shot),
            "additive answer": replacement_error(network, context, query, None, patch(additive.after(c.n_context))),
            "factorised answers": jnp.max(jax.lax.map(without, jnp.arange(c.n_context + 1))),
            "factorised product": off(w + total.dense(), product),
            "difference of the chains": off(total.dense(), one_shot),
            "factorised rank": jnp.linalg.matrix_rank(total.dense()).astype(w.dtype),
        }

    return eqx.filter_jit(eqx.filter_vmap(one))(*random_blocks(c, "no skip"))
