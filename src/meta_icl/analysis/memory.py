"""Probes of layers that learn while they read: whose learning rule is it, what is stored, what surprises.

All are functions of arrays, or of the course that the memories of a layer take over a sequence, never of a training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from meta_icl.errors import BadInput
from meta_icl.models.mixers.heads import HeadMixer, Memory, Tokens
from meta_icl.models.mixers.titans_blocks import MemoryAsGate, MemoryAsLayer, PersistentLayer
from meta_icl.models.network import Network

Loss = Callable[[Memory, PyTree, Array, Array], Array]


class Course(NamedTuple):
    """What the memories of a layer hear, and their fast weights before and after every token."""

    memory: Memory  # stacked over heads, as all that follows
    tokens: Tokens  # "heads t .."
    before: PyTree  # "heads t .."
    after: PyTree


def heard(mixer: HeadMixer, x: Float[Array, "t d"]) -> Tokens:
    """The queries, keys, values and raw gates, "heads t ..", that the memories of a mixer get from a sequence."""
    kernel = max(mixer.config.conv - 1, 0)
    return mixer.tokens(jnp.pad(x @ mixer.w_in, ((kernel, 0), (0, 0))), x)


def memory_states(mixer: HeadMixer, tokens: Tokens) -> Any:
    """The states of all memories after each token, "t heads ..", by the step form."""

    def body(states: Any, token: Tokens) -> tuple[Any, Any]:
        states, _ = eqx.filter_vmap(lambda m, s, row: m.step(s, row))(mixer.memory, states, token)
        return states, states

    rows = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tokens)
    return jax.lax.scan(body, mixer.initial_state().memory, rows)[1]


def has_course(layer: Any) -> bool:
    """Whether a mixer is a memory of keys and values that reads its own input: attention, Mamba and MAC are not."""
    return isinstance(layer, HeadMixer | MemoryAsGate | MemoryAsLayer) or (
        isinstance(layer, PersistentLayer) and isinstance(layer.mixer, HeadMixer)
    )


def mixer_of(layer: Any) -> HeadMixer:
    """The memories inside a layer with `has_course`."""
    if isinstance(layer, PersistentLayer):
        return layer.mixer
    return layer.memory if isinstance(layer, MemoryAsGate | MemoryAsLayer) else layer


def course_of(layer: Any, x: Float[Array, "t d"]) -> Course:
    """The course of a layer with `has_course` over its input; persistent tokens come before it."""
    mixer, prefix = mixer_of(layer), x[:0]
    if isinstance(layer, PersistentLayer):
        prefix = layer.tokens
    elif isinstance(layer, MemoryAsGate | MemoryAsLayer):
        prefix = layer.persistent
    tokens = heard(mixer, jnp.concatenate([prefix, x]))
    start, states = mixer.initial_state().memory, memory_states(mixer, tokens)
    all_states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, states)
    over_heads = eqx.filter_vmap(lambda m, s: m.weights(s))
    weights = jax.vmap(over_heads, (None, 0))(mixer.memory, all_states)
    weights = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1)[:, prefix.shape[0] :], weights)
    before, after = (jax.tree.map(lambda leaf, s=s: leaf[:, s], weights) for s in (slice(None, -1), slice(1, None)))
    return Course(mixer.memory, jax.tree.map(lambda leaf: leaf[:, prefix.shape[0] :], tokens), before, after)


def memory_layers(network: Any) -> list[int]:
    """The layers of a network that have a course; `BadInput` if there are none."""
    if not isinstance(network, Network):
        raise BadInput(f"network must be a stream with blocks, got {type(network).__name__}")
    places = [has_course(block.mixer) for block in network.blocks]
    found = [i for i in range(network.n_layers) if places[network.position_of(i)[0]]]
    if not found:
        mixers = ", ".join(dict.fromkeys(type(block.mixer).__name__ for block in network.blocks))
        raise BadInput(f"network must have memories of keys and values in a layer (such as deltanet), got {mixers}")
    return found


def surprise(course: Course) -> Float[Array, "heads t"]:
    """The squared error |M(k) - v|^2 of every token at the memory before it."""

    def one(memory: Memory, before: PyTree, tokens: Tokens) -> Array:
        answers = jax.vmap(memory.answer)(before, tokens.k)
        return jnp.sum(jnp.square(answers - tokens.v), axis=1)

    return eqx.filter_vmap(one)(course.memory, course.before, course.tokens)


def lost(course: Course) -> Float[Array, "heads t"]:
    """The squared error |M(k) - v|^2 of every token at the memory after the last one: what is not kept of it."""

    def one(memory: Memory, after: PyTree, tokens: Tokens) -> Array:
        last = jax.tree.map(lambda leaf: leaf[-1], after)
        return jnp.sum(jnp.square(memory.answer(last, tokens.k) - tokens.v), axis=1)

    return eqx.filter_vmap(one)(course.memory, course.after, course.tokens)


def read_back(state: Float[Array, "v k"], keys: Float[Array, "n k"], values: Float[Array, "n v"]) -> Float[Array, " n"]:
    """What of each stored pair a matrix memory gives back: 1 - |S k - v|^2 / |v|^2, one when it is all there."""
    left = jnp.sum(jnp.square(keys @ state.T - values), axis=1)
    return 1 - left / jnp.sum(values * values, axis=1)


def alignment_with_rule(
    before: PyTree,
    after: PyTree,
    keys: Float[Array, "t k"],
    values: Float[Array, "t v"],
    gradient: Callable[[Any, Array, Array], Any],
) -> Float[Array, " t"]:
    """Cosine between each update of a memory "t ..", and the step -gradient(memory, k, v) at the memory before it.

    Zero where a memory does not move.
    """
    updates = jax.tree.map(jnp.subtract, after, before)
    steps = jax.tree.map(jnp.negative, jax.vmap(gradient)(before, keys, values))

    def dot(a: PyTree, b: PyTree) -> Array:
        products = jax.tree.map(lambda x, y: jnp.sum((x * y).reshape(x.shape[0], -1), axis=1), a, b)
        return jax.tree.reduce(jnp.add, products)

    lengths = dot(updates, updates) * dot(steps, steps)
    return dot(updates, steps) * jax.lax.rsqrt(jnp.maximum(lengths, jnp.finfo(lengths.dtype).tiny))


def alignment(course: Course, loss: Loss) -> Float[Array, "heads t"]:
    """`alignment_with_rule` of all heads with descent on a loss of (memory, weights, k, v)."""

    def one(memory: Memory, before: PyTree, after: PyTree, tokens: Tokens) -> Array:
        gradient = jax.grad(lambda w, k, v: loss(memory, w, k, v))
        return alignment_with_rule(before, after, tokens.k, tokens.v, gradient)

    return eqx.filter_vmap(one)(course.memory, course.before, course.after, course.tokens)


def delta_loss(memory: Memory, weights: PyTree, k: Float[Array, " k"], v: Float[Array, " v"]) -> Float[Array, ""]:
    """1/2 |M(k) - v|^2, on which the delta rule descends."""
    return 0.5 * jnp.sum(jnp.square(memory.answer(weights, k) - v))


def hebbian_loss(memory: Memory, weights: PyTree, k: Float[Array, " k"], v: Float[Array, " v"]) -> Float[Array, ""]:
    """-<M(k), v>, on which sums of outer products descend."""
    return -jnp.sum(memory.answer(weights, k) * v)


def explained(answers: Float[Array, "b n"], guess: Float[Array, "b n"]) -> Float[Array, " n"]:
    """How much of a predictor's answers, at each position, is c times another's: R^2 (about zero) of the best c."""
    c = jnp.sum(guess * answers, axis=0) / jnp.maximum(jnp.sum(guess**2, axis=0), 1e-12)
    return 1 - jnp.sum((answers - c[None] * guess) ** 2, axis=0) / jnp.maximum(jnp.sum(answers**2, axis=0), 1e-12)


def explained_by_descent(
    answers: Float[Array, "b n"], x: Float[Array, "b n d"], y: Float[Array, "b n"]
) -> Float[Array, " n"]:
    """How much of a predictor's answers, at each position, is c sum_i y_i x_i . x: R^2 of the best scale c.

    One is one gradient step from zero on the context, whatever its rate; the first position has no context.
    """
    return explained(answers, descent_answers(x, y))


def descent_answers(x: Float[Array, "b n d"], y: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """sum_i y_i x_i . x over the rows before each: one gradient step from zero, up to its rate."""
    steps = jnp.cumsum(jnp.einsum("bn,bnd->bnd", y, x), axis=1)
    steps = jnp.concatenate([jnp.zeros_like(steps[:, :1]), steps[:, :-1]], axis=1)
    return jnp.einsum("bnd,bnd->bn", steps, x)


def ridge_distance(
    answers: Float[Array, "b n"], x: Float[Array, "b n d"], y: Float[Array, "b n"], penalty: float
) -> Float[Array, " n"]:
    """Mean squared difference to ridge regression on the rows before, over the mean square of ridge, by position."""

    def one(x: Array, y: Array) -> Array:
        outer = jnp.cumsum(x[:, :, None] * x[:, None], axis=0) - x[:, :, None] * x[:, None]
        linear = jnp.cumsum(x * y[:, None], axis=0) - x * y[:, None]
        weights = jnp.linalg.solve(outer + penalty * jnp.eye(x.shape[1])[None], linear[..., None])[..., 0]
        return jnp.sum(weights * x, axis=1)

    ridge = jax.vmap(one)(x, y)
    return jnp.sum((answers - ridge) ** 2, axis=0) / jnp.maximum(jnp.sum(ridge**2, axis=0), 1e-12)
