"""What is measured on trained or constructed weights."""

from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import GradientDescent, GradientDescentPlusPlus, best_rate, line_search, spectral
from meta_icl.analysis import (
    copy_then_descend_construction,
    descent_weights,
    from_products,
    gradient_descent_construction,
    gradient_descent_plus_plus_construction,
    interpolated,
    rolled_out,
    rollout_losses,
)
from meta_icl.evaluation import alignment, mean_loss
from meta_icl.models import Architecture, Concatenated, InContextLearner, von_oswald
from meta_icl.prompt import Prompt, answer_batch
from meta_icl.runs import Run
from meta_icl.tasks import LinearRegression, NormalisedMixture, Uniform

from .config import Config
from .training import EVAL_KEY, HALF_RANGE, D, N, eval_prompts, regression


def learners(run: Run, part: str, config: Architecture) -> list[InContextLearner]:
    """The trained learners of a part, one per seed, rebuilt from their weight products."""
    arrays = run.part_arrays(part)
    pairs = zip(arrays["qk"], arrays["ov"], strict=True)
    return [InContextLearner(Concatenated(), from_products(config, jnp.asarray(a), jnp.asarray(b))) for a, b in pairs]


def losses(predictors: list[Any], prompts: Prompt) -> np.ndarray:
    """The half-MSE of every predictor on the same prompts."""
    return np.array([float(mean_loss(predictor, prompts)) for predictor in predictors])


def measure_constructions() -> dict[str, np.ndarray]:
    """Largest error of the constructions against the explicit algorithms, in float32, by number of layers."""
    prompts = eval_prompts(LinearRegression(d=D, n_context=N, n_out=2, x_law=Uniform(HALF_RANGE)), 100)
    w0 = jax.random.normal(jax.random.key(1), (2, D))
    gd, plus = [], []
    for steps in range(1, 6):
        built = gradient_descent_construction(2.0, d=D, n_context=N, n_steps=steps, n_out=2, w0=w0)
        gd.append(gap(built, GradientDescent(rate=2.0, steps=steps, w0=w0), prompts))
        rates, gammas = jnp.linspace(2.0, 4.0, steps), jnp.linspace(0.05, 0.1, steps)
        both = gradient_descent_plus_plus_construction(rates, gammas, d=D, n_context=N, n_steps=steps, n_out=2)
        plus.append(gap(both, GradientDescentPlusPlus(rates=rates, gammas=gammas), prompts))
    single = eval_prompts(regression(D), 100)
    copy = gap(copy_then_descend_construction(2.0, d=D, n_context=N), GradientDescent(rate=2.0), single)
    return {"gd": np.array(gd), "gd_plus_plus": np.array(plus), "copy": np.array(copy)}


def gap(a: Any, b: Any, prompts: Prompt) -> float:
    """The largest absolute difference between two predictors."""
    return float(jnp.max(jnp.abs(answer_batch(a, prompts) - answer_batch(b, prompts))))


STUCK = 0.1  # of `least_read`, below which a seed decides nothing
INPUT_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
TARGET_SCALES = (0.5, 1.0, 2.0, 3.0, 5.0)
OTHER_SCALES = (0.5, 1.0, 2.0, 3.0, 5.0)
REPLACED = (0, 2, 4, 6, 8)


def measure_single(run: Run, config: Config) -> dict[str, np.ndarray]:
    """One trained layer against one gradient step: alignment, weights, interpolation, shifted prompts."""
    task, network = regression(D), von_oswald(D + 1, looped=True)
    trained, rate = learners(run, "K1", network), float(best_rate(task))
    gd, built = GradientDescent(rate=rate), gradient_descent_construction(rate, d=D, n_context=N)
    prompts = eval_prompts(task, config.n_eval)
    aligned = [alignment(learner, gd, prompts) for learner in trained]
    weights = [descent_weights(learner.network) for learner in trained]
    searched, _ = line_search(prompts, jnp.arange(0.001, 25.0, 0.1))
    out = {
        "rate": np.array(rate),
        "searched": np.array(float(searched)),
        "gd": losses([gd], prompts),
        "trained": losses(trained, prompts),
        "interpolated": losses([interpolated(learner, built) for learner in trained], prompts),
    }
    out |= {f"alignment/{name}": np.array([float(row[name]) for row in aligned]) for name in aligned[0]}
    out |= {f"weights/{name}": np.array([float(getattr(w, name)) for w in weights]) for name in weights[0]._fields}
    shifts = {
        "inputs": [regression(D, x_scale=scale) for scale in INPUT_SCALES],
        "targets": [regression(D, w_scale=scale) for scale in TARGET_SCALES],
        "laws": [regression(D, x_law=NormalisedMixture(scale=scale)) for scale in OTHER_SCALES],
        "replaced": [regression(D, n_replaced=k) for k in REPLACED],
    }
    for name, tasks in shifts.items():
        rows = [losses([gd, *trained], eval_prompts(shifted, config.n_eval)) for shifted in tasks]
        out[f"{name}/gd"], out[f"{name}/trained"] = np.array(rows)[:, 0], np.array(rows)[:, 1:]
    return out


def measure_sizes(run: Run, config: Config) -> dict[str, np.ndarray]:
    """Trained, interpolated and gradient-descent losses for every N = d."""
    rows = []
    sizes = sorted({D, *config.sizes})
    for d in sizes:
        task = regression(d)
        prompts, rate = eval_prompts(task, min(config.n_eval, 10_000)), float(best_rate(task))
        trained = learners(run, part_of(d), von_oswald(d + 1, looped=True))
        built = gradient_descent_construction(rate, d=d, n_context=d)
        middle = [interpolated(learner, built) for learner in trained]
        rows.append((losses([GradientDescent(rate=rate)], prompts), losses(trained, prompts), losses(middle, prompts)))
    gd, trained, middle = (np.array(column) for column in zip(*rows, strict=True))
    return {"sizes": np.array(sizes), "gd": gd[:, 0], "trained": trained, "interpolated": middle}


def least_read(qk: np.ndarray, ov: np.ndarray) -> float:
    """The least over the largest singular value of the map A of a head of linear attention on tokens (x, y).

    What it answers is x_q^T A sum_i y_i x_i, with A = ov_yy qk_xx + qk_xy ov_xy^T, and terms of even order in y. A seed
    that is stuck on the second term reads one direction of the inputs alone, for good.
    """
    values = np.linalg.svd(ov[-1, -1] * qk[:-1, :-1] + np.outer(qk[:-1, -1], ov[:-1, -1]), compute_uv=False)
    return float(values[-1] / values[0])


def reads(run: Run, d: int) -> np.ndarray:
    """For every seed of a size how evenly its layer reads the directions of the inputs; below `STUCK` it is stuck."""
    part = run.part_arrays(part_of(d))
    return np.array([least_read(qk[0, 0], ov[0, 0]) for qk, ov in zip(part["qk"], part["ov"], strict=True)])


def part_of(d: int) -> str:
    """The part that trains one layer at N = d."""
    return "K1" if d == D else f"K1-d{d}"


@lru_cache(maxsize=1)
def reference_spectra(n: int) -> np.ndarray:
    """Spectra "20 n/20 d" of `n` contexts that nothing was fitted to, in twenty evaluation sets."""
    contexts = regression(D).sample_batch(n, key=jax.random.key(EVAL_KEY + 2)).x[:, :-1]
    return np.asarray(spectral.spectrum(contexts)).reshape(20, -1, D)


def reference_losses(rates: Any, gammas: Any, steps: int, n_spectra: int) -> np.ndarray:
    """The half-MSE of GD (no gammas) or GD++ on each of twenty evaluation sets, exact over w and the query."""
    scale = {"n_context": N, "x_variance": HALF_RANGE**2 / 3, "steps": steps}
    one_set = jax.jit(lambda eigenvalues: spectral.multi_step_loss(rates, gammas, eigenvalues, **scale))
    return np.array([float(one_set(eigenvalues)) for eigenvalues in reference_spectra(n_spectra)])


def fit_references(steps: int, n_spectra: int) -> tuple[spectral.Fit, spectral.Fit]:
    """The best shared rate of gradient descent and the best shared pair of GD++, over sampled spectra."""
    contexts = regression(D).sample_batch(n_spectra, key=jax.random.key(EVAL_KEY + 1)).x[:, :-1]
    eigenvalues = spectral.spectrum(contexts)
    common = {"n_context": N, "steps": steps, "x_variance": HALF_RANGE**2 / 3, "shared": True}
    return spectral.fit(eigenvalues, **common), spectral.fit(
        eigenvalues, with_gammas=True, restarts=2, key=jax.random.key(0), **common
    )


DEEP_SCALES = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0)


def measure_deep(run: Run, config: Config) -> dict[str, np.ndarray]:
    """Two looped and five separate layers against GD and GD++ with their best parameters."""
    prompts = eval_prompts(regression(D), config.n_eval)
    out: dict[str, np.ndarray] = {}
    for name, steps in (("K2", 2), ("K5", 5)):
        looped = name == "K2"
        network = von_oswald(D + 1, steps, looped=looped, activation_clip=None if looped else 10.0)
        trained = learners(run, name, network)
        gd_fit, plus_fit = fit_references(steps, 4 * config.n_eval)
        gd = GradientDescent(rate=gd_fit.rates[0], steps=steps)
        plus = GradientDescentPlusPlus(rates=plus_fit.rates, gammas=plus_fit.gammas)
        out |= {
            f"{name}/trained": losses(trained, prompts),
            f"{name}/gd": losses([gd], prompts),
            f"{name}/plus": losses([plus], prompts),
            f"{name}/gd_sets": reference_losses(gd_fit.rates, None, steps, config.n_spectra),
            f"{name}/plus_sets": reference_losses(plus_fit.rates, plus_fit.gammas, steps, config.n_spectra),
        }
        if looped:
            built = gradient_descent_plus_plus_construction(
                plus_fit.rates[0], plus_fit.gammas[0], d=D, n_context=N, n_steps=steps
            )
            out[f"{name}/interpolated"] = losses([interpolated(learner, built) for learner in trained], prompts)
        for reference, predictor in (("gd", gd), ("plus", plus)):
            rows = [alignment(learner, predictor, prompts) for learner in trained]
            out[f"{name}/cosine_{reference}"] = np.array([float(row["cosine"]) for row in rows])
        found = np.array(
            [[losses([plus, *trained], prompts) for prompts in scaled_sets(s, config)] for s in DEEP_SCALES]
        )
        out[f"{name}/shift_ratio"] = np.median(found[..., 1:] / found[..., :1], axis=1)
        out[f"{name}/shift_plus"], out[f"{name}/shift_trained"] = (
            np.median(found[..., 0], 1),
            np.median(found[..., 1:], 1),
        )
    return out


def scaled_sets(scale: float, config: Config) -> list[Prompt]:
    """Five sets of prompts with scaled inputs: one set may hold a prompt that outweighs all others."""
    task = regression(D, x_scale=scale)
    return [task.sample_batch(config.n_eval, key=jax.random.key(EVAL_KEY + 20 + i)) for i in range(5)]


LOOPS, AFTER, DAMPENINGS = 50, (1, 5, 10, 20, 50), (0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)


def measure_rollouts(run: Run, config: Config) -> dict[str, np.ndarray]:
    """Half-MSE after 1..50 loops that rewrite the target only: gradient step "dampenings loops", trained layers at
    dampening 0.75 "seeds loops", and the ratio of both there "seeds loops", the median over five sets of prompts: a few
    extreme prompts, not in every set, diverge at 0.75 and then outweigh all others; what overflows is infinite."""
    task = regression(D)
    gd = gradient_descent_construction(float(best_rate(task)), d=D, n_context=N)

    @eqx.filter_jit
    def after(learner: InContextLearner, dampenings: Any, prompts: Prompt) -> Any:
        return jax.lax.map(lambda d: rollout_losses(rolled_out(learner, LOOPS, d, update="y"), prompts), dampenings)

    trained = learners(run, "K1", von_oswald(D + 1, looped=True))
    one, rate = jnp.array([0.75]), 0.75 * float(best_rate(task))
    sets = [task.sample_batch(config.n_eval, key=jax.random.key(EVAL_KEY + 10 + i)) for i in range(5)]
    losses_of = [np.stack([np.asarray(after(layer, one, prompts)[0]) for prompts in sets]) for layer in (gd, *trained)]
    losses_of = [np.where(np.isnan(values), np.inf, values) for values in losses_of]  # a sum of opposite infinities
    return {
        "dampening": np.array(DAMPENINGS),
        "gd_sets": np.stack([reference_losses(rate, None, loops, config.n_spectra) for loops in AFTER]),
        "gd": np.asarray(after(gd, jnp.asarray(DAMPENINGS, jnp.float32), eval_prompts(task, config.n_eval))),
        "trained": np.median(losses_of[1:], axis=1),
        "ratio": np.stack([np.median(mine / losses_of[0], axis=0) for mine in losses_of[1:]]),
    }
