"""A block: what mixes tokens, then what each token does alone, with norms and skips in every published arrangement.

    A = mixer(norm(x));  carry, source = by `skip`;  out = carry + feed_forward(norm(source))

| skip | carry | source of the feed-forward half |
|---|---|---|
| "residual" | x + A | x + A |
| "parallel" | x + A | x (Wang & Komatsuzaki, 2021: GPT-J, GPT-NeoX) |
| "around" | x + A | A (the skip passes around the MLP; Dherin et al., 2025, first version) |
| "none" | 0 | A |
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from meta_icl.errors import choose, require
from meta_icl.models.mixers.attention import Attention, AttentionLayer
from meta_icl.models.mixers.mixer import mix
from meta_icl.models.norms import Norm, NormLayer
from meta_icl.models.patch import Patch, vector_change
from meta_icl.models.trace import Tap

SKIPS = ("residual", "parallel", "around", "none")
PLACES = ("pre", "sandwich", "branch", "post")
WRITES = ("all", "last")


@dataclass(frozen=True)
class Block:
    """Describes a block; called with a width and a key it draws the weights (`BlockLayer`).

    `mixer` describes what mixes tokens, `feed_forward` what follows on each token alone; either may be missing. `norm`
    stands before both halves ("pre"), before and after each ("sandwich": Gemma), after each half's branch ("branch":
    OLMo 2) or after the sum ("post": Vaswani et al., 2017); `norm_feed_forward=False` leaves the second half without.
    Both halves are multiplied by `dampening`; with `writes="last"` they write the last channel alone. `clip` clamps the
    stream after the block.
    """

    mixer: Any = Attention()
    feed_forward: Any = None
    norm: Norm | None = None
    norm_at: str = "pre"
    norm_feed_forward: bool = True
    skip: str = "residual"
    dampening: float = 1.0
    writes: str = "all"
    clip: float | None = None

    def __post_init__(self):
        choose("skip", self.skip, SKIPS)
        choose("norm_at", self.norm_at, PLACES)
        choose("writes", self.writes, WRITES)
        require(self.clip is None or self.clip > 0, "clip", self.clip, "positive, or nothing")
        some = self.mixer is not None or self.feed_forward is not None
        require(some, "mixer", None, "given, or feed_forward")
        stays = self.skip in ("residual", "none") or self.feed_forward is not None
        require(stays, "skip", self.skip, "'residual' or 'none' without a feed-forward half")

    def __call__(self, d_model: int, *, key: Key[Array, ""], d_in: int | None = None) -> "BlockLayer":
        """Draw the weights; `d_in` is the width of the rows where it is not that of the stream (`skip="none"` only)."""
        mixer_key, half_key = jax.random.split(key)
        narrow = {} if d_in in (None, d_model) else {"d_in": d_in}
        require(not narrow or self.skip == "none", "d_in", d_in, f"d_model = {d_model}, or combined with skip='none'")
        mixer = None if self.mixer is None else self.mixer(d_model, key=mixer_key, **narrow)
        half = None if self.feed_forward is None else self.feed_forward(d_model, key=half_key)

        def norm(present: bool, width: int = d_model) -> NormLayer | None:
            return self.norm(width) if self.norm is not None and present else None

        second = half is not None and self.norm_feed_forward
        first_width = (d_in or d_model) if self.norm_at in ("pre", "sandwich") else d_model
        both = self.norm_at == "sandwich"
        return BlockLayer(
            mixer,
            half,
            norm(mixer is not None, first_width),
            norm(second),
            norm(both and mixer is not None),
            norm(both and second),
            self,
        )


class Reading(NamedTuple):
    """What the second half of a block gets of a token: it reads `source`, and its answer is added to `carry`."""

    carry: Float[Array, "... d"]
    source: Float[Array, "... d"]


class BlockLayer(eqx.Module):
    """The weights of one block, or, with a leading axis on every leaf, of several."""

    mixer: Any
    feed_forward: Any
    norm_mixer: NormLayer | None
    norm_feed_forward: NormLayer | None
    post_norm_mixer: NormLayer | None  # the second norm of a sandwich
    post_norm_feed_forward: NormLayer | None
    config: Block = eqx.field(static=True)

    def __call__(
        self,
        h: Float[Array, "t d_in"],
        *,
        visible: Bool[Array, " t"] | None = None,
        tap: Tap | None = None,
        patch: Patch | None = None,
    ) -> Float[Array, "t d"]:
        """The stream after the block; only `visible` rows exist, and `patch` changes the weights of the second half."""
        tap = tap or Tap()
        return self.second_half(self.first_half(h, visible=visible, tap=tap), tap=tap, patch=patch)

    def some(self, h: Float[Array, "t d_in"], rows: slice) -> Float[Array, "q d"]:
        """Some rows of the stream after the block; attention is asked for these alone."""
        if isinstance(self.mixer, AttentionLayer):
            return self.second_half(self.first_half(h, rows=rows))
        reading = self.first_half(h)
        return self.second_half(Reading(reading.carry[rows], reading.source[rows]))

    def first_half(
        self,
        h: Float[Array, "t d_in"],
        *,
        visible: Bool[Array, " t"] | None = None,
        tap: Tap | None = None,
        rows: slice | None = None,
    ) -> Reading:
        """What mixes tokens, for every row or some `rows` alone; those that are not visible do not exist for others."""
        tap = tap or Tap()
        x = tap("resid_pre", h)
        if self.mixer is None:
            return Reading(x, x)
        normed = tap("mixer_in", self._before(self.norm_mixer, x))
        mixed = (
            self.mixer(normed, visible=visible, tap=tap, rows=rows)
            if isinstance(self.mixer, AttentionLayer)
            else mix(self.mixer, normed, visible=visible, tap=tap)
        )
        return self.carried(x if rows is None else x[rows], mixed, tap)

    def carried(self, x: Float[Array, "t d_in"], mixed: Float[Array, "t d"], tap: Tap) -> Reading:
        """What the second half reads, given the stream and what the mixer answers."""
        mixed = tap("mixer_out", self._behind(self.norm_mixer, self.post_norm_mixer, mixed))
        skip = self.config.skip
        total = mixed if skip == "none" else self._sum(self.norm_mixer, x, mixed)
        total = tap("resid_mid", total)
        if self.feed_forward is None:
            return Reading(total, total)
        carry = jnp.zeros_like(total) if skip == "none" else total
        return Reading(carry, {"residual": total, "parallel": x, "around": mixed, "none": total}[skip])

    def second_half(self, reading: Reading, *, tap: Tap | None = None, patch: Patch | None = None) -> Array:
        """What each token does alone, for every row "t d", with the weights changed by `patch`."""
        tap = tap or Tap()
        h = reading.carry
        if self.feed_forward is not None:
            n = tap("mlp_in", jax.vmap(lambda source: self.mlp_in(source, patch))(reading.source))
            out = tap("mlp_out", jax.vmap(lambda row: self.mlp_out(row, patch))(n))
            h = h + out if self.config.skip == "none" else self._sum(self.norm_feed_forward, h, out)
        if self.config.clip is not None:
            h = jnp.clip(h, -self.config.clip, self.config.clip)
        return tap("resid_post", h)

    def mlp_in(self, source: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        """What the second half's matrices read of one token: the source, normalised where a norm stands before."""
        return self._before(self.norm_feed_forward, source, vector_change(patch, "norm_scale"))

    def mlp_out(self, n: Float[Array, " d"], patch: Patch | None = None) -> Float[Array, " d"]:
        """The second half's answer for one token, after the norm that may follow it."""
        out = self.feed_forward(n, patch) if patch is not None else self.feed_forward(n)
        change = vector_change(patch, "post_norm_scale")
        return self._behind(self.norm_feed_forward, self.post_norm_feed_forward, out, change)

    @property
    def norm_behind(self) -> NormLayer | None:
        """The norm that the second half's answer passes before it is added, if there is one."""
        if self.post_norm_feed_forward is not None:
            return self.post_norm_feed_forward
        return self.norm_feed_forward if self.config.norm_at == "branch" else None

    @property
    def norm_before(self) -> NormLayer | None:
        """The norm through which the second half reads, if there is one."""
        return self.norm_feed_forward if self.config.norm_at in ("pre", "sandwich") else None

    def _before(self, norm: NormLayer | None, x: Array, change: Array | float = 0.0) -> Array:
        return x if norm is None or self.config.norm_at not in ("pre", "sandwich") else norm(x, change)

    def _behind(self, norm: NormLayer | None, second: NormLayer | None, out: Array, change: Array | float = 0) -> Array:
        after = norm if self.config.norm_at == "branch" else second
        return out if after is None else after(out, change)

    def _sum(self, norm: NormLayer | None, x: Array, out: Array) -> Array:
        """The stream with a branch added."""
        if self.config.writes == "last":
            out = out * (jnp.arange(out.shape[-1]) == out.shape[-1] - 1).astype(out.dtype)[None]
        if self.config.dampening != 1:
            out = self.config.dampening * out
        total = x + out
        return norm(total) if norm is not None and self.config.norm_at == "post" else total
