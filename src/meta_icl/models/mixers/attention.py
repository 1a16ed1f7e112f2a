"""The one attention of the house: every published variant is a field of its description.

Row convention: x has shape "t d", heads come first, "heads t k". Scores are Q K^T times a scale, values are summed by
the pattern, and W_O maps heads back to the stream (or every head writes into its own channels).
"""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from meta_icl.errors import choose, require
from meta_icl.models.initialisation import LECUN, Init, widened
from meta_icl.models.mixers.mixer import MixerDescription
from meta_icl.models.mixers.patterns import (
    Cache,
    Front,
    Sums,
    attention_pattern,
    elu_features,
    elu_plus_one,
    seen_rows,
    smeared,
    summed,
)
from meta_icl.models.norms import Norm, NormLayer
from meta_icl.models.positions import Rotary
from meta_icl.models.trace import Tap

KINDS = ("softmax", "linear", "mixed", "elu")
RECURRENT = ("linear", "elu")  # their past is a sum, whatever its length


@dataclass(frozen=True)
class Attention(MixerDescription):
    """Describes attention; called with a width and a key it draws the weights (`AttentionLayer`).

    `kind`: "softmax"; "linear", the scores themselves; "mixed", sigma(10 u) softmax + (1 - sigma(10 u)) linear with a
    learned u; "elu", phi(q).phi(k) over their sum with phi = elu + 1 (Katharopoulos et al., 2020). `scale` is the
    factor on q.k, by default 1 for "linear" and "elu" and 1/sqrt(d_head) otherwise. `n_groups` sets of keys and values
    are shared by the heads (default: one each). `project=False` leaves out W_O: head i adds to its own channels.
    `query_is_key=False` keeps the last row, the query, out of the keys. `window`: the last so many tokens are seen.
    `qk_norm` stands on the queries and keys of every head, or of all heads together with `qk_norm_whole`. `smeared`:
    keys are s k_j + (1 - s) k_{j-1} with a learned sigmoid per group (Olsson et al., 2022). `softcap` bounds scores by
    c tanh(s / c). `biases` are those of queries, keys and values, `bias_out` that of W_O; they start at zero.
    """

    n_heads: int = 1
    d_head: int | None = None
    n_groups: int | None = None
    kind: str = "softmax"
    scale: float | None = None
    causal: bool = True
    query_is_key: bool = True
    window: int | None = None
    project: bool = True
    biases: bool = False
    bias_out: bool = False
    rotary: Rotary | None = None
    qk_norm: Norm | None = None
    qk_norm_whole: bool = False
    smeared: bool = False
    softcap: float | None = None
    init: Init = LECUN
    init_out: Init | None = None  # of W_O, `init` unless given

    def __post_init__(self):
        choose("attention", self.kind, KINDS)
        for field in ("n_heads", "d_head", "n_groups", "window"):
            value = getattr(self, field)
            require(value is None or value >= 1, field, value, "a positive integer or nothing")
        require(self.n_heads % (self.n_groups or 1) == 0, "n_groups", self.n_groups, f"a divisor of {self.n_heads}")
        require(self.causal or self.window is None, "window", self.window, "given for causal attention only")
        require(self.query_is_key or not self.causal, "causal", True, "combined with query_is_key=True")
        require(self.softcap is None or self.softcap > 0, "softcap", self.softcap, "positive, or nothing")

    def width(self, d_model: int) -> int:
        """Channels per head."""
        whole = self.d_head is not None or d_model % self.n_heads == 0
        require(whole, "n_heads", self.n_heads, f"a divisor of d_model = {d_model}")
        return self.d_head or d_model // self.n_heads

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "AttentionLayer":
        h, g, k = self.n_heads, self.n_groups or self.n_heads, self.width(d_model)
        require(self.project or h * k == d_model, "project", False, "combined with heads that fill the stream")
        turned = k if self.rotary is None else self.rotary.turned_channels(k)
        require(self.rotary is None or turned % 2 == 0, "d_head", k, "such that an even number of channels is turned")
        in_key, out_key = jax.random.split(key)
        # One draw for all three compiles faster than three: a decoder is made in 2.1 CPU seconds instead of 2.4.
        w_q, w_k, w_v = jnp.split(self.init((h + 2 * g, d_model, k), d_model, key=in_key), (h, h + g))
        w_o = (self.init_out or self.init)((h, k, d_model), h * k, key=out_key) if self.project else None
        b_q, b_k, b_v = (jnp.zeros((n, k)) if self.biases else None for n in (h, g, g))
        b_o = jnp.zeros(d_model) if self.bias_out else None
        widths = [n * k if self.qk_norm_whole else k for n in (h, g)]
        q_norm, k_norm = (None if self.qk_norm is None else self.qk_norm(width) for width in widths)
        smear = jnp.zeros(g) if self.smeared else None
        mix = jnp.zeros(()) if self.kind == "mixed" else None
        return AttentionLayer(w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o, q_norm, k_norm, smear, mix, self)


class AttentionLayer(eqx.Module):
    """The weights of an `Attention`. Sites: `q`, `k`, `v` (before norms and rotation), `scores`, `pattern`, `z`.

    `scores` are those before the mask, so that an intervention never shows a row its future.
    """

    w_q: Float[Array, "*stack heads d k"]
    w_k: Float[Array, "*stack groups d k"]
    w_v: Float[Array, "*stack groups d k"]
    w_o: Float[Array, "*stack heads k d"] | None
    b_q: Float[Array, "*stack heads k"] | None
    b_k: Float[Array, "*stack groups k"] | None
    b_v: Float[Array, "*stack groups k"] | None
    b_o: Float[Array, "*stack d"] | None
    q_norm: NormLayer | None
    k_norm: NormLayer | None
    smear: Float[Array, "*stack groups"] | None
    mix: Float[Array, "*stack"] | None
    config: Attention = eqx.field(static=True)

    @property
    def scale(self) -> float:
        """The factor on q.k."""
        c = self.config
        if c.scale is not None:
            return c.scale
        return 1.0 if c.kind in RECURRENT else 1 / math.sqrt(self.w_q.shape[-1])

    def __call__(
        self,
        x: Float[Array, "t d"],
        *,
        visible: Bool[Array, " t"] | None = None,
        tap: Tap | None = None,
        rows: slice | None = None,
        prefix: Float[Array, "p d"] | None = None,
    ) -> Float[Array, "q d"]:
        """The output at every row, or at some `rows` alone.

        Rows that are not `visible` do not exist for the others. A `prefix` of further rows is seen by all and has no
        position.
        """
        tap = tap or Tap()
        t = x.shape[0]
        q, k, v = self.heads(x, tap, rows=rows)
        positions = jnp.arange(t)
        front = None if prefix is None else self.front(q, prefix)
        q = self.placed(q, positions if rows is None else positions[rows], self.q_norm)
        k = self.placed(k, positions, self.k_norm)
        if self.smear is not None:
            k = smeared(k, jnp.concatenate([k[:, :1], k[:, :-1]], axis=1), self.smear)
        seen = self.seen(t, visible)
        if not self.config.query_is_key:
            k, v, seen = k[:, :-1], v[:, :-1], None if seen is None else seen[:, :-1]
        if seen is not None and rows is not None:
            seen = seen[rows]
        # A row that sees itself sees something; else the softmax of nothing must be nothing.
        empty = visible is not None or tap.changes("scores")
        return self.attend(q, k, v, seen, tap, empty=empty, front=front)

    def heads(
        self, x: Float[Array, "t d"], tap: Tap, *, rows: slice | None = None
    ) -> tuple[Float[Array, "heads q k"], Float[Array, "groups t k"], Float[Array, "groups t k"]]:
        """Queries, of some `rows` alone where they are given, keys and values as they are projected."""
        if rows is not None or tap.changes("q_input", "k_input", "v_input"):
            inputs = [tap(f"{name}_input", x) for name in "qkv"]
            inputs[0] = inputs[0] if rows is None else inputs[0][rows]
            weights = (self.w_q, self.w_k, self.w_v)
            q, k, v = (jnp.einsum("td,hdk->htk", x, w) for x, w in zip(inputs, weights, strict=True))
        else:  # one product for all
            h, g = self.w_q.shape[0], self.w_k.shape[0]
            all_heads = jnp.einsum("td,hdk->htk", x, jnp.concatenate([self.w_q, self.w_k, self.w_v]))
            q, k, v = all_heads[:h], all_heads[h : h + g], all_heads[h + g :]
        if self.b_q is not None and self.b_k is not None and self.b_v is not None:
            q, k, v = q + self.b_q[:, None], k + self.b_k[:, None], v + self.b_v[:, None]
        return tap("q", q), tap("k", k), tap("v", v)

    def placed(
        self, x: Float[Array, "h t k"], positions: Int[Array, " t"] | None, norm: NormLayer | None
    ) -> Float[Array, "h t k"]:
        """Queries or keys after their norm and rotation; without `positions` they are not turned."""
        if norm is not None and self.config.qk_norm_whole:
            h, t, k = x.shape
            x = jnp.swapaxes(norm(jnp.swapaxes(x, 0, 1).reshape(t, h * k)).reshape(t, h, k), 0, 1)
        elif norm is not None:
            x = norm(x)
        return x if self.config.rotary is None or positions is None else self.config.rotary(x, positions)

    def front(self, q: Float[Array, "heads q k"], prefix: Float[Array, "p d"]) -> Front:
        """What queries, as they are projected, see of the rows of a prefix, which have no place."""
        _, k, v = self.heads(prefix, Tap())
        return Front(self.placed(q, None, self.q_norm), self.placed(k, None, self.k_norm), v)

    def seen(self, t: int, visible: Bool[Array, " t"] | None) -> Bool[Array, "t t"] | None:
        """Which rows (second) a row (first) sees; `None` for all."""
        return seen_rows(t, visible, self.config.causal, self.config.window)

    def attend(
        self,
        q: Float[Array, "heads q k"],
        k: Float[Array, "groups s k"],
        v: Float[Array, "groups s k"],
        seen: Bool[Array, "q s"] | None,
        tap: Tap,
        *,
        empty: bool = False,
        front: Front | None = None,
    ) -> Float[Array, "q d"]:
        """What the queries read of placed keys and of `front`, mapped to the stream; `empty`: rows may see nothing."""
        scores = self.products(q, k)
        if front is not None:
            n_queries, n_front = front.q.shape[1], front.k.shape[1]
            scores = jnp.concatenate([self.products(front.q, front.k), scores], axis=-1)
            v = jnp.concatenate([front.v, v], axis=1)
            if seen is not None:
                seen = jnp.concatenate([jnp.ones((n_queries, n_front), bool), seen], axis=1)
        pattern = tap("pattern", self.pattern(tap("scores", scores), seen, empty))
        return self.out(tap("z", jnp.einsum("hqs,hsk->hqk", pattern, self.for_heads(v))))

    def products(self, q: Float[Array, "heads q k"], k: Float[Array, "groups s k"]) -> Float[Array, "heads q s"]:
        """The scores of placed queries and keys."""
        if self.config.kind == "elu":
            capped = self.config.softcap is not None  # what is capped depends on the size of scores
            q, k = (elu_plus_one(q), elu_plus_one(k)) if capped else elu_features(q, k)
        scores = jnp.einsum("hqk,hsk->hqs", q, self.for_heads(k)) * self.scale
        cap = self.config.softcap
        return scores if cap is None else cap * jnp.tanh(scores / cap)

    def for_heads(self, groups: Float[Array, "g ..."]) -> Float[Array, "h ..."]:
        """Keys or values of the groups, once for each of their heads."""
        shared = self.w_q.shape[-3] // groups.shape[0]
        return groups if shared == 1 else jnp.repeat(groups, shared, axis=0)

    def pattern(
        self, scores: Float[Array, "*h q s"], seen: Bool[Array, "#q s"] | None, empty: bool = False
    ) -> Float[Array, "*h q s"]:
        """The weights with which values are summed."""
        return attention_pattern(self.config.kind, scores, seen, empty, self.mix)

    def out(self, z: Float[Array, "heads q k"]) -> Float[Array, "q d"]:
        """The heads' answers mapped back to the stream."""
        rows = jnp.swapaxes(z, 0, 1).reshape(z.shape[1], -1)
        if self.w_o is not None:
            rows = rows @ self.w_o.reshape(-1, self.w_o.shape[-1])
        return rows if self.b_o is None else rows + self.b_o[None]

    def initial_state(self, capacity: int | None = None, prefix: Float[Array, "p d"] | None = None) -> Cache | Sums:
        """An empty cache for at most `capacity` tokens (the window, where there is one), or empty sums.

        Raises `BadInput` where later tokens are read, so that there is no step form.
        """
        c, (g, d, k) = self.config, self.w_k.shape[-3:]
        require(c.causal, "causal", False, "True, to take in one token after the other")
        plain = c.rotary is None and c.qk_norm is None and not c.smeared and c.softcap is None and c.window is None
        if c.kind in RECURRENT and plain and prefix is None:
            return Sums(jnp.zeros((g, k, k)), jnp.zeros((g, k)))
        size = c.window or capacity
        require(size is not None, "capacity", capacity, "given, for attention without a window")
        assert size is not None
        empty = jnp.zeros((g, size, k))
        prefix = jnp.zeros((0, d)) if prefix is None else prefix
        before = jnp.zeros((g, k)) if c.smeared else None
        return Cache(empty, empty, before, prefix, jnp.zeros((), jnp.int32))

    def step(self, state: Cache | Sums, x: Float[Array, " d"]) -> tuple[Cache | Sums, Float[Array, " d"]]:
        """Take in one token; returns the cache with it and the output at it."""
        q, k, v = self.heads(x[None], Tap())
        if isinstance(state, Sums):
            state, z = summed(state, q, k, v, self.scale, elu=self.config.kind == "elu")
            return state, self.out(z)[0]
        size, position = state.keys.shape[1], state.position
        front = self.front(q, state.prefix) if state.prefix.shape[0] else None
        q, k = self.placed(q, position[None], self.q_norm), self.placed(k, position[None], self.k_norm)
        unsmeared = None
        if self.smear is not None and state.before is not None:
            unsmeared = k[:, 0]
            k = smeared(k, jnp.where(position > 0, state.before, unsmeared)[:, None], self.smear)
        place = position % size
        keys, values = state.keys.at[:, place].set(k[:, 0]), state.values.at[:, place].set(v[:, 0])
        age = (place - jnp.arange(size)) % size  # 0 for the newest
        y = self.attend(q, keys, values, (age <= position)[None], Tap(), front=front)
        return Cache(keys, values, unsmeared, state.prefix, position + 1), y[0]

    def qk(self) -> Float[Array, "*stack heads d d"]:
        """W_Q W_K^T times the scale: scores are h_q A h_k^T (row convention; before norms, rotation and smearing)."""
        shared = self.w_q.shape[-3] // self.w_k.shape[-3]
        w_q, w_k = widened(self.w_q), widened(self.w_k)
        return jnp.einsum("...hdk,...hek->...hde", w_q, jnp.repeat(w_k, shared, axis=-3)) * self.scale

    def ov(self) -> Float[Array, "*stack heads d d"]:
        """W_V W_O: what a row adds to the stream when attended to; without W_O, W_V into the head's own channels."""
        shared = self.w_q.shape[-3] // self.w_v.shape[-3]
        w_v = widened(self.w_v if shared == 1 else jnp.repeat(self.w_v, shared, axis=-3))
        if self.w_o is not None:
            return jnp.einsum("...hdk,...hke->...hde", w_v, widened(self.w_o))
        h, d, k = w_v.shape[-3:]
        own = [jnp.pad(w_v[..., i, :, :], [(0, 0)] * (w_v.ndim - 2) + [(i * k, d - (i + 1) * k)]) for i in range(h)]
        return jnp.stack(own, axis=-3)
