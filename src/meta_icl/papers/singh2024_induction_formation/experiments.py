"""What is trained and measured: two attention layers with parts of their circuit clamped."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import (
    all_but_one,
    each_head,
    in_context_loss,
    induction_strength,
    log_spaced,
    rank_one_descent,
    without_heads,
)
from meta_icl.models import Clamped, ClampedLearner, LabelLayout, Learner, singh
from meta_icl.models.clamped import same_items
from meta_icl.prompt import Prompt, answer_batch
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import TwoPairs, every_two_pairs, split_label_pairs
from meta_icl.training import Optimiser, cross_entropy, train

from .config import CLAMPS, HEADS, Config

TRAIN_KEY, WORLD_KEY, D = 5, 1, 512
RANK = 24  # numbers behind the D features of an exemplar: fewer than there are classes, so that new ones are seen
HELD_OUT = {5: 2, 10: 9, 15: 21}


def world(n_classes: int, n_labels: int, spread: float = 0.3) -> tuple[TwoPairs, dict[str, TwoPairs]]:
    """The training task, and its tests: other label pairs, other drawings, other classes.

    Features have a mean square of 1: sqrt(2 / RANK) max(0, z W), z a class's numbers but for a share `spread`.
    """
    class_key, drawing_key, label_key = jax.random.split(jax.random.key(WORLD_KEY), 3)
    means = jax.random.normal(class_key, (n_classes + 100, 1, RANK))
    noise = jax.random.normal(drawing_key, (n_classes + 100, 5, RANK))
    weights = jax.random.normal(jax.random.fold_in(class_key, 1), (RANK, D))
    drawings = (2 / RANK) ** 0.5 * jax.nn.relu(((1 - spread) ** 0.5 * means + spread**0.5 * noise) @ weights)
    known, new = drawings[:n_classes], drawings[n_classes:]
    pairs, held_out = split_label_pairs(n_labels, HELD_OUT[n_labels], key=label_key)
    tests = {
        "train": TwoPairs(known[:, :1], pairs),
        "label_pairs": TwoPairs(known[:, :1], held_out),
        "drawings": TwoPairs(known[:, 1:], pairs),
        "classes": TwoPairs(new, pairs),
    }
    return tests["train"], tests


def describe(name: str, n_labels: int) -> Clamped:
    """The network under one condition."""
    clamps, kept = CLAMPS[name]
    return Clamped(Learner(singh(n_labels, D, n_heads=HEADS), LabelLayout()), clamps, kept)


def compute(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part: the toy, or one training."""
    return toy(config) if kind == "toy" else train_condition(part, config=config, **arguments)


def toy(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Losses "seeds steps" of the rank-one toy, free and with one or two vectors at their target."""
    keys = jax.random.split(jax.random.key(0), config["toy_seeds"])
    return {
        "".join(clamped) or "free": np.asarray(jax.vmap(partial(_descent, clamped))(keys))
        for clamped in ((), ("c",), ("b", "c"))
    }


def _descent(clamped: tuple[str, ...], key: Any) -> Any:
    return rank_one_descent(key=key, clamped=clamped)


def train_condition(
    part: Run, *, name: str, seed: int, n_classes: int, n_labels: int, config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """One training: losses and accuracies on all tests and the strengths of the heads while it learns."""
    task, tests = world(n_classes, n_labels)

    def probe(predictor: Any, key: Any) -> dict[str, Any]:
        out = {}
        for i, (test, law) in enumerate(tests.items()):
            prompts = law.sample_batch(config["n_eval"], key=jax.random.fold_in(key, i))
            logits = answer_batch(predictor, prompts)
            losses = in_context_loss(logits, prompts.y[:, :-1], prompts.y[:, -1])
            out |= {f"{test}_loss": losses.mean(), f"{test}_right": (jnp.argmax(logits, -1) == prompts.y[:, -1]).mean()}
            if test == "train":
                full = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, prompts.y[:, -1:], 1)[:, 0]
                out |= {"loss": full.mean(), "strength": strengths(predictor, prompts)}
        return out

    trained = train(
        task,
        describe(name, n_labels),
        steps=config["steps"],
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=config["batch"],
        objective=cross_entropy,
        optimiser=Optimiser(learning_rate=config["learning_rate"]),
        record=log_spaced(config["steps"], config["records"]),
        probes={"at": probe},
        store=part,
    )
    history = {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    # The sweeps tell times only; their lists of all sequences would take gigabytes.
    main = name == "free" and (n_classes, n_labels) == (config["n_classes"], 5)
    return history | (heads_at_end(trained[0], task, config["n_final"]) if main else {})


def strengths(predictor: Any, prompts: Prompt) -> Any:
    """The mean induction strength of every head of layer 2."""

    def one(prompt: Prompt) -> Any:
        _, trace = predictor.trace(prompt.hidden())
        return induction_strength(trace["pattern"][1], same_items(prompt)[None] > 0)

    return jax.vmap(one)(prompts).mean(0)


def heads_at_end(predictor: Any, task: TwoPairs, n: int) -> dict[str, np.ndarray]:
    """The strength of every head over all sequences, and accuracies with heads removed."""
    pairs = every_two_pairs(task.exemplars[:, 0], task.label_pairs)
    # Networks and prompts are arguments: as constants they are folded for a minute, in every program anew.
    measure = eqx.filter_jit(strengths)
    sizes = [len(part) for part in np.array_split(np.arange(pairs.x.shape[0]), 16)]  # equal for the 78,400 sequences
    found = [
        np.asarray(measure(predictor, jax.tree.map(lambda leaf, i=i, n=n: leaf[i : i + n], pairs)))
        for i, n in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)
    ]
    prompts = task.sample_batch(n, key=jax.random.key(11))

    def right(answer: Any, prompt: Prompt) -> Any:
        return (jnp.argmax(answer) == prompt.y[-1]).astype(float)

    accuracy = partial(eqx.filter_jit(without_heads), predictor.trace, right, prompts)
    alone = all_but_one(1, 2, HEADS)
    strength = np.average(found, axis=0, weights=sizes)
    best = int(np.argmax(strength))
    kept = [accuracy_of(predictor, prompts, (best,))] + [
        accuracy_of(predictor, prompts, tuple({best, h})) for h in range(HEADS)
    ]
    fixed = [float((row & ~kept[0]).sum() / max(int((~kept[0]).sum()), 1)) for row in kept[1:]]
    first_layer = jnp.zeros((1, 2, HEADS), bool).at[0, 0].set(True)
    return {
        "final_strength": strength,
        "alone": np.asarray(accuracy(alone)),
        "without": np.asarray(accuracy(each_head(2, HEADS)[1])),
        "fixed": np.array(fixed),
        "best": np.array(best),
        "whole": np.asarray(accuracy(jnp.zeros((1, 2, HEADS), bool))[0]),
        "layer1_direct": np.asarray(accuracy(first_layer, keep=("pattern", "v"))[0]),
    }


def accuracy_of(predictor: Any, prompts: Prompt, kept: tuple[int, ...]) -> np.ndarray:
    """Which prompts are answered right with only some heads of layer 2."""
    only = ClampedLearner(predictor.learner, Clamped(predictor.config.learner, (), kept))
    return np.asarray(jnp.argmax(answer_batch(only, prompts), -1) == prompts.y[:, -1])


def run(config: Config, run: Run) -> None:
    """The toy, the seeds of the free network, one training per clamp, and the sweeps of classes and labels."""
    shared = asdict(config)
    n = config.n_classes
    names = [("free", seed, n, 5) for seed in range(config.seeds)]
    names += [(name, 0, n, 5) for name in config.conditions]
    names += [("free", 0, k, 5) for k in config.classes] + [("free", 0, n, k) for k in config.labels]
    parts: dict[str, dict[str, Any]] = {
        part_name(*of): dict(zip(("name", "seed", "n_classes", "n_labels"), of, strict=True)) | {"kind": "training"}
        for of in names
    }
    parts["toy"] = {"kind": "toy"}
    run_parts(run, compute, {name: {**arguments, "config": shared} for name, arguments in parts.items()})


def part_name(name: str, seed: int, n_classes: int, n_labels: int) -> str:
    """The part of one training."""
    return f"{name.replace(' ', '_').replace('+', '_')}-K{n_classes}-L{n_labels}-seed{seed}"


# What claims and figures read of a finished run.


def free_size(names: list[str]) -> str:
    """The size that most trainings of the free network have."""
    sizes = [name.removeprefix("free-").rsplit("-seed", 1)[0] for name in names]
    return max(set(sizes), key=sizes.count) if len(sizes) > 1 else sizes[0]


def free_seeds(run: Run) -> list[dict[str, np.ndarray]]:
    """All seeds of the free network at its main size."""
    names = [name for name in run.parts() if name.startswith("free-")]
    size = free_size(names)
    return [run.part_arrays(name) for name in names if name.startswith(f"free-{size}-seed")]
