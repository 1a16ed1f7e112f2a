"""Optimisers as values: a description whose numbers are array leaves, so that a sweep can vary them by `vmap`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from optax.contrib import MuonDimensionNumbers, muon

from meta_icl.conversions import number, require_entries
from meta_icl.errors import choose, require

NAMES = ("adam", "adamw", "muon", "sgd")
MUON_RMS = 0.2  # the size of an entry of Muon's step over the rate, about that of Adam's (Liu et al., 2025)
SCHEDULES = ("constant", "cosine", "inverse_sqrt", "linear")


class Optimiser(eqx.Module):
    """Describes a gradient transformation of optax.

    `weight_decay` is decoupled in "adamw" and "muon", and the gradient of weight_decay/2 |params|^2 in "sgd"; "adam"
    ignores it. "muon" moves the hidden maps of a network, its matrices named `w_...` (the last two axes), along the
    orthogonalised gradient (Jordan et al., 2024), and all else by Adam.
    `clip_norm` clips the global norm of the gradient before anything else (infinite: off). `schedule` multiplies the
    learning rate over `schedule_steps` steps ("constant", or falling to zero by "cosine" or "linear") after
    `warmup_steps` linear warm-up steps and `hold_steps` at the full rate; "inverse_sqrt" falls as sqrt(s / step) from
    step s = warmup_steps + hold_steps on, without end.
    """

    name: str = eqx.field(static=True, default="adam")
    learning_rate: Float[Array, ""] = eqx.field(converter=number, default=1e-3)
    b1: Float[Array, ""] = eqx.field(converter=number, default=0.9)
    b2: Float[Array, ""] = eqx.field(converter=number, default=0.999)
    eps: Float[Array, ""] = eqx.field(converter=number, default=1e-8)
    weight_decay: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    momentum: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    clip_norm: Float[Array, ""] = eqx.field(converter=number, default=jnp.inf)
    schedule: str = eqx.field(static=True, default="constant")
    warmup_steps: int = eqx.field(static=True, default=0)
    hold_steps: int = eqx.field(static=True, default=0)
    schedule_steps: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        choose("optimiser", self.name, NAMES)
        choose("schedule", self.schedule, SCHEDULES)
        for field in ("learning_rate", "eps", "weight_decay"):
            require_entries(lambda v: np.isfinite(v) & (v >= 0), field, getattr(self, field), "zero or positive")
        for field in ("b1", "b2", "momentum"):
            require_entries(lambda v: (v >= 0) & (v < 1), field, getattr(self, field), "at least 0 and below 1")
        require_entries(lambda v: v > 0, "clip_norm", self.clip_norm, "positive", infinite=True)
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "zero or more")
        require(self.hold_steps >= 0, "hold_steps", self.hold_steps, "zero or more")
        ends = self.schedule in ("cosine", "linear")
        require(not ends or self.schedule_steps > 0, "schedule_steps", self.schedule_steps, "positive")
        begins = self.schedule != "inverse_sqrt" or self.warmup_steps + self.hold_steps > 0
        require(begins, "warmup_steps", self.warmup_steps, "positive, or hold_steps is")

    def build(self) -> optax.GradientTransformation:
        """The optax transformation; its hyper-parameters may be traced."""
        rate = self.rate
        if self.name == "sgd":
            step = optax.chain(optax.add_decayed_weights(self.weight_decay), optax.sgd(rate, momentum=self.momentum))
        elif self.name == "muon":
            step = muon(
                rate,
                weight_decay=self.weight_decay,
                adam_b1=self.b1,
                adam_b2=self.b2,
                eps=self.eps,
                consistent_rms=MUON_RMS,
                muon_weight_dimension_numbers=hidden_maps,
            )
        elif self.name == "adam":
            step = optax.adam(rate, b1=self.b1, b2=self.b2, eps=self.eps)
        else:
            step = optax.adamw(rate, b1=self.b1, b2=self.b2, eps=self.eps, weight_decay=self.weight_decay)
        return optax.chain(clip_by_global_norm(self.clip_norm), step)

    def rate(self, count: Any) -> Array:
        """The learning rate of step `count`, counted from zero."""
        factor = jnp.ones((), self.learning_rate.dtype)
        if self.schedule == "inverse_sqrt":
            start = self.warmup_steps + self.hold_steps
            factor = jnp.sqrt(start / jnp.maximum(count + 1, start))
        elif self.schedule != "constant":
            share = jnp.clip((count - self.warmup_steps - self.hold_steps) / self.schedule_steps, 0, 1)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * share)) if self.schedule == "cosine" else 1 - share
        if self.warmup_steps:
            factor = factor * jnp.minimum(1, (count + 1) / self.warmup_steps)
        return self.learning_rate * factor.astype(self.learning_rate.dtype)


def rising_and_falling(steps: int, share: float = 0.5) -> dict[str, Any]:
    """Fields of an `Optimiser` whose rate rises linearly for a share of the steps and then falls to zero linearly.

    The triangle of a half is that of Raventós et al. (2023). Short trainings of decoders of several layers by Muon come
    further with so long a rise than with one of a twentieth.
    """
    rising = max(1, int(steps * share))
    return {"schedule": "linear", "warmup_steps": rising, "schedule_steps": max(1, steps - rising)}


class Given(eqx.Module):
    """An optimiser of optax as it is; its numbers are fixed, so that a sweep needs an `Optimiser`."""

    transformation: optax.GradientTransformation = eqx.field(static=True)

    def build(self) -> optax.GradientTransformation:
        """The transformation itself."""
        return self.transformation


def hidden_maps(params: Any) -> Any:
    """Which leaves are matrices named `w_...`, and between which axes they map; None for the others.

    The heads of a block's attention, "heads d k" and "heads k d", are one matrix of the stream and all their channels.
    """

    def of(path: Any, leaf: Any) -> MuonDimensionNumbers | None:
        owner, name = (getattr(part, "name", "") for part in (path[-2:] if len(path) > 1 else (None, *path)))
        if not name.startswith("w_") or leaf.ndim < 2:
            return None
        heads, rows, columns = leaf.ndim - 3, leaf.ndim - 2, leaf.ndim - 1
        if owner == "mixer" and heads >= 0 and name in ("w_q", "w_k", "w_v"):
            return MuonDimensionNumbers(rows, (heads, columns))
        if owner == "mixer" and heads >= 0 and name == "w_o":
            return MuonDimensionNumbers((heads, rows), columns)
        return MuonDimensionNumbers(rows, columns)

    return jax.tree_util.tree_map_with_path(of, params)


def clip_by_global_norm(max_norm: Float[Array, ""]) -> optax.GradientTransformation:
    """Scale the gradient down to `max_norm`; unlike optax's own, the bound may be traced and infinite."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params, extra
        norm = optax.tree.norm(updates)
        scale = jnp.minimum(1, max_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
        return optax.tree.scale(scale.astype(norm.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
