"""Log-probabilities of answers of a language model: few passes, bounded memory, only asked numbers leave the device.

What begins another sequence takes no pass of its own. Where many sequences begin alike and differ in a few last tokens,
the beginning is passed once, its keys and values are kept, and each goes on from there token by token.
"""

import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from meta_icl.errors import require
from meta_icl.models import Intervention, Network
from meta_icl.models.depth import in_bits
from meta_icl.models.mixers.attention import AttentionLayer
from meta_icl.models.mixers.patterns import Cache
from meta_icl.models.network import NetworkState
from meta_icl.models.trace import Tap, Trace

AT_ONCE = 512  # tokens that pass the network together, or are kept for sequences that go on together
LONGEST_TAIL = 32  # tokens that are taken in one by one
STEP = 24  # what a token costs by itself, in tokens of a pass: 26 for SmolLM2 on a CPU, all weights being read for it


class Asked(NamedTuple):
    """An answer's tokens, and all tokens that stand before it."""

    before: tuple[int, ...]
    answer: tuple[int, ...]


class Told(NamedTuple):
    """Of every answer asked for: its log-probability in nats, and whether each of its tokens is the most probable."""

    scores: Float[np.ndarray, " n"]
    greedy: Bool[np.ndarray, " n"]


def log_probabilities(
    network: Any,
    asked: Sequence[Asked],
    interventions: Sequence[Intervention] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    steps: bool = True,
) -> Told:
    """The log-probability of every answer after what stands before it; what begins another sequence takes no pass.

    Sequences are padded to one of a few lengths, so that few programs are compiled. With `steps`, what several begin
    with is passed once and kept, and they go on from there token by token, where that spares half of the work and
    nothing intervenes. Raises `BadInput` for an answer without tokens, or with nothing before it.
    """
    for one in asked:
        require(len(one.before) >= 1 and len(one.answer) >= 1, "answer", one, "tokens, with at least one before them")
    read = [one.before + one.answer[:-1] for one in asked]
    hosts: list[tuple[int, ...]] = []
    for tokens in sorted(set(read), reverse=True):  # what begins another follows it here
        if not hosts or hosts[-1][: len(tokens)] != tokens:
            hosts.append(tokens)
    hosts.reverse()
    host_of = {tokens: bisect.bisect_left(hosts, tokens) for tokens in set(read)}  # the first that is no smaller
    wanted: list[dict[int, dict[int, int]]] = [{} for _ in hosts]  # position -> token -> its column
    for one, tokens in zip(asked, read, strict=True):
        places = wanted[host_of[tokens]]
        for j, token in enumerate(one.answer):
            columns = places.setdefault(len(one.before) - 1 + j, {})
            columns.setdefault(token, len(columns))
    sizes = (
        _power(max(len(places) for places in wanted)),
        _power(max(len(columns) for places in wanted for columns in places.values())),
    )
    stepping = steps and not interventions and has_steps(network)
    network = in_bits(network)
    families = [family for family in families_of(hosts) if stepping and family.spares and family.fits(network)]
    together = {i for family in families for i in family.members}
    alone = [i for i in range(len(hosts)) if i not in together]
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for read_off in (
        _passed(network, hosts, alone, wanted, sizes, tuple(interventions)),
        *(_continued(network, hosts, family, wanted, sizes) for family in families),
    ):
        for i, logs, best in read_off:
            found[i] = logs, best
            progress(len(found), len(hosts))
    scores, greedy = np.zeros(len(asked)), np.ones(len(asked), bool)
    for n, (one, tokens) in enumerate(zip(asked, read, strict=True)):
        i = host_of[tokens]
        (logs, best), places = found[i], {position: place for place, position in enumerate(wanted[i])}
        for j, token in enumerate(one.answer):
            position = len(one.before) - 1 + j
            scores[n] += logs[places[position], wanted[i][position][token]]
            greedy[n] &= best[places[position]] == token
    return Told(scores, greedy)


Wanted = Sequence[dict[int, dict[int, int]]]  # of every sequence: position -> token -> its column
ReadOff = Iterator[tuple[int, np.ndarray, np.ndarray]]  # a sequence, log-probabilities "places columns", best "places"


def _passed(
    network: Any,
    hosts: Sequence[tuple[int, ...]],
    members: Sequence[int],
    wanted: Wanted,
    sizes: tuple[int, int],
    interventions: tuple[Intervention, ...],
) -> ReadOff:
    """What is read off passes of whole sequences."""
    by_length: dict[int, list[int]] = {}
    for i in members:
        by_length.setdefault(padded(len(hosts[i]), network), []).append(i)
    for length, alike in sorted(by_length.items()):
        size = max(1, AT_ONCE // length)
        for group in (alike[i : i + size] for i in range(0, len(alike), size)):
            rows = np.zeros((size, length), int)
            for row, i in enumerate(group):
                rows[row, : len(hosts[i])] = hosts[i]
            at, columns = _asked_of(group, wanted, (size, *sizes))
            logs, best = map(np.asarray, _told(network, jnp.asarray(rows), at, columns, interventions))
            yield from zip(group, logs, best, strict=False)


def _asked_of(group: Sequence[int], wanted: Wanted, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """The places "b places" and the tokens there "b places columns" of a group, filled up with zeros."""
    at, columns = np.zeros(shape[:2], int), np.zeros(shape, int)
    for row, i in enumerate(group):
        for place, (position, tokens) in enumerate(wanted[i].items()):
            at[row, place] = position
            columns[row, place, : len(tokens)] = list(tokens)
    return jnp.asarray(at), jnp.asarray(columns)


class Family(NamedTuple):
    """Sequences that share their first `shared` tokens: their numbers, and the lengths of what is left of each."""

    shared: int
    members: tuple[int, ...]
    tails: tuple[int, ...]

    @property
    def spares(self) -> bool:
        """Whether going on from a kept beginning is less than half of the work."""
        whole = sum(padded(self.shared + tail) for tail in self.tails)
        return 2 * (padded(self.shared) + STEP * max(self.tails) * len(self.tails)) < whole

    def fits(self, network: Network) -> bool:
        """Whether the network has positions for the padded beginning and the steps behind it."""
        most = network.n_positions
        return most is None or padded(self.shared, network) + _power(max(self.tails)) <= most


def families_of(hosts: Sequence[tuple[int, ...]]) -> list[Family]:
    """Sorted sequences, none the beginning of another, in groups that end within `LONGEST_TAIL` of what they share."""
    found, start = [], 0
    while start < len(hosts):
        first, stop, shared, longest = hosts[start], start + 1, len(hosts[start]), len(hosts[start])
        while stop < len(hosts):
            common = _common(first[:shared], hosts[stop])
            most = max(longest, len(hosts[stop]))
            if common == 0 or most - common > LONGEST_TAIL:
                break
            stop, shared, longest = stop + 1, common, most
        members = tuple(range(start, stop))
        found.append(Family(shared, members, tuple(len(hosts[i]) - shared for i in members)))
        start = stop
    return found


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share from the first on."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def has_steps(network: Any) -> bool:
    """Whether all that its blocks keep of a beginning are keys and values of every token."""
    if not isinstance(network, Network):
        return False
    mixers = [block.mixer for block in network.blocks]
    return all(
        isinstance(m, AttentionLayer) and m.config.causal and m.config.query_is_key
        and m.config.window is None and m.smear is None and m.config.kind == "softmax"
        for m in mixers
    ) and not network.config.looped  # fmt: skip


def _continued(
    network: Network, hosts: Sequence[tuple[int, ...]], family: Family, wanted: Wanted, sizes: tuple[int, int]
) -> ReadOff:
    """What is read off a kept beginning and steps from there on."""
    shared, first = family.shared, hosts[family.members[0]]
    n_steps = _power(max(family.tails))
    length = padded(shared, network)
    row = np.zeros(length, int)
    row[:shared] = first[:shared]
    stream, state = _kept(network, jnp.asarray(row), jnp.asarray(shared), length + n_steps)
    size = max(1, AT_ONCE // (length + n_steps))
    for i in range(0, len(family.members), size):
        group = family.members[i : i + size]
        tails = np.zeros((size, n_steps), int)
        for k, member in enumerate(group):
            rest = hosts[member][shared:]
            tails[k, : len(rest)] = rest
        at, columns = _asked_of(group, wanted, (size, *sizes))
        logs, best = map(np.asarray, _stepped(network, stream, state, jnp.asarray(tails), at, columns))
        yield from zip(group, logs, best, strict=False)


@eqx.filter_jit
def _kept(
    network: Network, row: Int[Array, " t"], shared: Int[Array, ""], capacity: int
) -> tuple[Float[Array, "t d"], NetworkState]:
    """The stream of a beginning, of which `shared` tokens count, and its keys and values with room for more."""

    def body(index: Any, block: Any, h: Array) -> tuple[Array, Cache]:
        tap, mixer = Tap((), index), block.mixer
        after = block(h, tap=tap)
        keys = mixer.placed(tap.sites["k"], jnp.arange(row.shape[0]), mixer.k_norm)
        room = ((0, 0), (0, capacity - row.shape[0]), (0, 0))
        prefix = jnp.zeros((0, h.shape[1]), h.dtype)
        return after, Cache(jnp.pad(keys, room), jnp.pad(tap.sites["v"], room), None, prefix, shared)

    stream, parts = network.fold(body, network.embedded(row))
    return stream, NetworkState(tuple(stack for _, stack in parts), shared)


@eqx.filter_jit
def _stepped(
    network: Network,
    stream: Float[Array, "t d"],
    state: NetworkState,
    tails: Int[Array, "b steps"],
    at: Int[Array, "b places"],
    columns: Int[Array, "b places columns"],
) -> tuple[Float[Array, "b places columns"], Int[Array, "b places"]]:
    """As `_told`, of sequences that go on from one beginning."""

    def one(tail: Array, places: Array, asked: Array) -> tuple[Array, Array]:
        _, outputs = lax.scan(lambda state, token: network.step(state, token), state, tail)  # noqa: PLW0108
        later = places - state.position
        early = network.read(stream[jnp.minimum(places, state.position - 1)])
        logits = jnp.where(later[:, None] >= 0, outputs[jnp.maximum(later, 0)], early)
        logs = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(logs, asked, axis=1), jnp.argmax(logs, axis=1)

    return jax.vmap(one)(tails, at, columns)


def padded(length: int, network: Any = None) -> int:
    """The length to which a sequence is padded: 32 2^n or 48 2^n, but no more than the network has positions for."""
    size = 32
    while size < length:
        size = size * 3 // 2 if length <= size * 3 // 2 else size * 2
    most = getattr(network, "n_positions", None)
    return size if most is None else max(length, min(size, most))


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


@eqx.filter_jit
def _told(
    network: Any,
    tokens: Int[Array, "b t"],
    at: Int[Array, "b places"],
    columns: Int[Array, "b places columns"],
    interventions: tuple[Intervention, ...],
) -> tuple[Float[Array, "b places columns"], Int[Array, "b places"]]:
    """Log-probabilities of tokens at places, and the most probable token there."""

    def one(row: Array, places: Array, asked: Array) -> tuple[Array, Array]:
        logs = jax.nn.log_softmax(logits_at(network, row, places, interventions)[0])
        return jnp.take_along_axis(logs, asked, axis=1), jnp.argmax(logs, axis=1)

    return jax.vmap(one)(tokens, at, columns)


def most_probable(network: Any, tokens: Int[np.ndarray, " t"], n: int = 5) -> list[tuple[int, float]]:
    """The n most probable next tokens with their probabilities."""
    row = np.zeros(padded(len(tokens), network), int)
    row[: len(tokens)] = tokens
    values = np.asarray(_next(in_bits(network), jnp.asarray(row), jnp.asarray(len(tokens) - 1)))
    best = np.argsort(-values, kind="stable")[:n]
    return [(int(i), float(values[i])) for i in best]


@eqx.filter_jit
def _next(network: Any, row: Int[Array, " t"], last: Int[Array, ""]) -> Float[Array, " v"]:
    return jax.nn.softmax(logits_at(network, row, last[None])[0][0])


def logits_at(
    network: Any, row: Int[Array, " t"], places: Int[Array, " n"], interventions: tuple[Intervention, ...] = ()
) -> tuple[Float[Array, "n v"], Trace]:
    """The logits at some places, and the trace; of a network of the house nothing else is read out."""
    if not isinstance(network, Network):
        logits, trace = network(row, interventions)
        return logits[places], trace
    stream, trace = network.through(network.embedded(row), interventions)
    return network.read(stream[places]), trace
