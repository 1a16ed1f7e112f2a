"""Where curves cross or turn: the threshold of task diversity, and the time of closest approach; tasks in between."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.errors import require


def crossing(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The x at which curve b passes from above to below curve a, on a logarithmic x axis; NaN if it never does.

    The task-diversity threshold M* of Raventos et al. (2023): x are pool sizes, a and b the distance to ridge after
    less and after more training; beyond M* more training brings the network closer. Of several crossings the last
    one counts; between two pool sizes the difference b - a is interpolated linearly in log x.
    """
    x, gap = np.asarray(x, float), np.asarray(b, float) - np.asarray(a, float)
    require(bool((np.diff(x) > 0).all() and x[0] > 0), "x", x.tolist(), "positive and ascending")
    turns = np.flatnonzero((gap[:-1] >= 0) & (gap[1:] < 0))
    if not len(turns) or not np.all(gap[turns[-1] + 1 :] < 0):
        return float("nan")
    i = turns[-1]
    share = gap[i] / (gap[i] - gap[i + 1])
    return float(np.exp(np.log(x[i]) + share * (np.log(x[i + 1]) - np.log(x[i]))))


def closest_approach(steps: np.ndarray, distance: np.ndarray, *, window: int = 1) -> tuple[int, bool]:
    """The step t* at which a distance is smallest, after a running mean of `window` records, and if it is inside.

    A minimum at the last record means that the distance still fell when training ended: then t* is not known.
    """
    require(window >= 1, "window", window, "a positive integer")
    values = np.asarray(distance, float)
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="edge")
    smooth = np.convolve(padded, np.full(window, 1 / window), mode="valid")
    best = int(np.argmin(smooth))
    return int(np.asarray(steps)[best]), best < len(smooth) - 1


def between_tasks(start: Float[Array, "*b d"], end: Float[Array, "*b d"], share: float) -> Float[Array, "*b d"]:
    """Weights on the arc from `end` (share 0) to `start` (share 1), of the mean of the two norms.

    The direction is share start + (1 - share) end, made a unit vector (Raventos et al., 2023, Fig. 5).
    """
    mixed = share * start + (1 - share) * end
    norms = [jnp.linalg.norm(w, axis=-1, keepdims=True) for w in (start, end)]
    return mixed / jnp.linalg.norm(mixed, axis=-1, keepdims=True) * (norms[0] + norms[1]) / 2
