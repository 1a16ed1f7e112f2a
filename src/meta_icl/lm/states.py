"""Hidden states of a language model at the token that answers come after, and answers with such a state replaced."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from meta_icl.errors import require
from meta_icl.lm.answers import AT_ONCE, Asked, Told, logits_at, padded
from meta_icl.models import Intervention, Network
from meta_icl.models.depth import in_bits

SHORT = 8  # prompts shorter than the shortest padded length are padded to a multiple of this


def states_at(network: Any, rows: Sequence[Sequence[int]]) -> Float[np.ndarray, "n layers d"]:
    """The residual stream after every layer at the last token of each sequence."""
    network = in_bits(network)
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    for length, members in _by_length([len(row) for row in rows], network).items():
        size = max(1, AT_ONCE // length)
        for group in (members[i : i + size] for i in range(0, len(members), size)):
            tokens, last = np.zeros((size, length), int), np.zeros(size, int)
            for row, i in enumerate(group):
                tokens[row, : len(rows[i])] = rows[i]
                last[row] = len(rows[i]) - 1
            states = np.asarray(_states(network, jnp.asarray(tokens), jnp.asarray(last)))
            for row, i in enumerate(group):
                found[i] = states[row]
    return np.stack(found)


def answers_with_states(network: Network, asked: Sequence[Asked]) -> tuple[Told, Float[np.ndarray, "n layers d"]]:
    """Whole answers as `log_probabilities` scores them, and the stream at the last token before each, in one pass."""
    nothing = np.zeros(network.config.d_model, np.float32)
    return _passed(network, [Replaced(one, -1, nothing) for one in asked], lambda done, total: None, states=True)


class Replaced(NamedTuple):
    """An answer asked for with the stream after one layer, at the last token before the answer, put in its place."""

    asked: Asked
    layer: int
    state: Float[np.ndarray, " d"]


def replaced_answers(
    network: Any,
    wanted: Sequence[Replaced],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Told:
    """The log-probability in nats of every answer with its state replaced, and whether each token is most probable.

    Layers count from 0. Raises `BadInput` for a layer that the network does not have, or an empty answer or beginning.
    """
    for one in wanted:
        require(0 <= one.layer < network.n_layers, "layer", one.layer, f"from 0 to {network.n_layers - 1}")
        complete = len(one.asked.before) >= 1 and len(one.asked.answer) >= 1
        require(complete, "answer", one.asked, "tokens, with at least one before them")
    return _passed(network, wanted, progress)[0]


def _passed(
    network: Any, wanted: Sequence[Replaced], progress: Callable[[int, int], None], *, states: bool = False
) -> tuple[Told, np.ndarray]:
    """Answers with states in place, where the layer is not -1, and the stream before each answer if it is wanted."""
    found: list[np.ndarray] = [np.empty(0)] * len(wanted)
    scores, greedy = np.zeros(len(wanted)), np.zeros(len(wanted), bool)
    lengths = [len(one.asked.before) + len(one.asked.answer) - 1 for one in wanted]
    most = max(len(one.asked.answer) for one in wanted)
    d, done, network = len(wanted[0].state), 0, in_bits(network)
    for length, members in _by_length(lengths, network).items():
        size = max(1, AT_ONCE // length)
        for group in (members[i : i + size] for i in range(0, len(members), size)):
            rows, starts = np.zeros((size, length), int), np.zeros(size, int)
            answers, counts = np.zeros((size, most), int), np.zeros(size, int)
            layers, placed = np.zeros(size, int), np.zeros((size, d), np.float32)
            for row, i in enumerate(group):
                (before, answer), layers[row], placed[row] = wanted[i]
                rows[row, : lengths[i]] = (*before, *answer[:-1])
                starts[row], counts[row] = len(before) - 1, len(answer)
                answers[row, : len(answer)] = answer
            given: Any = map(jnp.asarray, (rows, starts, answers, counts, layers, placed))
            told = _answers(network, *given, states=states)
            logs, best, stream = map(np.asarray, told)
            scores[group], greedy[group] = logs[: len(group)], best[: len(group)]
            for row, i in enumerate(group):
                found[i] = stream[row]
            done += len(group)
            progress(done, len(wanted))
    return Told(scores, greedy), np.stack(found)


def _by_length(lengths: Sequence[int], network: Any) -> dict[int, list[int]]:
    """Which sequences are padded to each length."""
    found: dict[int, list[int]] = {}
    for i, n in enumerate(lengths):
        to = padded(n, network)
        found.setdefault(min(-(-n // SHORT) * SHORT, to) if n <= padded(1) else to, []).append(i)
    return dict(sorted(found.items()))


@eqx.filter_jit
def _states(network: Any, tokens: Int[Array, "b t"], last: Int[Array, " b"]) -> Float[Array, "b layers d"]:
    def one(row: Array, at: Array) -> Array:
        return network(row)[1]["resid_post"][:, at]

    return jax.vmap(one)(tokens, last)


@eqx.filter_jit
def _answers(
    network: Any,
    tokens: Int[Array, "b t"],
    starts: Int[Array, " b"],
    answers: Int[Array, "b answer"],
    counts: Int[Array, " b"],
    layers: Int[Array, " b"],
    placed: Float[Array, "b d"],
    states: bool,
) -> tuple[Float[Array, " b"], Bool[Array, " b"], Float[Array, "b layers d"]]:
    """Log-probabilities of whole answers, whether greedy decoding would give them, and the stream if `states`."""

    def one(row: Array, start: Array, answer: Array, count: Array, layer: Array, state: Array) -> Any:
        at = jnp.arange(network.n_layers)[:, None, None] == layer
        at &= jnp.arange(row.shape[0])[None, :, None] == start
        replaced = () if states else (Intervention("resid_post", at, state),)
        places = jnp.minimum(start + jnp.arange(answer.shape[0]), row.shape[0] - 1)
        logits, trace = logits_at(network, row, places, replaced)
        logs = jax.nn.log_softmax(logits)
        own = jnp.take_along_axis(logs, answer[:, None], axis=1)[:, 0]
        asked = jnp.arange(answer.shape[0]) < count
        right = jnp.argmax(logs, axis=1) == answer
        before = trace["resid_post"][:, start] if states else jnp.zeros((0, state.shape[0]))
        return jnp.sum(jnp.where(asked, own, 0)), jnp.all(right | ~asked), before

    return jax.vmap(one)(tokens, starts, answers, counts, layers, placed)
