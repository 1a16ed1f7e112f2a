"""What is trained and measured: decoders on mixtures of function classes, and how their layers encode the task."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import EveryPosition, Ridge, bayes_over_bases
from meta_icl.analysis import decodability_by_layer, head_importance, patching_matrix, task_means
from meta_icl.evaluation import errors_by_position
from meta_icl.models import Interleaved, Learner, garg
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import (
    FamilyMixture,
    FunctionClass,
    FunctionRegression,
    FunctionSample,
    LeakyUnit,
    Linear,
    Quadratic,
    SparseBases,
    SparseLinear,
    disjoint_bases,
    overlapping_bases,
)
from meta_icl.training import Optimiser, every_position_mse, train

from .config import Config

EVAL_KEY, TRAIN_KEY = 2024, 0
FAMILIES = ("linear", "sparse", "leaky", "quadratic")


def compute(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part: the optimal curves, or one seed on one mixture."""
    return baseline(config) if kind == "baseline" else train_mixture(part, config=config, **arguments)


def run(config: Config, run: Run) -> None:
    """The optimal curves at the published size, and every seed of every mixture."""
    shared = asdict(config)
    parts: dict[str, dict[str, Any]] = {"baseline": {"kind": "baseline"}} | {
        part_name(mixture, seed): {"kind": "training", "mixture": mixture, "seed": seed}
        for mixture in config.mixtures
        for seed in range(config.seeds)
    }
    run_parts(run, compute, {name: {**arguments, "config": shared} for name, arguments in parts.items()})


def part_name(mixture: str, seed: int) -> str:
    """The part of one seed on one mixture."""
    return f"{mixture}-seed{seed}"


def functions_of(mixture: str, d: int, rank: int) -> FunctionClass:
    """The functions of a mixture: blocks, six blocks, overlapping bases in two halves, or families."""
    match mixture:
        case "blocks":
            return disjoint_bases(d, d // rank)
        case "six":
            return disjoint_bases(6 * rank, 6)
        case "overlapping":
            return overlapping_bases(d, rank)
        case _:
            families = {
                "linear": Linear(d),
                "sparse": SparseLinear(d, n_active=rank),
                "leaky": LeakyUnit(d),
                "quadratic": Quadratic(d),
            }
            return FamilyMixture(families=tuple(families[name] for name in FAMILIES))  # pyrefly: ignore[missing-argument]  (d is a property)


def members_of(functions: FunctionClass) -> list[FunctionClass]:
    """The single tasks of a mixture, each a class of its own."""
    if isinstance(functions, SparseBases):
        return [SparseBases(functions.d, functions.bases[i : i + 1]) for i in range(functions.n_bases)]
    assert isinstance(functions, FamilyMixture)
    return list(functions.families)


def regression(functions: FunctionClass, rows: int, noise_variance: float) -> FunctionRegression:
    """Prompts of `rows` noisy pairs."""
    return FunctionRegression(functions, rows - 1, noise=noise_variance**0.5, noisy_query=True)


def per_task_prompts(
    functions: FunctionClass, rows: int, noise_variance: float, n: int, seed: int = 0
) -> tuple[FunctionSample, Any]:
    """`n` prompts of every task, with the number of each prompt's task; parameters are left out."""
    key = jax.random.key(EVAL_KEY + seed)
    drawn = [
        regression(member, rows, noise_variance).sample_with_functions(n, key=jax.random.fold_in(key, i))
        for i, member in enumerate(members_of(functions))
    ]
    prompts, clean = (
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *[getattr(one, name) for one in drawn])
        for name in ("prompts", "clean")
    )
    return FunctionSample(prompts, clean, None), jnp.repeat(jnp.arange(len(drawn)), n)


def optimal_curves(
    functions: SparseBases, rank: int, rows: int, noise_variance: float, n: int
) -> dict[str, np.ndarray]:
    """Errors by position of learners that know the basis, infer it, or know nothing of bases; and the posterior.

    Each with its deviation over prompts, and that of its mean over positions. `decodable` is how often the basis of the
    largest posterior is the true one at the last row.
    """
    drawn = regression(members_of(functions)[0], rows, noise_variance).sample_with_functions(
        n, key=jax.random.key(EVAL_KEY + 9)
    )
    bayes = bayes_over_bases(np.asarray(functions.bases), noise_variance)
    learners = {
        "known": bayes_over_bases(np.asarray(functions.bases[:1]), noise_variance),
        "bayes": bayes,
        "ridge": EveryPosition(Ridge(noise_variance)),
    }
    out = {}
    for name, learner in learners.items():
        errors = np.asarray(errors_by_position(learner, drawn.prompts, drawn.clean), np.float64) / rank
        out |= {
            name: errors.mean(0),
            f"{name}_deviation": errors.std(0),
            f"{name}_mean_deviation": errors.mean(1).std(),
        }
    posterior = np.asarray(jax.jit(jax.vmap(lambda p: bayes.posterior(p)[1]))(drawn.prompts), np.float64)
    right, decodable = posterior[:, :, 0], (posterior[:, -1].argmax(-1) == 0).mean()
    out |= {"posterior": right.mean(0), "posterior_deviation": right.std(0)}
    return out | {"decodable": decodable, "prompts": np.array(n)}


def baseline(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The optimal curves at the published size and at those of the preset's mixtures; ridge on linear functions."""
    n, d, rank, rows = config["n_baseline"], config["d"], config["rank"], config["rows"]
    noise = config["noise_variance"]
    sizes = {
        "published": (disjoint_bases(16, 4), 4, 20, 0.01),
        "own": (disjoint_bases(d, d // rank), rank, rows, noise),
    }
    for mixture in ("six", "overlapping"):
        if mixture in config["mixtures"]:
            bases = functions_of(mixture, d, rank)
            assert isinstance(bases, SparseBases)
            sizes[mixture] = (bases, rank, rows, noise)
    found = {name: optimal_curves(functions, r, k, variance, n) for name, (functions, r, k, variance) in sizes.items()}
    out = {f"{name}_{k}": v for name, curves in found.items() for k, v in curves.items()}
    if "families" in config["mixtures"]:
        drawn = regression(Linear(d), rows, noise).sample_with_functions(n, key=jax.random.key(EVAL_KEY + 9))
        ridge = EveryPosition(Ridge(noise))
        out["families_ridge"] = np.asarray(errors_by_position(ridge, drawn.prompts, drawn.clean)).mean(0) / d
    return out


def train_mixture(part: Run, *, mixture: str, seed: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed on one mixture: errors, decodability and interventions of every task while it learns."""
    functions, rows = functions_of(mixture, config["d"], config["rank"]), config["rows"]
    noise = config["noise_variance"]
    n_tasks = len(members_of(functions))
    decoder = garg(
        functions.d, config["width"], config["layers"], config["heads"], 2 * rows, init_std=config["init_std"]
    )
    drawn, tasks = per_task_prompts(functions, rows, noise, config["per_task"])
    scale = jnp.asarray([member.variance for member in members_of(functions)])
    few = per_task_prompts(functions, rows, noise, config["per_task_patched"], seed=1)

    def probe(predictor: Any, key: Any) -> dict[str, Any]:
        del key

        def one(prompt: Prompt) -> tuple[Any, Any]:
            answers, trace = predictor.trace(prompt)
            return answers, trace["resid_post"][:, -2:]  # the last y token, and the query's

        answers, both = jax.vmap(one)(drawn.prompts)
        errors = jnp.square(answers - drawn.clean)[..., 0].reshape(n_tasks, -1, rows).mean(1) / scale[:, None]
        told, states = (jnp.swapaxes(both[:, :, i], 0, 1) for i in range(2))
        out = {"error": errors, "td": decodability_by_layer(states, tasks, n_tasks=n_tasks)}
        out["td_y"] = decodability_by_layer(told, tasks, n_tasks=n_tasks)
        if mixture == "overlapping":  # two groups of bases
            out["group_td"] = decodability_by_layer(states, 2 * tasks // n_tasks, n_tasks=2)
        return out | {"patch": patched(predictor, *few, config, n_tasks, scale)}

    steps = config["steps"]
    falling = {"schedule": "cosine", "warmup_steps": steps // 25, "schedule_steps": steps} if config["decay"] else {}
    trained = train(
        regression(functions, rows, noise),
        Learner(decoder, layout=Interleaved()),
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=config["batch"],
        objective=every_position_mse,
        optimiser=Optimiser(
            config["optimiser"],
            learning_rate=config["learning_rate"],
            b2=config["b2"],
            clip_norm=1.0 if config["decay"] else jnp.inf,
            **falling,
        ),
        record=max(1, steps // 40),
        probes={"at": probe},
        store=part,
    )
    member = trained[0]
    many, _ = per_task_prompts(functions, rows, noise, config["n_eval"] // n_tasks, seed=2)
    final = np.asarray(errors_by_position(member, many.prompts, many.clean)).reshape(n_tasks, -1, rows).mean(1)
    shown, of = few
    pruned = head_importance(
        squared_error(member), (shown.prompts, shown.clean), of, n_tasks=n_tasks,
        n_layers=config["layers"], n_heads=config["heads"],
    )  # fmt: skip
    history = {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    return history | {
        "final_error": final / np.asarray(scale)[:, None],
        "pruned": np.asarray(pruned) / np.asarray(scale),
    }


def squared_error(predictor: Any) -> Any:
    """The squared error of the last row of one (prompt, noise-free targets), under interventions."""

    def loss(one: tuple[Prompt, Any], interventions: Sequence[Any]) -> Any:
        prompt, clean = one
        answers, _ = predictor.trace(prompt, interventions)
        return jnp.sum(jnp.square(answers[-1] - clean[-1]))

    return loss


def patched(
    predictor: Any, drawn: FunctionSample, tasks: Any, config: Mapping[str, Any], n_tasks: int, scale: Any
) -> Any:
    """The rise of the error "source target" by the mean state of the target after the layer of interventions.

    It takes the place of the state of the last y token: at the query's token it would erase the query's x.
    """
    layer, position = intervention_layer(config["layers"]), 2 * config["rows"] - 3
    states = jax.vmap(lambda prompt: predictor.trace(prompt)[1]["resid_post"][layer, position])(drawn.prompts)
    matrix = patching_matrix(
        squared_error(predictor),
        (drawn.prompts, drawn.clean),
        tasks,
        task_means(states, tasks, n_tasks=n_tasks),
        layer=layer,
        position=position,
        n_layers=config["layers"],
        n_positions=2 * config["rows"] - 1,
    )
    return matrix / scale[:, None]


def intervention_layer(n_layers: int) -> int:
    """The index of the layer after which states are replaced: the 5th of 12, or the same share of the depth."""
    return max(0, round(5 / 12 * n_layers) - 1)
