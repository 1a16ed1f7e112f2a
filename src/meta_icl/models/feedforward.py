"""The token-wise half of a block: dense, gated and mixed-expert MLPs, which can be run with a change of their weights.

Everything here is written for one token "d". The matrices that read the block's normalised input are named by
`reading_weights`; `hidden` is what the last matrix reads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl.errors import choose, require
from meta_icl.models.initialisation import LECUN, Init
from meta_icl.models.patch import Patch, product, shifted

GELU_RATE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


@jax.custom_jvp
def gelu(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """u sigmoid(2 sqrt(2 / pi) (u + 0.044715 u^3)), the tanh form, as GPT-2 has it (Hendrycks & Gimpel, 2016).

    Its derivative is written out, because what the product rule would keep for it passes three times through memory.
    """
    return u * jax.nn.sigmoid(GELU_RATE * (u + GELU_CUBE * u * u * u))


@gelu.defjvp
def _(at: tuple[Array], along: tuple[Array]) -> tuple[Array, Array]:
    (u,), (change,) = at, along
    share = jax.nn.sigmoid(GELU_RATE * (u + GELU_CUBE * u * u * u))
    slope = share * (1 + u * (1 - share) * GELU_RATE * (1 + 3 * GELU_CUBE * u * u))
    return gelu(u), change * slope


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_exact": lambda u: jax.nn.gelu(u, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "identity": lambda u: u,
}


class FeedForward:
    """A description of a token-wise layer: called with a width and a key it draws the weights."""


@dataclass(frozen=True)
class Dense(FeedForward):
    """Describes act(n W_in + b_in) W_out + b_out of `d_ff` hidden units; biases, where there are any, start at zero."""

    d_ff: int
    activation: str = "gelu"
    biases: bool = True
    init: Init = LECUN
    init_out: Init | None = None  # of W_out, `init` unless given

    def __post_init__(self):
        _check(self.d_ff, self.activation)

    def __call__(self, d: int, *, key: Key[Array, ""]) -> "DenseLayer":
        in_key, out_key = jax.random.split(key)
        b_in, b_out = (jnp.zeros(self.d_ff), jnp.zeros(d)) if self.biases else (None, None)
        w_in = self.init((d, self.d_ff), d, key=in_key)
        w_out = (self.init_out or self.init)((self.d_ff, d), self.d_ff, key=out_key)
        return DenseLayer(w_in, b_in, w_out, b_out, self.activation)


@dataclass(frozen=True)
class Gated(FeedForward):
    """Describes (act(n W_gate) * (n W_up)) W_out without biases (Shazeer, 2020; Llama and Gemma)."""

    d_ff: int
    activation: str = "silu"
    init: Init = LECUN
    init_out: Init | None = None

    def __post_init__(self):
        _check(self.d_ff, self.activation)

    def __call__(self, d: int, *, key: Key[Array, ""]) -> "GatedLayer":
        in_key, out_key = jax.random.split(key)
        w_gate, w_up = self.init((2, d, self.d_ff), d, key=in_key)
        w_out = (self.init_out or self.init)((self.d_ff, d), self.d_ff, key=out_key)
        return GatedLayer(w_gate, w_up, w_out, self.activation)


@dataclass(frozen=True)
class Experts(FeedForward):
    """Describes a mixture of gated MLPs: the `top_k` experts of the largest router logits answer, by their softmax."""

    d_ff: int
    n_experts: int = 4
    top_k: int = 2
    activation: str = "silu"
    init: Init = LECUN

    def __post_init__(self):
        _check(self.d_ff, self.activation)
        require(self.n_experts >= 1, "n_experts", self.n_experts, "a positive integer")
        require(1 <= self.top_k <= self.n_experts, "top_k", self.top_k, f"from 1 to n_experts = {self.n_experts}")

    def __call__(self, d: int, *, key: Key[Array, ""]) -> "ExpertsLayer":
        n, f, keys = self.n_experts, self.d_ff, jax.random.split(key, 4)
        gate, up = (self.init((n, d, f), d, key=k) for k in keys[1:3])
        router, out = self.init((d, n), d, key=keys[0]), self.init((n, f, d), f, key=keys[3])
        return ExpertsLayer(router, gate, up, out, self.top_k, self.activation)


class DenseLayer(eqx.Module):
    """The weights of a `Dense`."""

    w_in: Float[Array, "*stack d f"]
    b_in: Float[Array, "*stack f"] | None
    w_out: Float[Array, "*stack f d"]
    b_out: Float[Array, "*stack d"] | None
    activation: str = eqx.field(static=True, default="gelu")
    out_name: ClassVar[str] = "w_out"

    def reading_weights(self, n: Float[Array, " d"]) -> dict[str, Float[Array, "d f"]]:
        """The matrices that read n."""
        del n
        return {"w_in": self.w_in}

    def hidden(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " f"]:
        u = product(n, self.w_in, patch, "w_in")
        return ACTIVATIONS[self.activation](u if self.b_in is None else u + shifted(self.b_in, patch, "b_in"))

    def __call__(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        out = product(self.hidden(n, patch), self.w_out, patch, "w_out")
        return out if self.b_out is None else out + shifted(self.b_out, patch, "b_out")


class GatedLayer(eqx.Module):
    """The weights of a `Gated`."""

    w_gate: Float[Array, "*stack d f"]
    w_up: Float[Array, "*stack d f"]
    w_out: Float[Array, "*stack f d"]
    activation: str = eqx.field(static=True, default="silu")
    b_out: ClassVar[None] = None
    out_name: ClassVar[str] = "w_out"

    def reading_weights(self, n: Float[Array, " d"]) -> dict[str, Float[Array, "d f"]]:
        """The matrices that read n."""
        del n
        return {"w_gate": self.w_gate, "w_up": self.w_up}

    def hidden(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " f"]:
        gate = product(n, self.w_gate, patch, "w_gate")
        return ACTIVATIONS[self.activation](gate) * product(n, self.w_up, patch, "w_up")

    def __call__(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        return product(self.hidden(n, patch), self.w_out, patch, "w_out")


class ExpertsLayer(eqx.Module):
    """The weights of an `Experts`."""

    router: Float[Array, "*stack d e"]
    experts_gate: Float[Array, "*stack e d f"]
    experts_up: Float[Array, "*stack e d f"]
    experts_out: Float[Array, "*stack e f d"]
    top_k: int = eqx.field(static=True, default=2)
    activation: str = eqx.field(static=True, default="silu")
    b_out: ClassVar[None] = None
    out_name: ClassVar[str] = "experts_out"

    @property
    def w_out(self) -> Float[Array, "*stack e f d"]:
        return self.experts_out

    def shares(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " e"]:
        """The weight of every expert in the answer; zero for those not chosen."""
        logits, chosen = lax.top_k(product(n, self.router, patch, "router"), self.top_k)
        return jnp.zeros(self.router.shape[-1], n.dtype).at[chosen].set(jax.nn.softmax(logits))

    def reading_weights(self, n: Float[Array, " d"]) -> dict[str, Float[Array, "... d _"]]:
        """The matrices that read n, with those of experts that n is not sent to set to zero."""
        used = (self.shares(n) > 0)[:, None, None]
        gate, up = (jnp.where(used, w, 0) for w in (self.experts_gate, self.experts_up))
        return {"router": self.router, "experts_gate": gate, "experts_up": up}

    def hidden(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, "e f"]:
        """The hidden layer of every expert times its share."""
        gate = product(n, self.experts_gate, patch, "experts_gate")
        up = product(n, self.experts_up, patch, "experts_up")
        return self.shares(n, patch)[:, None] * (ACTIVATIONS[self.activation](gate) * up)

    def __call__(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        return jnp.sum(product(self.hidden(n, patch), self.experts_out, patch, "experts_out"), axis=0)


def _check(d_ff: int, activation: str) -> None:
    require(d_ff >= 1, "d_ff", d_ff, "a positive integer")
    choose("activation", activation, ACTIVATIONS)
