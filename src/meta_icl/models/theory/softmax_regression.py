"""Multi-head softmax attention for regression, without residual stream, norm or bias (He et al., 2025)."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.prompt import Prompt


@dataclass(frozen=True)
class SoftmaxRegression:
    """Describes the layer; every weight is U(-1/sqrt(fan_in), 1/sqrt(fan_in)), head size d + n_out unless given."""

    d: int
    n_heads: int = 2
    n_out: int = 1
    d_head: int | None = None

    def __post_init__(self):
        for field in ("d", "n_heads", "n_out"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        require(self.d_head is None or self.d_head >= 1, "d_head", self.d_head, "a positive integer or nothing")

    def __call__(self, *, key: Key[Array, ""]) -> "SoftmaxRegressionPredictor":
        width = self.d + self.n_out
        size = self.d_head or width
        keys = jax.random.split(key, 4)

        def dense(key: Key[Array, ""], shape: tuple[int, ...], fan_in: int) -> Array:
            return draws.uniform(key, shape, minval=-1, maxval=1) / math.sqrt(fan_in)

        project = (self.n_heads, size, width)
        w_q, w_k, w_v = (dense(k, project, width) for k in keys[:3])
        return SoftmaxRegressionPredictor(
            w_q, w_k, w_v, dense(keys[3], (self.n_heads, self.n_out, size), self.n_heads * size)
        )


class SoftmaxRegressionPredictor(eqx.Module):
    """yhat = sum_h O_h V_h Z softmax(Z^T K_h^T Q_h z_q / sqrt(d_head)).

    Z holds the context's columns (x_i, y_i), z_q = (x_q, 0); the query does not attend to itself.
    """

    w_q: Float[Array, "h d_head d_token"]
    w_k: Float[Array, "h d_head d_token"]
    w_v: Float[Array, "h d_head d_token"]
    w_o: Float[Array, "h dy d_head"]

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        tokens = jnp.concatenate(prompt.context, axis=-1)
        reads = self.kq()[:, :, : prompt.x.shape[-1]] @ prompt.query.x
        pattern = jax.nn.softmax(jnp.einsum("nw,hw->hn", tokens, reads), axis=-1)
        return jnp.einsum("how,hn,nw->o", self.ov(), pattern, tokens)

    def batched(self, prompts: Prompt) -> Float[Array, "b dy"]:
        """The answers for a batch of prompts; the products of weights are formed once."""
        d = prompts.x.shape[-1]
        tokens = jnp.concatenate([prompts.x[:, :-1], prompts.y[:, :-1]], axis=-1)
        reads = jnp.einsum("hwd,bd->bhw", self.kq()[:, :, :d], prompts.x[:, -1])
        pattern = jax.nn.softmax(jnp.einsum("bhw,bnw->bhn", reads, tokens), axis=-1)
        summary = jnp.einsum("bhn,bnw->bhw", pattern, tokens)
        return jnp.einsum("how,bhw->bo", self.ov(), summary)

    def kq(self) -> Float[Array, "h d_token d_token"]:
        """K_h^T Q_h / sqrt(d_head): token z_i scores z_i^T KQ z_q."""
        return jnp.einsum("hkw,hkz->hwz", self.w_k, self.w_q) / math.sqrt(self.w_k.shape[1])

    def ov(self) -> Float[Array, "h dy d_token"]:
        """O_h V_h: what a token contributes when attended to."""
        return jnp.einsum("hok,hkw->how", self.w_o, self.w_v)

    def omega(self) -> Float[Array, " h"]:
        """Mean diagonal of the x block of every head's KQ: the inverse temperature of its kernel."""
        d = self.w_k.shape[2] - self.w_o.shape[1]
        return jnp.diagonal(self.kq(), axis1=1, axis2=2)[:, :d].mean(-1)

    def mu(self) -> Float[Array, "h dy"]:
        """Weight with which every head adds each label to the output of the same number."""
        n_out = self.w_o.shape[1]
        return jnp.diagonal(self.ov()[:, :, -n_out:], axis1=1, axis2=2)
