"""What is trained and measured: decoders on function classes, and the learners they are compared with."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from meta_icl.algorithms import (
    Averaging,
    EveryPosition,
    LeastSquares,
    NearestNeighbours,
    NetworkDescent,
    Ridge,
    boosted_trees,
    greedy_tree,
    lasso,
)
from meta_icl.evaluation import bootstrap, errors_by_position, up_to, weight_alignment, with_query
from meta_icl.models import Interleaved, Learner, garg
from meta_icl.prompt import Task, answer_positions
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import (
    DecisionTree,
    FunctionClass,
    FunctionRegression,
    FunctionSample,
    Linear,
    MatchingQuery,
    Orthants,
    OrthogonalQuery,
    PromptPool,
    ReluNetwork,
    SparseLinear,
    garg_curriculum,
    half_subspace_law,
    skewed_law,
)
from meta_icl.training import Optimiser, every_position_mse, rising_and_falling, train

from .bound import best_descent
from .config import Config, Training

SIZES = {
    "mini": (8, 1, 2),
    "slim": (32, 2, 2),
    "tiny": (64, 3, 2),
    "deep": (64, 6, 2),
    "small": (128, 6, 4),
    "standard": (256, 12, 8),
}  # width, layers, heads; "mini", "slim" and "deep" are ours
EVAL_KEY, TRAIN_KEY, POOL_KEY, BOUND_KEY = 2022, 0, 1, 2
PUBLISHED_D = 20
DEEP = (
    4  # layers whose steps of GD++ leave .052 after d = 5 examples, about what is asked: fewer have a bound of theirs
)
ALPHAS = (1.0, 0.1, 0.01, 0.001, 0.0001)
SCALES = (1 / 3, 1 / 2, 2.0, 3.0)
QUERY_SCALES = (1 / 16, 1 / 4, 1 / 2, 2.0)
BASELINE_KS = (5, 10, 20, 30, 40)
NOISE_KS = (10, 19, 20, 21, 30, 40)


def compute(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part of the run, by its kind."""
    if kind == "training":
        return train_decoder(part, Training(**arguments), config)
    kinds = {"linear": baseline_linear, "lasso": baseline_lasso, "trees": baseline_trees, "networks": baseline_networks}
    return kinds[kind](config, **arguments)


def run(config: Config, run: Run) -> None:
    """The reference learners at full size, and every network."""
    shared = {name: value for name, value in asdict(config).items() if name != "trainings"}
    parts: dict[str, dict[str, Any]] = {f"baseline-{kind}": {"kind": kind} for kind in ("linear", "lasso", "networks")}
    parts |= {f"baseline-trees-{inputs}": {"kind": "trees", "inputs": inputs} for inputs in ("raw", "sign")}
    parts |= {t.name: {"kind": "training", **asdict(t)} for t in config.trainings}
    run_parts(run, compute, {name: {**arguments, "config": shared} for name, arguments in parts.items()})


def function_class(family: str, d: int) -> FunctionClass:
    """The published sizes: 3 of d coordinates, depth 4, width 100."""
    families = {"linear": Linear, "sparse": SparseLinear, "tree": DecisionTree, "network": ReluNetwork}
    return families[family](d)


def rows_of(family: str, d: int) -> int:
    """Rows of a prompt: 2d + 1, or 5d + 1 for trees and networks."""
    return (2 if family in ("linear", "sparse") else 5) * d + 1


def training_task(t: Training, stair: int) -> Task:
    """What a network is trained on; a pool of prompts goes without curriculum."""
    deep = "linear" if t.family in ("linear", "sparse") else "deep"
    task = FunctionRegression(
        function_class(t.family, t.d),
        rows_of(t.family, t.d) - 1,
        noise=t.noise,
        noisy_query=True,
        curriculum=garg_curriculum(t.d, deep, every=stair) if t.curriculum else None,
    )
    if t.functions:
        task = task.with_pool(t.functions, key=jax.random.key(POOL_KEY))
    return PromptPool(task, t.prompts, jax.random.key(POOL_KEY)) if t.prompts else task


def train_decoder(part: Run, t: Training, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Train a decoder from every seed; errors by position, and, on linear functions, under changed prompts."""
    width, layers, heads = SIZES[t.size]
    rows = rows_of(t.family, t.d)
    decoder = garg(t.d, width, layers, heads, 2 * rows, read_init=config["read_init"], init_std=config["init_std"])
    fresh = FunctionRegression(function_class(t.family, t.d), rows - 1, noise=t.noise)
    drawn = sampled(fresh, config["n_eval"], EVAL_KEY)
    steps, z = t.steps or config["steps"], fresh.function.variance
    schedule = rising_and_falling(steps) if config["decay"] else {}

    def error(predictor: Any, key: Any) -> Any:
        del key
        return jnp.mean(jnp.square(answer_positions(predictor, drawn.prompts) - drawn.clean), axis=(0, 2)) / z

    trained = train(
        training_task(t, config["stair"]),
        Learner(decoder, layout=Interleaved()),
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=t.seeds or config["seeds"],
        batch=config["batch"],
        objective=every_position_mse,
        optimiser=Optimiser(
            config["optimiser"],
            learning_rate=config["learning_rate"],
            clip_norm=1.0 if config["decay"] else jnp.inf,
            **schedule,
        ),
        record=max(1, steps // 20),
        probes={"error": error},
        store=part,
    )
    out = dict(trained.history)
    if t.noise:
        bayes = errors_by_position(EveryPosition(Ridge(t.noise**2)), drawn.prompts, drawn.clean)
        out["bayes"] = np.asarray(bayes.mean(0)) / z
    if t.family == "linear" and t.changed and not t.noise and not t.functions and not t.prompts:
        members = [changed_prompts(trained[i], t.d, config["n_eval"]) for i in range(len(trained))]
        out |= {name: np.stack([np.asarray(member[name]) for member in members]) for name in members[0]}
        plain, n_plain = linear_task(t.d), config["n_linear"]
        out["plain_error"] = np.stack([mean_error(trained[i], plain, n_plain) for i in range(len(trained))])
        noisy = linear_task(t.d, **changed_laws(t.d)["noisy"])
        squares = [prompt_errors(trained[i], noisy, config["n_noisy"]) for i in range(len(trained))]
        out["noisy_median"] = np.stack([np.median(each, axis=0) for each in squares])
        if t.d != PUBLISHED_D and layers < DEEP:
            key, n = jax.random.key(BOUND_KEY), config["n_eval"]
            bound = best_descent(t.d, rows, layers, n_spectra=config["bound_spectra"], key=key)
            out |= {f"bound_{name}": value for name, value in on_changed_prompts(bound, t.d, n).items()}
            # Nobody has to use all the examples that he has seen.
            out["bound_error"] = np.minimum.accumulate(mean_error(bound, plain, n_plain))
    if t.family == "sparse" and t.d != PUBLISHED_D:
        out |= sparse_references(t.d, config["n_alphas"])
    if t.family == "network":
        linear = linear_task(t.d, n_context=rows - 1)
        out["on_linear"] = np.stack([mean_error(trained[i], linear, config["n_eval"]) for i in range(len(trained))])
    references = linear_references(t.d, config["n_eval"]) if t.family == "linear" else {}
    band = bootstrap(errors_by_position(trained[0], drawn.prompts, drawn.clean))
    return out | references | {"band_low": band.low / z, "band_high": band.high / z}


def linear_task(d: int, **changes: Any) -> FunctionRegression:
    """Linear regression of the published length, with changes for a test."""
    return FunctionRegression(Linear(d), changes.pop("n_context", 2 * d), **changes)


@eqx.filter_jit
def sampled(task: FunctionRegression, n: int, seed: int) -> FunctionSample:
    """Prompts of a task with their noise-free targets, for evaluation."""
    return task.sample_with_functions(n, key=jax.random.key(seed))


def mean_error(predictor: Any, task: FunctionRegression, n: int, positions: Any = None, seed: int = 1) -> np.ndarray:
    """e_k of a predictor on fresh prompts of a task, of noise-free targets, over E f^2 of unscaled prompts."""
    return prompt_errors(predictor, task, n, positions, seed).mean(0)


def prompt_errors(predictor: Any, task: FunctionRegression, n: int, positions: Any = None, seed: int = 1) -> np.ndarray:
    """The errors of `mean_error`, of every prompt."""
    drawn = sampled(task, n, EVAL_KEY + seed)
    errors = errors_by_position(predictor, drawn.prompts, drawn.clean, positions=positions)
    return np.asarray(errors, np.float64) / task.function.variance


def changed_laws(d: int) -> dict[str, dict[str, Any]]:
    """Tests at every position: {name: changes of the task}. The rotation of an input law is drawn once."""
    key = jax.random.key(EVAL_KEY)
    return {
        "skewed": {"x_law": skewed_law(d, key=key)},
        "half": {"x_law": half_subspace_law(d, key=key)},
        "noisy": {"noise": (d / PUBLISHED_D) ** 0.5},
    }


def on_changed_prompts(learner: Any, d: int, n: int) -> dict[str, np.ndarray]:
    """Figures 4, 8 and 9: errors under changed prompts, e_k at k = d/2, d, 2d where one k is meant."""
    ks = (d // 2, d, 2 * d)
    out = {
        f"{name}_error": mean_error(learner, linear_task(d, **change), n) for name, change in changed_laws(d).items()
    }
    for name, field in (("x_scale", "x_scale"), ("w_scale", "y_scale")):
        found = [mean_error(learner, linear_task(d, **{field: s}), n, [2 * d])[0] / s**2 for s in SCALES]
        out[f"{name}_error"] = np.array(found)
    for name, law, counts in (
        ("orthants", Orthants(), ks),
        ("orthogonal", OrthogonalQuery(), (d // 2, d - 1)),
        ("matching", MatchingQuery(), ks),
    ):
        tasks = {k: linear_task(d, n_context=k, x_law=law) for k in counts}
        out[f"{name}_error"] = np.array([mean_error(learner, task, n, [k])[0] for k, task in tasks.items()])
    return out


def changed_prompts(learner: Any, d: int, n: int) -> dict[str, np.ndarray]:
    """The errors of `on_changed_prompts`, and Figures 3 and 7: scaled queries, and the gradient by the query."""
    out, ks = on_changed_prompts(learner, d, n), (d // 2, d, 2 * d)
    near = linear_task(d, n_context=d, x_law=Orthants())
    out["orthants_neighbours"] = mean_error(NearestNeighbours(), near, n, [d])
    drawn = sampled(linear_task(d), n, EVAL_KEY + 2)
    found = []
    for s in (1.0, *QUERY_SCALES):
        prompts = with_query(drawn.prompts, 2 * d, s * drawn.prompts.x[:, -1])
        targets = drawn.clean.at[:, -1].multiply(s)
        found.append(float(errors_by_position(learner, prompts, targets, positions=[2 * d]).mean()) / s**2 / d)
    out["query_scale_error"] = np.array(found)
    few = jax.tree.map(lambda leaf: leaf[:200], drawn)
    aligned = [weight_alignment(learner, up_to(few.prompts, k), few.functions) for k in ks]
    return out | {name: np.array([getattr(a, name).mean() for a in aligned]) for name in ("to_w", "to_projection")}


def linear_references(d: int, n: int) -> dict[str, np.ndarray]:
    """Reference learners at every position of the tests that a network on linear functions is put to."""
    out = {"least_squares": mean_error(EveryPosition(LeastSquares()), linear_task(d), n)}
    for name, change in changed_laws(d).items():
        out[f"{name}_least_squares"] = mean_error(EveryPosition(LeastSquares()), linear_task(d, **change), n)
        out[f"{name}_neighbours"] = mean_error(NearestNeighbours(), linear_task(d, **change), n)
    return out


def sparse_references(d: int, n: int) -> dict[str, np.ndarray]:
    """The Lasso at the best of its weights, and least squares, on sparse functions after d/2 and d examples."""
    task, ks = FunctionRegression(SparseLinear(d), 2 * d), (d // 2, d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        each = np.array([mean_error(lasso(alpha), task, n, ks) for alpha in ALPHAS])
    return {"lasso": each.min(0), "squares": mean_error(EveryPosition(LeastSquares()), task, 10 * n, ks)}


# Reference learners at the published size.


def baseline_linear(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Least squares, averaging and three neighbours on plain, skewed, half-subspace, orthant and noisy prompts."""
    d, n = PUBLISHED_D, config["n_linear"]
    laws = changed_laws(d)
    out: dict[str, np.ndarray] = {"prompts": np.array(n)}
    for name, change in ({"plain": {}} | laws | {"orthants": {}}).items():
        ks = NOISE_KS if name == "noisy" else BASELINE_KS
        for label, predictor in (
            ("squares", LeastSquares()),
            ("averaging", Averaging()),
            ("neighbours", NearestNeighbours()),
        ):
            if name == "orthants":  # the query follows another law than the context, so every k has its own prompts
                tasks = [linear_task(d, n_context=k, x_law=Orthants()) for k in ks]
                errors = np.concatenate([prompt_errors(predictor, t, n, [t.n_context]) for t in tasks], axis=1)
            else:
                errors = prompt_errors(predictor, linear_task(d, **change), n, ks)
            out |= {f"{name}_{label}": errors.mean(0), f"{name}_{label}_deviation": errors.std(0)}
            out[f"{name}_{label}_median"] = np.median(errors, axis=0)
    return out


def baseline_lasso(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The Lasso of weight 0.01 on sparse functions, after 5 and 10 examples, and of every weight after 10."""
    task = FunctionRegression(SparseLinear(PUBLISHED_D), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # small weights may use up their 100,000 iterations
        each = [mean_error(lasso(alpha), task, config["n_alphas"], [10])[0] for alpha in ALPHAS]
    return {"error": mean_error(lasso(0.01), task, config["n_lasso"], [5, 10]), "by_alpha": np.array(each)}


def baseline_trees(config: Mapping[str, Any], inputs: str) -> dict[str, np.ndarray]:
    """Greedy and boosted trees on decision trees after 100 examples; greedy depth 2 on raw inputs, 4 on signs."""
    task, n = FunctionRegression(DecisionTree(PUBLISHED_D), 100), config["n_trees"]
    greedy = greedy_tree(2 if inputs == "raw" else 4, inputs)
    return {
        "greedy": mean_error(greedy, task, config["n_linear"], [100]),  # cheap, and 1280 prompts leave an error of 0.04
        "boosted": mean_error(boosted_trees(inputs), task, n, [100]),
    }


def baseline_networks(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A network trained by gradient descent on each prompt: on networks after 100 examples, on linear functions."""
    d, n, steps = PUBLISHED_D, config["n_networks"], config["network_steps"]
    own = FunctionRegression(ReluNetwork(d), 100)
    linear = FunctionRegression(Linear(d), 100)
    return {
        "network": mean_error(NetworkDescent(5e-3, steps=steps), own, n, [100]),
        "linear": mean_error(NetworkDescent(5e-2, steps=steps), linear, n, [20, 50, 100]),
    }


# What claims and figures read of a finished run.


def trainings_of(run: Run) -> list[Training]:
    """The networks of the run."""
    names = Training.__dataclass_fields__
    asked = [part.config["arguments"] for part in run.parts().values()]
    return [Training(**{k: a[k] for k in names}) for a in asked if a["kind"] == "training"]


def part_arrays(run: Run, name: str) -> dict[str, np.ndarray]:
    """What a part left behind."""
    return run.part_arrays(name)
