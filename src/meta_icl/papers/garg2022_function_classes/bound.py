"""What so many layers can reach on linear functions: GD++ whose rates are chosen for every length of the context."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.algorithms import EveryPosition, GradientDescentPlusPlus, spectral
from meta_icl.prompt import Prompt


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


def best_descent(d: int, n: int, layers: int, *, n_spectra: int, key: Key[Array, ""]) -> TunedDescent:
    """The rates with the least error on linear functions of `d` Gaussian inputs, for every length below `n`.

    Fitted to the spectra of `n_spectra` contexts of each length, which is all that the error depends on; 200,000 of
    them, since rates that suit fewer can diverge on the rare context with a larger eigenvalue.
    """
    tuned = TunedDescent(n, layers)
    rates, gammas = np.array(tuned.rates), np.array(tuned.gammas)
    for k in range(1, n):  # before the first example there is nothing to descend on
        spectra = spectral.spectrum(draws.normal(jax.random.fold_in(key, k), (n_spectra, k, d)))
        best = spectral.fit(spectra, n_context=k, steps=layers, x_variance=1.0, with_gammas=True)
        rates[k], gammas[k] = best.rates * (k + d + 1) / k, best.gammas * (k + d + 1)
    return eqx.tree_at(lambda t: (t.rates, t.gammas), tuned, (jnp.asarray(rates), jnp.asarray(gammas)))
