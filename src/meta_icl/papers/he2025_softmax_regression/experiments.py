"""What is trained and computed: softmax heads on linear regression, and the estimators they approach."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import tasks
from meta_icl.algorithms import KernelHeads, LinearMap, Ridge, softmax_heads
from meta_icl.models import SoftmaxRegression
from meta_icl.prompt import answer_batch
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.training import Optimiser, gradient_flow, train

from .config import Config

D, L, NOISE, KEY = 5, 40, 0.1, 2025
GIVEN: dict[str, Any] = {"d": D, "n_context": L, "noise_variance": NOISE}
LENGTHS = (10, 20, 40, 100)
OMEGA, MU = 0.13, 3.45
ETA = 2 * OMEGA * MU


def train_heads(
    part: Run, *, heads: int, seed: int, covariance: list[list[float]] | None, config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Softmax heads trained on fresh prompts; omega, mu and the test loss on the way, and losses at other lengths."""
    matrix = np.eye(D) if covariance is None else np.asarray(covariance)
    prompts = regression(matrix, L).sample_batch(min(config["n_eval"], 5_000), key=jax.random.key(KEY))
    trained = train(
        regression(matrix, L),
        SoftmaxRegression(D, heads),
        steps=config["steps"],
        key=jax.random.key(KEY + 1),
        seeds=[seed],
        batch=config["batch"],
        optimiser=optimiser(config, config["steps"]),
        store=part,
        record=max(1, config["steps"] // 60),
        probes={
            "omega": lambda predictor, key: predictor.omega(),
            "mu": lambda predictor, key: predictor.mu()[:, 0],
            "test": lambda predictor, key: mse(predictor, prompts),
        },
    )
    history = {name: values[:, 0] if name != "step" else values for name, values in trained.history.items()}
    final = trained[0]
    losses = [mse_at({"": final}, matrix, length, config["n_eval"])[""] for length in LENGTHS]
    return history | {"kq": np.asarray(final.kq()), "ov": np.asarray(final.ov()[:, 0]), "by_length": np.array(losses)}


def train_two_tasks(
    part: Run, *, heads: int, seed: int, steps: int, config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Two tasks in one prompt, on coordinates 0-3 and 2-5; w ~ N(0, I), noise variance .4, noise-free query, L = 48."""
    task = tasks.several_tasks(6, [(0, 1, 2, 3), (2, 3, 4, 5)], 48, noise=math.sqrt(0.4))
    prompts = task.sample_batch(min(config["n_eval"], 5_000), key=jax.random.key(KEY))
    trained = train(
        task,
        SoftmaxRegression(6, heads, n_out=2),
        steps=steps,
        key=jax.random.key(KEY + 1),
        seeds=[seed],
        batch=config["batch"],
        optimiser=optimiser(config, steps),
        record=max(1, steps // 60),
        probes={"test": lambda predictor, key: 0.5 * mse(predictor, prompts)},
        store=part,
    )
    final = trained[0]
    return {
        "step": trained.history["step"],
        "test": trained.history["test"][:, 0],  # half the sum over two outputs: their mean
        "kq": np.asarray(final.kq()),
        "ov": np.asarray(final.ov()),
    }


def head_flow(part: Run, *, heads: int, seeds: int, end: float) -> dict[str, np.ndarray]:
    """Gradient flow on half the paper's approximate loss in (omega, mu) from N(0, 0.01^2), tau = 1."""
    times = np.concatenate([[0.0], np.geomspace(0.1, end, 400)])
    out: dict[str, list[np.ndarray]] = {"omega": [], "mu": [], "loss": []}
    for seed in range(seeds):
        drawn = 0.01 * jax.random.normal(jax.random.fold_in(jax.random.key(KEY), seed), (2, heads))
        path = gradient_flow({"omega": drawn[0], "mu": drawn[1]}, approximate_loss, times, rtol=1e-8, atol=1e-10)
        for name, values in (*path.predictors.items(), ("loss", path.loss)):
            out[name].append(values)
    return {"times": times} | {name: np.stack(values) for name, values in out.items()}


def reference_lengths(part: Run, *, n_eval: int, eval_sets: int) -> dict[str, np.ndarray]:
    """Losses of the reference predictors at every length: sampled on several sets of prompts, and exact where known.

    One set of 50,000 prompts has a standard error near 1 % at short lengths, half the published tolerance, and shares
    it among the predictors: so `sampled/..` has shape "lengths sets".
    """
    eta_l = ETA / L  # linear attention without 1/L, trained at L = 40
    one = softmax_heads.single_head_optimum(**GIVEN)
    sampled: dict[str, list[list[float]]] = {}
    exact: dict[str, list[float]] = {}
    approximate: dict[str, list[float]] = {"pair": [], "kernel": []}
    for length in LENGTHS:
        given = {**GIVEN, "n_context": length}
        predictors = {
            "pair": KernelHeads([OMEGA, -OMEGA], [MU, -MU]),
            "descent": LinearMap(ETA * np.eye(D)),
            "debiased": LinearMap(ETA * np.eye(D), debiased=True),
            "ridge": Ridge(NOISE * D),
            "kernel": KernelHeads([one.omega], [one.mu]),
            "unnormalised": LinearMap(eta_l * length * np.eye(D)),
        }
        sets = [mse_at(predictors, np.eye(D), length, n_eval, index) for index in range(eval_sets)]
        for name in predictors:
            sampled.setdefault(name, []).append([losses[name] for losses in sets])
        formulas = {
            "pair": softmax_heads.exact_heads_loss([OMEGA, -OMEGA], [MU, -MU], **given),
            "descent": softmax_heads.descent_loss(ETA, **given),
            "debiased": softmax_heads.descent_loss(ETA, **given, debiased=True),
            "ridge": softmax_heads.ridge_loss(**given),
            "kernel": softmax_heads.exact_heads_loss([one.omega], [one.mu], **given),
            "unnormalised": softmax_heads.descent_loss(eta_l * length, **given),
        }
        for name, value in formulas.items():
            exact.setdefault(name, []).append(float(value))
        for name, kept in approximate.items():
            heads: Any = predictors[name]
            kept.append(float(softmax_heads.approximate_heads_loss(heads.omega, heads.mu, **given)))
    kinds = {"sampled": sampled, "exact": exact, "approximate": approximate}
    return {f"{kind}/{name}": np.array(values) for kind, table in kinds.items() for name, values in table.items()}


def omega_profile(part: Run, *, points: int) -> dict[str, np.ndarray]:
    """The loss of one head and of an opposite pair at the best mu against omega: the paper's formula, and exactly."""
    omegas = np.geomspace(0.02, 0.7, points)
    out: dict[str, list[float]] = {f"{kind}/{n}": [] for kind in ("approximate", "exact") for n in ("one", "pair")}
    for omega in omegas:
        for name, signs in (("one", np.ones(1)), ("pair", np.array([1.0, -1.0]))):
            w = omega * signs
            if name == "one":
                mu = jnp.asarray(softmax_heads.best_mu(w, **GIVEN))
                approximate = softmax_heads.approximate_heads_loss(jnp.asarray(w), mu, **GIVEN)
            else:
                approximate = softmax_heads.approximate_pair_loss(float(omega), **GIVEN)
            moments = softmax_heads.exact_head_moments(w, **GIVEN)
            out[f"approximate/{name}"].append(float(approximate))
            out[f"exact/{name}"].append(moments.loss(moments.best_mu()))
    return {"omega": omegas} | {name: np.array(values) for name, values in out.items()}


def proportional(part: Run, *, n_eval: int) -> dict[str, np.ndarray]:
    """d = 20, L = 100, noise variance 3: gradient step at the paper's rate, and ridge."""
    d, length, noise = 20, 100, 3.0
    eta = 1 / (1 + d / length * (1 + noise))
    task = tasks.gaussian_regression(np.eye(d), length, prior=np.eye(d) / d, noise=math.sqrt(noise), noisy_query=True)
    prompts = [task.sample_batch(2_000, key=k) for k in jax.random.split(jax.random.key(KEY), max(1, n_eval // 2_000))]
    predictors = {"descent": LinearMap(eta * np.eye(d)), "ridge": Ridge(noise * d)}
    found = [mses(predictors, batch) for batch in prompts]
    sampled = {name: np.mean([losses[name] for losses in found]) for name in predictors}
    given = {"d": d, "n_context": length, "noise_variance": noise}
    return {
        "sampled/descent": np.array(sampled["descent"]),
        "sampled/ridge": np.array(sampled["ridge"]),
        "exact/descent": np.asarray(softmax_heads.descent_loss(eta, **given)),
        "exact/ridge": np.array(softmax_heads.ridge_loss(**given)),
        "limit/ridge": np.array(softmax_heads.ridge_limit(d / length, noise)),
    }


def run(config: Config, run: Run) -> None:
    """Everything is a part of its own."""
    c = config
    shared = {"steps": c.steps, "batch": c.batch, "rate": c.rate, "decays": c.decays, "n_eval": c.n_eval}
    parts: dict[str, dict[str, Any]] = {
        f"heads-{h}-{seed}": {"heads": h, "seed": seed, "covariance": None, "config": shared}
        for h in c.heads
        for seed in range(c.seeds)
    }
    correlated = tasks.ar1_covariance(D, 0.5).tolist()
    parts |= {
        f"skewed-{seed}": {"heads": 2, "seed": seed, "covariance": correlated, "config": shared}
        for seed in range(c.skewed_seeds)
    }
    run_parts(run, train_heads, parts, cost={name: arguments["heads"] for name, arguments in parts.items()})
    several = {
        f"tasks-{h}-{seed}": {"heads": h, "seed": seed, "steps": c.task_steps, "config": shared}
        for h in c.task_heads
        for seed in range(c.task_seeds)
    }
    run_parts(run, train_two_tasks, several)
    run_parts(
        run, head_flow, {f"flow-{h}": {"heads": h, "seeds": c.flow_seeds, "end": c.flow_end} for h in c.flow_heads}
    )
    run_parts(run, reference_lengths, {"lengths": {"n_eval": c.n_eval, "eval_sets": c.eval_sets}})
    run_parts(run, omega_profile, {"profile": {"points": 25 if c.n_eval > 1_000 else 4}})
    run_parts(run, proportional, {"proportional": {"n_eval": c.n_eval}})


# Pieces.


def regression(covariance: np.ndarray, n_context: int) -> tasks.LinearRegression:
    """The paper's task: w ~ N(0, I/d), noise on context and query labels."""
    prior = np.eye(len(covariance)) / len(covariance)
    return tasks.gaussian_regression(covariance, n_context, prior=prior, noise=math.sqrt(NOISE), noisy_query=True)


def optimiser(config: Mapping[str, Any], steps: int) -> Optimiser:
    """Adam, constant or falling linearly to zero."""
    if not config["decays"]:
        return Optimiser(learning_rate=config["rate"])
    return Optimiser(learning_rate=config["rate"], schedule="linear", schedule_steps=steps)


def mse(predictor: Any, prompts: Any) -> Any:
    """The full mean squared error on the queries."""
    return jnp.mean(jnp.sum(jnp.square(answer_batch(predictor, prompts) - prompts.y[:, -1]), axis=-1))


@eqx.filter_jit
def mses(predictors: Mapping[str, Any], prompts: Any) -> dict[str, Any]:
    """The loss of every predictor on the same prompts."""
    return {name: mse(predictor, prompts) for name, predictor in predictors.items()}


def mse_at(
    predictors: Mapping[str, Any], covariance: np.ndarray, length: int, n_eval: int, index: int = 0
) -> dict[str, float]:
    """The losses at a prompt length on the evaluation set of this index, the same prompts for all predictors."""
    task, n = regression(covariance, length), min(n_eval, 5_000)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(KEY + 2), length), index)
    batches = [task.sample_batch(n, key=k) for k in jax.random.split(key, max(1, n_eval // n))]
    found = [mses(predictors, prompts) for prompts in batches]
    return {name: float(np.mean([losses[name] for losses in found])) for name in predictors}


def approximate_loss(heads: Mapping[str, Any]) -> Any:
    """The paper's approximate loss of heads given as {"omega", "mu"}."""
    return softmax_heads.approximate_heads_loss(heads["omega"], heads["mu"], **GIVEN)


def seeds_of(run: Run, start: str) -> list[dict[str, np.ndarray]]:
    """The arrays of the parts of all seeds whose names begin in a way."""
    return [run.part_arrays(name) for name in run.parts() if name.startswith(start)]


# What claims and figures read of a finished run.


def head_numbers(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Final omega and mu of every head."""
    return arrays["omega"][-1].astype(float), arrays["mu"][-1].astype(float)
