"""Long short-term memory in one direction or in both (Hochreiter & Schmidhuber, 1997)."""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from meta_icl.errors import require
from meta_icl.models.initialisation import Init
from meta_icl.models.mixers.mixer import Mixer, MixerDescription
from meta_icl.models.trace import Tap


@dataclass(frozen=True)
class Lstm(MixerDescription):
    """Describes a layer of an LSTM; called with a width and a key it draws the weights (`LstmLayer`).

    Without `project` its units are the channels of the stream, half of them for each direction if `bidirectional`;
    with it, `d_hidden` units are mapped to the stream. All weights are uniform in +-1/sqrt(units); the forget gate's
    bias is raised by `forget_bias`.
    """

    d_hidden: int | None = None
    bidirectional: bool = False
    project: bool = False
    forget_bias: float = 0.0

    def __post_init__(self):
        require(self.d_hidden is None or self.d_hidden >= 1, "d_hidden", self.d_hidden, "a positive integer or nothing")

    @property
    def n_directions(self) -> int:
        """2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def __call__(self, d_model: int, *, key: Key[Array, ""], d_in: int | None = None) -> "LstmLayer":
        n, width = self.n_directions, self.d_hidden or d_model // self.n_directions
        fits = self.project or n * width == d_model
        require(fits, "d_hidden", self.d_hidden, f"d_model / directions = {d_model / n}, or combined with project")
        init = Init("uniform", gain=1 / 3)  # uniform in +-1/sqrt(fan_in)
        *cell_keys, out_key = jax.random.split(key, 3 * n + 1)

        def cell(direction: int) -> Cell:
            x_key, h_key, bias_key = cell_keys[3 * direction : 3 * direction + 3]
            bias = init((4 * width,), width, key=bias_key).at[width : 2 * width].add(self.forget_bias)
            w_x = init((d_in or d_model, 4 * width), width, key=x_key)
            return Cell(w_x, init((width, 4 * width), width, key=h_key), bias)

        w_o = init((n * width, d_model), width, key=out_key) if self.project else None
        return LstmLayer(tuple(cell(direction) for direction in range(n)), w_o)


class LstmState(NamedTuple):
    """Output and cell."""

    h: Float[Array, " units"]
    c: Float[Array, " units"]


class Cell(eqx.Module):
    """The weights of one direction; gates in the order input, forget, candidate, output."""

    w_x: Float[Array, "*stack d_in gates"]
    w_h: Float[Array, "*stack units gates"]
    bias: Float[Array, "*stack gates"]

    def start(self) -> LstmState:
        """The state before the first token."""
        zero = jnp.zeros(self.w_h.shape[0], self.w_h.dtype)
        return LstmState(zero, zero)

    def advance(self, state: LstmState, driven: Float[Array, " gates"]) -> LstmState:
        """c <- sigma(f) c + sigma(i) tanh(g);  h <- sigma(o) tanh(c)."""
        i, f, g, o = jnp.split(driven + state.h @ self.w_h, 4)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LstmState(jax.nn.sigmoid(o) * jnp.tanh(c), c)

    def run(self, x: Float[Array, "t d_in"], visible: Bool[Array, " t"] | None, *, reverse: bool) -> Array:
        """The outputs "t units"; a row that is not visible changes nothing."""

        def step(state: LstmState, row: tuple[Array, Array | None]) -> tuple[LstmState, Array]:
            driven, there = row
            after = self.advance(state, driven)
            if there is not None:
                after = jax.tree.map(lambda new, old: jnp.where(there, new, old), after, state)
            return after, after.h

        driven = x @ self.w_x + self.bias[None]
        start = jax.tree.map(lambda leaf: leaf.astype(driven.dtype), self.start())
        return lax.scan(step, start, (driven, visible), reverse=reverse)[1]


class LstmLayer(Mixer):
    """The weights of an `Lstm`; the site `hidden` is its output "t directions*units" before any projection."""

    cells: tuple[Cell, ...]  # one per direction
    w_o: Float[Array, "*stack units d"] | None

    def __call__(
        self, x: Float[Array, "t d_in"], *, visible: Bool[Array, " t"] | None = None, tap: Tap | None = None
    ) -> Float[Array, "t d"]:
        both = [cell.run(x, visible, reverse=direction == 1) for direction, cell in enumerate(self.cells)]
        return self._out((tap or Tap())("hidden", jnp.concatenate(both, axis=-1)))

    def initial_state(self) -> LstmState:
        """The state before the first token; `BadInput` for an LSTM that reads backwards too."""
        require(len(self.cells) == 1, "bidirectional", True, "False, to take in one token after the other")
        return self.cells[0].start()

    def step(self, state: LstmState, x: Float[Array, " d_in"]) -> tuple[LstmState, Float[Array, " d"]]:
        cell = self.cells[0]
        after = cell.advance(state, x @ cell.w_x + cell.bias)
        return after, self._out(after.h[None])[0]

    def _out(self, hidden: Float[Array, "t units"]) -> Float[Array, "t d"]:
        return hidden if self.w_o is None else hidden @ self.w_o
