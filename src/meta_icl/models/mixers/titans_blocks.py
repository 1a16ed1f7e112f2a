"""The three ways in which Titans joins its long-term memory with attention: as context, as gate, as layer.

Persistent tokens are learned vectors in front of every sequence; attention always sees them and they have no position.
All three are mixers. What the paper leaves open is settled here: the gate is rmsnorm(y) g sigmoid(rmsnorm(m) g'); in
MAC, token i of a segment sees the recalled tokens up to i (all of them would show it its future), and recalled token i
shares the position of token i.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.mixers.attention import Attention, AttentionLayer
from meta_icl.models.mixers.heads import HeadMixer, HeadState, feature_map, unit
from meta_icl.models.mixers.mixer import Mixer, MixerDescription
from meta_icl.models.mixers.patterns import Cache, Sums
from meta_icl.models.mixers.titans import Titans
from meta_icl.models.norms import rms
from meta_icl.models.positions import Rotary
from meta_icl.models.trace import Tap

VARIANTS = ("context", "gate", "layer")


@dataclass(frozen=True)
class TitansBlock(MixerDescription):
    """Describes MAC ("context"), MAG ("gate") or MAL ("layer").

    `segment` is the length of a segment of MAC and the window of attention of the others.
    """

    variant: str = "context"
    memory: Titans = field(default_factory=Titans)
    segment: int = 32
    n_heads: int = 2
    n_persistent: int = 4

    def __post_init__(self):
        choose("variant", self.variant, VARIANTS)
        require(self.segment >= 1, "segment", self.segment, "a positive integer")
        require(self.n_persistent >= 0, "n_persistent", self.n_persistent, "zero or more")
        whole = self.variant != "context" or self.segment % self.memory.chunk_size == 0
        require(whole, "segment", self.segment, f"a multiple of the memory's chunk_size = {self.memory.chunk_size}")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "MemoryAsContext | MemoryAsGate | MemoryAsLayer":
        kinds: dict[str, Any] = {"context": MemoryAsContext, "gate": MemoryAsGate, "layer": MemoryAsLayer}
        return kinds[self.variant](self, d_model, key=key)


@dataclass(frozen=True)
class Persistent(MixerDescription):
    """Any mixer behind `n_tokens` learned vectors, which it takes in before every sequence."""

    mixer: MixerDescription
    n_tokens: int = 4

    def __post_init__(self):
        require(self.n_tokens >= 0, "n_tokens", self.n_tokens, "zero or more")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "PersistentLayer":
        token_key, mixer_key = jax.random.split(key)
        return PersistentLayer(draws.normal(token_key, (self.n_tokens, d_model)), self.mixer(d_model, key=mixer_key))


class PersistentLayer(Mixer):
    """A mixer whose initial state has taken in the persistent tokens."""

    tokens: Float[Array, "p d"]
    mixer: Any

    def initial_state(self) -> PyTree:
        return lax.scan(lambda s, row: self.mixer.step(s, row), self.mixer.initial_state(), self.tokens)[0]  # noqa: PLW0108

    def step(self, state: PyTree, x: Float[Array, " d"]) -> tuple[PyTree, Float[Array, " d"]]:
        return self.mixer.step(state, x)

    def outputs(self, x: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        del tap
        return self.mixer(jnp.concatenate([self.tokens, x]))[self.tokens.shape[0] :]


class Joined(Mixer):
    """What the three variants share: a memory, an attention, persistent tokens and the gains of the gate."""

    persistent: Float[Array, "p d"]
    memory: HeadMixer
    attention: AttentionLayer
    gains: Float[Array, "2 d"]
    config: TitansBlock = eqx.field(static=True)

    def __init__(self, config: TitansBlock, d_model: int, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 3)
        self.persistent = draws.normal(keys[0], (config.n_persistent, d_model))
        self.memory = config.memory(d_model, key=keys[1])
        self.attention = Attention(config.n_heads, window=config.segment, rotary=Rotary())(d_model, key=keys[2])
        self.gains = jnp.ones((2, d_model))
        self.config = config

    def gated(self, y: Float[Array, "*t d"], m: Float[Array, "*t d"]) -> Float[Array, "*t d"]:
        """rmsnorm(y) g sigmoid(rmsnorm(m) g')."""
        gain, gate_gain = (jnp.broadcast_to(g, y.shape) for g in self.gains)
        return rms(y) * gain * jax.nn.sigmoid(rms(m) * gate_gain)

    def after_persistent(self) -> tuple[HeadState, Float[Array, "p d"]]:
        """The memory after the persistent tokens, and its outputs at them."""
        return lax.scan(lambda s, row: self.memory.step(s, row), self.memory.initial_state(), self.persistent)  # noqa: PLW0108


class ParallelState(NamedTuple):
    """State of the memory and cache of the attention."""

    memory: HeadState
    cache: Cache | Sums


class MemoryAsGate(Joined):
    """MAG: sliding-window attention and the memory side by side, the one gating the other."""

    def initial_state(self) -> ParallelState:
        return ParallelState(self.after_persistent()[0], self.attention.initial_state(prefix=self.persistent))

    def step(self, state: ParallelState, x: Float[Array, " d"]) -> tuple[ParallelState, Float[Array, " d"]]:
        memory, m = self.memory.step(state.memory, x)
        cache, y = self.attention.step(state.cache, x)
        return ParallelState(memory, cache), self.gated(y, m)

    def outputs(self, x: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        del tap
        m = self.memory(jnp.concatenate([self.persistent, x]))[self.config.n_persistent :]
        return self.gated(self.attention(x, prefix=self.persistent), m)


class MemoryAsLayer(Joined):
    """MAL: sliding-window attention over what the memory gives."""

    def initial_state(self) -> ParallelState:
        memory, prefix = self.after_persistent()
        return ParallelState(memory, self.attention.initial_state(prefix=prefix))

    def step(self, state: ParallelState, x: Float[Array, " d"]) -> tuple[ParallelState, Float[Array, " d"]]:
        memory, m = self.memory.step(state.memory, x)
        cache, y = self.attention.step(state.cache, m)
        return ParallelState(memory, cache), y

    def outputs(self, x: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        del tap
        m = self.memory(jnp.concatenate([self.persistent, x]))
        return self.attention(m[self.config.n_persistent :], prefix=m[: self.config.n_persistent])


class SegmentState(NamedTuple):
    """MAC inside a segment: the memory now and at the segment's start, keys and values of both kinds of tokens."""

    memory: HeadState
    start: PyTree
    keys: Float[Array, "heads 2 c k"]  # of recalled tokens, of the segment's own
    values: Float[Array, "heads 2 c k"]
    position: Int[Array, ""]


class MemoryAsContext(Joined):
    """MAC: in every segment, recall from the memory, attend to what was recalled and to the segment, write the result.

    h = M(S W_Q) with the memory before the segment, y = attention over [persistent, h, S], then the memory takes in y
    and its answer gates y: the memory sees what attention made of the segment.
    """

    w_recall: Float[Array, "d heads*k"]

    def __init__(self, config: TitansBlock, d_model: int, *, key: Key[Array, ""]):
        base_key, recall_key = jax.random.split(key)
        super().__init__(config, d_model, key=base_key)
        width = config.memory.n_heads * self.memory.d_key
        self.w_recall = draws.normal(recall_key, (d_model, width)) / math.sqrt(d_model)

    def initial_state(self) -> SegmentState:
        memory, d, h = self.memory.initial_state(), self.w_recall.shape[0], self.config.n_heads
        empty = jnp.zeros((h, 2, self.config.segment, d // h))
        return SegmentState(memory, memory.memory, empty, empty, jnp.zeros((), jnp.int32))

    def step(self, state: SegmentState, x: Float[Array, " d"]) -> tuple[SegmentState, Float[Array, " d"]]:
        place, c = state.position, self.config.segment
        start = jax.tree.map(lambda new, old: jnp.where(place == 0, new, old), state.memory.memory, state.start)
        both = jnp.stack([self.recalled(start, x[None])[0], x])
        q, k, v = self.attention.heads(both, Tap())
        keys = state.keys.at[:, :, place].set(self.attention.placed(k, jnp.stack([place, place]), None))
        values = state.values.at[:, :, place].set(v)
        visible = jnp.tile(jnp.arange(c) <= place, 2)[None]
        front, q = self.attention.front(q[:, 1:], self.persistent), self.attention.placed(q[:, 1:], place[None], None)
        flat = (keys.shape[0], -1, keys.shape[-1])
        y = self.attention.attend(q, keys.reshape(flat), values.reshape(flat), visible, Tap(), front=front)[0]
        memory, m = self.memory.step(state.memory, y)
        return SegmentState(memory, start, keys, values, (place + 1) % c), self.gated(y, m)

    def outputs(self, x: Float[Array, "t d"], tap: Tap) -> Float[Array, "t d"]:
        del tap
        t, c = x.shape[0], self.config.segment
        segments = jnp.pad(x, ((0, -t % c), (0, 0))).reshape(
            -1, c, x.shape[1]
        )  # what follows changes nothing before it
        positions, visible = jnp.arange(c), jnp.tile(jnp.tri(c, dtype=bool), (1, 2))

        def body(memory: HeadState, segment: Array) -> tuple[HeadState, Array]:
            _, recalled_keys, recalled_values = self.attention.heads(self.recalled(memory.memory, segment), Tap())
            q, k, v = self.attention.heads(segment, Tap())
            front = self.attention.front(q, self.persistent)
            q, *both = (self.attention.placed(a, positions, None) for a in (q, recalled_keys, k))
            keys, values = jnp.concatenate(both, axis=1), jnp.concatenate([recalled_values, v], axis=1)
            y = self.attention.attend(q, keys, values, visible, Tap(), front=front)
            memory, m = self.memory.run(memory, y)
            return memory, self.gated(y, m)

        return lax.scan(body, self.memory.initial_state(), segments)[1].reshape(-1, x.shape[1])[:t]

    def recalled(self, memory: PyTree, x: Float[Array, "t d"]) -> Float[Array, "t d"]:
        """h: what the memory answers to the queries of these tokens, without writing."""
        t, h = x.shape[0], self.memory.config.n_heads
        q = unit(feature_map(x @ self.w_recall, self.memory.config.feature).reshape(t, h, -1))
        read = eqx.filter_vmap(lambda m, s, q: m.answer(m.weights(s), q))(
            self.memory.memory, memory, jnp.swapaxes(q, 0, 1)
        )
        return self.memory.finish(read, x)
