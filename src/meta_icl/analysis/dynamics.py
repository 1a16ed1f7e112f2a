"""Probes of training dynamics: plateaus, learned directions, conserved quantities, and the roles of heads.

Everything is numpy on recorded arrays: losses "t", maps "t d d", the numbers of heads.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from meta_icl.errors import require

Numbers = ArrayLike | Sequence[Any]  # a number, an array, or nested sequences of numbers


class Plateau(NamedTuple):
    """A stretch on which the loss hardly falls: its height and time at the slowest point, and how slow it is there.

    `slowness` is the speed -dL/dt at the slowest point over the smaller of the fastest speeds before and after it:
    0 for a perfect plateau, 1 for none.
    """

    height: float
    time: float
    slowness: float


def plateaus(times: Numbers, losses: Numbers, *, min_drop: float = 0.02, max_slowness: float = 0.1) -> list[Plateau]:
    """The plateaus between two drops of a falling loss, in order; the ends of the curve are not plateaus.

    The curve is cut at every slowest point that has a drop of at least `min_drop` (a share of the whole fall) since the
    last plateau and before the next, and whose speed is at most `max_slowness` times the fastest in both.
    """
    t, loss = np.asarray(times, np.float64), np.asarray(losses, np.float64)
    ok = t.ndim == 1 and t.shape == loss.shape and len(t) >= 3 and bool((np.diff(t) > 0).all())
    require(ok, "times", t.shape, "ascending, one per loss, at least three")
    speed = -np.diff(loss) / np.diff(t)
    fall = loss[0] - loss[-1]
    if not fall > 0:
        return []
    found: list[Plateau] = []
    _split(t, loss, speed, 0, len(speed), min_drop * fall, max_slowness, found)
    return sorted(found, key=lambda plateau: plateau.time)


def _split(
    t: np.ndarray, loss: np.ndarray, speed: np.ndarray, a: int, b: int, drop: float, limit: float, found: list[Plateau]
) -> None:
    """Find the clearest plateau among the intervals a..b-1, then look on either side of it."""
    if b - a < 3:
        return
    piece = speed[a:b]
    before = np.maximum.accumulate(piece)
    after = np.maximum.accumulate(piece[::-1])[::-1]
    fastest = np.minimum(before, after)
    high, low = loss[a] - loss[a + 1 : b + 1], loss[a:b] - loss[b]
    inside = (high >= drop) & (low >= drop) & (fastest > 0)
    if not inside.any():
        return
    slowness = np.where(inside, piece / np.where(fastest > 0, fastest, 1), np.inf)
    best = int(slowness.argmin())
    if slowness[best] > limit:
        return
    i = a + best
    found.append(Plateau(float(loss[i] + loss[i + 1]) / 2, float(t[i] + t[i + 1]) / 2, float(max(slowness[best], 0))))
    _split(t, loss, speed, a, i, drop, limit, found)
    _split(t, loss, speed, i + 1, b, drop, limit, found)


def plateau_table(
    times: Float[np.ndarray, " t"],
    losses: Float[np.ndarray, "s t"],
    maps: Float[np.ndarray, "s t d d"],
    target: Float[np.ndarray, "d d"],
    directions: Float[np.ndarray, "d d"],
    *,
    min_drop: float = 0.02,
    max_slowness: float = 0.1,
) -> dict[str, np.ndarray]:
    """The first d plateaus of several seeds' losses, and the map learned at each, as arrays filled up with NaN.

    "height" and "time", "s d"; "share", "s d d", and "off", "s d", as `direction_overlap` tells them; "map", "s d d d".
    """
    seeds, d = len(losses), len(target)
    empty = {"height": (), "time": (), "share": (d,), "off": (), "map": (d, d)}
    table = {name: np.full((seeds, d, *shape), np.nan) for name, shape in empty.items()}
    for seed in range(seeds):
        found = plateaus(times, losses[seed], min_drop=min_drop, max_slowness=max_slowness)
        for index, plateau in enumerate(found[:d]):
            learned = maps[seed, int(np.argmin(np.abs(times - plateau.time)))]
            overlap = direction_overlap(learned, target, directions)
            row = {"height": plateau.height, "time": plateau.time, "map": learned, **overlap._asdict()}
            for name, values in table.items():
                values[seed, index] = row[name]
    return table


def nearest_plateau(heights: Float[np.ndarray, "s k"], level: float) -> Int[np.ndarray, " s"]:
    """For every seed the index of the plateau nearest to a level; -1 for a seed without any (heights all NaN)."""
    distance = np.where(np.isfinite(heights), np.abs(heights - level), np.inf)
    return np.where(np.isfinite(distance).any(1), distance.argmin(1), -1)


def first_below(
    times: Float[np.ndarray, " t"], losses: Float[np.ndarray, "s t"], level: float
) -> Float[np.ndarray, " s"]:
    """For every seed the first time at which the loss is below a level; infinite if it never is."""
    below = losses < level
    return np.where(below.any(1), times[below.argmax(1)], np.inf)


class DirectionOverlap(NamedTuple):
    """A learned map in the basis of the components of a target: shares learned, and what lies outside the basis.

    `share` "d" is 1 for a component that stands as in the target; `off` is the largest off-diagonal entry over the
    largest entry of the target.
    """

    share: Float[np.ndarray, " d"]
    off: float


def direction_overlap(
    learned: Float[np.ndarray, "d d"], target: Float[np.ndarray, "d d"], directions: Float[np.ndarray, "d d"]
) -> DirectionOverlap:
    """How much of each direction (rows, orthonormal) of a `target` map the `learned` one has.

    share_k = (e_k^T U e_k) / (e_k^T U* e_k): for principal component regression in context it is 1 for the first few
    eigenvectors and 0 for the others (Zhang et al., 2025).
    """
    inside, ideal = (directions @ np.asarray(m, np.float64) @ directions.T for m in (learned, target))
    off = np.abs(inside - np.diag(np.diag(inside))).max() / np.abs(ideal).max()
    return DirectionOverlap(np.diag(inside) / np.diag(ideal), float(off))


def distance_to_scaled_identity(matrix: Numbers) -> Float[np.ndarray, "*b"]:
    """|M - (tr M / d) I|_F / |M|_F of every matrix "*b d d" (Ahn et al., 2023).

    0 for a multiple of the identity, 1 for a matrix without trace, NaN for a vanishing one.
    """
    m = np.asarray(matrix, np.float64)
    d = m.shape[-1]
    mean = np.trace(m, axis1=-2, axis2=-1) / d
    distance = np.linalg.norm(m - mean[..., None, None] * np.eye(d), axis=(-2, -1))
    size = np.linalg.norm(m, axis=(-2, -1))
    return np.divide(distance, size, out=np.full_like(size, np.nan), where=size > 0)


def conservation_drift(quantities: Float[np.ndarray, "t q"]) -> float:
    """The largest change of any conserved quantity along a path, absolute."""
    values = np.asarray(quantities, np.float64)
    return float(np.abs(values - values[:1]).max())


POSITIVE, NEGATIVE, DUMMY = 1, -1, 0


def head_roles(omega: Numbers, mu: Numbers, *, threshold: float = 0.1) -> Int[np.ndarray, " h"]:
    """1 for positive, -1 for negative, 0 for dummy heads of softmax regression (He et al., 2025).

    A head is a dummy if |omega mu|, its share of the gradient step, is below `threshold` times the largest one; others
    are called by the sign of omega, which equals that of mu when they add to the step.
    """
    w, m = np.asarray(omega, np.float64), np.asarray(mu, np.float64)
    require(w.shape == m.shape and w.ndim == 1, "omega and mu", (w.shape, m.shape), "one number per head each")
    strength = np.abs(w * m)
    return np.where(strength < threshold * max(strength.max(), 1e-300), DUMMY, np.sign(w)).astype(int)


def zero_sum_score(mu: Numbers) -> float:
    """|sum_h mu_h| / max_h |mu_h|: 0 when the heads' weights cancel, so that a constant label adds nothing."""
    m = np.asarray(mu, np.float64)
    return float(abs(m.sum()) / max(np.abs(m).max(), 1e-300))


def homogeneity_score(omega: Numbers, roles: Int[np.ndarray, " h"]) -> float:
    """Largest relative deviation of |omega| from its mean over the heads that are no dummies; 0 for equal kernels."""
    active = np.abs(np.asarray(omega, np.float64))[np.asarray(roles) != DUMMY]
    return float(np.abs(active / active.mean() - 1).max()) if active.size else float("nan")


def diagonal_share(matrix: Float[np.ndarray, "d d"]) -> float:
    """Sum of squares on the diagonal over that of the whole matrix."""
    m = np.asarray(matrix, np.float64)
    return float(np.square(np.diag(m)).sum() / np.square(m).sum())
