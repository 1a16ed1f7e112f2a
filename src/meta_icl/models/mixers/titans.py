"""Titans' long-term memory as a layer (Behrouz et al., 2024): the rule of `titans_rule` with learned gates."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.mixers.heads import HeadDescription, Memory, Tokens
from meta_icl.models.mixers.titans_rule import (
    Gates,
    Momentum,
    OnlineState,
    Rule,
    Weights,
    answer,
    titans_products,
    titans_scans,
    titans_step,
)

READS, INITS, TARGETS, THETA_MAPS = ("after", "before"), ("learned", "zero"), ("zero", "init"), ("sigmoid", "softplus")
FORMS = ("products", "scan", "associative")


class TitansMemory(Memory):
    """The long-term memory of one head, with its data-dependent gates and its learned start."""

    init: Weights
    bias: Float[Array, " 3"]  # of alpha, eta, theta before their maps
    rule: Rule = eqx.field(static=True)
    config: "Titans" = eqx.field(static=True)

    def start(self) -> OnlineState:
        nothing = tuple(jnp.zeros_like(w) for w in self.init)
        return OnlineState(Momentum(self.init, nothing), self.init, jnp.zeros((), jnp.int32))

    def step(self, state: OnlineState, token: Tokens) -> tuple[OnlineState, Float[Array, " v"]]:
        gates = self.gates(token.raw)
        return titans_step(state, token.q, token.k, token.v, gates, self.config.chunk_size, self.rule, self.init)

    def scan(self, state: OnlineState, tokens: Tokens) -> tuple[OnlineState, Float[Array, "t v"]]:
        """`state` stands at the start of a chunk."""
        c, gates = self.config, self.gates(tokens.raw)
        inputs = (state.now, tokens.q, tokens.k, tokens.v, gates, c.chunk_size, self.rule, self.init)
        now, read = titans_products(*inputs) if c.form == "products" else titans_scans(*inputs, form=c.form)
        return OnlineState(now, now.weights, jnp.zeros((), jnp.int32)), read

    def weights(self, state: OnlineState) -> Weights:
        return state.now.weights

    def answer(self, weights: Weights, q: Float[Array, "*t k"]) -> Float[Array, "*t v"]:
        return answer(weights, q, self.rule.residual)

    def gates(self, raw: Float[Array, "*t 3"]) -> Gates:
        """alpha and eta are sigmoids of the raw numbers plus bias, theta is theta_max times one, or a softplus."""
        c, z = self.config, raw + jnp.broadcast_to(self.bias, raw.shape)
        theta = c.theta_max * (jax.nn.sigmoid if c.theta_map == "sigmoid" else jax.nn.softplus)(z[..., 2])
        alpha, eta = jax.nn.sigmoid(z[..., 0]), jax.nn.sigmoid(z[..., 1])
        return Gates(alpha if c.forgetting else 0 * alpha, eta if c.momentum else 0 * eta, theta)


@dataclass(frozen=True)
class Titans(HeadDescription):
    """Describes the long-term memory as a layer, Titans (LMM).

    `depth` matrices make the memory (1: linear), hidden layers are `expansion` times as wide as a key. `form` computes
    a sequence by "products", or by a "scan" or "associative" scan over copies of the memory. Defaults where the paper
    is silent: alpha starts near 0.018, eta near 0.73, theta at half its bound `theta_limit`, which is (1 - eta) /
    chunk_size and at most 0.1 for deeper memories; a learned start of half the fan-in deviation (zero is allowed for
    one matrix only, because the gradient of deeper ones vanishes there).

    The bound keeps the rule stable as it is drawn: all gradients of a chunk are taken at its start, so that equal unit
    keys move the memory by 2 theta chunk_size / (1 - eta) of its error, which is then at most 2 and on average 1.
    With a bound of 1, for any chunk, and of 0.1 at chunk_size 16 the weights overflow within 1,024 tokens.
    """

    depth: int = 1
    expansion: int = 2
    momentum: bool = True
    forgetting: bool = True
    read: str = "after"
    loss_scale: float = 1.0
    init: str = "learned"
    theta_map: str = "sigmoid"
    theta_limit: float | None = None
    alpha_bias: float = -4.0
    eta_bias: float = 1.0
    decay_to: str = "zero"
    residual: bool = False
    form: str = "products"

    def __post_init__(self):
        super().__post_init__()
        require(self.depth >= 1, "depth", self.depth, "a positive integer")
        require(self.expansion >= 1, "expansion", self.expansion, "a positive integer")
        choose("read", self.read, READS)
        choose("init", self.init, INITS)
        choose("theta_map", self.theta_map, THETA_MAPS)
        choose("decay_to", self.decay_to, TARGETS)
        choose("form", self.form, FORMS)
        require(self.init == "learned" or self.depth == 1, "init", self.init, "learned for a memory of several layers")

    @property
    def theta_max(self) -> float:
        """The bound of theta (its scale, for the softplus)."""
        if self.theta_limit is not None:
            return self.theta_limit
        slowed = 1 / (1 + math.exp(self.eta_bias)) if self.momentum else 1.0  # 1 - eta
        return min(slowed / self.chunk_size, 1.0 if self.depth == 1 else 0.1)

    def n_gates(self, d_key: int) -> int:
        del d_key
        return 3

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> TitansMemory:
        del head
        require(not self.residual or d_key == d_value, "d_value", d_value, f"d_key = {d_key} for a residual memory")
        widths = [d_key, *[self.expansion * d_key] * (self.depth - 1), d_value]
        scale = 0.5 if self.init == "learned" else 0.0
        keys = jax.random.split(key, self.depth)
        pairs = zip(keys, widths[1:], widths[:-1], strict=True)
        init = tuple(scale * draws.normal(k, (out, fan_in)) / fan_in**0.5 for k, out, fan_in in pairs)
        rule = Rule(self.read, self.loss_scale, self.decay_to, self.residual)
        return TitansMemory(init, jnp.array([self.alpha_bias, self.eta_bias, 0.0]), rule, self)
