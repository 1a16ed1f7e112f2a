"""What is trained and measured: decoders on finite pools of regression tasks, against dMMSE and ridge."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import draws
from meta_icl.algorithms import DiscreteMmse, EveryPosition, Ridge, smoothed_dmmse
from meta_icl.evaluation import answers_by_position, between_tasks, errors_by_position
from meta_icl.models import Interleaved, Learner, raventos
from meta_icl.prompt import Prompt, answer_positions
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import FunctionRegression, Linear
from meta_icl.training import Optimiser, every_position_mse, rising_and_falling, train

from .config import Config, Training

MODELS = {
    "mini": (8, 1, 2),
    "narrow": (32, 2, 2),
    "small": (64, 4, 2),
    "base": (128, 8, 2),
    "base-wide": (256, 8, 2),
    "small-wide": (128, 4, 2),
    "small-deep": (64, 8, 2),
    "large": (256, 12, 4),
}  # width, layers, heads
EVAL_KEY, TRAIN_KEY, POOL_KEY = 104, 100, 102
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # on the arc between two tasks
WIDTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4)  # of the Gaussians of smoothed dMMSE


def compute(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part: the reference learners at the published size, or a pretraining."""
    return baseline(config) if kind == "baseline" else pretrain(part, Training(**arguments), config)


def run(config: Config, run: Run) -> None:
    """All pretrainings, and the reference learners."""
    shared = {name: value for name, value in asdict(config).items() if name != "trainings"}
    parts: dict[str, dict[str, Any]] = {"baseline": {"kind": "baseline"}}
    parts |= {t.name: {"kind": "training", **asdict(t)} for t in config.trainings}
    run_parts(run, compute, {name: {**arguments, "config": shared} for name, arguments in parts.items()})


def true_task(d: int, noise_variance: float) -> FunctionRegression:
    """Fresh tasks for every prompt; all K = 2 d labels are noisy."""
    return FunctionRegression(Linear(d), 2 * d - 1, noise=noise_variance**0.5, noisy_query=True)


def pool_task(t: Training) -> FunctionRegression:
    """The tasks of pretraining."""
    return true_task(t.d, t.noise_variance).with_pool(t.m, key=jax.random.fold_in(jax.random.key(POOL_KEY), t.m))


def baseline(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Ridge at the published size: the error over D of every position, on noisy targets."""
    prompts = true_task(8, 0.25).sample_batch(config["n_baseline"], key=jax.random.key(EVAL_KEY))
    return {"ridge": np.asarray(errors_by_position(EveryPosition(Ridge(0.25)), prompts).mean(0)) / 8}


def pretrain(part: Run, t: Training, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Pretrain a decoder on a pool; its distance to ridge and dMMSE on the pool and on new tasks while it learns."""
    width, layers, heads = MODELS[t.model]
    decoder = raventos(t.d + 1, width, layers, heads, n_positions=4 * t.d, init_std=config["init_std"])
    task = pool_task(t)
    references = {"ridge": EveryPosition(Ridge(t.noise_variance)), "dmmse": DiscreteMmse(task.pool, t.noise_variance)}
    sets = {"pool": task, "true": true_task(t.d, t.noise_variance)}
    key = jax.random.key(EVAL_KEY)
    prompts = {name: drawn.sample_batch(config["n_eval"], key=key) for name, drawn in sets.items()}
    answers = {
        (law, name): in_chunks(predictor, prompts[law], t) for law in sets for name, predictor in references.items()
    }

    def probe(predictor: Any, key: Any) -> dict[str, Any]:
        del key
        out = {}
        for law, shown in prompts.items():
            answer = answer_positions(predictor, shown)
            out[f"mse_{law}"] = jnp.mean(jnp.square(answer - shown.y)) / t.d
            for name in references:
                out[f"to_{name}_{law}"] = jnp.mean(jnp.square(answer - answers[law, name])) / t.d
        return out

    # Published: the rate rises for half of training. Short trainings of narrow networks rise for a twentieth.
    share = 0.05 if t.model in ("mini", "narrow") else 0.5
    trained = train(
        task,
        Learner(decoder, layout=Interleaved(own_slot=True)),
        steps=t.steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=config["seeds"],
        batch=t.batch,
        objective=every_position_mse,
        optimiser=Optimiser(
            "adamw" if t.weight_decay else config["optimiser"],
            learning_rate=config["learning_rate"],
            weight_decay=t.weight_decay,
            **rising_and_falling(t.steps, share),
        ),
        record=max(1, t.steps // 40),
        probes={"at": probe},
        store=part,
    )
    members = [trained[i] for i in range(len(trained))]
    out = {name.removeprefix("at/"): values for name, values in trained.history.items()}
    for (law, name), answer in answers.items():
        squares = np.asarray(jnp.square(answer - prompts[law].y).mean((0, 2))) / t.d
        out |= {f"mse_{name}_{law}": squares.mean(), f"by_position_{name}_{law}": squares}
    for law, shown in prompts.items():
        found = [np.asarray(errors_by_position(member, shown).mean(0)) / t.d for member in members]
        out[f"by_position_{law}"] = np.stack(found)
    arc = [interpolation(member, t, task, references, config["n_eval"]) for member in members]
    out |= {f"arc_{name}": np.stack([row[name] for row in arc]) for name in arc[0]}
    few = jax.tree.map(lambda leaf: leaf[:500], prompts["true"])
    if t.m <= 2**10:
        smooth = [smoothed_dmmse(task.pool, t.noise_variance, s) for s in WIDTHS]
        found = [float(errors_by_position(s, few).mean()) / t.d for s in smooth]
        own = [float(errors_by_position(member, few).mean()) / t.d for member in members]
        ridge = float(errors_by_position(references["ridge"], few).mean()) / t.d
        out |= {"smoothed_true": np.array(found), "network_on_few": np.array(own), "ridge_on_few": np.array(ridge)}
    return {name: np.asarray(value) for name, value in out.items()}


def in_chunks(predictor: Any, prompts: Prompt, t: Training) -> Any:
    """The answers at every position, for so many prompts at a time that a pool's predictions fit into memory."""
    n, size = prompts.x.shape[0], max(1, 2**27 // (2 * t.d * t.m))
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i : i + size], prompts) for i in range(0, n, size)]
    return jnp.concatenate([answers_by_position(predictor, part) for part in parts])


def interpolation(
    member: Any, t: Training, task: FunctionRegression, references: Mapping[str, Any], n: int
) -> dict[str, np.ndarray]:
    """On prompts whose task lies on the arc between two of the pool (Fig. 5): Delta to both references, all errors."""
    x_key, pair_key, noise_key = jax.random.split(jax.random.key(EVAL_KEY + 1), 3)
    x = draws.normal(x_key, (n, 2 * t.d, t.d))
    first = jax.random.randint(pair_key, (n,), 0, t.m)
    second = (first + jax.random.randint(jax.random.fold_in(pair_key, 1), (n,), 1, max(t.m, 2))) % t.m
    noise = t.noise_variance**0.5 * draws.normal(noise_key, (n, 2 * t.d, 1))
    out: dict[str, list[float]] = {name: [] for name in (*references, "mse", *(f"mse_{name}" for name in references))}
    for share in SHARES:
        w = between_tasks(task.pool[first], task.pool[second], share)
        prompts = Prompt(x, jnp.einsum("bnd,bd->bn", x, w)[..., None] + noise)
        own = answers_by_position(member, prompts)
        out["mse"].append(float(jnp.mean(jnp.square(own - prompts.y))) / t.d)
        for name, reference in references.items():
            answer = in_chunks(reference, prompts, t)
            out[name].append(float(jnp.mean(jnp.square(own - answer))) / t.d)
            out[f"mse_{name}"].append(float(jnp.mean(jnp.square(answer - prompts.y))) / t.d)
    return {name: np.array(values) for name, values in out.items()}


# What claims and figures read of a finished run.


def trainings_of(run: Run) -> dict[Training, dict[str, np.ndarray]]:
    """What every pretraining left behind, by pool size."""
    names, found = Training.__dataclass_fields__, {}
    for part in run.parts().values():
        asked = part.config["arguments"]
        if asked["kind"] == "training":
            found[Training(**{k: asked[k] for k in names})] = part.load_arrays("result")
    return dict(sorted(found.items(), key=lambda pair: pair[0].m))


def main_ladder(found: Mapping[Training, dict[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """The base networks at the smallest batch, or whatever this preset has in their place; of a pool the shortest."""
    plain = [t for t in found if not t.weight_decay]
    kind = "base" if any(t.model == "base" for t in plain) else plain[0].model
    d, batch = min((t.d, t.batch) for t in plain if t.model == kind)
    same = sorted((t for t in plain if (t.model, t.d, t.batch) == (kind, d, batch)), key=lambda t: (t.m, -t.steps))
    return {t.m: found[t] for t in same}
