"""MesaNet (von Oswald et al., 2025): a memory that solves its regression to optimality at every token.

State G, "d_value d_key", and H, "d_key d_key": G <- g G + b v k^T, H <- g H + b k k^T, read G (H + Lambda)^{-1} q:
ridge regression of values on keys with weights that decay. The system is solved exactly or by conjugate gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl.errors import require
from meta_icl.models.mixers.affine_scan import in_chunks, segment_products
from meta_icl.models.mixers.heads import HeadDescription, Memory, Tokens
from meta_icl.models.mixers.solves import positive_inverse, solve_positive


class MesaState(NamedTuple):
    """The two moments of a memory."""

    values: Float[Array, "v k"]
    keys: Float[Array, "k k"]


def mesa_step(
    state: MesaState,
    q: Float[Array, " k"],
    k: Float[Array, " k"],
    v: Float[Array, " v"],
    beta: Float[Array, ""],
    log_g: Float[Array, ""],
    ridge: Float[Array, " k"],
    cg_steps: int | None = None,
) -> tuple[MesaState, Float[Array, " v"]]:
    """Write one token, solve, read; `cg_steps` None is the exact solution."""
    values = jnp.exp(log_g) * state.values + beta * v[:, None] * k[None]
    keys = jnp.exp(log_g) * state.keys + beta * k[:, None] * k[None]
    if cg_steps is None:
        solution = solve_positive(keys + jnp.diag(ridge), q)
    else:
        solution = conjugate_gradient(
            lambda x: x @ keys + ridge[None] * x, q[None], (jnp.diag(keys) + ridge)[None], cg_steps
        )[0]
    return MesaState(values, keys), values @ solution


def mesa_chunks(
    state: MesaState,
    q: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    beta: Float[Array, " t"],
    log_g: Float[Array, " t"],
    ridge: Float[Array, " k"],
    size: int,
    cg_steps: int | None = None,
) -> tuple[MesaState, Float[Array, "t v"]]:
    """`mesa_step` over a sequence; conjugate gradient works on all tokens of a chunk by matrix products."""

    def body(state: MesaState, chunk: tuple[Array, ...]) -> tuple[MesaState, Array]:
        q, k, v, beta, log_g = chunk
        weights, kept = segment_products(log_g) * beta[None], jnp.exp(jnp.cumsum(log_g))[:, None]
        if cg_steps is None:
            moments = kept[..., None] * state.keys[None] + jnp.einsum("ti,ik,il->tkl", weights, k, k)
            solution = solve_positive(moments + jnp.diag(ridge)[None], q)
        else:

            def times(x: Array) -> Array:
                return kept * (x @ state.keys) + ((x @ k.T) * weights) @ k + ridge[None] * x

            diagonal = kept * jnp.diag(state.keys)[None] + weights @ (k * k) + ridge[None]
            solution = conjugate_gradient(times, q, diagonal, cg_steps)
        read = kept * (solution @ state.values.T) + ((solution @ k.T) * weights) @ v
        last = weights[-1][:, None] * k
        return MesaState(kept[-1, 0] * state.values + v.T @ last, kept[-1, 0] * state.keys + k.T @ last), read

    return in_chunks(body, state, (q, k, v, beta, log_g), size)


def conjugate_gradient(
    times: Callable[[Array], Array], q: Float[Array, "t k"], diagonal: Float[Array, "t k"], steps: int
) -> Float[Array, "t k"]:
    """`steps` rounds on each row's own system from the start q / diagonal; a row that is solved to rounding rests."""
    x = q / diagonal
    residual = q - times(x)
    eps = jnp.finfo(q.dtype).eps

    def dot(a: Array, b: Array) -> Array:
        return jnp.sum(a * b, axis=-1, keepdims=True)

    def body(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        x, residual, direction = carry
        image, before = times(direction), dot(residual, residual)
        open_row = before > eps**2 * dot(q, q)  # quotients of what is left of a solved row have no finite gradient
        rate = jnp.where(open_row, before / jnp.where(open_row, dot(direction, image), 1), 0)
        x, after = x + rate * direction, residual - rate * image
        turn = jnp.where(open_row, dot(after, after) / jnp.where(open_row, before, 1), 0)
        return (x, after, after + turn * direction), None

    return lax.scan(body, (x, residual, residual), None, length=steps)[0][0]


class MesaMemory(Memory):
    """The memory of one head; `log_ridge` makes Lambda = 1/4 + softplus, one per key channel."""

    log_ridge: Float[Array, " k"]
    bias: Float[Array, ""]  # of the decay
    d_value: int = eqx.field(static=True)
    cg_steps: int | None = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def start(self) -> MesaState:
        d = self.log_ridge.shape[-1]
        return MesaState(jnp.zeros((self.d_value, d)), jnp.zeros((d, d)))

    def step(self, state: MesaState, token: Tokens) -> tuple[MesaState, Float[Array, " v"]]:
        return mesa_step(state, token.q, token.k, token.v, *self.gates(token.raw), self.ridge, self.cg_steps)

    def scan(self, state: MesaState, tokens: Tokens) -> tuple[MesaState, Float[Array, "t v"]]:
        gates, size = self.gates(tokens.raw), self.chunk_size
        return mesa_chunks(state, tokens.q, tokens.k, tokens.v, *gates, self.ridge, size, self.cg_steps)

    def weights(self, state: MesaState) -> Float[Array, "v k"]:
        """The ridge solution G (H + Lambda)^{-1}, solved exactly."""
        return state.values @ positive_inverse(state.keys + jnp.diag(self.ridge))

    def gates(self, raw: Float[Array, "*t 2"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        """The weight b of each token and the logarithm of its decay."""
        return jax.nn.sigmoid(raw[..., 0]), jax.nn.log_sigmoid(raw[..., 1] + self.bias)

    @property
    def ridge(self) -> Float[Array, " k"]:
        """The diagonal of Lambda."""
        return 0.25 + jax.nn.softplus(self.log_ridge)


@dataclass(frozen=True)
class Mesa(HeadDescription):
    """MesaNet's layer; `cg_steps` None solves exactly, a number is that of conjugate gradient."""

    cg_steps: int | None = None

    def __post_init__(self):
        super().__post_init__()
        require(self.cg_steps is None or self.cg_steps >= 0, "cg_steps", self.cg_steps, "zero or more, or nothing")

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 2

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> MesaMemory:
        del key, head
        ridge = jnp.full(d_key, jnp.log(jnp.expm1(0.75)))  # Lambda = 1
        return MesaMemory(ridge, jnp.asarray(4.0), d_value, self.cg_steps, self.chunk_size)
