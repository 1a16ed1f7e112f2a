"""How fast linear attention learns: closed forms of gradient flow from a small start (Zhang et al., 2025).

Gradient flow is tau dW/dt = -1/2 dL/dW on the full mean squared error L. Gradient descent with rate r on L has
tau = 1/2 and t = r * steps. Noise-free labels, w ~ N(0, I).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from meta_icl.algorithms._checks import Numbers
from meta_icl.errors import require


class WhiteCourse(NamedTuple):
    """Constants of merged linear attention on inputs of covariance variance * I.

    s = sum_i v_i tr(W_i) / sqrt(d) obeys tau ds/dt = 2 s (rise - saturation s): it rises from `start` to
    rise / saturation while the loss falls from `loss_start` to `loss_end`.
    """

    rise: float
    saturation: float
    start: float
    loss_start: float
    loss_end: float
    tau: float

    def loss(self, times: Numbers) -> Float[np.ndarray, " t"]:
        """The loss at given times: loss_end + (loss_start - loss_end) (1 - s / s_end)^2."""
        end = self.rise / self.saturation
        grown = np.exp(-2 * self.rise * np.asarray(times, np.float64) / self.tau)
        s = end / (1 + (end / self.start - 1) * grown)
        return self.loss_end + (self.loss_start - self.loss_end) * (1 - s / end) ** 2

    def half_time(self) -> float:
        """The time at which the loss has fallen half-way."""
        ratio = self.rise / self.saturation / self.start
        return self.tau / (2 * self.rise) * math.log((ratio - 1) * (math.sqrt(2) - 1))


def white_course(v: Numbers, w_kq: Numbers, *, variance: float, n_context: int, tau: float = 1.0) -> WhiteCourse:
    """The time course of merged attention from weights v "h", w_kq "h d d" near zero, with inputs N(0, variance I).

    rise = variance^2 sqrt(d), saturation = variance^3 (1 + (1 + d)/N). The start is
    sum_i ((v_i + tr(W_i)/sqrt(d)) / 2)^2: the part of the weights that grows, exact as the start goes to zero.
    """
    values, matrices = np.asarray(v, np.float64), np.asarray(w_kq, np.float64)
    d = matrices.shape[-1]
    require(variance > 0, "variance", variance, "positive")
    rise = variance**2 * math.sqrt(d)
    saturation = variance**3 * (1 + (1 + d) / n_context)
    aligned = (values + np.trace(matrices, axis1=1, axis2=2) / math.sqrt(d)) / 2
    loss_end = variance * d * (1 - 1 / (1 + (1 + d) / n_context))
    return WhiteCourse(rise, saturation, float(np.sum(aligned**2)), variance * d, loss_end, tau)


def merged_escape_rate(covariance: Float[np.ndarray, "d d"], tau: float = 1.0) -> float:
    """Rate 2 |Lambda^2|_F / tau at which merged attention's U grows from zero, for any covariance; one drop follows."""
    return 2 * float(np.linalg.norm(covariance @ covariance)) / tau


def rank_one_velocity(v: Numbers, eigenvalue: float, trace: float, n_context: int, tau: float = 1.0) -> np.ndarray:
    """dv/dt of a balanced head of rank one along an eigenvector: lam^2 v^2 - lam^3 (1 + (1 + trace/lam)/N) v^5."""
    head, lam = np.asarray(v, np.float64), float(eigenvalue)
    return np.asarray((lam**2 * head**2 - lam**3 * (1 + (1 + trace / lam) / n_context) * head**5) / tau)


def rank_one_escape_time(v0: float, eigenvalue: float, tau: float = 1.0) -> float:
    """tau / (lam^2 v0): how long the plateau before an eigenvector is learned lasts, from a head of size v0.

    It is the time at which dv/dt = lam^2 v^2 / tau diverges; inversely proportional to the start, not logarithmic.
    """
    require(v0 > 0, "v0", v0, "positive")
    return tau / (eigenvalue**2 * v0)
