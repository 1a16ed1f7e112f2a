"""Memories at work: whose learning rule each layer follows, what surprises it, what it keeps, and what it amounts to.

What is shown. A memory layer writes every token. The cosine of a write with a step of the delta rule (on |M(k) - v|^2)
and of Hebb's rule (on -<M(k), v>) says which descent the write is. Surprise is |M(k) - v|^2 before the write, and what
is read back is 1 - |M(k) - v|^2 after the whole prompt, both relative to |v|^2. The answer after every layer, through
the network's own read-out, is compared with three learners of the task: a gradient step from zero, the delta rule and
ridge regression. Each is granted its best scale, the last two their best rate and penalty.

What it says. The cosines are in the layer's own keys and values: for DeltaNet the first is 1, for linear attention the
second, trained or not; they say what deep, gated and momentum memories do. Surprise, what is read back and the
comparison of answers are about the task: there, differences between trained and untrained weights have been learned.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.algorithms import Delta, RecursiveRidge
from meta_icl.analysis import memory
from meta_icl.errors import require
from meta_icl.models import InContextLearner
from meta_icl.plotting import Chart, Lines, Series
from meta_icl.probes._subject import Subject
from meta_icl.prompt import Prompt, answer_positions

RATES = (0.25, 0.5, 1.0)
PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)
LEARNERS = {"step": "a gradient step", "delta": "the delta rule", "ridge": "ridge"}


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the model has memories and its prompts real targets of one channel."""
    memory.memory_layers(subject.network)
    y = subject.prompts.y if isinstance(subject.prompts, Prompt) else None
    require(y is not None and y.ndim == 3 and y.shape[-1] == 1, "prompts", "others", "pairs with one real target each")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """By layer with a memory (`layers`, `kinds`): `delta_rule`, `hebb`, `surprise`, `read_back` "layers t".

    By layer of the network `answer/step`, `answer/delta` and `answer/ridge`, R^2 averaged over all rows that have a
    context; `rate` and `penalty` "network_layers" are those of the best.
    """
    check(subject)
    assert isinstance(subject.model, InContextLearner) and isinstance(subject.prompts, Prompt)
    layers = memory.memory_layers(subject.network)
    traces, lens = _passed(subject.model, subject.prompts)
    measured: dict[str, Any] = {"layers": np.array(layers)}
    mixers = [subject.network.block(i).mixer for i in layers]
    measured["kinds"] = np.array([type(memory.mixer_of(mixer).config).__name__ for mixer in mixers])
    rows = subject.shape_of_trace().layers_of("mixer_in")  # a layer without a mixer has none
    each = [_course(mixer, traces[:, rows.index(i)]) for i, mixer in zip(layers, mixers, strict=True)]
    measured |= {name: np.stack([np.asarray(one[name]) for one in each]) for name in each[0]}
    return measured | {name: np.asarray(value) for name, value in compared(lens, subject.prompts).items()}


@eqx.filter_jit
def _passed(model: InContextLearner, prompts: Prompt) -> tuple[Float[Array, "b l t d"], Float[Array, "b l n"]]:
    """What the mixers of all layers read, and the answers after every layer at the rows that are answered."""

    def one(prompt: Prompt) -> tuple[Array, Array]:
        trace = model.trace(prompt.hidden())[1]
        answers = jax.vmap(lambda h: model.layout.read(model.network.read(h), prompt))(trace["resid_post"])
        return trace["mixer_in"], answers.reshape(answers.shape[0], -1)

    return jax.vmap(one)(prompts)


@eqx.filter_jit
def _course(mixer: Any, x: Float[Array, "b t d"]) -> dict[str, Float[Array, " t"]]:
    """Means over prompts and heads; cosines over those whose memory moves at that token."""

    def one(x: Float[Array, "t d"]) -> dict[str, Array]:
        course = memory.course_of(mixer, x)
        return {
            "delta_rule": memory.alignment(course, memory.delta_loss),
            "hebb": memory.alignment(course, memory.hebbian_loss),
            "surprise": memory.surprise(course),
            "read_back": memory.lost(course),
            "size": jnp.sum(jnp.square(course.tokens.v), axis=-1),
        }

    found = {name: values.reshape(-1, values.shape[-1]) for name, values in jax.vmap(one)(x).items()}
    total = found["size"].sum(0)
    cosines = {name: found[name].sum(0) / jnp.maximum((found[name] != 0).sum(0), 1) for name in ("delta_rule", "hebb")}
    surprise, lost = (found[name].sum(0) / total for name in ("surprise", "read_back"))
    return cosines | {"surprise": surprise, "read_back": 1 - lost}


@eqx.filter_jit
def compared(answers: Float[Array, "b l n"], prompts: Prompt) -> dict[str, Array]:
    """R^2 of the answers after every layer by each learner, the best of its family."""
    x, y, n = prompts.x, prompts.y[..., 0], answers.shape[-1]
    rows = slice(max(prompts.x.shape[1] - n, 1), None)  # the first row has no context

    def explained(guess: Array) -> Array:
        guess = guess[:, rows]
        return jax.vmap(lambda a: memory.explained(a, guess).mean(), 1)(answers[..., -guess.shape[1] :])

    def best(learners: list[Any], settings: tuple[float, ...]) -> tuple[Array, Array]:
        scores = jnp.stack([explained(answer_positions(learner, prompts)[..., 0]) for learner in learners])
        return scores.max(0), jnp.asarray(settings)[scores.argmax(0)]

    delta, rate = best([Delta(rate=r) for r in RATES], RATES)
    ridge, penalty = best([RecursiveRidge(p) for p in PENALTIES], PENALTIES)
    step = explained(memory.descent_answers(x, y))
    return {"answer/step": step, "answer/delta": delta, "answer/ridge": ridge, "rate": rate, "penalty": penalty}


def rows(measured: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per layer with a memory; surprise in the first and in the last quarter of the tokens."""
    quarter = max(measured["surprise"].shape[1] // 4, 1)
    told = []
    for i, layer in enumerate(measured["layers"]):
        surprise = measured["surprise"][i]
        told.append(
            {
                "layer": int(layer) + 1,
                "memory": str(measured["kinds"][i]),
                "cosine, delta rule": float(measured["delta_rule"][i].mean()),
                "cosine, Hebb": float(measured["hebb"][i].mean()),
                "surprise, first quarter": float(surprise[:quarter].mean()),
                "surprise, last quarter": float(surprise[-quarter:].mean()),
                "read back": float(measured["read_back"][i].mean()),
                "answer by a step, R^2": float(measured["answer/step"][layer]),
                "by the delta rule": float(measured["answer/delta"][layer]),
                "by ridge": float(measured["answer/ridge"][layer]),
                "rate": float(measured["rate"][layer]),
                "penalty": float(measured["penalty"][layer]),
            }
        )
    return told


def figures(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Chart]:
    """By token: the cosines, surprise, what is read back; by layer: what the answers amount to."""

    def by_token(name: str, style: str = "line", suffix: str = "") -> list[Series]:
        return [
            Series(f"{label}, layer {layer + 1}{suffix}", np.arange(1, values.size + 1), values, style=style)
            for label, measured in found.items()
            for layer, values in zip(measured["layers"], measured[name], strict=True)
        ]

    answers = [
        Series(f"{label}: {words}", np.arange(1, len(measured["rate"]) + 1), measured[f"answer/{name}"], style=style)
        for label, measured in found.items()
        for (name, words), style in zip(LEARNERS.items(), ("dotted", "dashed", "line"), strict=True)
    ]
    cosines = by_token("delta_rule", suffix=": delta rule") + by_token("hebb", "dashed", ": Hebb")
    own = "In the layer's own keys and values. A memory that does not move at a token has none."
    return {
        "rules": Lines("Whose step is a write? Cosine with descent", "token", "cosine", cosines, caption=own),
        "surprise": Lines("Surprise", "token", "|M(k) - v|^2 / |v|^2, before the write", by_token("surprise")),
        "read_back": Lines(
            "What is read back after the prompt", "token", "1 - |M(k) - v|^2 / |v|^2", by_token("read_back")
        ),
        "answers": Lines("What the answers amount to", "layer", "R^2 of the best scale", answers),
    }
