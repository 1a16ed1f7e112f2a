"""Recall from the context: associative recall of many pairs, a needle in a haystack, keys that are overwritten."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.prompt import LabelledTokens, TokenTask


def distinct(key: Key[Array, ""], n: int, low: int, high: int) -> Int[Array, " n"]:
    """`n` different whole numbers of low..high-1, every ordered choice equally likely."""
    return low + jnp.argsort(draws.uniform(key, (high - low,)))[:n]


class Mqar(TokenTask):
    """Multi-query associative recall, the generator of Arora et al. (2023) to the letter.

    `n_pairs` different keys of 1..V/2-1 and values of V/2..V-1 alternate at the start. Each key is asked once more, at
    place 2P + 2 g of the `length` places, its gap g drawn without replacement with probability proportional to
    a (g+1)^(a-1). The label at an asked key is its value, which the tokens do not show. Other places hold 0, or with
    `random_filler` any token. The last place is dropped, as in the shift by one of the generator.
    """

    vocabulary: int = eqx.field(static=True, default=256)
    length: int = eqx.field(static=True, default=64)
    n_pairs: int = eqx.field(static=True, default=4)
    power: float = eqx.field(static=True, default=0.01)
    random_filler: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        require(self.length % 2 == 0, "length", self.length, "even")
        require(self.n_pairs >= 1 and 4 * self.n_pairs <= self.length, "n_pairs", self.n_pairs, "1 to length / 4")
        half = self.vocabulary // 2
        fits = self.vocabulary > self.length and self.n_pairs <= half - 1
        require(fits, "vocabulary", self.vocabulary, f"larger than length = {self.length} and 2 n_pairs + 1")

    def sample(self, *, key: Key[Array, ""]) -> LabelledTokens:
        key_key, value_key, gap_key, filler_key = jax.random.split(key, 4)
        p, v = self.n_pairs, self.vocabulary
        keys = distinct(key_key, p, 1, v // 2)
        values = distinct(value_key, p, v // 2, v)
        gaps = self._gaps(gap_key)
        places = 2 * p + 2 * gaps
        tokens = jnp.zeros(self.length, int).at[: 2 * p].set(jnp.stack([keys, values], axis=1).reshape(-1))
        tokens = tokens.at[places].set(keys)
        asked = jnp.zeros(self.length, bool).at[places].set(True)
        labels = jnp.zeros(self.length, int).at[places].set(values)
        if self.random_filler:
            tokens = jnp.where(tokens == 0, draws.randint(filler_key, (self.length,), 0, v), tokens)
        return LabelledTokens(tokens[:-1], asked[:-1], labels[:-1])

    def _gaps(self, key: Key[Array, ""]) -> Int[Array, " p"]:
        """Drawn one by one without replacement: the largest of log-weights plus Gumbel noise (Efraimidis, 2006)."""
        space = (self.length - 2 * self.n_pairs) // 2
        weights = (self.power - 1) * jnp.log(jnp.arange(1.0, space + 1))
        noise = -jnp.log(draws.exponential(key, (space,)))
        return jnp.argsort(-(weights + noise))[: self.n_pairs]


class Overwrite(TokenTask):
    """`n_keys` different keys are written `n_writes` times with new values, in random order; then each is asked.

    The label is the latest value. Delta rules can answer exactly, sums of outer products cannot.
    """

    vocabulary: int = eqx.field(static=True, default=64)
    n_keys: int = eqx.field(static=True, default=4)
    n_writes: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        for field in ("n_keys", "n_writes"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        enough = self.vocabulary >= 2 * self.n_keys * self.n_writes
        require(enough, "vocabulary", self.vocabulary, f"at least {2 * self.n_keys * self.n_writes}")

    def sample(self, *, key: Key[Array, ""]) -> LabelledTokens:
        key_key, value_key, order_key, asked_key = jax.random.split(key, 4)
        n, writes = self.n_keys, self.n_keys * self.n_writes
        keys = distinct(key_key, n, 0, self.vocabulary // 2)
        values = distinct(value_key, writes, self.vocabulary // 2, self.vocabulary)
        order = jnp.argsort(draws.uniform(order_key, (writes,))) % n  # which key each write is for
        latest = jnp.max(jnp.where(order[None] == jnp.arange(n)[:, None], jnp.arange(writes)[None], -1), axis=1)
        asked = jnp.argsort(draws.uniform(asked_key, (n,)))
        tokens = jnp.concatenate([jnp.stack([keys[order], values], axis=1).reshape(-1), keys[asked]])
        labels = jnp.concatenate([jnp.zeros(2 * writes, int), values[latest[asked]]])
        return LabelledTokens(tokens, jnp.arange(2 * writes + n) >= 2 * writes, labels)


class Needle(TokenTask):
    """A needle in a haystack of tokens (after RULER's single needles, Hsieh et al., 2024).

    Filler tokens are a fixed cycle of `n_filler` ("cycle": pass-key) or a chain of random bigrams ("chain"). Somewhere
    stand a marker, a key and `n_values` tokens; at the end the query marker and the key, after which the values are
    asked for, each shown once it was asked. Token 0 is the marker, 1 the query marker; then come filler tokens, keys
    and values, `n_symbols` of each of the last two.
    """

    length: int = eqx.field(static=True, default=64)
    n_values: int = eqx.field(static=True, default=1)
    haystack: str = eqx.field(static=True, default="cycle")
    n_filler: int = eqx.field(static=True, default=25)
    n_symbols: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        require(self.haystack in ("cycle", "chain"), "haystack", self.haystack, "'cycle' or 'chain'")
        for field in ("n_values", "n_filler", "n_symbols"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        shortest = 2 * self.n_values + 4
        require(self.length >= shortest, "length", self.length, f"at least {shortest}")

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return 2 + self.n_filler + 2 * self.n_symbols

    def sample(self, *, key: Key[Array, ""]) -> LabelledTokens:
        key_key, value_key, place_key, filler_key = jax.random.split(key, 4)
        v, first_key = self.n_values, 2 + self.n_filler
        name = draws.randint(key_key, (), first_key, first_key + self.n_symbols)
        values = draws.randint(value_key, (v,), first_key + self.n_symbols, self.vocabulary)
        question = jnp.concatenate([jnp.array([1]), name[None], values[:-1]])
        needle = jnp.concatenate([jnp.array([0]), name[None], values])
        hay = self.length - question.shape[0]
        place = draws.randint(place_key, (), 0, hay - needle.shape[0] + 1)
        filled = jax.lax.dynamic_update_slice(2 + self._filler(hay, filler_key), needle, (place,))
        tokens = jnp.concatenate([filled, question])
        labels = jnp.zeros(self.length, int).at[-v:].set(values)
        return LabelledTokens(tokens, jnp.arange(self.length) >= self.length - v, labels)

    def _filler(self, n: int, key: Key[Array, ""]) -> Int[Array, " n"]:
        start_key, next_key, choice_key = jax.random.split(key, 3)
        if self.haystack == "cycle":
            return jnp.arange(n) % self.n_filler
        successors = draws.randint(next_key, (self.n_filler, 2), 0, self.n_filler)  # two per token, new in each prompt
        choices = draws.randint(choice_key, (n,), 0, 2)
        start = draws.randint(start_key, (), 0, self.n_filler)
        return jax.lax.scan(lambda token, choice: (successors[token, choice], token), start, choices)[1]
