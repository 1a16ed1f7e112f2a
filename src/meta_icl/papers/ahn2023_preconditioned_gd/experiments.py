"""What is trained: linear transformers by population loss, L-BFGS and Adam; every function that takes a part is one."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import map_loss_of
from meta_icl.analysis import distance_to_scaled_identity
from meta_icl.models import SparseLinearPredictor, SparseLinearTransformer
from meta_icl.runs import Run, those_there
from meta_icl.sweeps import run_parts
from meta_icl.training import (
    Optimiser,
    context_averaged_mse,
    context_set,
    context_set_loss,
    minimise,
    population_objective,
    train,
)

from .config import Config
from .references import ISOTROPIC, KEY, SKEWED, D, N, gradient_structure, references, regression, rotation


def one_layer(
    part: Run, *, spectrum: list[float], prior: str, sampled: bool, seeds: int, steps: int, batch: int
) -> dict[str, np.ndarray]:
    """One layer trained by Adam, on drawn contexts or on the exact population loss; -A and its loss."""
    task = regression(spectrum, prior)
    loss = map_loss_of(task)
    trained = train(
        task,
        SparseLinearTransformer(D, 1, rewrites_inputs=False),
        steps=steps,
        key=jax.random.key(KEY),
        seeds=seeds,
        batch=batch,
        objective=context_averaged_mse(task) if sampled else population_objective(loss),
        optimiser=Optimiser(learning_rate=0.02, schedule="cosine", schedule_steps=steps),
        record=max(1, steps // 50),
        probes={"map": lambda predictor, key: predictor.effective_map()},
        store=part,
    )
    maps = trained.history["map"].astype(np.float64)
    basis = rotation()
    final = [basis.T @ u @ basis for u in maps[-1]]
    return {
        "step": trained.history["step"],
        "loss": np.array([[float(loss(u)) for u in row] for row in maps]),
        "diagonal": np.stack([np.diag(u) for u in final]),
        "off": np.array([np.abs(u - np.diag(np.diag(u))).max() for u in final]),
        "expected": np.diag(basis.T @ loss.minimiser() @ basis),
        "best": np.array(loss.levels()[-1]),
    }


def fitted(
    part: Run,
    *,
    layers: int,
    rewrites_inputs: bool,
    spectrum: list[float],
    n_context: int,
    seeds: int,
    contexts: int,
    held_out: int,
    validation: int,
    iterations: int,
    first: int | None = None,
) -> dict[str, np.ndarray]:
    """L-BFGS from several seeds; losses on other contexts and on third ones, and A', B' in whitened coordinates.

    With `first`, so many contexts are fitted before all of them, for which a tenth of the iterations is left: they are
    close by then.
    """
    task, root = regression(spectrum, "inverse", n_context), rotation() * np.sqrt(spectrum)
    scored = context_set(task, held_out, key=jax.random.key(KEY + 1))
    picking = context_set(task, validation, key=jax.random.key(KEY + 6))
    out: dict[str, list[Any]] = {"held_out": [], "validation": [], "train": [], "a": [], "b": [], "history": []}
    for seed in range(seeds):
        seen = context_set(task, contexts, key=jax.random.fold_in(jax.random.key(KEY + 2), seed))
        description = SparseLinearTransformer(D, layers, rewrites_inputs, init_std=0.01)
        start = description(key=jax.random.fold_in(jax.random.key(KEY), seed))
        if first is not None:
            part_of = eqx.tree_at(lambda s: s.moments, seen, seen.moments[..., :first])
            start = minimise(start, context_set_loss, part_of, iterations=iterations).predictor
        left = iterations if first is None else max(1, iterations // 10)
        end = minimise(start, context_set_loss, seen, iterations=left)
        a, b = in_whitened(end.predictor.a, end.predictor.b, root)
        history = np.full(iterations + 1, end.loss)
        history[: len(end.history)] = end.history[: iterations + 1]
        row = (scored.loss(end.predictor), picking.loss(end.predictor), end.loss, a, b, history)
        for name, value in zip(out, row, strict=True):
            out[name].append(value)
        part.log({"step": seed, "loss": end.loss, "held_out": float(out["held_out"][-1])})
    return {name: np.stack(values) for name, values in out.items()}


def by_adam(
    part: Run,
    *,
    spectrum: list[float],
    layers: int,
    steps: int,
    batch: int,
    seed: int,
    rate: float,
    b1: float,
    halve: bool = False,
    start: dict[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Several layers with B by Adam on fresh contexts, with the published rates; distances to the scaled identity.

    From given A and B, where there are any, at a rate that falls to zero.
    """
    task, root = regression(spectrum, "inverse"), rotation() * np.sqrt(spectrum)
    scored, picking = (context_set(task, 10_000, key=jax.random.key(KEY + k)) for k in (1, 6))
    optimiser = Optimiser(name="adamw", learning_rate=rate, b1=b1, b2=0.9)
    if halve:  # the public code halves the rate every 4,000 steps and clips to 0.01; a cosine falls alike
        optimiser = Optimiser(
            name="adamw", learning_rate=rate, b1=b1, b2=0.9, clip_norm=0.01, schedule="cosine", schedule_steps=steps
        )
    description: Any = SparseLinearTransformer(D, layers)
    if start is not None:
        given = SparseLinearPredictor(*(jnp.asarray(start[name], jnp.float32) for name in ("a", "b")))
        description = lambda key: given  # noqa: E731  (what draws a predictor, here always the same one)
        optimiser = Optimiser(name="adamw", learning_rate=rate, b1=b1, b2=0.9, schedule="cosine", schedule_steps=steps)
    trained = train(
        task,
        description,
        steps=steps,
        key=jax.random.key(KEY),
        seeds=[seed],
        batch=batch,
        objective=context_averaged_mse(task),
        optimiser=optimiser,
        record=max(1, steps // 50),
        store=part,
        probes={"a": lambda predictor, key: predictor.a, "b": lambda predictor, key: predictor.b},
    )
    weights = [trained.history[name].astype(np.float64) for name in ("a", "b")]
    pairs = [[in_whitened(a, b, root) for a, b in zip(*row, strict=True)] for row in zip(*weights, strict=True)]
    a, b = (np.stack([[pair[i] for pair in row] for row in pairs]) for i in range(2))
    final = SparseLinearPredictor(*(jnp.asarray(w[-1, 0], jnp.float32) for w in weights))
    return {
        "step": trained.history["step"],
        "loss": trained.history["loss"],
        "held_out": np.array([scored.loss(final)]),
        "validation": np.array([picking.loss(final)]),
        "a": a[-1],
        "b": b[-1],
        "distance_a": distance_to_scaled_identity(a),
        "distance_b": distance_to_scaled_identity(b[:, :, :-1]),
    }


def run(config: Config, run: Run) -> None:
    """Everything is a part of its own."""
    c = config
    layer = {"seeds": c.seeds, "steps": c.one_layer_steps, "batch": c.one_layer_batch}
    priors = {"identity": (SKEWED, "identity"), "isotropic": (ISOTROPIC, "identity"), "inverse": (SKEWED, "inverse")}
    run_parts(
        run,
        one_layer,
        {
            f"one-{name}-{kind}": {**layer, "spectrum": list(s), "prior": prior, "sampled": kind == "sampled"}
            for name, (s, prior) in priors.items()
            for kind in ("sampled", "population")
        },
    )
    sizes = {"held_out": c.held_out, "validation": c.validation, "iterations": c.iterations}
    fits: dict[str, dict[str, Any]] = {}
    for depth in c.depths:
        fits[f"depth-{depth}"] = {
            "layers": depth,
            "rewrites_inputs": True,
            "spectrum": list(ISOTROPIC),
            "n_context": N,
            "seeds": c.seeds,
        }
        if depth > 1:
            fits[f"no-b-isotropic-{depth}"] = {**fits[f"depth-{depth}"], "rewrites_inputs": False}
            fits[f"no-b-skewed-{depth}"] = {**fits[f"no-b-isotropic-{depth}"], "spectrum": list(SKEWED)}
    for n in c.contexts_lengths:
        if n != N:
            fits[f"length-{n}"] = {
                "layers": 3,
                "rewrites_inputs": True,
                "spectrum": list(ISOTROPIC),
                "n_context": n,
                "seeds": c.length_seeds,
            }
    cost = {name: arguments["layers"] ** 2 * (1 + 9 * arguments["rewrites_inputs"]) for name, arguments in fits.items()}
    few, many = {"contexts": c.contexts}, {"contexts": c.contexts_without_b, "first": c.contexts_first}
    fits = {name: fit | sizes | (few if fit["rewrites_inputs"] else many) for name, fit in fits.items()}
    run_parts(run, fitted, fits, cost=cost)
    adam = {
        "layers": 3,
        "steps": c.adam_steps,
        "batch": c.adam_batch,
        "rate": 1e-3,
        "b1": 0.9,
        "spectrum": list(ISOTROPIC),
    }
    parts = {f"adam-{seed}": {**adam, "seed": seed} for seed in range(c.adam_seeds)}
    # The ends of L-BFGS, in whitened coordinates: those of an isotropic problem, whose law no rotation changes.
    ends = those_there(run, {"depth-3": lambda run: run.part_arrays("depth-3")}).values()
    starts = [{"a": a.tolist(), "b": b.tolist()} for end in ends for a, b in zip(end["a"], end["b"], strict=True)]
    parts |= {f"settled-{seed}": {**adam, "seed": seed, "start": start} for seed, start in enumerate(starts)}
    if c.raw_steps:
        raw = {
            **adam,
            "spectrum": list(SKEWED),
            "steps": c.raw_steps,
            "batch": c.raw_batch,
            "rate": 0.1,
            "b1": 0.99,
            "halve": True,
        }
        parts |= {f"raw-{seed}": {**raw, "seed": seed} for seed in range(c.adam_seeds)}
    run_parts(run, by_adam, parts)
    run_parts(
        run,
        references,
        {"references": {"lengths": list(c.contexts_lengths), "depths": list(c.depths), "contexts": c.held_out}},
    )
    run_parts(run, gradient_structure, {"gradient": {"layers": 3, "contexts": c.gradient_contexts, "batches": 20}})


# Pieces.


def in_whitened(a: Any, b: Any, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A' = root^T A root and B' = root^-1 B root of every layer, for x = root g; zeros without B."""
    whitened = root.T @ np.asarray(a, np.float64) @ root
    if b is None:
        return whitened, np.zeros_like(whitened)
    return whitened, np.linalg.inv(root) @ np.asarray(b, np.float64) @ root


def scalars(matrices: np.ndarray) -> np.ndarray:
    """tr M / d of every matrix."""
    return np.trace(matrices, axis1=-2, axis2=-1) / D


# What claims and figures read of a finished run.


def fresh_fits(run: Run) -> dict[str, np.ndarray]:
    """Three layers with B after Adam on fresh contexts, every seed; those in skewed coordinates if there are any."""
    parts = run.arrays_of_parts("raw-") or run.arrays_of_parts("settled-")
    return {
        name: np.concatenate([part[name] for part in parts.values()]) for name in ("held_out", "validation", "a", "b")
    }


def length_fits(run: Run) -> dict[int, dict[str, np.ndarray]]:
    """What L-BFGS found with three layers, by context length."""
    fits = {int(n): arrays for n, arrays in run.arrays_of_parts("length-").items()} | {N: run.part_arrays("depth-3")}
    return dict(sorted(fits.items()))


def length_table(run: Run) -> tuple[list[int], dict[str, np.ndarray]]:
    """Losses by context length for three layers: transformer, preconditioned and plain gradient descent.

    Of the restarts of the transformer the best by its validation loss, as in the released code: the lowest training
    loss is that of a fit which blows up on the rare contexts that it has not seen.
    """
    oracle, fits = run.part_arrays("references"), length_fits(run)
    lengths = [n for n in fits if f"plain_3_{n}" in oracle]
    rows = {"transformer": np.array([fits[n]["held_out"][np.argmin(fits[n]["validation"])] for n in lengths])}
    return lengths, rows | {k: np.array([oracle[f"{k}_3_{n}"][0] for n in lengths]) for k in ("whitened", "plain")}
