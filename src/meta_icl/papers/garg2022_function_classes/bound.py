"""What so many layers can reach on linear functions: GD++ whose rates are chosen for every length of the context."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.algorithms import EveryPosition, GradientDescentPlusPlus
from meta_icl.prompt import Prompt, Task
from meta_icl.training import Optimiser, every_position_mse, train


class TunedDescent(eqx.Module):
    """GD++ of `layers` steps (von Oswald et al., 2022), with rates of its own for every number of examples seen.

    For prompts of up to n rows. Row k takes `rates[k]` and `gammas[k]` in units of 1 / (k + d + 1), the best rate of
    one step on k Gaussian inputs.
    """

    rates: Float[Array, "n layers"]
    gammas: Float[Array, "n layers"]

    def __init__(self, n: int, layers: int):
        self.rates, self.gammas = jnp.ones((n, layers)), jnp.full((n, layers), 0.5)

    def __call__(self, prompt: Prompt) -> Float[Array, "n dy"]:
        n, d = prompt.x.shape
        k = jnp.arange(n)
        unit = 1 / (k + d + 1.0)[:, None]

        def answers(rates: Array, gammas: Array) -> Array:
            # Its sums are over all n - 1 rows, of which those not seen yet are zero, and are divided by n - 1.
            return EveryPosition(GradientDescentPlusPlus(rates * (n - 1), gammas))(prompt)

        return jax.vmap(answers)(self.rates[:n] * unit, self.gammas[:n] * unit)[k, k]


def best_descent(task: Task, n: int, layers: int, *, steps: int, key: Any) -> TunedDescent:
    """The rates that minimise the squared error at every position of prompts of `n` rows, by Adam."""
    optimiser = Optimiser(learning_rate=1e-2, schedule="cosine", warmup_steps=1, schedule_steps=steps)
    return train(
        task,
        lambda *, key: TunedDescent(n, layers),
        steps=steps,
        key=key,
        batch=128,
        objective=every_position_mse,
        optimiser=optimiser,
    )[0]
