"""Long short-term memory of any depth, in one direction or in both (Hochreiter & Schmidhuber, 1997)."""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.trace import Intervention, Tap, Trace, check_sites

SITES = ("hidden",)


@dataclass(frozen=True)
class Lstm:
    """Describes an LSTM with a linear read-out; called with a key it draws the weights (`LstmNetwork`).

    Every layer, and in the bidirectional case each of its two directions, has `d_hidden` units; a layer reads the
    concatenated hidden states of the layer below. All weights are uniform in +-1/sqrt(d_hidden).
    """

    d_in: int
    d_hidden: int = 64
    n_layers: int = 1
    bidirectional: bool = False
    d_out: int = 1

    def __post_init__(self):
        for field in ("d_in", "d_hidden", "n_layers", "d_out"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")

    @property
    def n_directions(self) -> int:
        """2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def state_size(self, n_tokens: int) -> int:
        """Numbers carried from token to token: hidden state and cell of every layer and direction."""
        del n_tokens
        return 2 * self.d_hidden * self.n_layers * self.n_directions

    def __call__(self, *, key: Key[Array, ""]) -> "LstmNetwork":
        return LstmNetwork(self, key=key)


class Cell(eqx.Module):
    """The weights of one direction of one layer; gates in the order input, forget, candidate, output."""

    w_x: Float[Array, "d_in gates"]
    w_h: Float[Array, "d_hidden gates"]
    bias: Float[Array, " gates"]

    def __call__(self, x: Float[Array, "t d_in"], *, reverse: bool) -> Float[Array, "t d_hidden"]:
        """c <- sigma(f) c + sigma(i) tanh(g);  h <- sigma(o) tanh(c)."""
        zero = jnp.zeros(self.w_h.shape[0], x.dtype)

        def step(carry: tuple[Array, Array], gates_x: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = carry
            i, f, g, o = jnp.split(gates_x + h @ self.w_h, 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return lax.scan(step, (zero, zero), x @ self.w_x + self.bias[None], reverse=reverse)[1]


class LstmNetwork(eqx.Module):
    """The weights of an `Lstm`: a map from tokens "t d_in" to outputs "t d_out" with its trace.

    The only site is `hidden`, "layers t directions*d_hidden", the states that the next layer reads.
    """

    cells: tuple[tuple[Cell, ...], ...]  # layers, directions
    w_out: Float[Array, "d_hidden d_out"]
    b_out: Float[Array, " d_out"]
    config: Lstm = eqx.field(static=True)

    def __init__(self, config: Lstm, *, key: Key[Array, ""]):
        c = config
        bound = c.d_hidden**-0.5

        def uniform(index: int, *shape: int) -> Array:
            return draws.uniform(jax.random.fold_in(key, index), shape, minval=-bound, maxval=bound)

        def cell(layer: int, direction: int) -> Cell:
            width = c.d_in if layer == 0 else c.n_directions * c.d_hidden
            first = 3 * (layer * c.n_directions + direction)
            return Cell(
                w_x=uniform(first, width, 4 * c.d_hidden),
                w_h=uniform(first + 1, c.d_hidden, 4 * c.d_hidden),
                bias=uniform(first + 2, 4 * c.d_hidden),
            )

        self.cells = tuple(tuple(cell(layer, d) for d in range(c.n_directions)) for layer in range(c.n_layers))
        last = 3 * c.n_layers * c.n_directions
        self.w_out = uniform(last, c.n_directions * c.d_hidden, c.d_out)
        self.b_out = uniform(last + 1, c.d_out)
        self.config = config

    def __call__(
        self, tokens: Float[Array, "t d_in"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        check_sites(interventions, SITES)
        h, hidden = self.through(tokens, interventions)
        return h @ self.w_out + self.b_out[None], Trace({"hidden": jnp.stack(hidden)})

    def last(self, tokens: Float[Array, "t d_in"]) -> Float[Array, " d_out"]:
        """The output of the last token alone."""
        return self.through(tokens, ())[0][-1] @ self.w_out + self.b_out

    def through(
        self, tokens: Float[Array, "t d_in"], interventions: Sequence[Intervention]
    ) -> tuple[Float[Array, "t d_hidden"], list[Array]]:
        """The states of the last layer, and those of every layer."""
        h, hidden = tokens, []
        for index, layer in enumerate(self.cells):
            tap = Tap(interventions, index)
            both = [cell(h, reverse=direction == 1) for direction, cell in enumerate(layer)]
            h = tap("hidden", jnp.concatenate(both, axis=-1))
            hidden.append(h)
        return h, hidden
