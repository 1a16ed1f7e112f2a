"""Gradient descent on the context, and its curvature-corrected form GD++, as predictors."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from meta_icl.algorithms._checks import per_step, real, step_count
from meta_icl.conversions import optional_numbers
from meta_icl.prompt import Prompt


class GradientDescent(eqx.Module):
    """K steps of gradient descent on the context from `w0`, then w x_q.

    The objective is (1/2N) sum_i |w x_i - y_i|^2 with w of shape "dy dx", so a step is
    w <- w - (rate_k / N) sum_i (w x_i - y_i) x_i^T. `rate` is one number for all steps or a sequence of K; `steps`
    defaults to the length of that sequence, or 1. `w0` is zero unless given. A dampened step (lambda < 1) is a step
    with rate lambda * rate. To sweep rates, build the predictor inside `vmap`.
    """

    rate: Float[Array, "*steps"]
    steps: int = eqx.field(static=True)
    w0: Float[Array, "dy dx"] | None

    def __init__(self, rate: ArrayLike | Sequence[float], steps: int | None = None, w0: ArrayLike | None = None):
        self.rate = per_step(rate)
        self.steps = step_count(steps, rate=self.rate)
        self.w0 = optional_numbers(w0)

    def weights(self, prompt: Prompt) -> Float[Array, "dy dx"]:
        """The weights after the last step."""
        x, y = real(self, prompt).context
        start = jnp.zeros((y.shape[1], x.shape[1]), jnp.result_type(x, y)) if self.w0 is None else self.w0

        def step(w: Array, rate: Array) -> tuple[Array, None]:
            return w - (rate / max(x.shape[0], 1)) * ((w @ x.T - y.T) @ x), None

        return repeat(step, start, jnp.broadcast_to(self.rate, (self.steps,)))

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        return self.weights(prompt) @ prompt.query.x


class GradientDescentPlusPlus(eqx.Module):
    """GD++ of von Oswald et al. (2022): every step also re-conditions the inputs, then the query is read out.

    All tokens (x_j, y_j) change together, the query's y slot starting at -w0 x_q. With S = sum over the context of
    x_i x_i^T (not divided by N), everything on the right taken before the step,
        y_j <- y_j + (rate_k / N) sum_i (w0 x_i - y_i) x_i^T x_j,        x_j <- x_j - gamma_k S x_j;
    the prediction is minus the query's y slot. With gamma = 0 this is `GradientDescent` from `w0`. `rates` and `gammas`
    are one number each or sequences of K; the last gamma has no effect. Dampening lambda multiplies both.
    """

    rates: Float[Array, "*steps"]
    gammas: Float[Array, "*steps"]
    steps: int = eqx.field(static=True)
    w0: Float[Array, "dy dx"] | None

    def __init__(
        self,
        rates: ArrayLike | Sequence[float],
        gammas: ArrayLike | Sequence[float],
        steps: int | None = None,
        w0: ArrayLike | None = None,
    ):
        self.rates, self.gammas = per_step(rates), per_step(gammas)
        self.steps = step_count(steps, rates=self.rates, gammas=self.gammas)
        self.w0 = optional_numbers(w0)

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        n = real(self, prompt).n_context  # of an empty context nothing is learned: both sums below are zero
        slot = jnp.zeros_like(prompt.y[-1]) if self.w0 is None else -self.w0 @ prompt.query.x

        def step(tokens: tuple[Array, Array], scalars: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            (x, y), (rate, gamma) = tokens, scalars
            residual = -y[:n] if self.w0 is None else x[:n] @ self.w0.T - y[:n]
            overlap = x @ x[:n].T  # entry (j, i) is x_j . x_i
            return (x - gamma * (overlap @ x[:n]), y + (rate / max(n, 1)) * (overlap @ residual)), None

        tokens = (prompt.x, prompt.y.at[-1].set(slot))
        scalars = (jnp.broadcast_to(self.rates, (self.steps,)), jnp.broadcast_to(self.gammas, (self.steps,)))
        return -repeat(step, tokens, scalars)[1][-1]


def repeat(step, start, scalars):
    """Apply `step` once per leading entry of `scalars`: written out for a few steps, else as one compiled loop."""
    # Two steps written out cost less to run than a loop; beyond that a loop compiles faster and runs as fast.
    return lax.scan(step, start, scalars, unroll=2)[0]
