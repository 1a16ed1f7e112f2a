"""A league of sequence mixers: the same prompts, each mixer at its own best learning rate, with what it costs.

An arena is a task to train on and one or several to be scored on. A mixer plays with every rate of a grid and several
seeds; the rate with the lowest training loss at the end counts, and the score is the spread over seeds at that rate.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from meta_icl.errors import choose, require
from meta_icl.models import Interleaved, Learner, Rotary, TokenLayout, memories, mixers
from meta_icl.prompt import LabelledTokens, Task, answer_positions, answer_tokens
from meta_icl.tasks import FunctionRegression, Linear, Mqar, Needle, Overwrite
from meta_icl.training import Optimiser, Store, every_position_mse, labelled_cross_entropy, train


@dataclass(frozen=True)
class Arena:
    """A task to train on, and the tasks to be scored on, by name. Token tasks give accuracies, others errors."""

    task: Task
    scored: Mapping[str, Task]
    vocabulary: int | None = None

    @property
    def higher_is_better(self) -> bool:
        """Accuracies, not errors."""
        return self.vocabulary is not None

    def model(self, mixer: Any, d_model: int, n_layers: int, mlp: int) -> Learner:
        """The network around a mixer that this arena needs."""
        if self.vocabulary is not None:
            v = self.vocabulary
            return Learner(memories(d_model, (mixer,), n_layers, n_tokens=v, d_out=v, mlp=mlp), TokenLayout())
        width = self.task.sample(key=jax.random.key(0)).x.shape[-1]
        return Learner(memories(d_model, (mixer,), n_layers, d_in=width, mlp=mlp), Interleaved())

    def score(self, predictor: Any, task: Task, n_prompts: int, key: Key[Array, ""]) -> Float[Array, ""]:
        """Accuracy on the labels asked for, or the query's squared error over the zero predictor's."""
        prompts = task.sample_batch(n_prompts, key=key)
        if isinstance(prompts, LabelledTokens):
            right = jnp.argmax(answer_tokens(predictor, prompts), axis=-1) == prompts.labels
            return jnp.sum(right & prompts.loss_mask) / jnp.sum(prompts.loss_mask)
        errors = jnp.square(answer_positions(predictor, prompts) - prompts.y)[:, -1]
        return jnp.mean(errors) / jnp.mean(jnp.square(prompts.y[:, -1]))


def arena(name: str, length: int = 32) -> Arena:
    """An arena by name, at about the number of tokens given: "regression", "mqar", "overwrite" or "needle".

    The needle is scored at once, twice and four times the length of training.
    """
    choose("arena", name, ARENAS)
    require(length >= 16 and length % 8 == 0, "length", length, "a multiple of 8 from 16 on")
    if name == "regression":
        task = FunctionRegression(Linear(length // 8), length // 2 - 1)
        return Arena(task, {"query": task})
    if name == "mqar":
        task = Mqar(vocabulary=2 * length, length=length, n_pairs=length // 8)
        return Arena(task, {"1x": task}, task.vocabulary)
    if name == "overwrite":
        task = Overwrite(vocabulary=2 * length, n_keys=length // 8, n_writes=2)
        return Arena(task, {"latest": task}, task.vocabulary)
    needles = {f"{times}x": Needle(length=times * length) for times in (1, 2, 4)}
    return Arena(needles["1x"], needles, needles["1x"].vocabulary)


ARENAS = ("mqar", "needle", "overwrite", "regression")


def roster(chunk_size: int = 16) -> dict[str, Any]:
    """The descriptions of all built-in mixers, by name."""
    c: dict[str, Any] = {"chunk_size": chunk_size}
    titans = mixers.Titans(**c)
    deep = mixers.Titans(**c, depth=2)
    return {
        "attention": mixers.Attention(2, rotary=Rotary()),
        "sliding_window": mixers.Attention(2, window=chunk_size, rotary=Rotary()),
        "linear_attention": mixers.LinearAttention(**c, conv=4, feature="silu"),
        "retnet": mixers.LinearAttention(**c, conv=4, feature="silu", decay="constant"),
        "gla": mixers.LinearAttention(**c, conv=4, feature="silu", decay="channel", output_gate=True),
        "mamba": mixers.Mamba(),
        "mamba2": mixers.Mamba2(**c),
        "deltanet": mixers.DeltaNet(**c),
        "gated_deltanet": mixers.GatedDeltaNet(**c),
        "longhorn": mixers.Longhorn(**c),
        "rwkv7": mixers.Rwkv7(**c),
        "mesa": mixers.Mesa(**c),
        "ttt_linear": mixers.Ttt(**c),
        "ttt_mlp": mixers.Ttt(**c, depth=2),
        "mlstm": mixers.Mlstm(**c),
        "lstm": mixers.Lstm(forget_bias=1.0),
        "titans_linear": mixers.Persistent(titans),
        "titans_lmm": mixers.Persistent(deep),
        "titans_mac": mixers.TitansBlock("context", deep, segment=2 * chunk_size),
        "titans_mag": mixers.TitansBlock("gate", deep, segment=2 * chunk_size),
        "titans_mal": mixers.TitansBlock("layer", deep, segment=2 * chunk_size),
    }


def play(
    arena: Arena,
    mixer: Any,
    *,
    steps: int,
    key: Key[Array, ""],
    d_model: int = 64,
    n_layers: int = 2,
    mlp: int = 4,
    rates: Sequence[float] = (3e-4, 1e-3, 3e-3),
    seeds: int | Sequence[int] = 3,
    batch: int = 64,
    n_eval: int = 500,
    weight_decay: float = 0.0,
    measures: Mapping[str, Callable[[Any, Key[Array, ""]], Array]] | None = None,
    store: Store | None = None,
) -> dict[str, np.ndarray]:
    """Train a mixer in an arena at every rate and seed; returns everything a table of the league shows.

    `losses` "rates seeds" are final training losses, `score/NAME` "seeds" the scores at the best rate (`rate`), then
    `parameters`, `state` (numbers carried), `flops` (forward, per token of training), `seconds` (per training step, one
    seed). `measures[NAME](network, key)` of the trained networks at the best rate add NAME "seeds ..".
    """
    require(len(rates) >= 1, "rates", rates, "at least one")
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    model = arena.model(mixer, d_model, n_layers, mlp)
    clock = _Clock()
    trained = train(
        arena.task,
        model,
        steps=steps,
        key=key,
        seeds=seeds,
        batch=batch,
        optimiser=Optimiser(
            "adamw", weight_decay=weight_decay, clip_norm=1.0, warmup_steps=max(1, steps // 20),
            schedule="cosine", schedule_steps=steps,
        ),
        objective=labelled_cross_entropy if arena.higher_is_better else every_position_mse,
        sweep={"optimiser.learning_rate": tuple(rates)},
        record=max(1, steps // 10),
        store=store,
        progress=clock,
    )  # fmt: skip
    losses = trained.history["loss"][-1].reshape(len(rates), -1)
    means = np.where(np.isfinite(losses).all(axis=1), losses.mean(axis=1), np.inf)
    best = int(np.argmin(means))
    members = [trained[best * len(seeds) + i] for i in range(len(seeds))]
    out = {"losses": losses, "rates": np.array(rates), "rate": np.array(rates[best])}
    keys = [jax.random.fold_in(jax.random.fold_in(key, s), 2) for s in seeds]
    for name, task in arena.scored.items():
        score = eqx.filter_jit(lambda predictor, k, task=task: arena.score(predictor, task, n_eval, k))
        out[f"score/{name}"] = np.array([float(score(m, k)) for m, k in zip(members, keys, strict=True)])
    for name, measure in (measures or {}).items():
        measured = eqx.filter_jit(measure)
        out[name] = np.stack([np.asarray(measured(m, k)) for m, k in zip(members, keys, strict=True)])
    network = members[0].network
    tokens = _tokens(arena)
    flops = mixers.operations(jax.make_jaxpr(lambda rows: network(rows)[0])(tokens).jaxpr)
    return out | {
        "parameters": np.array(sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))),
        "state": np.array(network.config.state_size(tokens.shape[0])),
        "flops": np.array(flops / tokens.shape[0]),
        "seconds": np.array(clock.per_step / (len(rates) * len(seeds))),
    }


def losses_at_best(played: Mapping[str, np.ndarray]) -> np.ndarray:
    """Final training losses "seeds" at the best rate, of what `play` returned."""
    return played["losses"][int(np.argmin(np.abs(played["rates"] - played["rate"])))]


class _Clock:
    """The shortest time per step between two records, all replicas together; records with compilation are longer."""

    def __init__(self):
        self.last: tuple[int, float] | None = None
        self.per_step = np.nan

    def __call__(self, step: int, steps: int, loss: float) -> None:
        del steps, loss
        now = time.perf_counter()
        if self.last is not None and step > self.last[0]:
            self.per_step = float(np.fmin(self.per_step, (now - self.last[1]) / (step - self.last[0])))
        self.last = step, now


def _tokens(arena: Arena) -> Array:
    """The rows that a network reads of one training prompt."""
    prompt: Any = arena.task.sample(key=jax.random.key(0))
    return prompt.tokens if isinstance(prompt, LabelledTokens) else Interleaved().encode(prompt)
