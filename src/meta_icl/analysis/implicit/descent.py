"""Implicit gradient descent: a prompt read token by token as a chain of weight updates (Dherin et al., 2025).

W is a matrix that reads a, in row convention (a W). With a_i the reading of the query behind the first i tokens,

    W_{i+1} = W_i - h grad L_i(W_i),   L_i(W) = <D_i, W>,   D_i = a_0^T (a_i - a_{i+1}) W_0,   h = 1 / |a_0|^2,

and W_i = W_0 + dW(first i tokens): an identity for any weights, since L_i is linear. With b_i the reading of the query
behind all tokens but the first i, the factorised chain is

    W_i = (I + h_i b_i^T (b_{i-1} - b_i)) W_{i-1},   h_i = 1 / |b_i|^2,

which ends at the same answer with another matrix, of rank up to N.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from meta_icl.analysis.implicit.layers import Row, Rows, checked, length
from meta_icl.analysis.implicit.updates import pseudo_inverse
from meta_icl.errors import BadInput, require
from meta_icl.models.network import Network
from meta_icl.models.patch import LowRank
from meta_icl.prompt import Prompt


class Readings(NamedTuple):
    """What the MLP half of a block gets of the query while context tokens come or go: rows i = 0 .. n."""

    mlp_in: Float[Array, "rows d"]  # what the matrices read
    source: Float[Array, "rows d"]  # the same before the norm, if there is one
    carry: Float[Array, "rows d"]  # what the MLP's answer is added to
    answers: Float[Array, "rows d_out"]


class Descent(NamedTuple):
    """A chain of n updates of one matrix: W_{i+1} = W_i + steps[i], each of rank one."""

    step_sizes: Float[Array, " n"]
    steps: LowRank  # leaves "n 1 d"

    def after(self, i: int) -> LowRank:
        """The first i updates together, W_i - W_0, as one change of i factors."""
        return LowRank(self.steps.inputs[:i, 0], self.steps.outputs[:i, 0])


def first_matrix(network: Network) -> Float[Array, "d f"]:
    """The matrix of a chain: `w_in` of the only block of a network whose MLP is dense."""
    require(network.n_layers == 1, "n_layers", network.n_layers, "1: a chain belongs to one block")
    half = network.blocks[0].feed_forward
    require(hasattr(half, "w_in"), "feed_forward", type(half).__name__, "dense: a chain belongs to one matrix")
    return half.w_in[0]


def prefix_readings(network: Network, context: Rows, query: Row) -> Readings:
    """The query's readings behind the first 0, 1, .., n context tokens, of a network of one block."""
    n = length(context)
    return _readings(network, checked(network, context, query), jnp.arange(n)[None, :] < jnp.arange(n + 1)[:, None])


def suffix_readings(network: Network, context: Rows, query: Row) -> Readings:
    """The query's readings without the first 0, 1, .., n context tokens, of a network of one block."""
    n = length(context)
    return _readings(network, checked(network, context, query), jnp.arange(n)[None, :] >= jnp.arange(n + 1)[:, None])


def implicit_descent(w: Float[Array, "d f"], a: Float[Array, "rows d"]) -> Descent:
    """The additive chain of the matrix `w` for readings `a` behind ever longer prefixes, a[0] of the query alone."""
    return _additive(w, _non_zero(a, slice(0, 1)))


def implicit_gradients(w: Float[Array, "d f"], a: Float[Array, "rows d"]) -> LowRank:
    """The gradients D_i of the additive chain's losses, "n 1 d"; they do not depend on where they are taken."""
    outputs = (a[:-1] - a[1:]) @ w
    return LowRank(jnp.broadcast_to(a[0], (outputs.shape[0], 1, a.shape[1])), outputs[:, None])


def factorised_descent(w: Float[Array, "d f"], b: Float[Array, "rows d"]) -> Descent:
    """The multiplicative chain of the matrix `w` for readings `b` behind ever shorter suffixes, b[-1] alone."""
    return _factorised(w, _non_zero(b, slice(1, None)))


class FineTuning(NamedTuple):
    """Explicit training of a block's first matrix on the pairs of a prompt, one step per pair."""

    losses: Float[Array, " rows"]  # half squared error at the query alone after 0 .. n steps
    updates: Float[Array, "n d f"]


def fine_tune(learner: Any, prompt: Prompt, rate: float | Float[Array, ""]) -> FineTuning:
    """Stochastic gradient descent on `w_in` of a learner of one block: pair i, seen as a query alone, in step i.

    The counterpart of the implicit chain: the same pairs, the same matrix, the same order. The loss is half the squared
    error; `rate` is the learning rate, on which everything depends.
    """
    where = lambda tree: tree.network.blocks[0].feed_forward.w_in  # noqa: E731
    first_matrix(learner.network)  # is there

    def loss(w: Array, x: Array, y: Array) -> Array:
        error = eqx.tree_at(where, learner, w)(Prompt(x[None], y[None])) - y
        return 0.5 * jnp.sum(jnp.square(error))

    def step(w: Array, pair: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        update = -rate * jax.grad(loss)(w, *pair)
        return w + update, (update[0], loss(w + update, *prompt.query))

    w = where(learner)
    _, (updates, losses) = lax.scan(step, w, tuple(prompt.context))
    return FineTuning(jnp.append(loss(w, *prompt.query), losses), updates)


@eqx.filter_jit
def _readings(network: Network, tokens: Any, masks: Array) -> Readings:
    require(network.n_layers == 1, "n_layers", network.n_layers, "1: a chain belongs to one block")
    block = network.block(0)
    require(block.feed_forward is not None, "feed_forward", None, "given: a chain changes the weights of an MLP")
    h = network.embedded(tokens)

    def read(mask: Array) -> Readings:
        reading = block.first_half(h, visible=jnp.append(mask, True))
        answers = network.read(block.second_half(reading))
        return Readings(block.mlp_in(reading.source[-1]), reading.source[-1], reading.carry[-1], answers[-1])

    return jax.vmap(read)(masks)


def _additive(w: Array, a: Array) -> Descent:
    n = a.shape[0] - 1
    inputs = jnp.broadcast_to(pseudo_inverse(a[0], jnp.asarray(True)), (n, 1, a.shape[1]))
    return Descent(jnp.broadcast_to(1 / jnp.sum(jnp.square(a[0])), n), LowRank(inputs, ((a[1:] - a[:-1]) @ w)[:, None]))


def _factorised(w: Array, b: Array) -> Descent:
    n, f = b.shape[0] - 1, w.shape[1]
    inputs = jax.vmap(lambda row: pseudo_inverse(row, jnp.asarray(True)))(b[1:])

    def step(outputs: Array, i: Array) -> tuple[Array, None]:
        # (b_{i-1} - b_i) W_{i-1}, W_{i-1} being W_0 and the steps before; those still to come are zero rows.
        difference = b[i] - b[i + 1]
        return outputs.at[i].set(difference @ w + (inputs @ difference) @ outputs), None

    outputs, _ = lax.scan(step, jnp.zeros((n, f), w.dtype), jnp.arange(n))
    return Descent(1 / jnp.sum(jnp.square(b[1:]), axis=-1), LowRank(inputs[:, None], outputs[:, None]))


def _non_zero(readings: Array, rows: slice) -> Array:
    """The readings, if those that are divided by are not zero."""
    reason = "no chain exists: the block reads a zero vector at one of its steps"
    fine = jnp.all(jnp.any(readings[rows] != 0, axis=-1))
    if isinstance(fine, jax.core.Tracer):
        return eqx.error_if(readings, ~fine, reason)
    if not bool(fine):
        raise BadInput(reason)
    return readings
