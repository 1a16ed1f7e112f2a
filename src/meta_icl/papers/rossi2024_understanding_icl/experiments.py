"""What is trained: attention layers, stacks and LSTMs; and what is measured without training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import GradientDescent, best_rate, line_search, sample_best_rate
from meta_icl.analysis import from_products, gradient_descent_construction, rolled_out, rollout_losses
from meta_icl.evaluation import alignment, alignment_with, loss_on, mean_loss, sensitivities
from meta_icl.models import Concatenated, InContextLearner, Learner, lstm, von_oswald
from meta_icl.prompt import Prompt
from meta_icl.runs import Run, read_json, those_there
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Uniform
from meta_icl.training import Optimiser, train

from .config import Config

# With Adam one seed of three rests where the product of queries and keys is of rank one, with one direction learned of
# five; Muon's steps move all directions alike.
MUON = {"name": "muon", "learning_rate": 3e-3, "clip_norm": 1.0}
EVAL_KEY, TRAIN_KEY = 2024, 0
FEW = 1_000  # prompts: how many there are decides whether one is among them on which a looped layer diverges
LOOPS, DAMPENINGS = 50, (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)


def train_part(part: Run, *, kind: str, **arguments: Any) -> dict[str, np.ndarray]:
    """One part of the run, by the kind of training it is."""
    return {"layer": train_layer, "stack": train_stack, "lstm": train_lstm}[kind](part, **arguments)


def train_layer(
    part: Run, *, d: int, n_context: int, steps: int, batch: int, config: Mapping[str, Any], follow: int = 0
) -> dict[str, np.ndarray]:
    """One layer of linear attention; loss and alignment with the best gradient step during training.

    `follow` prompts keep their sensitivities at every record, for the animation.
    """
    task, prompts = regression(d, n_context), eval_prompts(d, n_context, config["n_eval"])
    gd = GradientDescent(rate=best_rate(task))
    few = jax.tree.map(lambda leaf: leaf[:1000], prompts)
    followed = jax.tree.map(lambda leaf: leaf[:follow], prompts)
    probes: dict[str, Any] = {"eval": loss_on(prompts), "to_gd": alignment_with(gd, few)}
    if follow:
        probes["followed"] = lambda predictor, key: sensitivities(predictor, followed)[:, 0]
    trained = train(
        task,
        Learner(von_oswald(d + 1)),
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=config["seeds"],
        batch=batch,
        optimiser=Optimiser(**MUON, **_decay(steps)),
        record=max(1, steps // 50),
        probes=probes,
        store=part,
    )
    members = [trained[i] for i in range(len(trained))]
    many = eval_prompts(d, n_context, config["n_final"], seed=1)
    final = [alignment(member, gd, prompts) for member in members]
    target = sensitivities(gd, followed)[:, 0] if follow else np.zeros((0, d))
    return (
        trained.history
        | {f"final/{name}": np.array([float(row[name]) for row in final]) for name in final[0]}
        | {
            "gd_loss": np.asarray(mean_loss(gd, prompts)),
            "final/loss": np.array([float(mean_loss(member, many)) for member in members]),
            "final/gd_loss": np.asarray(mean_loss(gd, many)),
            "qk": np.stack([np.asarray(member.network.qk()) for member in members]),
            "ov": np.stack([np.asarray(member.network.ov()) for member in members]),
            "followed_gd": np.asarray(target),
        }
    )


def train_stack(
    part: Run, *, attention: str, n_layers: int, n_context: int, config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """A deeper linear transformer, or a softmax transformer of width 64 with embedding and read-out (D = 5)."""
    d = 5
    if attention == "linear":
        network = von_oswald(d + 1, n_layers=n_layers, activation_clip=10.0 if n_layers > 3 else None)
        steps, batch = n_layers * config["stack_steps"], config["stack_batch"]
        optimiser = Optimiser(**MUON, **_decay(steps))
    else:
        network = von_oswald(64, n_layers, attention="softmax", d_in=d + 1, d_out=d + 1, init_scale=float(n_layers))
        steps, batch = config["softmax_steps"], config["softmax_batch"]
        optimiser = Optimiser(
            name=config["softmax_optimiser"], learning_rate=config["softmax_rate"], clip_norm=1.0, **_decay(steps)
        )
    return _final_losses(part, d, n_context, network, optimiser, steps, batch, config)


def _decay(steps: int) -> dict[str, Any]:
    """The rate falls to zero over the whole training."""
    return {"schedule": "cosine", "schedule_steps": steps}


def train_lstm(part: Run, *, n_layers: int, bidirectional: bool, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """An LSTM on the same tokens (D = C = 10), with its alignment to the best gradient step."""
    network = lstm(11, config["d_hidden"], n_layers, bidirectional)
    sizes = steps, _ = config["lstm_steps"], config["lstm_batch"]
    falling = _decay(steps) if config["lstm_decay"] else {}
    optimiser = Optimiser(config["lstm_optimiser"], learning_rate=config["lstm_rate"], clip_norm=1.0, **falling)
    return _final_losses(part, 10, 10, network, optimiser, *sizes, config, aligned=1_000)


def _final_losses(
    part: Run,
    d: int,
    n_context: int,
    network: Any,
    optimiser: Optimiser,
    steps: int,
    batch: int,
    config: Mapping[str, Any],
    aligned: int = 0,
) -> dict[str, np.ndarray]:
    """Train a network; its loss on the way and, on the first `aligned` prompts, its alignment; both at the end."""
    task, prompts = regression(d, n_context), eval_prompts(d, n_context, config["n_eval"])
    gd = GradientDescent(rate=best_rate(task))
    probes: dict[str, Any] = {"eval": loss_on(prompts)}
    if aligned:
        probes["to_gd"] = alignment_with(gd, jax.tree.map(lambda leaf: leaf[:aligned], prompts))
    trained = train(
        task,
        Learner(network),
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=config["seeds"],
        batch=batch,
        optimiser=optimiser,
        record=max(1, steps // 20),
        probes=probes,
        store=part,
    )
    final = [alignment(trained[i], gd, prompts) for i in range(len(trained))]
    ends = {f"final/{name}": np.array([float(row[name]) for row in final]) for name in final[0]}
    return trained.history | ends | {"gd_loss": np.asarray(mean_loss(gd, prompts))}


def regression(d: int, n_context: int) -> LinearRegression:
    """The post's task: x ~ U(-1, 1), w ~ N(0, I), no noise."""
    return LinearRegression(d=d, n_context=n_context, x_law=Uniform(half_range=1.0))


def eval_prompts(d: int, n_context: int, n: int, seed: int = 0) -> Prompt:
    """The fixed evaluation set of a setting; set 0 serves every seed's training."""
    return regression(d, n_context).sample_batch(n, key=jax.random.key(EVAL_KEY + seed))


def run(config: Config, run: Run) -> None:
    """Train everything, then measure what needs several trainings or none."""
    shared = {name: getattr(config, name) for name in Config.__dataclass_fields__ if name not in ("stacks", "lstms")}
    lstms = {
        f"lstm-{'bi' if both else 'uni'}-{depth}": {"kind": "lstm", "n_layers": depth, "bidirectional": both}
        for depth, both in sorted(config.lstms, key=lambda item: -item[0] * (1 + item[1]))
    }
    stacks = {
        f"{kind}-{depth}-C{c}": {"kind": "stack", "attention": kind, "n_layers": depth, "n_context": c}
        for kind, depth, c in sorted(config.stacks, key=lambda item: -item[1] * item[2])
    }
    narrow = {"steps": config.steps, "batch": config.batch}
    wide = {"steps": config.wide_steps, "batch": config.wide_batch}
    layers = {f"layer-D5-C{c}": {"d": 5, "n_context": c, **narrow} for c in sorted(config.contexts, reverse=True)}
    layers |= {f"layer-D10-C{c}": {"d": 10, "n_context": c, **wide} for c in config.wide}
    layers |= {"layer-D2-C10": {"d": 2, "n_context": 10, "follow": 6, **narrow}}
    layers |= {"layer-D1-C10": {"d": 1, "n_context": 10, **narrow}}
    parts = lstms | stacks | {name: {"kind": "layer", **sizes} for name, sizes in layers.items()}  # the longest first
    run_parts(run, train_part, {name: {**sizes, "config": shared} for name, sizes in parts.items()})
    measures = {
        "best_rate": lambda run: measure_best_rates(config),
        "rate_sweep": lambda run: measure_rate_sweep(layer_of(run, 10, 50), config),
        "rollouts": lambda run: measure_rollouts(layer_of(run, 10, 10), config),
    }
    for name, arrays in those_there(run, measures).items():
        run.save_arrays(name, arrays)


# What is measured without training.


def measure_best_rates(config: Config) -> dict[str, np.ndarray]:
    """The sample formula of the best rate against a line search, on the same prompts, for every context length."""
    grid = jnp.arange(0.001, 25.0, 0.1)
    prompts = [eval_prompts(5, n_context, config.n_eval) for n_context in config.contexts]
    return {
        "contexts": np.array(config.contexts),
        "formula": np.array([float(sample_best_rate(p)) for p in prompts]),
        "searched": np.array([float(line_search(p, grid)[0]) for p in prompts]),
    }


def measure_rate_sweep(layers: list[InContextLearner], config: Config) -> dict[str, np.ndarray]:
    """Alignment of the trained layers (D = 10, C = 50) with gradient descent of different rates: "rates seeds"."""
    prompts = eval_prompts(10, 50, min(config.n_eval, 2000))
    best = float(best_rate(regression(10, 50)))
    rates = np.sort(np.append(np.linspace(5, 24.5, 40) / np.sqrt(20), best))
    # Prompts are an argument: XLA would compute with constants while it compiles, and complain that this takes long.
    by_rate = eqx.filter_jit(lambda layer, rate, prompts: alignment(layer, GradientDescent(rate=rate), prompts))
    rows = [[by_rate(layer, jnp.asarray(rate, jnp.float32), prompts) for layer in layers] for rate in rates]
    names = ("prediction_error", "gradient_error", "cosine")
    measured = {name: np.array([[float(cell[name]) for cell in row] for row in rows]) for name in names}
    return {"rate": rates, "best": np.array(best)} | measured


def measure_rollouts(layers: list[InContextLearner], config: Config) -> dict[str, np.ndarray]:
    """Half-MSE "seeds dampenings loops" after 1..50 loops: of the gradient step (one evaluation set per seed, since a
    few extreme prompts decide over divergence), and of the trained layers, which rewrite the whole token (`trained`;
    `trained_few` on fewer prompts) or its target only (`trained_y`)."""
    gd = gradient_descent_construction(float(best_rate(regression(10, 10))), d=10, n_context=10)
    dampenings = jnp.asarray(DAMPENINGS, jnp.float32)

    @eqx.filter_jit
    def losses(learner: InContextLearner, prompts: Any, update: str) -> Any:
        return jax.lax.map(lambda d: rollout_losses(rolled_out(learner, LOOPS, d, update=update), prompts), dampenings)

    def each(learners: list[InContextLearner], update: str, n: int = config.n_rollout) -> np.ndarray:
        sets = [eval_prompts(10, 10, n, seed=seed) for seed in range(len(learners))]
        return np.stack([np.asarray(losses(one, prompts, update)) for one, prompts in zip(learners, sets, strict=True)])

    return {
        "dampening": np.array(DAMPENINGS),
        "gd": each([gd] * len(layers), "y"),
        "trained": each(layers, "all"),
        "trained_few": each(layers, "all", min(FEW, config.n_rollout)),
        "trained_y": each(layers, "y"),
    }


def layer_of(run: Run, d: int, n_context: int) -> list[InContextLearner]:
    """The trained one-layer learners of a part, one per seed."""
    arrays = run.part_arrays(f"layer-D{d}-C{n_context}")
    config = von_oswald(d + 1)
    pairs = zip(arrays["qk"], arrays["ov"], strict=True)
    return [InContextLearner(Concatenated(), from_products(config, jnp.asarray(a), jnp.asarray(b))) for a, b in pairs]


def contexts_of(run: Run, d: int = 5) -> list[int]:
    """The context lengths at which one layer was trained."""
    start = f"layer-D{d}-C"
    return sorted(int(name.removeprefix(start)) for name in run.parts() if name.startswith(start))


def stacks_of(run: Run, attention: str) -> dict[int, dict[int, dict[str, np.ndarray]]]:
    """{layers: {context: arrays}} of the deeper transformers of a kind."""
    found: dict[int, dict[int, dict[str, np.ndarray]]] = {}
    for name in run.parts():
        if name.startswith(attention + "-"):
            _, depth, context = name.split("-")
            found.setdefault(int(depth), {})[int(context.removeprefix("C"))] = run.part_arrays(name)
    return {depth: dict(sorted(row.items())) for depth, row in sorted(found.items())}


def published() -> dict[str, Any]:
    """The numbers plotted in the post's own figures."""
    return read_json(Path(__file__).with_name("published.json"))


def closed_form_loss(n_context: int, d: int = 5) -> float:
    """Half-MSE of the best gradient step for x ~ U(-1, 1): L0 (1 - N / D*), D* = N + d - 2 + 9/5, L0 = d / 6."""
    return d / 6 * (1 - n_context / (n_context + d - 2 + 9 / 5))


# What claims and figures read of a finished run.


def lstms_of(run: Run, kind: str) -> dict[int, dict[str, np.ndarray]]:
    """{layers: arrays} of the LSTMs of a kind ("uni", "bi")."""
    start = f"lstm-{kind}-"
    depths = sorted(int(name.removeprefix(start)) for name in run.parts() if name.startswith(start))
    return {depth: run.part_arrays(f"{start}{depth}") for depth in depths}
