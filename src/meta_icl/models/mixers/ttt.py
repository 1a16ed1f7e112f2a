"""TTT-Linear and TTT-MLP (Sun et al., 2024): the memory is a small model, trained on minibatches while it reads.

With f a linear map (or a two-layer network with GELU) and biases, each token's loss is 1/2 |LN(f(k)) - (v - k)|^2 and
the read is q + LN(f(q)). All gradients of a minibatch of `chunk_size` tokens are taken at its start; token i applies
its own rate eta_i to the sum of the gradients up to i, and the next minibatch starts where the last token stands. As
gradients of layers are sums of outer products, a minibatch is read by matrix products (the dual form).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.mixers.affine_scan import in_chunks
from meta_icl.models.mixers.heads import HeadDescription, Memory, Tokens

Weights = tuple[Float[Array, "_ _"], ...]  # the last column is the bias


class Norm(NamedTuple):
    """The layer norm after the inner model."""

    gain: Float[Array, " v"]
    bias: Float[Array, " v"]

    def __call__(self, x: Float[Array, "*t v"]) -> Float[Array, "*t v"]:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-6)
        return normal * jnp.broadcast_to(self.gain, x.shape) + jnp.broadcast_to(self.bias, x.shape)


def with_bias(h: Float[Array, "*t i"]) -> Float[Array, "*t j"]:
    """A one behind every row, which meets the bias column of a weight matrix."""
    return jnp.concatenate([h, jnp.ones_like(h[..., :1])], axis=-1)


def inner_model(layers: Sequence[Callable[[Array], Array]], x: Float[Array, "*t k"]) -> Float[Array, "*t v"]:
    """f(x): layers that take rows with a one behind, GELU between them."""
    h = layers[0](with_bias(x))
    for layer in layers[1:]:
        h = layer(with_bias(jax.nn.gelu(h)))
    return h


def inner_loss(weights: Weights, norm: Norm, k: Float[Array, "*t k"], v: Float[Array, "*t v"]) -> Float[Array, ""]:
    """1/2 |LN(f(k)) - (v - k)|^2, summed over tokens."""
    layers = [lambda h, w=w: h @ w.T for w in weights]
    return 0.5 * jnp.sum(jnp.square(norm(inner_model(layers, k)) - (v - k)))


class TttState(NamedTuple):
    """The start of the minibatch, the sum of its gradients so far, and how many there are."""

    start: Weights
    gradients: Weights
    position: Int[Array, ""]


def ttt_step(
    state: TttState,
    norm: Norm,
    q: Float[Array, " k"],
    k: Float[Array, " k"],
    v: Float[Array, " v"],
    eta: Float[Array, ""],
    size: int,
) -> tuple[TttState, Float[Array, " v"]]:
    """One token; `eta` is its rate at its place of the minibatch."""
    gradient = jax.grad(inner_loss)(state.start, norm, k, v)
    total = jax.tree.map(jnp.add, state.gradients, gradient)
    weights = jax.tree.map(lambda w, g: w - eta * g, state.start, total)
    read = q + norm(inner_model([lambda h, w=w: h @ w.T for w in weights], q))
    position = (state.position + 1) % size
    start = jax.tree.map(lambda new, old: jnp.where(position == 0, new, old), weights, state.start)
    return TttState(start, jax.tree.map(lambda g: jnp.where(position == 0, 0.0, g), total), position), read


def ttt_chunks(
    weights: Weights,
    norm: Norm,
    q: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    eta: Float[Array, " t"],
    size: int,
) -> tuple[Weights, Float[Array, "t v"]]:
    """`ttt_step` over a sequence, in the dual form."""

    def body(weights: Weights, chunk: tuple[Array, ...]) -> tuple[Weights, Array]:
        q, k, v, eta = chunk

        def loss(shifts: list[Array]) -> tuple[Array, list[Array]]:
            inputs: list[Array] = []

            def layer(h: Array, w: Array, shift: Array) -> Array:
                inputs.append(h)
                return h @ w.T + shift

            layers = [lambda h, w=w, s=s: layer(h, w, s) for w, s in zip(weights, shifts, strict=True)]
            return 0.5 * jnp.sum(jnp.square(norm(inner_model(layers, k)) - (v - k))), inputs

        zeros = [jnp.zeros((k.shape[0], w.shape[0]), w.dtype) for w in weights]
        gradients, inputs = jax.grad(loss, has_aux=True)(zeros)

        def layer(h: Array, w: Array, a: Array, e: Array) -> Array:
            return h @ w.T - eta[:, None] * (jnp.tril(h @ a.T) @ e)

        each = list(zip(weights, inputs, gradients, strict=True))
        read = q + norm(inner_model([lambda h, parts=parts: layer(h, *parts) for parts in each], q))
        return tuple(w - eta[-1] * e.T @ a for w, a, e in each), read

    return in_chunks(body, weights, (q, k, v, eta), size)


class TttMemory(Memory):
    """The inner model of one head, its start and its rates."""

    init: Weights
    norm: Norm
    shares: Float[Array, " size"]  # learned additions to 1 / i
    base_rate: float = eqx.field(static=True)

    def start(self) -> TttState:
        return TttState(self.init, jax.tree.map(jnp.zeros_like, self.init), jnp.zeros((), jnp.int32))

    def step(self, state: TttState, token: Tokens) -> tuple[TttState, Float[Array, " v"]]:
        eta = self.rate(token.raw[0], state.position)
        return ttt_step(state, self.norm, token.q, token.k, token.v, eta, self.shares.shape[0])

    def scan(self, state: TttState, tokens: Tokens) -> tuple[TttState, Float[Array, "t v"]]:
        """`state` stands at the start of a minibatch."""
        size = self.shares.shape[0]
        eta = self.rate(tokens.raw[:, 0], jnp.arange(tokens.q.shape[0]) % size)
        weights, read = ttt_chunks(state.start, self.norm, tokens.q, tokens.k, tokens.v, eta, size)
        return TttState(weights, jax.tree.map(jnp.zeros_like, weights), jnp.zeros((), jnp.int32)), read

    def weights(self, state: TttState) -> Weights:
        """The inner model of the last whole minibatch; inside one, it depends on the rate of the token that reads."""
        return state.start

    def answer(self, weights: Weights, q: Float[Array, "*t k"]) -> Float[Array, "*t v"]:
        return q + self.norm(inner_model([lambda h, w=w: h @ w.T for w in weights], q))

    def rate(self, raw: Float[Array, "*t"], position: Int[Array, "*t"]) -> Float[Array, "*t"]:
        """base_rate sigmoid(raw) max(1 / i + learned_i, 0) / d at place i = 1, 2, .. of the minibatch."""
        share = jnp.maximum(1 / (position + 1).astype(raw.dtype) + self.shares[position], 0.0)
        return self.base_rate * jax.nn.sigmoid(raw) * share / self.norm.gain.shape[-1]


@dataclass(frozen=True)
class Ttt(HeadDescription):
    """TTT-Linear (`depth` 1, base rate 1) and TTT-MLP (`depth` 2, four times as wide inside, base rate 0.1)."""

    depth: int = 1
    expansion: int = 4
    base_rate: float | None = None

    def __post_init__(self):
        super().__post_init__()
        require(self.depth in (1, 2), "depth", self.depth, "1 (linear) or 2 (MLP)")
        require(self.expansion >= 1, "expansion", self.expansion, "a positive integer")

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 1

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> TttMemory:
        del head
        require(d_key == d_value, "d_value", d_value, f"d_key = {d_key}, because the read adds the query")
        widths = [d_key, *[self.expansion * d_key] * (self.depth - 1), d_value]
        keys = jax.random.split(key, self.depth)
        pairs = zip(keys, widths[1:], widths[:-1], strict=True)
        init = tuple(jnp.pad(0.02 * draws.normal(k, (out, i)), ((0, 0), (0, 1))) for k, out, i in pairs)
        rate = self.base_rate if self.base_rate is not None else (1.0 if self.depth == 1 else 0.1)
        norm = Norm(jnp.ones(d_value), jnp.zeros(d_value))
        return TttMemory(init, norm, jnp.zeros(self.chunk_size), rate)
