"""Selective copying: say again, in order, the marked part of a sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.prompt import LabelledTokens, TokenTask


class SelectiveCopying(TokenTask):
    """`n_copied` data tokens stand at random places among blanks; after them, they are asked for in order (Gu, 2023).

    Token 0 is the blank, 1 asks for the next data token, 2.. are data. The labels of the askers are the data.
    """

    length: int = eqx.field(static=True, default=32)
    n_copied: int = eqx.field(static=True, default=4)
    n_symbols: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        require(self.n_symbols >= 1, "n_symbols", self.n_symbols, "a positive integer")
        require(1 <= self.n_copied <= self.length, "n_copied", self.n_copied, f"from 1 to length = {self.length}")

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return 2 + self.n_symbols

    def sample(self, *, key: Key[Array, ""]) -> LabelledTokens:
        place_key, symbol_key = jax.random.split(key)
        places = jnp.sort(jnp.argsort(draws.uniform(place_key, (self.length,)))[: self.n_copied])
        symbols = draws.randint(symbol_key, (self.n_copied,), 2, self.vocabulary)
        shown = jnp.zeros(self.length, int).at[places].set(symbols)
        tokens = jnp.concatenate([shown, jnp.ones(self.n_copied, int)])
        labels = jnp.concatenate([jnp.zeros(self.length, int), symbols])
        return LabelledTokens(tokens, jnp.arange(tokens.shape[0]) >= self.length, labels)
