"""The smallest tasks that need an induction head: two pairs and a query (Singh), repeated random tokens (Olsson)."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.prompt import BatchTask, Prompt, TokenPrompt, TokenTask


class TwoPairs(BatchTask):
    """Two exemplars of different classes with two different labels in any order, then one of the two classes again.

    Classes and label pairs are drawn per prompt, so that nothing can be learned in the weights but how to look labels
    up (Singh et al., 2024). `exemplars` holds the drawings, "classes drawings dx"; every occurrence draws one of them.
    """

    exemplars: Float[Array, "classes drawings dx"]
    label_pairs: Int[Array, "pairs 2"]

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        classes, drawings, _ = self.exemplars.shape
        u = draws.uniform(key, (n, 8))

        def whole(column: int, bound: int) -> Int[Array, " b"]:
            return jnp.minimum((u[:, column] * bound).astype(int), bound - 1)

        first = whole(0, classes)
        second = (first + 1 + whole(1, classes - 1)) % classes
        swapped, asked = whole(2, 2), whole(3, 2)
        pair = self.label_pairs[whole(4, self.label_pairs.shape[0])]
        labels = jnp.where(swapped[:, None] == 1, pair[:, ::-1], pair)
        shown = jnp.stack([first, second], axis=1)
        query = jnp.take_along_axis(shown, asked[:, None], axis=1)
        classes_of = jnp.concatenate([shown, query], axis=1)
        drawn = jnp.stack([whole(5 + i, drawings) for i in range(3)], axis=1)
        y = jnp.concatenate([labels, jnp.take_along_axis(labels, asked[:, None], axis=1)], axis=1)
        return Prompt(self.exemplars[classes_of, drawn], y)


def every_two_pairs(exemplars: Float[Array, "classes dx"], label_pairs: Int[Array, "pairs 2"]) -> Prompt:
    """All prompts of `TwoPairs` with one drawing per class: classes (classes - 1) pairs 2 orders 2 queries.

    50 classes and 8 label pairs have 78,400 of them.
    """
    n = exemplars.shape[0]
    pairs = np.concatenate([np.asarray(label_pairs), np.asarray(label_pairs)[:, ::-1]])
    rows = [
        ((a, b, (a, b)[asked]), (*labels, labels[asked]))
        for a, b in itertools.permutations(range(n), 2)
        for labels in pairs.tolist()
        for asked in (0, 1)
    ]
    classes, labels = (np.array(column) for column in zip(*rows, strict=True))
    return Prompt(exemplars[classes], jnp.asarray(labels))


def split_label_pairs(n_labels: int, n_held_out: int, *, key: Key[Array, ""]) -> tuple[Array, Array]:
    """The unordered pairs of labels, split at random into training and held-out ones; training has every label.

    `n_held_out` splits of the publication: 2 of 10 (5 labels), 9 of 45, 21 of 105.
    """
    pairs = np.array(list(itertools.combinations(range(n_labels), 2)))
    allowed = f"from 0 to {len(pairs) - (n_labels + 1) // 2}"
    require(0 <= n_held_out <= len(pairs) - (n_labels + 1) // 2, "n_held_out", n_held_out, allowed)
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(pairs))
        train, held_out = pairs[order[n_held_out:]], pairs[order[:n_held_out]]
        if len(np.unique(train)) == n_labels:
            return jnp.asarray(train), jnp.asarray(held_out)


class RepeatedTokens(TokenTask):
    """A start token 0, then a block of `period` distinct random tokens 1 .. n_tokens - 1, `repeats` times.

    With `shortest` every prompt has a period of its own, uniform from there to `period`, at the same length: with one
    period for all, a single layer copies by position alone. Scored are the successors of all tokens; from the second
    copy on they can be looked up (Olsson et al., 2022).
    """

    n_tokens: int = eqx.field(static=True)
    period: int = eqx.field(static=True, default=25)
    repeats: int = eqx.field(static=True, default=4)
    shortest: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        shortest = self.period if self.shortest is None else self.shortest
        require(1 <= shortest <= self.period, "shortest", shortest, f"from 1 to period = {self.period}")
        require(self.repeats >= 1, "repeats", self.repeats, "a positive integer")
        allowed = f"from 1 to n_tokens - 1 = {self.n_tokens - 1}"
        require(1 <= self.period < self.n_tokens, "period", self.period, allowed)

    def sample(self, *, key: Key[Array, ""]) -> TokenPrompt:
        prompts = self.sample_batch(1, key=key)
        return TokenPrompt(prompts.tokens[0], prompts.loss_mask[0])

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> TokenPrompt:
        _, block = jax.lax.top_k(draws.uniform(key, (n, self.n_tokens - 1)), self.period)
        period = self.period
        if self.shortest is not None:
            period = draws.randint(jax.random.fold_in(key, 1), (n,), self.shortest, self.period + 1)[:, None]
        length = self.period * self.repeats
        places = jnp.broadcast_to(jnp.arange(length)[None] % period, (n, length))
        tokens = jnp.pad(jnp.take_along_axis(block + 1, places, axis=1), ((0, 0), (1, 0)))
        return TokenPrompt(tokens, jnp.ones(tokens.shape, bool))
