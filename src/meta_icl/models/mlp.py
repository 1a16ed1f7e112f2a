"""A network that looks at one token at a time: it can memorise tasks, but not learn from a context."""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.trace import Intervention, Tap, Trace, check_sites

SITES = ("hidden",)


@dataclass(frozen=True)
class Mlp:
    """Describes `n_layers` hidden ReLU layers of width `d_hidden` with a linear read-out, applied to every token alone.

    Called with a key it draws the weights: normal of variance 2 / fan_in for the hidden layers, 1 / fan_in for the
    read-out; biases zero.
    """

    d_in: int
    d_hidden: int = 64
    n_layers: int = 2
    d_out: int = 1

    def __post_init__(self):
        for field in ("d_in", "d_hidden", "n_layers", "d_out"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    def state_size(self, n_tokens: int) -> int:
        """Nothing is carried from token to token."""
        del n_tokens
        return 0

    def __call__(self, *, key: Key[Array, ""]) -> "MlpNetwork":
        return MlpNetwork(self, key=key)


class MlpNetwork(eqx.Module):
    """The weights of an `Mlp`: a map from tokens "t d_in" to outputs "t d_out"; the site `hidden` is "layers t d"."""

    weights: tuple[Float[Array, "fan_in width"], ...]
    biases: tuple[Float[Array, " width"], ...]
    config: Mlp = eqx.field(static=True)

    def __init__(self, config: Mlp, *, key: Key[Array, ""]):
        c = config
        sizes = (c.d_in, *[c.d_hidden] * c.n_layers, c.d_out)
        self.weights = tuple(
            ((2 if layer < c.n_layers else 1) / n) ** 0.5 * draws.normal(jax.random.fold_in(key, layer), (n, m))
            for layer, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False))
        )
        self.biases = tuple(jnp.zeros(m) for m in sizes[1:])
        self.config = config

    def __call__(
        self, tokens: Float[Array, "t d_in"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        check_sites(interventions, SITES)
        h, hidden = tokens, []
        for layer in range(self.config.n_layers):
            h = Tap(interventions, layer)("hidden", jax.nn.relu(h @ self.weights[layer] + self.biases[layer][None]))
            hidden.append(h)
        return h @ self.weights[-1] + self.biases[-1][None], Trace({"hidden": jnp.stack(hidden)})
