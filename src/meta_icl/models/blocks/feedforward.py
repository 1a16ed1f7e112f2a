"""The token-wise half of a block: norms and MLPs, which can be run with a change of their weights (`Patch`).

Everything here is written for one token "d". The matrices that read the block's normalised input are named by
`reading_weights`; `hidden` is what the last matrix, `w_out`, reads.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose
from meta_icl.models.blocks.patch import Patch, change, vector_change

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": jax.nn.gelu,  # the tanh form, as GPT-2 has it
    "gelu_exact": lambda u: jax.nn.gelu(u, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "identity": lambda u: u,
}
MLPS = ("dense", "gated", "experts")
NORMS = ("layer", "rms")


class Norm(eqx.Module):
    """Normalisation over channels, then a scale and, for "layer", a bias: LayerNorm, or RMSNorm without centring."""

    scale: Float[Array, "*stack d"]
    bias: Float[Array, "*stack d"] | None
    kind: str = eqx.field(static=True, default="layer")
    eps: float = eqx.field(static=True, default=1e-5)

    def __check_init__(self):
        choose("norm", self.kind, NORMS)

    def normalised(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """x before scale and bias: x / sqrt(mean x^2 + eps), centred first for "layer"."""
        centred = x - jnp.mean(x) if self.kind == "layer" else x
        return centred * lax.rsqrt(jnp.mean(jnp.square(centred)) + self.eps)

    def __call__(self, x: Float[Array, " d"], scale_change: Array | float = 0.0) -> Float[Array, " d"]:
        scaled = self.normalised(x) * (self.scale + scale_change)
        return scaled if self.bias is None else scaled + self.bias


class DenseMlp(eqx.Module):
    """act(n W_in + b_in) W_out + b_out, with or without the biases."""

    w_in: Float[Array, "*stack d f"]
    b_in: Float[Array, "*stack f"] | None
    w_out: Float[Array, "*stack f d"]
    b_out: Float[Array, "*stack d"] | None
    activation: str = eqx.field(static=True, default="gelu")
    out_name = "w_out"

    def reading_weights(self, n: Float[Array, " d"]) -> dict[str, Float[Array, "d f"]]:
        """The matrices that read n."""
        del n
        return {"w_in": self.w_in}

    def hidden(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " f"]:
        u = n @ self.w_in + change(patch, "w_in", n)
        return ACTIVATIONS[self.activation](u if self.b_in is None else u + self.b_in + vector_change(patch, "b_in"))

    def __call__(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        m = self.hidden(n, patch)
        out = m @ self.w_out + change(patch, "w_out", m)
        return out if self.b_out is None else out + self.b_out + vector_change(patch, "b_out")


class GatedMlp(eqx.Module):
    """(act(n W_gate) * (n W_up)) W_out, without biases (Shazeer, 2020; Llama and Gemma)."""

    w_gate: Float[Array, "*stack d f"]
    w_up: Float[Array, "*stack d f"]
    w_out: Float[Array, "*stack f d"]
    activation: str = eqx.field(static=True, default="silu")
    b_out = None
    out_name = "w_out"

    def reading_weights(self, n: Float[Array, " d"]) -> dict[str, Float[Array, "d f"]]:
        """The matrices that read n."""
        del n
        return {"w_gate": self.w_gate, "w_up": self.w_up}

    def hidden(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " f"]:
        gate = n @ self.w_gate + change(patch, "w_gate", n)
        return ACTIVATIONS[self.activation](gate) * (n @ self.w_up + change(patch, "w_up", n))

    def __call__(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        m = self.hidden(n, patch)
        return m @ self.w_out + change(patch, "w_out", m)


class Experts(eqx.Module):
    """A mixture of gated MLPs: the `top_k` experts of the largest router logits, weighted by the softmax over them."""

    router: Float[Array, "*stack d e"]
    experts_gate: Float[Array, "*stack e d f"]
    experts_up: Float[Array, "*stack e d f"]
    experts_out: Float[Array, "*stack e f d"]
    top_k: int = eqx.field(static=True, default=2)
    activation: str = eqx.field(static=True, default="silu")
    b_out = None
    out_name = "experts_out"

    @property
    def w_out(self) -> Float[Array, "*stack e f d"]:
        return self.experts_out

    def shares(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " e"]:
        """The weight of every expert in the answer; zero for those not chosen."""
        logits, chosen = lax.top_k(n @ self.router + change(patch, "router", n), self.top_k)
        return jnp.zeros(self.router.shape[-1], n.dtype).at[chosen].set(jax.nn.softmax(logits))

    def reading_weights(self, n: Float[Array, " d"]) -> dict[str, Float[Array, "... d _"]]:
        """The matrices that read n, with those of experts that n is not sent to set to zero."""
        used = (self.shares(n) > 0).astype(n.dtype)[:, None, None]
        gate, up = (jnp.where(used > 0, w, 0) for w in (self.experts_gate, self.experts_up))
        return {"router": self.router, "experts_gate": gate, "experts_up": up}

    def hidden(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, "e f"]:
        """The hidden layer of every expert times its share."""
        each = jnp.broadcast_to(n, (self.router.shape[-1], n.shape[0]))
        gate = jnp.einsum("d,edf->ef", n, self.experts_gate) + change(patch, "experts_gate", each)
        up = jnp.einsum("d,edf->ef", n, self.experts_up) + change(patch, "experts_up", each)
        return self.shares(n, patch)[:, None] * (ACTIVATIONS[self.activation](gate) * up)

    def __call__(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        m = self.hidden(n, patch)
        each = jnp.einsum("ef,efd->ed", m, self.experts_out) + change(patch, "experts_out", m)
        return jnp.sum(each, axis=0)


Mlp = DenseMlp | GatedMlp | Experts


def draw_norm(kind: str, d: int, stack: int, *, eps: float = 1e-5) -> Norm:
    """A norm as it starts out: scale 1 and, for "layer", bias 0."""
    return Norm(jnp.ones((stack, d)), jnp.zeros((stack, d)) if kind == "layer" else None, kind, eps)


def draw_mlp(
    kind: str,
    d: int,
    f: int,
    stack: int,
    *,
    activation: str,
    biases: bool,
    experts: tuple[int, int],
    key: Key[Array, ""],
) -> Mlp:
    """Normal weights of variance 1 / fan_in and zero biases; `experts` is (number, top_k)."""
    keys = iter(jax.random.split(key, 4))

    def dense(*shape: int) -> Array:
        return draws.normal(next(keys), (stack, *shape)) / math.sqrt(shape[-2])

    if kind == "dense":
        b_in, b_out = (jnp.zeros((stack, f)), jnp.zeros((stack, d))) if biases else (None, None)
        return DenseMlp(dense(d, f), b_in, dense(f, d), b_out, activation)
    if kind == "gated":
        return GatedMlp(dense(d, f), dense(d, f), dense(f, d), activation)
    n, top_k = experts
    return Experts(dense(d, n), dense(n, d, f), dense(n, d, f), dense(n, f, d), top_k, activation)
