"""Mamba's selective state space layer (Gu & Dao, 2023); its successor, Mamba-2, is a linear memory in `linear`."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.mixers.affine_scan import FORMS, affine_scan, affine_step
from meta_icl.models.mixers.heads import causal_convolution
from meta_icl.models.mixers.mixer import Mixer, MixerDescription
from meta_icl.models.trace import Tap


@dataclass(frozen=True)
class Mamba(MixerDescription):
    """Describes a Mamba block: `expand` times as many channels inside, `d_state` states each; `form` of its scan."""

    expand: int = 2
    d_state: int = 16
    conv: int = 4
    form: str = "scan"

    def __post_init__(self):
        for field in ("expand", "d_state", "conv"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        choose("form", self.form, FORMS)

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "MambaLayer":
        return MambaLayer(self, d_model, key=key)


class MambaState(NamedTuple):
    """The last inputs of the convolution, and the state of every channel."""

    rows: Float[Array, "kernel inner"]
    h: Float[Array, "inner n"]


class MambaLayer(Mixer):
    """h <- exp(dt A) h + dt B_t x_t for each inner channel, y = C_t h + D x, gated by SiLU of a second projection.

    A = -exp(log_a) is diagonal; dt, B and C are functions of the token.
    """

    w_in: Float[Array, "d two_inner"]
    kernel: Float[Array, "kernel inner"]
    kernel_bias: Float[Array, " inner"]
    w_x: Float[Array, "inner rank_and_two_n"]
    w_dt: Float[Array, "rank inner"]
    dt_bias: Float[Array, " inner"]
    log_a: Float[Array, "inner n"]
    skip: Float[Array, " inner"]
    w_out: Float[Array, "inner d"]
    config: Mamba = eqx.field(static=True)

    def __init__(self, config: Mamba, d_model: int, *, key: Key[Array, ""]):
        c, inner, rank = config, config.expand * d_model, math.ceil(d_model / 16)
        keys = jax.random.split(key, 6)
        self.w_in = draws.normal(keys[0], (d_model, 2 * inner)) / math.sqrt(d_model)
        bound = 1 / math.sqrt(c.conv)
        self.kernel = draws.uniform(keys[1], (c.conv, inner), minval=-bound, maxval=bound)
        self.kernel_bias = jnp.zeros(inner)
        self.w_x = draws.normal(keys[2], (inner, rank + 2 * c.d_state)) / math.sqrt(inner)
        self.w_dt = draws.normal(keys[3], (rank, inner)) / math.sqrt(rank)
        dt = jnp.exp(draws.uniform(keys[4], (inner,), minval=math.log(1e-3), maxval=math.log(0.1)))
        self.dt_bias = dt + jnp.log(-jnp.expm1(-dt))  # the inverse of softplus
        self.log_a = jnp.broadcast_to(jnp.log(jnp.arange(1.0, c.d_state + 1))[None], (inner, c.d_state))
        self.skip = jnp.ones(inner)
        self.w_out = draws.normal(keys[5], (inner, d_model)) / math.sqrt(inner)
        self.config = c

    def initial_state(self) -> MambaState:
        inner = self.skip.shape[0]
        return MambaState(jnp.zeros((self.config.conv - 1, inner)), jnp.zeros((inner, self.config.d_state)))

    def step(self, state: MambaState, x: Float[Array, " d"]) -> tuple[MambaState, Float[Array, " d"]]:
        new, z = jnp.split(x[None] @ self.w_in, 2, axis=-1)
        rows = jnp.concatenate([state.rows, new])
        u, decay, drive, c = self._selected(rows)
        h = affine_step(state.h, decay[0], drive[0])
        return MambaState(rows[1:], h), self._output(h[None], c, u, z)[0]

    def outputs(self, x: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        del tap
        new, z = jnp.split(x @ self.w_in, 2, axis=-1)
        state = self.initial_state()
        u, decay, drive, c = self._selected(jnp.concatenate([state.rows, new]))
        return self._output(affine_scan(decay, drive, state.h, self.config.form), c, u, z)

    def _selected(self, rows: Float[Array, "rows inner"]) -> tuple[Array, Array, Array, Array]:
        """The convolved input u, decay exp(dt A) and drive dt B u "t inner n", and C."""
        n = self.config.d_state
        u = jax.nn.silu(causal_convolution(rows, self.kernel) + self.kernel_bias[None])
        low, b, c = jnp.split(u @ self.w_x, [self.w_dt.shape[0], self.w_dt.shape[0] + n], axis=-1)
        dt = jax.nn.softplus(low @ self.w_dt + self.dt_bias[None])
        decay = jnp.exp(-dt[..., None] * jnp.exp(self.log_a)[None])
        return u, decay, (dt * u)[..., None] * b[:, None], c

    def _output(
        self,
        h: Float[Array, "t inner n"],
        c: Float[Array, "t n"],
        u: Float[Array, "t inner"],
        z: Float[Array, "t inner"],
    ) -> Float[Array, "t d"]:
        y = jnp.einsum("tin,tn->ti", h, c) + self.skip[None] * u
        return (y * jax.nn.silu(z)) @ self.w_out
