"""What is trained and measured: two attention layers on Gaussian items, in context and in weights."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import (
    chunk_example,
    in_context_choice,
    label_attention,
    log_spaced,
    matching_label_attention,
    three_parameter_descent,
)
from meta_icl.models import Learner, Window, reddy
from meta_icl.prompt import answer_batch
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import BurstyGaussian, bursty_gaussian
from meta_icl.training import OnTask, Optimiser, cross_entropy, train

from .config import SETTINGS, Config

TRAIN_KEY = 0
SETS = ("test", "ic", "ic2", "iw")


def describe(n_labels: int) -> Learner:
    """The published network for a number of labels."""
    return Learner(reddy(n_labels), Window())


def train_setting(part: Run, *, name: str, seed: int, steps: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed of one setting: accuracies on the four sets and the progress measures while it learns."""
    trained = train(
        partial(bursty_gaussian, **SETTINGS[name]),
        describe(SETTINGS[name].get("n_labels", 32)),
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=config["batch"],
        objective=cross_entropy,
        optimiser=Optimiser("sgd", learning_rate=0.01, weight_decay=1e-4),  # rate times decay = 1e-6
        freeze=lambda learner: learner.network.embedding.labels,
        record=log_spaced(steps, config["records"], first=100),
        probes={"at": OnTask(partial(measures, n_eval=config["n_eval"], n_traced=config["n_traced"]))},
        store=part,
    )
    return {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}


def measures(predictor: Any, task: BurstyGaussian, key: Any, *, n_eval: int, n_traced: int) -> dict[str, Any]:
    """Accuracies on the evaluation sets, and ILA, TILA, TLA and CLA on novel classes."""
    out: dict[str, Any] = {}
    for i, name in enumerate(SETS):
        prompts = task.evaluation(name).sample_batch(n_eval, key=jax.random.fold_in(key, i))
        logits = answer_batch(predictor, prompts)
        out[name] = (jnp.argmax(logits, -1) == prompts.y[:, -1]).mean()
        if name == "ic":
            out["cla"] = in_context_choice(logits, prompts.y[:, :-1]).mean()
            shown = jax.tree.map(lambda leaf: leaf[:n_traced], prompts)
            patterns = jax.vmap(lambda prompt: predictor.trace(prompt.hidden())[1]["pattern"])(shown)[:, :, 0]
            # Labels of a bursty context are distinct, so the items of the query's class are those with its label.
            matches = shown.y[:, :-1] == shown.y[:, -1:]
            out |= {
                "ila": chunk_example(patterns[:, 0]).mean(),
                "tila": matching_label_attention(patterns[:, 1], matches).mean(),
                "tla": label_attention(patterns[:, 1]).mean(),
            }
    return out


def run(config: Config, run: Run) -> None:
    """Every seed of the main settings, those of the others, and the reduced model."""
    shared = asdict(config)
    names = [(name, config.seeds, config.steps) for name in config.main]
    names += [(name, config.extra_seeds, config.extra_steps) for name in config.extra]
    names += [(name, config.extra_seeds, config.long_steps) for name in config.long]
    parts = {
        f"{name}-seed{seed}": {"name": name, "seed": seed, "steps": steps, "config": shared}
        for name, seeds, steps in names
        for seed in range(seeds)
    }
    run_parts(run, train_setting, parts)
    losses, parameters = three_parameter_descent(
        jnp.asarray([0.01, 0.01, 0.01]), n_context=8, n_labels=32, steps=4_000, rate=0.1
    )
    run.save_arrays("reduced", {"loss": np.asarray(losses), "parameters": np.asarray(parameters)})


# What claims and figures read of a finished run.


def seeds_of(run: Run, name: str) -> list[dict[str, np.ndarray]]:
    """What every seed of a setting left behind."""
    return [
        part.load_arrays("result") for part_name, part in run.parts().items() if part_name.startswith(f"{name}-seed")
    ]
