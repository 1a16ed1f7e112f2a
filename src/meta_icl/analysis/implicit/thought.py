"""Thought patches: ONE change of the weights for a context and many queries, by least squares.

The exact patch depends on the query. For calibration queries k = 1..K with readings a_k (of the query alone) and
a_k + d_k (with the context), the patch of every matrix W that reads a is the ridge solution

    D = argmin sum_k |a_k D - d_k W|^2 + ridge |D|^2

(Dherin et al., 2025, third version; Mazzawi et al., 2025: thought matrices). What bypasses the MLP is added on average
over k by its last bias (the thought vector), which misses how it depends on the query; or by least squares through the
last matrix or the norm behind it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from meta_icl.analysis.implicit.layers import Queries, Rows, checked, halves, in_order, joined, require_patchable
from meta_icl.analysis.implicit.updates import all_finite, answer, carries, gain, implicit_update, reachable
from meta_icl.errors import choose, require
from meta_icl.models.block import BlockLayer, Reading
from meta_icl.models.network import Network
from meta_icl.models.patch import LowRank, Patch

CARRIES = ("bias", "matrix")


def thought_patch(
    network: Network,
    context: Rows,
    queries: Queries,
    *,
    ridge: float = 0.0,
    carry: str = "bias",
) -> Patch:
    """The patch that stands in for the context, fitted on K calibration queries; leaves have a leading layer axis.

    Block by block: the queries alone pass through the blocks patched below, so that errors below are seen above. With
    fewer queries than channels and no ridge it fits the calibration queries exactly (least norm). `carry` says how an
    MLP with biases adds what bypasses it: by the last "bias" on average, or by the last "matrix" and bias together by
    least squares (MLPs without biases have no choice). Where the queries alone leave nothing to act on, a channel or a
    matrix that reads zeros, nothing is changed. Raises `BadInput` where activations are not finite.
    """
    choose("carry", carry, CARRIES)
    require(ridge >= 0, "ridge", ridge, "zero or positive")
    used = _checked(network, context, queries)
    return _finite(_fitted(network, context, queries, used, jnp.asarray(ridge), carry))


def thought_vector(network: Network, context: Rows, queries: Queries) -> Patch:
    """The same with biases alone: the mean change of the MLP's hidden layer and of the carry (dense MLPs)."""
    _require_biases(network)
    used = _checked(network, context, queries)
    return _finite(_fitted(network, context, queries, used, jnp.zeros(()), None))


class ThoughtErrors(NamedTuple):
    """Mean squared distances from the answers with the context: over queries and contexts, summed over outputs."""

    calibration: Float[Array, " sizes"]  # of the thought patch, on the queries it was fitted on
    test: Float[Array, " sizes"]  # of the thought patch, on other queries
    vector: Float[Array, " sizes"]  # of the thought vector, on other queries
    none: Float[Array, ""]  # without any patch
    exact: Float[Array, ""]  # with every query's own patch


def thought_errors(
    network: Network,
    contexts: Float[Array, "c n d_in"] | Int[Array, "c n"],
    calibrating: Float[Array, "c k d_in"] | Int[Array, "c k"],
    test: Float[Array, "c m d_in"] | Int[Array, "c m"],
    sizes: Sequence[int],
    *,
    ridge: float = 0.0,
    carry: str = "bias",
) -> ThoughtErrors:
    """How far one patch for many queries gets, fitted on the first K calibration queries for every K in `sizes`.

    For networks with dense MLPs and biases, so that the thought vector exists beside the thought patch.
    """
    _require_biases(network)
    choose("carry", carry, CARRIES)
    _checked(network, contexts[0], calibrating[0])
    k = calibrating.shape[1]
    require(all(1 <= size <= k for size in sizes), "sizes", list(sizes), f"between 1 and {k}")
    return _thought_errors(network, contexts, calibrating, test, jnp.asarray(sizes), jnp.asarray(ridge), carry)


def least_squares(
    a: Float[Array, "k d"], targets: Float[Array, "k f"], ridge: float | Float[Array, ""] = 0.0
) -> LowRank:
    """The D "d f" of least |a D - targets|^2 + ridge |D|^2 as factors, by singular values; least norm at ridge 0."""
    u, s, v = jnp.linalg.svd(a, full_matrices=False)
    kept = s > max(a.shape) * jnp.finfo(a.dtype).eps * s[0]
    shrunk = jnp.where(kept, s / jnp.where(kept, s**2 + ridge, 1), 0)
    return LowRank(v, shrunk[:, None] * (u.T @ targets))


def _checked(network: Network, context: Any, queries: Any) -> Bool[Array, " k"]:
    """That all queries are to be used, where they can be."""
    require_patchable(network)
    shape = jax.tree.leaves(queries)[0].shape
    require(len(shape) >= 1 and shape[0] >= 1, "queries", shape, "at least one query, shape (k, d)")
    checked(network, context, jax.tree.map(lambda rows: rows[0], queries))
    return jnp.ones(shape[0], bool)


def _require_biases(network: Network) -> None:
    each = [(b.feed_forward.b_out, getattr(b.feed_forward, "b_in", None)) for b in halves(network)]
    biased = not any(bias is None for biases in each for bias in biases)
    require(biased, "network", "an MLP without biases", "one with dense MLPs and biases")


@eqx.filter_jit
def _thought_errors(
    network: Network, contexts: Array, calibrating: Array, test: Array, sizes: Array, ridge: Array, carry: str
) -> ThoughtErrors:
    def one(context: Array, calibrating: Array, test: Array) -> ThoughtErrors:
        def wanted(queries: Array) -> Array:
            return jax.vmap(lambda query: answer(network, context, query))(queries)

        def distances(queries: Array, wanted: Array, patch: Patch | None) -> Array:
            found = jax.vmap(lambda query: answer(network, context, query, None, patch))(queries)
            return jnp.sum(jnp.square(found - wanted), axis=-1)

        on_calibrating, on_test = wanted(calibrating), wanted(test)

        def of_size(size: Array) -> tuple[Array, Array, Array]:
            used = jnp.arange(calibrating.shape[0]) < size
            patch = _fitted(network, context, calibrating, used, ridge, carry)
            vector = _fitted(network, context, calibrating, used, ridge, None)
            fitted = jnp.where(used, distances(calibrating, on_calibrating, patch), 0)
            tested, by_vector = (jnp.mean(distances(test, on_test, change)) for change in (patch, vector))
            return jnp.sum(fitted) / size.astype(fitted.dtype), tested, by_vector

        def exact(query: Array, wanted: Array) -> Array:
            patch = implicit_update(network, context, query)
            return jnp.sum(jnp.square(answer(network, context, query, None, patch) - wanted))

        fitted, tested, by_vector = lax.map(of_size, sizes)
        none, own = jnp.mean(distances(test, on_test, None)), jnp.mean(jax.vmap(exact)(test, on_test))
        return ThoughtErrors(fitted, tested, by_vector, none, own)

    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(one)(contexts, calibrating, test))


@eqx.filter_jit
def _fitted(
    network: Network, context: Any, queries: Any, used: Bool[Array, " k"], ridge: Array, carry: str | None
) -> Patch:
    """The patch of every block; biases alone where `carry` is `None`."""
    streams = jax.vmap(lambda query: network.embedded(joined(context, query)))(queries)
    alone = jnp.arange(streams.shape[1]) == streams.shape[1] - 1

    def body(index: Any, block: BlockLayer, both: tuple[Array, Array]) -> tuple[tuple[Array, Array], Patch]:
        del index
        with_context = jax.vmap(block.first_half)(both[0])
        without = jax.vmap(lambda h: block.first_half(h, visible=alone))(both[1])
        patch = Patch({}, {})
        if block.feed_forward is not None:
            patch = _fit_block(block, _last(with_context), _last(without), used, ridge, carry)
        full = jax.vmap(block.second_half)(with_context)
        return (full, jax.vmap(lambda r: block.second_half(r, patch=patch))(without)), patch

    return in_order(network.fold(body, (streams, streams))[1])


def _fit_block(
    block: BlockLayer, with_context: Reading, without: Reading, used: Bool[Array, " k"], ridge: Array, carry: str | None
) -> Patch:
    """The patch of one block, fitted on the `used` queries: rows of zeros change no least-squares solution."""
    half, norm = block.feed_forward, block.norm_behind
    n_1, n_0 = jax.vmap(block.mlp_in)(with_context.source), jax.vmap(block.mlp_in)(without.source)
    weight = used[:, None].astype(n_0.dtype)
    share = weight / jnp.sum(weight)
    n_1, n_0 = n_1 * weight, n_0 * weight
    d_carry = (with_context.carry - without.carry) * weight / gain(block)
    weights: dict[str, LowRank] = {}
    vectors: dict[str, Array] = {}
    if carry is None:
        vectors["b_in"] = jnp.sum((n_1 - n_0) * share, axis=0) @ half.w_in
    else:
        fit = least_squares(n_0, n_1 - n_0, ridge)  # the same for every matrix: D = (fit) W
        for name, w in half.reading_weights(n_1[0]).items():
            full = getattr(half, name) if name.startswith("experts_") else w
            outputs = jnp.einsum("rd,...df->...rf", fit.outputs, full)
            weights[name] = LowRank(jnp.broadcast_to(fit.inputs, (*full.shape[:-2], *fit.inputs.shape)), outputs)
    if carries(block):
        reads = Patch(weights, {})
        if norm is not None:
            out = jax.vmap(lambda n: norm.normalised(half(n, reads)))(n_0) * weight
            squares = jnp.sum(out**2, axis=0) + ridge
            vectors["post_norm_scale"] = jnp.sum(out * d_carry, axis=0) / jnp.where(squares > 0, squares, 1)
        elif half.b_out is not None and carry != "matrix":
            vectors["b_out"] = jnp.sum(d_carry * share, axis=0)
        else:
            hidden = jax.vmap(lambda n: half.hidden(n, reads))(n_0)
            hidden = hidden * weight.reshape(-1, *(1,) * (hidden.ndim - 1))
            if half.b_out is None:
                weights[half.out_name] = _output_fit(hidden, d_carry, ridge)
            else:  # the bias takes the means, the matrix what varies about them
                mean, wanted = (jnp.sum(rows * share, axis=0) for rows in (hidden, d_carry))
                fit = least_squares((hidden - mean[None]) * weight, (d_carry - wanted[None]) * weight, ridge)
                weights[half.out_name] = fit
                vectors["b_out"] = wanted - fit(mean)
    return Patch(weights, vectors)


def _output_fit(hidden: Float[Array, "k *experts f"], wanted: Float[Array, "k d"], ridge: Array) -> LowRank:
    """Least squares through the last matrix, of all experts together."""
    fit = least_squares(hidden.reshape(hidden.shape[0], -1), wanted, ridge)
    if hidden.ndim == 2:
        return fit
    inputs = jnp.moveaxis(fit.inputs.reshape(-1, *hidden.shape[1:]), 0, -2)
    return LowRank(inputs, jnp.broadcast_to(fit.outputs, (*inputs.shape[:-1], wanted.shape[1])))


def _finite(patch: Patch) -> Patch:
    """The patch, if it is finite."""
    return reachable(patch, jnp.stack([all_finite(patch), jnp.asarray(True), jnp.asarray(True)]), "weights")


def _last(reading: Reading) -> Reading:
    return Reading(reading.carry[:, -1], reading.source[:, -1])
