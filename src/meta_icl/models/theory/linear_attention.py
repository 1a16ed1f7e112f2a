"""One-layer linear attention in the forms of the theory.

With weights of the other blocks at zero, one layer of linear attention answers beta^T U x_q, where
beta = (1/N) sum_i y_i x_i over the context and U, "d d", is the sum over heads of v_i W_KQ,i (Zhang et al., 2025). What
differs between the forms is how U is made of weights, and so how it is learned. `OneLayerAttention` keeps all blocks.
"""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.prompt import Prompt


class MapPredictor(eqx.Module):
    """A predictor that answers beta^T U x_q with beta = (1/N) sum_i y_i x_i^T; subclasses say what U is."""

    def effective_map(self) -> Float[Array, "d d"]:
        """The matrix U of the answer beta^T U x_q."""
        raise TypeError(f"{type(self).__name__} does not define effective_map")

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = prompt.context
        return (y.T @ x / max(x.shape[0], 1)) @ self.effective_map() @ prompt.query.x

    def batched(self, prompts: Prompt) -> Float[Array, "b dy"]:
        """The answers for a batch of prompts; U is formed once."""
        x, y = prompts.x[:, :-1], prompts.y[:, :-1]
        beta = jnp.einsum("bno,bnd->bod", y, x) / max(x.shape[1], 1)
        return jnp.einsum("bod,de,be->bo", beta, self.effective_map(), prompts.x[:, -1])


def check_sizes(**sizes: int) -> None:
    """Raise `BadInput` unless every size is a positive integer."""
    for field, value in sizes.items():
        require(isinstance(value, int) and value >= 1, field, value, "a positive integer")


@dataclass(frozen=True)
class MergedLinearAttention:
    """Describes linear attention whose key and query share one matrix per head; every weight is N(0, init_std^2)."""

    d: int
    n_heads: int = 8
    init_std: float = 1e-6

    def __post_init__(self):
        check_sizes(d=self.d, n_heads=self.n_heads)
        require(self.init_std > 0, "init_std", self.init_std, "positive")

    def __call__(self, *, key: Key[Array, ""]) -> "MergedPredictor":
        v_key, u_key = jax.random.split(key)
        v = self.init_std * draws.normal(v_key, (self.n_heads,))
        return MergedPredictor(v, self.init_std * draws.normal(u_key, (self.n_heads, self.d, self.d)))


class MergedPredictor(MapPredictor):
    """U = sum_i v_i W_i: a two-layer linear network on the cubic features vec(beta x_q^T)."""

    v: Float[Array, " h"]
    w_kq: Float[Array, "h d d"]

    def effective_map(self) -> Float[Array, "d d"]:
        return jnp.einsum("h,hde->de", self.v, self.w_kq)

    def conserved(self) -> Float[Array, " q"]:
        """<W_i, W_j> - v_i v_j for all pairs of heads: constant under gradient flow of any loss of U."""
        return (jnp.einsum("ide,jde->ij", self.w_kq, self.w_kq) - jnp.outer(self.v, self.v)).ravel()


@dataclass(frozen=True)
class SeparateLinearAttention:
    """Describes linear attention with H heads whose key and query are separate matrices of rank R.

    Weights are normal with standard deviation `init_scale` / sqrt(number of entries of the whole layer's matrix, the
    unused blocks included): H R (d+1) for keys and queries, H (d+1)^2 for values (the code of Zhang et al., 2025).
    """

    d: int
    n_heads: int = 5
    rank: int = 1
    init_scale: float = 0.01

    def __post_init__(self):
        check_sizes(d=self.d, n_heads=self.n_heads, rank=self.rank)
        require(self.rank <= self.d, "rank", self.rank, f"at most d = {self.d}")
        require(self.init_scale > 0, "init_scale", self.init_scale, "positive")

    def __call__(self, *, key: Key[Array, ""]) -> "SeparatePredictor":
        v_key, k_key, q_key = jax.random.split(key, 3)
        project = (self.n_heads, self.rank, self.d)
        std = self.init_scale / math.sqrt(self.n_heads * self.rank * (self.d + 1))
        value_std = self.init_scale / math.sqrt(self.n_heads * (self.d + 1) ** 2)
        return SeparatePredictor(
            value_std * draws.normal(v_key, (self.n_heads,)),
            std * draws.normal(k_key, project),
            std * draws.normal(q_key, project),
        )


class SeparatePredictor(MapPredictor):
    """U = sum_i v_i K_i^T Q_i with K_i, Q_i of shape "r d"."""

    v: Float[Array, " h"]
    w_k: Float[Array, "h r d"]
    w_q: Float[Array, "h r d"]

    def effective_map(self) -> Float[Array, "d d"]:
        return jnp.einsum("h,hrd,hre->de", self.v, self.w_k, self.w_q)

    def conserved(self) -> Float[Array, " q"]:
        """K_i K_i^T - Q_i Q_i^T and v_i^2 - |Q_i|_F^2 of every head: constant under gradient flow."""
        keys = jnp.einsum("hrd,hsd->hrs", self.w_k, self.w_k)
        queries = jnp.einsum("hrd,hsd->hrs", self.w_q, self.w_q)
        values = jnp.square(self.v) - jnp.square(self.w_q).sum((1, 2))
        return jnp.concatenate([(keys - queries).ravel(), values])


@dataclass(frozen=True)
class CubicMLP:
    """Describes a two-layer linear network without biases on the d^2 cubic features; weights are N(0, init_std^2)."""

    d: int
    width: int = 8
    init_std: float = 1e-6

    def __post_init__(self):
        check_sizes(d=self.d, width=self.width)
        require(self.init_std > 0, "init_std", self.init_std, "positive")

    def __call__(self, *, key: Key[Array, ""]) -> "CubicMLPPredictor":
        out_key, in_key = jax.random.split(key)
        w_out = self.init_std * draws.normal(out_key, (1, self.width))
        return CubicMLPPredictor(self.init_std * draws.normal(in_key, (self.width, self.d**2)), w_out)


class CubicMLPPredictor(eqx.Module):
    """w_out w_in vec(beta x_q^T): the same function as merged linear attention of as many heads, written as an MLP."""

    w_in: Float[Array, "h d2"]
    w_out: Float[Array, "1 h"]

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = prompt.context
        features = jnp.einsum("no,nd,e->ode", y, x, prompt.query.x) / max(x.shape[0], 1)
        return ((features.reshape(y.shape[1], -1) @ self.w_in.T) @ self.w_out.T)[:, 0]

    def effective_map(self) -> Float[Array, "d d"]:
        """The matrix U of the answer beta^T U x_q."""
        d = math.isqrt(self.w_in.shape[1])
        return (self.w_out @ self.w_in).reshape(d, d)


ATTENTION_KINDS = ("linear", "softmax")


@dataclass(frozen=True)
class OneLayerAttention:
    """Describes one attention layer on tokens (x_i, y_i) and (x_q, 0) with all blocks (Zhang et al., 2025).

    The query attends to itself too. Linear: (1/N) sum_i (v.z_i) (z_i^T W x_q); softmax: weights softmax(z_i^T W x_q)
    without any scale. W of a head is one matrix, normal of deviation `init`, or with `rank` K^T Q, deviations
    `init` / sqrt(number of entries) as in `SeparateLinearAttention`. The value's x block starts at zero.
    """

    d: int
    n_heads: int = 8
    rank: int | None = None
    kind: str = "linear"
    init: float = 1e-6

    def __post_init__(self):
        check_sizes(d=self.d, n_heads=self.n_heads, rank=self.rank or 1)
        choose("kind", self.kind, ATTENTION_KINDS)
        require(self.init > 0, "init", self.init, "positive")

    def __call__(self, *, key: Key[Array, ""]) -> "OneLayerPredictor":
        v_key, k_key, q_key = jax.random.split(key, 3)
        h, width, r = self.n_heads, self.d + 1, self.rank
        v_std = self.init if r is None else self.init / math.sqrt(h * width**2)
        v = jnp.zeros((h, width)).at[:, -1].set(v_std * draws.normal(v_key, (h,)))
        if r is None:
            return OneLayerPredictor(v, self.init * draws.normal(k_key, (h, width, self.d)), None, self.kind)
        std = self.init / math.sqrt(h * r * width)
        w_k = (std * draws.normal(k_key, (h, width, r))).at[:, -1].set(0.0)
        return OneLayerPredictor(v, w_k, std * draws.normal(q_key, (h, r, self.d)), self.kind)


class OneLayerPredictor(eqx.Module):
    """The weights of a `OneLayerAttention`: values "h d+1", and W as `w_k` alone (merged) or `w_k` times `w_q`."""

    v: Float[Array, "h d_token"]
    w_k: Float[Array, "h d_token k"]
    w_q: Float[Array, "h k d"] | None
    kind: str = eqx.field(static=True)

    def effective_map(self) -> Float[Array, "d_token d_token d"]:
        """U_abc = sum_h v_ha W_hbc, all that the answer of a linear layer depends on."""
        require(self.kind == "linear", "kind", self.kind, "linear: a softmax layer is no linear map of its tokens")
        product = self.w_k if self.w_q is None else jnp.einsum("hwk,hkd->hwd", self.w_k, self.w_q)
        return jnp.einsum("ha,hbc->abc", self.v, product)

    def __call__(self, prompt: Prompt) -> Float[Array, " 1"]:
        tokens = jnp.concatenate([prompt.x, prompt.y.at[-1].set(0.0)], axis=-1)
        reads = (
            self.w_k @ prompt.query.x
            if self.w_q is None
            else jnp.einsum("hwk,hkd,d->hw", self.w_k, self.w_q, prompt.query.x)
        )
        scores = jnp.einsum("nw,hw->hn", tokens, reads)
        values = jnp.einsum("nw,hw->hn", tokens, self.v)
        pattern = jax.nn.softmax(scores, axis=-1) if self.kind == "softmax" else scores / max(prompt.n_context, 1)
        return jnp.sum(pattern * values)[None]
