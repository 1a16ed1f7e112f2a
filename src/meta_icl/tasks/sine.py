"""Sine regression in context: y = a sin(x + phi) with a new amplitude and phase in every prompt."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.conversions import number, require_entries
from meta_icl.errors import choose, require
from meta_icl.prompt import BatchTask, Prompt

FAMILIES = ("paper", "released_code")


class SineRegression(BatchTask):
    """Prompts of `n_context` pairs and a query with scalar x ~ U(-half_range, half_range) and y = a sin(x + phi).

    `family="paper"`: a ~ U(0.1, 5) and phi ~ U(0, pi), independent (von Oswald et al., 2022).
    `family="released_code"`: a ~ U(0.1, 0.5), and amplitude and phase come from the SAME uniform variate, so they are
    perfectly correlated and the family has one parameter, as in the code released with that paper.
    """

    n_context: int = eqx.field(static=True, default=10)
    family: str = eqx.field(static=True, default="paper")
    half_range: Float[Array, "*sweep"] = eqx.field(default=5.0, converter=number)

    def __check_init__(self):
        good = isinstance(self.n_context, int) and self.n_context >= 1
        require(good, "n_context", self.n_context, "a positive integer")
        choose("family", self.family, FAMILIES)
        require_entries(lambda value: value > 0, "half_range", self.half_range, "positive")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        """Draw `n` independent prompts at once, x and y of shape "n n_context+1 1"."""
        return self.sample_with_parameters(n, key=key)[0]

    def sample_with_parameters(
        self, n: int, *, key: Key[Array, ""]
    ) -> tuple[Prompt, Float[Array, " b"], Float[Array, " b"]]:
        """Draw `n` prompts together with their amplitudes and phases (radians)."""
        x_key, amplitude_key, phase_key = jax.random.split(key, 3)
        x = self.half_range * draws.uniform(x_key, (n, self.n_context + 1, 1), minval=-1, maxval=1)
        u = draws.uniform(amplitude_key, (n,))
        if self.family == "released_code":
            amplitude, phase = 0.1 + 0.4 * u, math.pi * u
        else:
            amplitude, phase = 0.1 + 4.9 * u, math.pi * draws.uniform(phase_key, (n,))
        y = amplitude[:, None, None] * jnp.sin(x + phase[:, None, None])
        return Prompt(x, y), amplitude, phase
