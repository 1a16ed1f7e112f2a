"""What is trained and measured: general-purpose learners on projected images, and references on the same prompts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import (
    EveryPosition,
    LogisticRegression,
    NearestCentroid,
    NearestNeighbours,
    OneHot,
    Ridge,
    online_network,
)
from meta_icl.data import TABLES, ImageSet, blobs, digits, download, font_glyphs, table
from meta_icl.evaluation import correct_by_position
from meta_icl.models import Learner, Shifted
from meta_icl.prompt import Prompt, answer_positions
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import ProjectedImages, RandomPoints, projected_images
from meta_icl.training import Optimiser, every_position_cross_entropy, train

from .config import RANDOM, Config, Training

POOL_KEY, TRAIN_KEY, EVAL_KEY = 25, 26, 27
ENDS = 5  # positions averaged at both ends of a curve


def run(config: Config, run: Run) -> None:
    """All trainings, and the reference learners on the prompts of the main one."""
    shared = {name: value for name, value in asdict(config).items() if name != "trainings"}
    parts = {t.name: {"kind": "training", "training": asdict(t)} for t in config.trainings}
    parts["references"] = {"kind": "references", "training": asdict(config.trainings[0])}
    cost = {t.name: float(t.steps * t.batch * t.rows * t.width**2) for t in config.trainings}
    run_parts(run, compute, {name: {**part, "config": shared} for name, part in parts.items()}, cost=cost)


def compute(part: Run, *, kind: str, training: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One part: a training, or the reference learners."""
    t = Training(**training)
    return references(t, config) if kind == "references" else meta_train(part, t, config)


# Data.


def image_set(name: str, side: int) -> ImageSet:
    """A data set by its name, all at one size, normalised by one mean and one deviation."""
    if name == "digits":
        images = digits()
    elif name == "glyphs":
        images = font_glyphs()
    elif name in TABLES:
        images = table(name, side=side)
    elif name == "blobs":
        images = blobs(side=side)
    else:
        images = download(name)
    return images.resized(side).normalised()


def task_of(t: Training, side: int) -> ProjectedImages:
    """The tasks of a training, on the training part of its images."""
    key = jax.random.key(POOL_KEY)
    images = image_set(t.data, side)
    return projected_images(
        images, n_context=t.rows - 1, n_labels=t.n_labels, key=key, n_tasks=t.n_tasks, bias=t.bias
    )  # fmt: skip


def shown_prompts(t: Training, config: Mapping[str, Any], n: int, *, others: bool = True) -> dict[str, Prompt]:
    """Prompts of tasks seen, of tasks unseen with held-out images, and of tasks unseen of other data sets."""
    task, side = task_of(t, config["side"]), config["side"]
    unseen = task.unseen()
    sets: dict[str, Any] = {"seen": task, "unseen": unseen.with_images(image_set(t.data, side), "test")}
    if others:
        for name in config["others"]:
            if name == RANDOM:
                sets[name] = RandomPoints(task.d, task.n_context, t.n_labels, min(10, max(1, t.rows // 2)))
            elif name != t.data:
                sets[name] = unseen.with_images(image_set(name, side), "all")
    keys = jax.random.split(jax.random.key(EVAL_KEY), len(sets))
    return {name: _draw(s, n, key) for (name, s), key in zip(sets.items(), keys, strict=True)}


@eqx.filter_jit
def _draw(task: Any, n: int, key: Any) -> Prompt:
    return task.sample_batch(n, key=key)


# Parts.


def meta_train(part: Run, t: Training, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Train on a pool of tasks; the accuracies at both ends of the context on the way, all curves at the end."""
    task = task_of(t, config["side"])
    network = t.network(task.d)
    probed = shown_prompts(t, config, config["n_probe"], others=False)
    ends = min(ENDS, max(1, t.rows // 2))

    def probe(predictor: Any, key: Any) -> dict[str, Any]:
        del key
        out = {}
        for name, prompts in probed.items():
            right = jnp.argmax(answer_positions(predictor, prompts), -1) == prompts.y
            by_position = jnp.mean(right, axis=0, dtype=float)
            out |= {f"{name}_start": by_position[0], f"{name}_end": by_position[-ends:].mean()}
        return out

    fall = t.steps // 3
    schedule = {"schedule": "linear", "hold_steps": t.steps - fall, "schedule_steps": fall} if t.falling else {}
    trained = train(
        task,
        Learner(network, layout=Shifted(t.n_labels)),
        steps=t.steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=[t.seed],
        batch=t.batch,
        objective=every_position_cross_entropy,
        optimiser=Optimiser(
            t.optimiser, learning_rate=t.rate, eps=t.eps, clip_norm=1.0, warmup_steps=min(100, t.steps), **schedule
        ),
        record=max(1, t.steps // 40),
        probes={"at": probe},
        store=part,
    )
    out = {name.removeprefix("at/"): np.asarray(values) for name, values in trained.history.items()}
    for name, values in out.items():
        if name != "step":
            out[name] = values[:, 0]
    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(trained[0], eqx.is_inexact_array)))
    state = network.state_size(t.rows)
    out |= {"n_parameters": np.array(n_parameters), "state_size": np.array(state)}
    for name, prompts in shown_prompts(t, config, config["n_eval"], others=t.study in ("main", "data")).items():
        out[f"curve_{name}"] = np.asarray(correct_by_position(trained[0], prompts).mean(0))
    if t.study == "main":
        out |= shown_examples(trained[0], t, config["side"])
    return out


def shown_examples(predictor: Any, t: Training, side: int) -> dict[str, np.ndarray]:
    """The images of one unseen prompt under its projection, with labels and answers."""
    task = task_of(t, side).unseen().with_images(image_set(t.data, side), "test")
    prompt = task.sample(key=jax.random.key(EVAL_KEY))
    return {
        "shown": np.asarray(prompt.x).reshape(-1, side, side),
        "shown_labels": np.asarray(prompt.y),
        "shown_answers": np.asarray(jnp.argmax(predictor(prompt), -1)),
    }


def references(t: Training, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The reference learners on the prompts that the main training is tested on; SGD at its best rate of four."""
    task, n_labels = task_of(t, config["side"]), t.n_labels
    draws = jax.random.split(jax.random.key(TRAIN_KEY), 2)
    tuning = _draw(task.unseen(), max(4, config["n_probe"]), draws[0])
    candidates = [online_network(task.d, n_labels, rate=rate, steps=5)(key=draws[1]) for rate in (0.03, 0.1, 0.3, 1.0)]
    sgd = max(candidates, key=lambda learner: float(correct_by_position(learner, tuning).mean()))
    maml = train(
        task,
        online_network(task.d, n_labels, rate=0.1),
        steps=config["maml_steps"],
        key=jax.random.key(TRAIN_KEY),
        batch=config["maml_batch"],
        objective=every_position_cross_entropy,
        optimiser=Optimiser(learning_rate=1e-3, clip_norm=1.0),
        record=max(1, config["maml_steps"] // 4),
    )
    learners = {
        "1-NN": OneHot(NearestNeighbours(1), n_labels),
        "3-NN": OneHot(NearestNeighbours(3), n_labels),
        "centroid": NearestCentroid(n_labels),
        "ridge": OneHot(EveryPosition(Ridge(1.0)), n_labels),
        "logistic": LogisticRegression(n_labels, steps=60),
        "SGD": sgd,
        "MAML": maml[0],
    }
    out = {}
    for name, prompts in shown_prompts(t, config, config["n_eval"]).items():
        for learner, predictor in learners.items():
            out[f"{learner}/{name}"] = np.asarray(correct_by_position(predictor, prompts).mean(0))
    return out
