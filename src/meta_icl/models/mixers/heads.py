"""Everything around a memory: projections, causal convolution, heads, normalisation, gate and output map.

`HeadMixer` serves every family whose memory reads and writes with queries, keys and values per head. What differs
between the families is their `Memory`: how it is written, read, and run over a whole sequence at once.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.mixers.mixer import Mixer, MixerDescription
from meta_icl.models.mixers.patterns import elu_plus_one
from meta_icl.models.norms import rms
from meta_icl.models.trace import Tap

FEATURES = ("identity", "silu", "elu")


class Tokens(NamedTuple):
    """What a memory gets of a token: query, key, value, and the raw (unbounded) numbers its gates are made of."""

    q: Float[Array, "*t d_key"]
    k: Float[Array, "*t d_key"]
    v: Float[Array, "*t d_value"]
    raw: Float[Array, "*t gates"]


class Memory(eqx.Module):
    """The fast-weight memory of one head."""

    def start(self) -> PyTree:
        """The state before the first token."""
        raise TypeError(f"{type(self).__name__} does not define start")

    def step(self, state: PyTree, token: Tokens) -> tuple[PyTree, Float[Array, " d_value"]]:
        """Write one token and read at its query."""
        raise TypeError(f"{type(self).__name__} does not define step")

    def scan(self, state: PyTree, tokens: Tokens) -> tuple[PyTree, Float[Array, "t d_value"]]:
        """The same for a whole sequence, by the parallel form; a chunk starts with its first token."""
        raise TypeError(f"{type(self).__name__} does not define scan")

    def weights(self, state: PyTree) -> PyTree:
        """What of a state answers queries, its fast weights: by default the state, a matrix "d_value d_key"."""
        return state

    def answer(self, weights: PyTree, q: Float[Array, "*t d_key"]) -> Float[Array, "*t d_value"]:
        """What fast weights answer, without anything being written; a skip of the values is left out."""
        return q @ weights.T


@dataclass(frozen=True)
class HeadDescription(MixerDescription):
    """Describes a `HeadMixer`; called with a width and a key it draws the weights.

    Keys and queries have `d_key` channels per head, values `d_value` (both d_model / n_heads unless given). `conv` is
    the kernel of a causal depthwise convolution after the projections (0: none), then comes the `feature` map; keys and
    queries have unit length where the family says so. `output_norm` is an RMS norm per head, `output_gate` multiplies
    by SiLU of a projection of the input.
    """

    unit_keys: ClassVar[bool] = True
    shared_keys: ClassVar[bool] = False  # one set of keys and queries for all heads

    n_heads: int = 2
    d_key: int | None = None
    d_value: int | None = None
    conv: int = 4
    feature: str = "silu"
    output_norm: bool = True
    output_gate: bool = False
    chunk_size: int = 16

    def __post_init__(self):
        for field in ("n_heads", "chunk_size"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        require(self.conv >= 0, "conv", self.conv, "the length of a kernel, or 0 for none")
        choose("feature", self.feature, FEATURES)

    def n_gates(self, d_key: int) -> int:
        """Raw gate channels per head and token."""
        del d_key
        return 0

    def memory(self, d_key: int, d_value: int, head: int, *, key: Key[Array, ""]) -> Memory:
        """Draws the memory of one head."""
        raise TypeError(f"{type(self).__name__} does not define memory")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "HeadMixer":
        return HeadMixer(self, d_model, key=key)


class HeadState(NamedTuple):
    """The last inputs of the convolution, and the memory of every head."""

    rows: Float[Array, "kernel channels"]
    memory: PyTree


class HeadMixer(Mixer):
    """A memory per head between projections; see `HeadDescription`."""

    w_in: Float[Array, "d channels"]  # queries, keys, values
    w_raw: Float[Array, "d raw"]
    kernel: Float[Array, "kernel channels"] | None
    memory: Any  # a Memory, stacked over heads
    gain: Float[Array, "heads d_value"] | None
    w_gate: Float[Array, "d inner"] | None
    w_out: Float[Array, "inner d"]
    config: HeadDescription = eqx.field(static=True)
    d_key: int = eqx.field(static=True)
    d_value: int = eqx.field(static=True)

    def __init__(self, config: HeadDescription, d_model: int, *, key: Key[Array, ""]):
        c, h = config, config.n_heads
        keys = jax.random.split(key, 6)
        if c.d_key is None or c.d_value is None:
            require(d_model % h == 0, "n_heads", h, f"a divisor of d_model = {d_model}, or give d_key and d_value")
        self.d_key = c.d_key or d_model // h
        self.d_value = c.d_value or d_model // h
        inner = h * self.d_value
        channels = 2 * self.d_key * (1 if c.shared_keys else h) + inner
        self.w_in = draws.normal(keys[0], (d_model, channels)) / math.sqrt(d_model)
        self.w_raw = 0.5 * draws.normal(keys[1], (d_model, h * c.n_gates(self.d_key))) / math.sqrt(d_model)
        self.kernel = _first_tap(c.conv, channels, keys[2]) if c.conv else None
        each = [c.memory(self.d_key, self.d_value, i, key=jax.random.fold_in(keys[3], i)) for i in range(h)]
        self.memory = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        self.gain = jnp.ones((h, self.d_value)) if c.output_norm else None
        self.w_gate = draws.normal(keys[4], (d_model, inner)) / math.sqrt(d_model) if c.output_gate else None
        self.w_out = draws.normal(keys[5], (inner, d_model)) / math.sqrt(inner)
        self.config = c

    def initial_state(self) -> HeadState:
        rows = jnp.zeros((max(self.config.conv - 1, 0), self.w_in.shape[1]))
        return HeadState(rows, eqx.filter_vmap(lambda m: m.start(), axis_size=self.config.n_heads)(self.memory))

    def step(self, state: HeadState, x: Float[Array, " d"]) -> tuple[HeadState, Float[Array, " d"]]:
        rows = jnp.concatenate([state.rows, (x @ self.w_in)[None]])
        tokens = jax.tree.map(lambda leaf: leaf[:, 0], self.tokens(rows, x[None]))
        memory, read = eqx.filter_vmap(lambda m, s, token: m.step(s, token))(self.memory, state.memory, tokens)
        return HeadState(rows[1:], memory), self.finish(read[:, None], x[None])[0]

    def outputs(self, x: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        return self.run(self.initial_state(), x, tap)[1]

    def run(
        self, state: HeadState, x: Float[Array, "t d"], tap: Tap | None = None
    ) -> tuple[HeadState, Float[Array, "t d"]]:
        """Go on over several tokens by the parallel form; the first of them starts a chunk.

        Sites: `q`, `k`, `v` as the memory gets them, and what it reads, `z`, all "heads t ..".
        """
        tap = tap or Tap()
        rows = jnp.concatenate([state.rows, x @ self.w_in])
        tokens = self.tokens(rows, x)
        tokens = tokens._replace(q=tap("q", tokens.q), k=tap("k", tokens.k), v=tap("v", tokens.v))
        memory, read = eqx.filter_vmap(lambda m, s, tokens: m.scan(s, tokens))(self.memory, state.memory, tokens)
        return HeadState(rows[x.shape[0] :], memory), self.finish(tap("z", read), x)

    def tokens(self, rows: Float[Array, "rows channels"], x: Float[Array, "t d"]) -> Tokens:
        """Queries, keys, values and raw gates, "heads t .."; `rows` starts kernel - 1 tokens earlier than `x`."""
        c, h, t = self.config, self.config.n_heads, x.shape[0]
        if self.kernel is not None:
            rows = causal_convolution(rows, self.kernel)
        rows = feature_map(rows, c.feature)
        n_keys = self.d_key * (1 if c.shared_keys else h)
        q, k = (rows[:, i * n_keys : (i + 1) * n_keys].reshape(t, -1, self.d_key) for i in (0, 1))
        if c.unit_keys:
            q, k = unit(q), unit(k)
        q, k = (jnp.broadcast_to(jnp.swapaxes(a, 0, 1), (h, t, self.d_key)) for a in (q, k))
        v = jnp.swapaxes(rows[:, 2 * n_keys :].reshape(t, h, self.d_value), 0, 1)
        return Tokens(q, k, v, jnp.swapaxes((x @ self.w_raw).reshape(t, h, c.n_gates(self.d_key)), 0, 1))

    def finish(self, read: Float[Array, "heads t d_value"], x: Float[Array, "t d"]) -> Float[Array, "t d"]:
        """Norm, gate and output map."""
        if self.gain is not None:
            read = rms(read) * self.gain[:, None]
        y = jnp.swapaxes(read, 0, 1).reshape(x.shape[0], -1)
        if self.w_gate is not None:
            y = y * jax.nn.silu(x @ self.w_gate)
        return y @ self.w_out


def causal_convolution(rows: Float[Array, "rows c"], kernel: Float[Array, "k c"]) -> Float[Array, "t c"]:
    """y_t = sum_j kernel_j rows_{t+j}, channel by channel; the last tap meets the token itself."""
    k, t = kernel.shape[0], rows.shape[0] - kernel.shape[0] + 1
    return sum((kernel[j][None] * rows[j : j + t] for j in range(1, k)), kernel[0][None] * rows[:t])


def _first_tap(length: int, channels: int, key: Key[Array, ""]) -> Array:
    """A kernel near the identity: the newest tap 1, the others small."""
    return (0.3 * draws.normal(key, (length, channels)) / math.sqrt(length)).at[-1].add(1.0)


def feature_map(x: Float[Array, "*shape"], name: str) -> Float[Array, "*shape"]:
    """The nonlinearity of queries, keys and values: none, SiLU, or elu + 1, which is positive."""
    return {"identity": lambda u: u, "silu": jax.nn.silu, "elu": elu_plus_one}[name](x)


def unit(x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """x / |x|, finite with its gradient at zero."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
