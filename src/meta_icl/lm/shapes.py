"""What a language model computes, apart from its weights: one description for every family, in plain numbers."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Rotary:
    """Rotary positions of a layer: the first `fraction` of each head turns; pairs are entries i and i + half of it."""

    base: float
    fraction: float = 1.0
    scaling: str = "default"  # or "linear", "llama3"
    factor: float = 1.0
    low_factor: float = 1.0  # llama3: waves longer than original / low_factor are slowed by the whole factor
    high_factor: float = 4.0  # llama3: waves shorter than original / high_factor are left alone
    original: int = 8192  # llama3: positions before the model was extended

    def frequencies(self, d_head: int) -> Float[np.ndarray, " pairs"]:
        """Radians per position of every pair of entries of a head, in float64.

        Pair i of n turns by base^(-i/n). "linear" divides all by `factor`; "llama3" divides long waves, leaves short
        ones, and blends in between by (original / wavelength - low) / (high - low) (Llama 3.1's published rule).
        """
        n = int(d_head * self.fraction) // 2
        plain = self.base ** -(np.arange(n) / n)
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            waves = self.original * plain / (2 * np.pi)
            share = np.clip((waves - self.low_factor) / (self.high_factor - self.low_factor), 0, 1)
            return plain * (share + (1 - share) / self.factor)
        return plain


@dataclass(frozen=True)
class Shape:
    """The architecture of a pretrained decoder.

    A window of w sees the query and the w - 1 positions before it. `score_scale` multiplies q.k, then
    `score_softcap` c turns scores s into c tanh(s / c); `logit_softcap` does so to the logits.
    """

    family: str  # model_type of the configuration
    n_layers: int
    d_model: int
    n_heads: int
    n_groups: int  # of keys and values
    d_head: int
    d_ff: int
    n_tokens: int
    n_positions: int  # for which it was trained; with learned positions, all there are
    norm: str  # "layer" or "rms"
    norm_eps: float
    placement: str  # of norms: "pre", "sandwich" (before and after each branch), "branch" (after it only)
    parallel: bool  # the feed-forward reads what the mixer reads
    gated: bool
    activation: str  # "gelu" (by tanh), "gelu_exact", "relu", "silu"
    qkv_bias: bool
    o_bias: bool
    feedforward_bias: bool
    qk_norm: str  # "none", "head" (each head by itself), "width" (all heads together)
    tied: bool  # the read-out is the embedding
    embedding_scale: float
    score_scale: float
    score_softcap: float | None
    logit_softcap: float | None
    learned_positions: bool
    rotary: tuple[Rotary | None, ...]  # of every layer
    windows: tuple[int | None, ...]  # of every layer

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of the axes that tables of names speak of."""
        return {
            "v": self.n_tokens,
            "p": self.n_positions,
            "d": self.d_model,
            "f": self.d_ff,
            "heads": self.n_heads,
            "groups": self.n_groups,
            "k": self.d_head,
        }

    def has(self, part: str) -> bool:
        """Whether a part of a table of names is there: "" (always), "untied", "qk_norm", or a flag of this class."""
        if part in ("", "untied"):
            return not (part and self.tied)
        return self.qk_norm != "none" if part == "qk_norm" else bool(getattr(self, part))
