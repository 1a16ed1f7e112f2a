"""In-context language learning: strings of a random automaton, another one in every prompt (RegBench).

After Akyurek et al. (2024). Not minimised here: a prompt's automaton is drawn, not compared with others, as different
draws coincide too rarely to matter for a stream of fresh prompts.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.prompt import TokenPrompt, TokenTask

MOST_EDGES = 3


class Automaton(NamedTuple):
    """Node 0 is the start. Edge e of a node exists where e < n_edges; it says a symbol and leads to another node."""

    n_edges: Int[Array, " nodes"]
    symbols: Int[Array, "nodes edges"]
    targets: Int[Array, "nodes edges"]


class RandomAutomata(TokenTask):
    """Strings of a probabilistic automaton, joined by a separator (token 0; symbols are 1..n_symbols).

    Nodes U{4..12}, an alphabet of U{4..18} symbols, 1 to 3 edges per node with different symbols and different
    targets, no loops at a node; strings of length U{1..49}, every edge of a node equally likely. A prompt is cut at
    `length` tokens.
    """

    length: int = eqx.field(static=True, default=256)
    n_symbols: int = eqx.field(static=True, default=18)
    most_nodes: int = eqx.field(static=True, default=12)
    longest: int = eqx.field(static=True, default=49)

    def __check_init__(self):
        require(self.length >= 2, "length", self.length, "at least 2")
        require(self.n_symbols >= 4, "n_symbols", self.n_symbols, "at least 4")
        require(self.most_nodes >= 4, "most_nodes", self.most_nodes, "at least 4")
        require(self.longest >= 1, "longest", self.longest, "a positive integer")

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return 1 + self.n_symbols

    def sample(self, *, key: Key[Array, ""]) -> TokenPrompt:
        return self.sample_with_automaton(key=key)[0]

    def sample_with_automaton(self, *, key: Key[Array, ""]) -> tuple[TokenPrompt, Automaton, Int[Array, " t"]]:
        """A prompt with its automaton and the node in which each token leaves it."""
        automaton_key, walk_key = jax.random.split(key)
        automaton = self.automaton(key=automaton_key)
        edge_key, length_key = jax.random.split(walk_key)
        chance = draws.uniform(edge_key, (self.length,))
        lengths = draws.randint(length_key, (self.length,), 1, self.longest + 1)

        def body(carry: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple]:
            (node, left), (u, new_length) = carry, row
            edge = jnp.minimum((u * automaton.n_edges[node]).astype(int), automaton.n_edges[node] - 1)
            token = jnp.where(left == 0, 0, automaton.symbols[node, edge])
            node = jnp.where(left == 0, 0, automaton.targets[node, edge])
            return (node, jnp.where(left == 0, new_length, left - 1)), (token, node)

        start = (jnp.zeros((), int), lengths[0])
        tokens, nodes = lax.scan(body, start, (chance, jnp.roll(lengths, -1)))[1]
        return TokenPrompt(tokens, jnp.arange(self.length) < self.length - 1), automaton, nodes

    def automaton(self, *, key: Key[Array, ""]) -> Automaton:
        """Draw one automaton."""
        node_key, alphabet_key, edge_key, symbol_key, target_key = jax.random.split(key, 5)
        n, m = self.most_nodes, self.n_symbols
        nodes = draws.randint(node_key, (), 4, n + 1)
        size_key, order_key = jax.random.split(alphabet_key)
        alphabet = jnp.argsort(draws.uniform(order_key, (m,)))  # the first `size` of it
        size = draws.randint(size_key, (), 4, m + 1)
        order = draws.uniform(symbol_key, (n, m)) + 2.0 * (jnp.arange(m) >= size)[None]
        symbols = 1 + alphabet[jnp.argsort(order, axis=1)[:, :MOST_EDGES]]
        not_allowed = (jnp.arange(n)[None] >= nodes) | jnp.eye(n, dtype=bool)
        targets = jnp.argsort(draws.uniform(target_key, (n, n)) + 2.0 * not_allowed, axis=1)[:, :MOST_EDGES]
        return Automaton(draws.randint(edge_key, (n,), 1, MOST_EDGES + 1), symbols, targets)

    def legal(self, automaton: Automaton, nodes: Int[Array, " t"]) -> Bool[Array, "t symbols"]:
        """Which symbols (without the separator) may follow each token."""
        exists = jnp.arange(MOST_EDGES)[None] < automaton.n_edges[nodes][:, None]
        says = automaton.symbols[nodes][..., None] == jnp.arange(1, self.vocabulary)[None, None]
        return jnp.any(says & exists[..., None], axis=1)


def legal_share(logits: Float[Array, "t vocabulary"], legal: Bool[Array, "t symbols"]) -> Float[Array, ""]:
    """How often the likeliest symbol, the separator aside, may follow: the accuracy of RegBench."""
    best = jnp.argmax(logits[:, 1:], axis=-1)
    return jnp.mean(jnp.take_along_axis(legal, best[:, None], axis=1) * 1.0)
