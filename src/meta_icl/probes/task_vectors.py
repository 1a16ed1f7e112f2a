"""Task vectors: from which layer on the state of the last token holds the answer, and from which it holds the task.

What is shown. Prompts get the context of another one, which changes the answer; then, layer by layer, the stream at the
last token is put back: as it was in the prompt itself (activation patching), as it was behind the same context with
another query (the task vector of that context), and, as a control, behind a third context. The numbers are the share of
the change that is undone: 1 where the answer is again that of the prompt, 0 where nothing is gained.

What it says. The answer has arrived where its own state brings it back; the task is held by one state where a state
of another query brings back nearly as much (Hendel et al., 2023). A single prompt has no third context and no other
query: its own context in another order stands in, and only the first number is there. After the last layer the own
state is the answer, so 1 there says nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.errors import require
from meta_icl.models import Intervention
from meta_icl.plotting import Chart, Lines, Series
from meta_icl.probes._shared import Measured
from meta_icl.probes._subject import Subject, require_site
from meta_icl.prompt import LabelledTokens, Prompt, TokenPrompt

STATES = {"own": "its own state", "vector": "of another query", "control": "of a third context"}


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the network names its stream, alike in all layers, and there is a context."""
    require_site(subject, "resid_post", "one whose blocks name their residual stream, of one width")
    length = jax.tree.leaves(subject.prompts)[0].shape[1]
    require(length >= 3, "prompts", f"of {length} rows", "prompts with two or more before the query")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`changed` "prompts", the distance of the answer with another context from that with the prompt's own.

    `own`, `vector` and `control` "prompts layers" are the distances that are left with a state put in its place: of
    logits the divergence KL(own || other) in nats, else the squared difference.
    """
    check(subject)
    n = subject.n_prompts
    at = np.arange(n)
    received = _with_contexts(subject, np.roll(at, -1), at)
    donors = {"own": subject}
    if n > 1:
        donors["vector"] = replace(subject, prompts=_with_contexts(subject, at, np.roll(at, 1)))
    if n > 2:
        donors["control"] = replace(subject, prompts=_with_contexts(subject, np.roll(at, -2), np.roll(at, 1)))
    nothing = jnp.zeros((n, *subject.shape_of_trace()["resid_post"].shape[::2]))
    answers = _answers(subject.model, subject.prompts, nothing, jnp.asarray(-1))
    probabilities = subject.is_language or jnp.issubdtype(subject.prompts.y.dtype, jnp.integer)

    def apart(states: Any, layer: int) -> np.ndarray:
        return np.asarray(_apart(answers, _answers(subject.model, received, states, jnp.asarray(layer)), probabilities))

    found = {"changed": apart(nothing, -1)}
    for name, donor in donors.items():
        states = jnp.asarray(donor.traced(_last))
        found[name] = np.stack([apart(states, layer) for layer in range(states.shape[1])], axis=1)
    return found


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per layer: the share of the change that each state undoes, over all prompts."""
    shares = {name: undone(measured, name) for name in STATES if name in measured}
    return [
        {"after layer": i + 1}
        | {told: float(shares[name][i]) if name in shares else None for name, told in STATES.items()}
        for i in range(measured["own"].shape[1])
    ]


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """The shares by layer."""
    series = []
    for label, measured in found.items():
        layers = np.arange(1, measured["own"].shape[1] + 1)
        for name, style in (("own", "line"), ("vector", "dashed"), ("control", "dashed")):
            if name in measured:
                series.append(Series(f"{label}: {STATES[name]}", layers, undone(measured, name), style=style))
    caption = "Share of the change by another context that a state at the last token undoes."
    return {"by_layer": Lines("Where the answer is, and where the task", "layer", "undone", series, caption=caption)}


def undone(measured: Measured, name: str) -> Float[np.ndarray, " layers"]:
    """One less the distance left with a state over that without, by layer; at least -1, since states can hurt."""
    whole = max(float(measured["changed"].mean()), np.finfo(np.float32).tiny)
    return np.maximum(1 - measured[name].mean(0) / whole, -1)


def _last(trace: Any) -> Any:
    return trace["resid_post"][:, -1]


def _with_contexts(subject: Subject, contexts: np.ndarray, queries: np.ndarray) -> Any:
    """Prompts whose context is that of some and whose query that of others; a single one is put in another order."""
    prompts = subject.prompts
    if subject.n_prompts == 1:
        order = np.append(np.random.default_rng(0).permutation(len(subject.examples)), len(subject.examples))
        opened = int(np.argmax(subject.examples >= 0))  # what stands before the examples stays there
        order = np.concatenate([np.arange(opened), order[order >= opened]])
        return jax.tree.map(lambda leaf: leaf[:, order], prompts) if subject.is_language else _reordered(prompts)

    def mixed(leaf: Array) -> Array:
        return jnp.concatenate([leaf[contexts, :-1], leaf[queries, -1:]], axis=1)

    if isinstance(prompts, TokenPrompt):
        fields = ("tokens", "loss_mask", *(("labels",) if isinstance(prompts, LabelledTokens) else ()))
    else:
        fields = ("x", "y")
    return eqx.tree_at(lambda p: [getattr(p, name) for name in fields], prompts, replace_fn=mixed)


def _reordered(prompts: Prompt) -> Prompt:
    """The targets of the context moved on by one: the same items with other answers."""
    moved = jnp.concatenate([jnp.roll(prompts.y[:, :-1], 1, axis=1), prompts.y[:, -1:]], axis=1)
    return eqx.tree_at(lambda prompt: prompt.y, prompts, moved)


@eqx.filter_jit
def _answers(model: Any, prompts: Any, states: Float[Array, "p layers d"], layer: Any) -> Array:
    """The answer of every prompt at its query, with the state after a layer in place at the last token (-1: none)."""

    def one(item: tuple[Any, Array]) -> Array:
        prompt, own = item
        seen = prompt if isinstance(prompt, TokenPrompt) else prompt.hidden()
        tokens = model.layout.encode(seen)
        length = eqx.filter_eval_shape(lambda t: model.network(t)[1]["resid_post"], tokens).shape[1]
        mask = jnp.arange(own.shape[0])[:, None, None] == layer
        mask &= jnp.arange(length)[None, :, None] == length - 1
        answer, _ = model.trace(seen, (Intervention("resid_post", mask, own[layer]),))
        return answer[-1] if answer.ndim == 2 else answer

    return jax.lax.map(one, (prompts, states), batch_size=8)


def _apart(a: Float[Array, "p v"], b: Float[Array, "p v"], probabilities: bool) -> Float[Array, " p"]:
    """How far answers are from those of the prompts themselves."""
    if not probabilities:
        return jnp.sum(jnp.square(a - b), axis=-1)
    logs, others = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    return jnp.sum(jnp.exp(logs) * (logs - others), axis=-1)
