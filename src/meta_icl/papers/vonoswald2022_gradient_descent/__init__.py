"""Transformers learn in-context by gradient descent (von Oswald et al., ICML 2023; arXiv 2212.07677, 2022).

Claims. One layer of linear self-attention can implement a step of gradient descent, and training finds just that step;
deeper ones find GD++, steps that also correct the curvature; with softmax, separate tokens or an MLP in front, training
finds what corresponds.

Setting. d = N = 10, w ~ N(0, I), no noise, loss half-MSE on the query. The paper says x ~ U(-1, 1), its released code
draws U(-0.5, 0.5): the code's law is taken here, since all published loss levels fit it (one step: 0.206). Training as
in the code: Adam with b2 0.98, rate 1e-3 (5e-4 from four layers on), gradient clipped to 1e-3 (10 from three layers),
batch 2048, activations clipped to 10 from four layers on.
Settled after early runs, not before: losses of GD and GD++ and roll-outs are medians over several evaluation sets,
since one set of 10,000 prompts may hold a few that outweigh all others.
The order of events in VO-22 counts the drop from the plateau of the zero predictor, with steps interpolated between
records; deep models at scaled inputs (VO-16) are medians over five sets. Both were changed after a run had been seen.

Command: `meta-icl reproduce vonoswald2022`. Times on two CPU cores: see `TIMES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    token_copying,
)
from meta_icl.evaluation import alignment, loss_on, mean_loss
from meta_icl.models import Concatenated, InContextLearner, Learner, Separate, Transformer
from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, over_seeds
from meta_icl.prompt import Prompt, answer_batch
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, is_true, relative, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, NormalisedMixture, SineRegression, Uniform
from meta_icl.training import Optimiser, train

TIMES = {"smoke": "2 min", "small": "21 CPU-min", "paper": "2 h (GPU)"}
IDS = tuple(f"VO-{i}" for i in range(1, 25))
EVAL_KEY, TRAIN_KEY, HALF_RANGE = 5, 0, 0.5
D = N = 10
ZERO_LOSS = 0.5 * D * HALF_RANGE**2 / 3


@dataclass(frozen=True)
class Config:
    """Sizes; `steps_*` and `batch_*` by experiment. Defaults are those of the released code."""

    seeds: int = 5
    n_eval: int = 10_000
    n_spectra: int = 200_000  # for the losses of GD and GD++: few contexts with large eigenvalues weigh much
    steps: int = 5_000
    batch: int = 2_048
    sizes: tuple[int, ...] = (2, 5, 20, 40)  # further N = d
    steps_sizes: int = 5_000
    batch_sizes: int = 2_048
    steps_two: int = 5_000
    batch_two: int = 2_048
    steps_five: int = 50_000
    batch_five: int = 2_048
    steps_softmax: int = 5_000
    batch_softmax: int = 2_048
    steps_sine: int = 20_000
    batch_sine: int = 2_048
    steps_separate: int = 10_000
    batch_separate: int = 2_048
    rate_two: float = 1e-3
    rate_five: float = 5e-4
    rates_sine: tuple[float, float] = (1e-3, 3e-4)  # transformer; MLP before a fixed gradient step
    rate_separate: float = 1e-3
    init_separate: float = 0.02
    decay: bool = False  # whether these rates fall to zero


PRESETS = {
    "smoke": Config(
        seeds=2,
        n_eval=200,
        n_spectra=500,
        steps=20,
        batch=32,
        sizes=(2,),
        steps_sizes=20,
        batch_sizes=32,
        steps_two=10,
        batch_two=16,
        steps_five=5,
        batch_five=16,
        steps_softmax=5,
        batch_softmax=16,
        steps_sine=5,
        batch_sine=16,
        steps_separate=5,
        batch_separate=16,
    ),
    # Shrunk, so that it fits 20 core-minutes: three seeds, 3,000 steps for the other N = d (published 5,000), smaller
    # batches except for one layer of linear attention. Where the batch is smaller and there is more than one layer, the
    # rate falls to zero, since a constant one leaves the noise of the batch; it starts higher, to take fewer steps: two
    # layers 2e-3 (1e-3), five 2e-3 in 6,000 steps (5e-4 in 50,000), sine 2e-3 in 6,000 (1e-3 and 3e-4 in 20,000). On
    # separate tokens batches of 256 leave the plateau of the zero predictor within 10,000 steps only from larger
    # weights (0.2, published 0.02) and at a larger rate (4e-3, published 1e-3). This was settled by early runs.
    "small": Config(
        seeds=3,
        steps_sizes=3_000,
        batch_sizes=256,
        steps_two=8_000,
        batch_two=512,
        rate_two=2e-3,
        steps_five=6_000,
        batch_five=256,
        rate_five=2e-3,
        batch_softmax=1_024,
        steps_sine=6_000,
        batch_sine=128,
        rates_sine=(2e-3, 2e-3),
        batch_separate=256,
        rate_separate=4e-3,
        init_separate=0.2,
        decay=True,
    ),
    "paper": Config(),
}


# What is trained.


def train_stack(
    part: Run, *, d: int, layers: int, looped: bool, rate: float, decay: bool, steps: int, batch: int, seeds: int,
    n_eval: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """K layers of linear attention on d = N; loss on the fixed evaluation set during training."""
    network = Transformer(d + 1, layers, looped=looped, activation_clip=10.0 if layers > 3 else None)
    optimiser = _adam(rate, 1e-3 if layers < 3 else 10.0, steps, decay)
    return _train(part, regression(d), Learner(network), optimiser, steps, batch, seeds, n_eval)


def train_softmax(part: Run, *, heads: int, steps: int, batch: int, seeds: int, n_eval: int) -> dict[str, np.ndarray]:
    """One layer of softmax attention with one or two heads."""
    network = Transformer(D + 1, n_heads=heads, attention="softmax")
    return _train(part, regression(D), Learner(network), _adam(1e-3, 1e-3, steps), steps, batch, seeds, n_eval)


def train_sine(
    part: Run, *, descend: bool, rate: float, decay: bool, steps: int, batch: int, seeds: int, n_eval: int
) -> dict[str, np.ndarray]:
    """Embedding, MLP and one linear attention layer on sine waves; with `descend` that layer is a fixed step of
    gradient descent (rate 0.1) on the last channel, and only what stands before it is trained."""
    model = Learner(Transformer(40, d_in=2, input_mlp=160))

    def fixed_layer(*, key: Any) -> InContextLearner:
        learner = model(key=key)
        step = gradient_descent_construction(0.1, d=39, n_context=10)
        return eqx.tree_at(lambda m: m.network.layers, learner, step.network.layers)

    return _train(
        part,
        SineRegression(family="released_code"),
        fixed_layer if descend else model,
        _adam(rate, 100.0, steps, decay),
        steps,
        batch,
        seeds,
        n_eval,
        freeze=(lambda m: jax.tree.leaves(m.network.layers)) if descend else None,
    )


def train_separate(
    part: Run, *, first: str, init: float, rate: float, decay: bool, steps: int, batch: int, seeds: int, n_eval: int
) -> dict[str, np.ndarray]:
    """Two layers on separate x and y tokens, the first of kind `first`; the copying of tokens during training."""
    network = Transformer(2 * D, 2, attention=(first, "linear"), init_scale=init)
    optimiser = _adam(rate, 10.0, steps, decay)
    prompts = eval_prompts(regression(D), min(n_eval, 128))
    probes = {"copying": lambda predictor, key: token_copying(predictor, prompts)._asdict()}
    model = Learner(network, Separate(d_position=D))
    return _train(part, regression(D), model, optimiser, steps, batch, seeds, n_eval, probes=probes)


def train_part(part: Run, *, kind: str, **arguments: Any) -> dict[str, np.ndarray]:
    """One part of the run, by the kind of training it is."""
    kinds = {"stack": train_stack, "softmax": train_softmax, "sine": train_sine, "separate": train_separate}
    return kinds[kind](part, **arguments)


def _adam(rate: float, clip_norm: float, steps: int, decay: bool = False) -> Optimiser:
    """The released optimiser; with `decay` its rate falls to zero."""
    schedule = {"schedule": "cosine", "schedule_steps": steps} if decay else {}
    return Optimiser(learning_rate=rate, b2=0.98, clip_norm=clip_norm, **schedule)


def _train(
    part: Run, task: Any, model: Any, optimiser: Optimiser, steps: int, batch: int, seeds: int, n_eval: int,
    *, probes: Mapping[str, Any] | None = None, freeze: Any = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Train and keep the history and the weight products "seeds l heads d d"."""
    trained = train(
        task,
        model,
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=seeds,
        batch=batch,
        optimiser=optimiser,
        record=max(1, steps // 50),
        probes={"eval": loss_on(eval_prompts(task, n_eval)), **(probes or {})},
        freeze=freeze,
        store=part,
    )
    networks = [trained[i].network for i in range(len(trained))]
    return trained.history | {
        "qk": np.stack([np.asarray(network.qk()) for network in networks]),
        "ov": np.stack([np.asarray(network.ov()) for network in networks]),
    }


def regression(d: int, **fields: Any) -> LinearRegression:
    """The released code's task with N = d."""
    return LinearRegression(d=d, n_context=d, **({"x_law": Uniform(half_range=HALF_RANGE)} | fields))


def eval_prompts(task: Any, n: int) -> Prompt:
    """The fixed evaluation set of a task, the same for every seed and every model."""
    return task.sample_batch(n, key=jax.random.key(EVAL_KEY))


def run(config: Config, run: Run) -> None:
    """Train everything, then measure on the trained weights."""
    c = config
    stack = {"kind": "stack", "d": D, "looped": True, "rate": 1e-3, "decay": False}
    one = stack | {"layers": 1, "steps": c.steps, "batch": c.batch}
    sizes = {
        f"K1-d{d}": one | {"d": d, "steps": c.steps_sizes, "batch": c.batch_sizes}
        for d in sorted(c.sizes, reverse=True)
    }
    two = stack | {"layers": 2, "rate": c.rate_two, "decay": c.decay, "steps": c.steps_two, "batch": c.batch_two}
    five = stack | {"layers": 5, "looped": False, "rate": c.rate_five, "decay": c.decay}
    five |= {"steps": c.steps_five, "batch": c.batch_five}
    separate = {"kind": "separate", "init": c.init_separate, "rate": c.rate_separate, "decay": c.decay}
    separate |= {"steps": c.steps_separate, "batch": c.batch_separate}
    softmax = {"kind": "softmax", "steps": c.steps_softmax, "batch": c.batch_softmax}
    sine = {"kind": "sine", "decay": c.decay, "steps": c.steps_sine, "batch": c.batch_sine}
    parts = {
        "K5": five,
        "separate-softmax": {"first": "softmax", **separate},
        "separate-linear": {"first": "linear", **separate},
        **sizes,
        "sine-transformer": {"descend": False, "rate": c.rates_sine[0], **sine},
        "sine-gd": {"descend": True, "rate": c.rates_sine[1], **sine},
        "K2": two,
        "K1": one,
        "softmax-2": {"heads": 2, **softmax},
        "softmax-1": {"heads": 1, **softmax},
    }  # the longest first, so that the cores finish together
    shared = {"seeds": c.seeds, "n_eval": c.n_eval}
    run_parts(run, train_part, {name: {**arguments, **shared} for name, arguments in parts.items()})
    run.save_arrays("constructions", measure_constructions())
    run.save_arrays("single", measure_single(run, c))
    run.save_arrays("sizes", measure_sizes(run, c))
    run.save_arrays("deep", measure_deep(run, c))
    run.save_arrays("rollouts", measure_rollouts(run, c))


# What is measured on trained or constructed weights.


def learners(run: Run, part: str, config: Transformer) -> list[InContextLearner]:
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


INPUT_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
TARGET_SCALES = (0.5, 1.0, 2.0, 3.0, 5.0)
OTHER_SCALES = (0.5, 1.0, 2.0, 3.0, 5.0)
REPLACED = (0, 2, 4, 6, 8)


def measure_single(run: Run, config: Config) -> dict[str, np.ndarray]:
    """One trained layer against one gradient step: alignment, weights, interpolation, shifted prompts."""
    task, network = regression(D), Transformer(D + 1, looped=True)
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
        trained = learners(run, "K1" if d == D else f"K1-d{d}", Transformer(d + 1, looped=True))
        built = gradient_descent_construction(rate, d=d, n_context=d)
        middle = [interpolated(learner, built) for learner in trained]
        rows.append((losses([GradientDescent(rate=rate)], prompts), losses(trained, prompts), losses(middle, prompts)))
    gd, trained, middle = (np.array(column) for column in zip(*rows, strict=True))
    return {"sizes": np.array(sizes), "gd": gd[:, 0], "trained": trained, "interpolated": middle}


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
        network = Transformer(D + 1, steps, looped=looped, activation_clip=None if looped else 10.0)
        trained = learners(run, name, network)
        gd_fit, plus_fit = fit_references(steps, 4 * config.n_eval)
        gd = GradientDescent(rate=gd_fit.rates[0], steps=steps)
        plus = GradientDescentPlusPlus(rates=plus_fit.rates, gammas=plus_fit.gammas)
        built = gradient_descent_plus_plus_construction(
            plus_fit.rates[0] if looped else plus_fit.rates,
            plus_fit.gammas[0] if looped else plus_fit.gammas,
            d=D,
            n_context=N,
            n_steps=steps,
        )
        out |= {
            f"{name}/trained": losses(trained, prompts),
            f"{name}/gd": losses([gd], prompts),
            f"{name}/plus": losses([plus], prompts),
            f"{name}/gd_sets": reference_losses(gd_fit.rates, None, steps, config.n_spectra),
            f"{name}/plus_sets": reference_losses(plus_fit.rates, plus_fit.gammas, steps, config.n_spectra),
            f"{name}/interpolated": losses([interpolated(learner, built) for learner in trained], prompts),
        }
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
    extreme prompts, not in every set, diverge at 0.75 and then outweigh all others."""
    task = regression(D)
    gd = gradient_descent_construction(float(best_rate(task)), d=D, n_context=N)

    @eqx.filter_jit
    def after(learner: InContextLearner, dampenings: Any, prompts: Prompt) -> Any:
        return jax.lax.map(lambda d: rollout_losses(rolled_out(learner, LOOPS, d, update="y"), prompts), dampenings)

    trained = learners(run, "K1", Transformer(D + 1, looped=True))
    one, rate = jnp.array([0.75]), 0.75 * float(best_rate(task))
    sets = [task.sample_batch(config.n_eval, key=jax.random.key(EVAL_KEY + 10 + i)) for i in range(5)]
    losses_of = [np.stack([np.asarray(after(layer, one, prompts)[0]) for prompts in sets]) for layer in (gd, *trained)]
    return {
        "dampening": np.array(DAMPENINGS),
        "gd_sets": np.stack([reference_losses(rate, None, loops, config.n_spectra) for loops in AFTER]),
        "gd": np.asarray(after(gd, jnp.asarray(DAMPENINGS, jnp.float32), eval_prompts(task, config.n_eval))),
        "trained": np.median(losses_of[1:], axis=1),
        "ratio": np.stack([np.median(mine / losses_of[0], axis=0) for mine in losses_of[1:]]),
    }


# Claims.


def claims(run: Run) -> list[Claim]:
    """VO-1 .. VO-24; tolerances were fixed before any run."""
    single, deep, rollouts = (run.load_arrays(name) for name in ("single", "deep", "rollouts"))
    found = [
        *claims_constructions(run.load_arrays("constructions")),
        *claims_single(single),
        claim_sizes(run.load_arrays("sizes")),
        *claims_shifted(single),
        *claims_deep(deep),
        *claims_rollouts(rollouts),
        claim_softmax(run, single),
        claim_sine(run),
        *claims_separate(run),
    ]
    return sorted(found, key=lambda one: int(one.id.rsplit("-", 1)[1]))


def claim(number: int, statement: str, source: str, *checks: Check, note: str | None = None) -> Claim:
    return Claim(f"vonoswald2022/VO-{number}", statement, source, checks, note=note)


def claims_constructions(errors: dict[str, np.ndarray]) -> list[Claim]:
    gd = [Check(f"largest error, K = {k}", at_most(1e-5), (e,)) for k, e in enumerate(errors["gd"], 1)]
    plus = [Check(f"largest error, K = {k}", at_most(1e-5), (e,)) for k, e in enumerate(errors["gd_plus_plus"], 1)]
    copy = Check("largest error against one gradient step", at_most(1e-4), (float(errors["copy"]),))
    return [
        claim(1, "Linear attention can implement K steps of gradient descent, from any W0", "Proposition 1", *gd),
        claim(2, "Linear attention can implement GD++", "GD++ equation", *plus),
        claim(24, "A copy layer and a gradient layer do one step on separate tokens", "Proposition 3", copy),
    ]


def claims_single(single: dict[str, np.ndarray]) -> list[Claim]:
    gd = float(single["gd"][0])
    ratio = tuple(single["trained"] / gd)
    corner = -float(single["rate"]) / N
    off = np.maximum(single["weights/off_read"], single["weights/off_write"])
    return [
        claim(
            3, "The best rate is 6.06 (0.606 per example) and gives a loss of 0.206", "Fig. 2, notebook",
            Check("rate / N, line search", relative(0.606, 0.03), (float(single["searched"]) / N,)),
            Check("loss of one gradient step", relative(0.206, 0.03), (gd,)),
        ),
        claim(
            4, "A trained layer has the loss of one gradient step", "Fig. 2 left",
            Check("trained / GD loss, same prompts", within(0.995, 1.01), ratio),
        ),
        claim(
            5, "The trained layer is aligned with the gradient step", "Fig. 2",
            Check("cosine of sensitivities", at_least(0.998), tuple(single["alignment/cosine"])),
            Check("model difference", at_most(0.12), tuple(single["alignment/model_difference"])),
            Check("prediction difference", at_most(0.03), tuple(single["alignment/prediction_difference"])),
        ),
        claim(
            6, "The trained weights are those of the construction", "weight heat maps",
            Check("entry that writes the target", relative(corner, 0.03), tuple(single["weights/corner"])),
            Check("largest other deviation", at_most(0.08), tuple(off)),
        ),
        claim(
            7, "The mean of trained and constructed weights does the same", "Fig. 2",
            Check("interpolated / GD loss", at_most(1.01), tuple(single["interpolated"] / gd)),
        ),
    ]  # fmt: skip


def claim_sizes(sizes: dict[str, np.ndarray]) -> Claim:
    expected = {2: 0.0395, 5: 0.102, 10: 0.206, 20: 0.415, 40: 0.831}
    checks = []
    for i, d in enumerate(sizes["sizes"].tolist()):
        checks.append(Check(f"GD, N = d = {d}", relative(expected[d], 0.05), (sizes["gd"][i],)))
        checks.append(Check(f"trained, N = d = {d}", relative(expected[d], 0.05), tuple(sizes["trained"][i])))
        checks.append(Check(f"interpolated, N = d = {d}", relative(expected[d], 0.05), tuple(sizes["interpolated"][i])))
    return claim(8, "Trained, interpolated and gradient step agree for every N = d", "Fig. 2 centre-right", *checks)


def claims_shifted(single: dict[str, np.ndarray]) -> list[Claim]:
    def rows(name: str, scales: tuple[float, ...]) -> dict[float, tuple[float, np.ndarray]]:
        pairs = zip(single[f"{name}/gd"], single[f"{name}/trained"], strict=True)
        return dict(zip(scales, ((float(gd), trained) for gd, trained in pairs), strict=True))

    inputs, targets = rows("inputs", INPUT_SCALES), rows("targets", TARGET_SCALES)
    laws, replaced = rows("laws", OTHER_SCALES), rows("replaced", REPLACED)
    absolute_inputs = {0.5: 0.081, 1.0: 0.206, 1.5: 1.20, 2.0: 8.40}
    replaced_losses = (0.206, 0.257, 0.316, 0.384, 0.460)
    vo9 = [Check(f"trained / GD, inputs times {a}", within(0.97, 1.03), tuple(t / gd)) for a, (gd, t) in inputs.items()]
    vo9 += [Check(f"GD, inputs times {a}", relative(e, 0.03), (inputs[a][0],)) for a, e in absolute_inputs.items()]
    vo10 = []
    for scale, (gd, trained) in targets.items():
        expected = scale**2 * 0.206
        vo10.append(Check(f"GD, w times {scale:g}", relative(expected, 0.03), (gd,)))
        vo10.append(Check(f"trained, w times {scale:g}", relative(expected, 0.03), tuple(trained)))
    vo11 = [Check(f"trained / GD, scale {a:g}", within(0.85, 1.15), tuple(t / gd)) for a, (gd, t) in laws.items()]
    vo12 = []
    for (k, (gd, trained)), expected in zip(replaced.items(), replaced_losses, strict=True):
        vo12.append(Check(f"GD, {k:g} replaced labels", relative(expected, 0.05), (gd,)))
        vo12.append(Check(f"trained, {k:g} replaced labels", relative(expected, 0.05), tuple(trained)))
    return [
        claim(9, "Trained layer and gradient step agree for scaled inputs", "Fig. 2 right", *vo9),
        claim(10, "Both scale exactly with the task", "appendix", *vo10),
        claim(11, "Both agree for other laws of the inputs", "appendix", *vo11),
        claim(12, "Both degrade alike when labels are replaced by noise", "appendix", *vo12),
    ]


def claims_deep(deep: dict[str, np.ndarray]) -> list[Claim]:
    gd2, plus2, two = float(deep["K2/gd"][0]), float(deep["K2/plus"][0]), deep["K2/trained"]
    at = {scale: i for i, scale in enumerate(DEEP_SCALES)}
    shape = []
    for name, label in (("K2", "two layers"), ("K5", "five layers")):
        ratio = deep[f"{name}/shift_ratio"]
        shape += [
            Check(f"{label}: trained / GD++, inputs times {scale:g}, five sets", within(0.75, 1.25), ratio[at[scale]])
            for scale in (0.5, 0.8, 1.0, 1.2)
        ]
        with np.errstate(divide="ignore"):  # GD++ overflows far outside the training law
            further = np.abs(np.log(ratio[at[2.0]])) > np.abs(np.log(ratio[at[1.2]]))
        shape.append(Check(f"{label}: further apart at 2 than at 1.2", is_true(), tuple(further.astype(float))))
        middle = deep[f"{name}/interpolated"] / deep[f"{name}/trained"]
        shape.append(Check(f"{label}: interpolated / trained loss", at_most(1.25), tuple(middle)))
    return [
        claim(
            13, "Two looped layers beat two gradient steps and reach GD++", "Fig. 3",
            Check("two gradient steps, twenty sets", relative(0.157, 0.03), tuple(deep["K2/gd_sets"])),
            Check("GD++, twenty sets", relative(0.1105, 0.03), tuple(deep["K2/plus_sets"])),
            Check("trained / GD++", at_most(1.06), tuple(two / plus2)),
            Check("trained below GD", at_most(gd2), tuple(two)),
        ),
        claim(
            14, "Two looped layers are closer to GD++ than to gradient descent", "Fig. 3",
            Check("cosine to GD++ less cosine to GD", at_least(0.0), deep["K2/cosine_plus"] - deep["K2/cosine_gd"]),
            Check("cosine to GD++", at_least(0.99), tuple(deep["K2/cosine_plus"])),
        ),
        claim(
            15, "Five layers beat five gradient steps and come near GD++", "Fig. 3",
            Check("five gradient steps, twenty sets", relative(0.109, 0.03), tuple(deep["K5/gd_sets"])),
            Check("GD++, twenty sets", relative(0.0521, 0.03), tuple(deep["K5/plus_sets"])),
            Check("trained", at_most(0.075), tuple(deep["K5/trained"])),
        ),
        claim(
            16, "Deep models follow GD++ near the training law and leave it far outside", "Fig. 3, appendix", *shape,
            note="five separate layers have a scale each: their mean with GD++ of one shared pair is no such algorithm "
            "(the released code interpolates looped layers only)",
        ),
    ]  # fmt: skip


def claims_rollouts(rollouts: dict[str, np.ndarray]) -> list[Claim]:
    at = {float(d): i for i, d in enumerate(rollouts["dampening"])}
    checks = []
    published = (0.219, 0.117, 0.087, 0.064, 0.044)
    for loop, expected, found in zip(AFTER, published, rollouts["gd_sets"], strict=True):
        share = 0.10 if loop == 50 else 0.05
        checks.append(Check(f"GD after {loop} loops, twenty sets", relative(expected, share), tuple(found)))
        ratio = tuple(rollouts["ratio"][:, loop - 1])
        checks.append(Check(f"trained / GD after {loop} loops, five sets", within(1 - share, 1 + share), ratio))
    stable = [
        d for d in at if np.isfinite(rollouts["gd"][at[d], -1]) and rollouts["gd"][at[d], -1] < rollouts["gd"][at[d], 9]
    ]
    threshold = Check("largest stable dampening of gradient descent", within(0.70, 0.80), (max(stable, default=0.0),))
    return [
        claim(17, "The trained layer can be rolled out like gradient descent", "appendix", *checks),
        claim(18, "Roll-outs of gradient descent diverge beyond a dampening of about 0.75", "appendix", threshold),
    ]


def claim_softmax(run: Run, single: dict[str, np.ndarray]) -> Claim:
    gd = float(single["gd"][0])
    one, two = run.part_arrays("softmax-1"), run.part_arrays("softmax-2")
    read = np.diagonal(two["qk"][:, 0], axis1=-2, axis2=-1)[..., :-1].mean(-1)  # seeds heads
    write = two["ov"][:, 0, :, -1, -1]
    opposite = (np.sign(read).prod(1) < 0) & (np.sign(write).prod(1) < 0)
    effective = np.einsum("sh,shij->sij", write, two["qk"][:, 0])[:, :-1, :-1]
    diagonal = np.square(np.diagonal(effective, axis1=-2, axis2=-1)).sum(-1) / np.square(effective).sum((-2, -1))
    return claim(
        19, "One softmax head is worse than gradient descent, two do as well", "appendix",
        Check("one head: loss / GD", at_least(1.1), tuple(one["eval"][-1] / gd)),
        Check("two heads: loss / GD", at_most(1.1), tuple(two["eval"][-1] / gd)),
        Check("two heads of opposite sign", is_true(), tuple(opposite.astype(float))),
        Check("heads together: share of the diagonal", at_least(0.9), tuple(diagonal)),
    )  # fmt: skip


def claim_sine(run: Run) -> Claim:
    transformer, gd = run.part_arrays("sine-transformer")["eval"][-1], run.part_arrays("sine-gd")["eval"][-1]
    return claim(
        20, "MLP and linear attention do a gradient step on deep features", "Fig. 4",
        Check("transformer / MLP with gradient step", within(0.8, 1.2), tuple(transformer / np.median(gd))),
        Check("transformer: loss", at_most(0.01), tuple(transformer)),
        Check("MLP with gradient step: loss", at_most(0.01), tuple(gd)),
        note="a trained layer may read and write every channel, the fixed step the last one only; in 8,000 steps at "
        "the published rates, 1e-3 and 3e-4, the ratio was 0.55",
    )  # fmt: skip


def claims_separate(run: Run) -> list[Claim]:
    soft, linear = run.part_arrays("separate-softmax"), run.part_arrays("separate-linear")
    final, steps = soft["eval"][-1], soft["step"]
    # The drop is that from the plateau of the zero predictor; the start lies above it, by the drawn weights' own error.
    dropped = first_crossing(steps, -soft["eval"], -0.5 * (ZERO_LOSS + final))
    copied = first_crossing(steps, soft["copying/next"], 0.5 * soft["copying/next"][-1])
    ratio = soft["copying/next"][-1] / soft["copying/other_without_next"][-1]
    slower = np.median(linear["eval"][-1]) / np.median(final)
    # On the plateau the model has not begun to learn; then this training is too short to decide anything.
    reason = None
    if np.median(final) > 0.9 * ZERO_LOSS:
        reason = (
            f"after {steps[-1]} steps the softmax model is still on the plateau of the zero predictor "
            f"({np.median(final):.3f}; linear first layer: {np.median(linear['eval'][-1]):.3f}); the published batches "
            "of 2,048 and 10,000 steps need the `paper` preset"
        )
    copying_first = (
        Check("steps by which copying is half-way before the loss is", at_least(0.0), dropped - copied),
        Check("final sensitivity, next / other tokens", at_least(5.0), ratio),
    )
    told = [
        claim(
            21, "On separate tokens two layers copy, then do one gradient step, not two", "Fig. 5",
            Check("final loss", relative(0.206, 0.05), final),
            note="copying still sharpens when this training ends: at three quarters of the rate it ended at 0.2176",
        ),
        claim(22, "The first layer learns to copy the next token before the loss falls", "Fig. 5", *copying_first),
        claim(
            23, "A linear first layer fails to copy, or is far slower", "notebook remark",
            Check("final loss, linear / softmax first layer", at_least(1.2), (float(slower),)),
        ),
    ]  # fmt: skip
    return [replace(one, undecided=reason) for one in told]


def first_crossing(steps: np.ndarray, values: np.ndarray, level: np.ndarray) -> np.ndarray:
    """For every column of "records seeds" the step that first reaches its level, interpolated between records."""
    found = []
    for column, goal in zip(values.T, level, strict=True):
        after = max(int((column >= goal).argmax()), 1)
        found.append(np.interp(goal, column[after - 1 : after + 1], steps[after - 1 : after + 1]))
    return np.array(found)


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """The paper's figures 2, 3 and 5 and the weights, with reference algorithms on the same prompts."""
    single, sizes, deep, rollouts = (run.load_arrays(name) for name in ("single", "sizes", "deep", "rollouts"))
    return {
        "training": training_figure(run, single),
        "weights": weights_figure(run, single),
        "sizes": sizes_figure(sizes),
        "shifted": shifted_figure(single),
        "deep": deep_figure(run, deep),
        "rollouts": rollout_figure(rollouts),
        "separate": separate_figure(run),
        "sine": sine_figure(run),
    }


def level(name: str, steps: np.ndarray, value: float) -> Series:
    """A constant drawn over all steps."""
    return Series(name, [steps[0], steps[-1]], [value, value], style="dashed")


def training_figure(run: Run, single: dict[str, np.ndarray]) -> Chart:
    one = run.part_arrays("K1")
    series = [
        over_seeds("one linear layer", one["step"], one["eval"]),
        level("one gradient step", one["step"], float(single["gd"][0])),
    ]
    for heads in (1, 2):
        arrays = run.part_arrays(f"softmax-{heads}")
        series.append(over_seeds(f"softmax, {heads} head{'s'[: heads - 1]}", arrays["step"], arrays["eval"]))
    return Lines("One layer of attention (Fig. 2 left)", "training step", "half-MSE", tuple(series))


def weights_figure(run: Run, single: dict[str, np.ndarray]) -> Chart:
    arrays = run.part_arrays("K1")
    qk, ov = arrays["qk"][0, 0, 0], arrays["ov"][0, 0, 0]
    scale = np.diagonal(qk)[:-1].mean()
    labels = [f"x{i + 1}" for i in range(D)] + ["y"]
    caption = f"The construction has an identity on x, and the entry {-float(single['rate']) / N:.3f} for y."
    panels = (Panel("W_Q W_K^T / m", qk / scale, labels, labels), Panel("W_V W_O m", ov * scale, labels, labels))
    return Heatmaps("The products of the trained weights", panels, caption)


def sizes_figure(sizes: dict[str, np.ndarray]) -> Chart:
    series = (
        Series("one gradient step", sizes["sizes"], sizes["gd"], style="dashed"),
        over_seeds("trained layer", sizes["sizes"], sizes["trained"], "points"),
        over_seeds("interpolated", sizes["sizes"], sizes["interpolated"], "dotted"),
    )
    return Lines("Loss for N = d (Fig. 2)", "N = d", "half-MSE", series, log_y=True)


def shifted_figure(single: dict[str, np.ndarray]) -> Chart:
    charts = []
    for name, scales, label in (
        ("inputs", INPUT_SCALES, "scale of the inputs"),
        ("targets", TARGET_SCALES, "scale of w"),
        ("laws", OTHER_SCALES, "scale, exponential / normal / Laplace inputs"),
        ("replaced", REPLACED, "labels replaced by noise"),
    ):
        series = (
            Series("one gradient step", scales, single[f"{name}/gd"], style="dashed"),
            over_seeds("trained layer", scales, single[f"{name}/trained"]),
        )
        charts.append(Lines(label[0].upper() + label[1:], label, "half-MSE", series, log_y=name != "replaced"))
    return Grid("Outside the training law (Fig. 2 right and appendix)", tuple(charts), 2)


def deep_figure(run: Run, deep: dict[str, np.ndarray]) -> Chart:
    charts = []
    for name, label in (("K2", "two looped layers"), ("K5", "five layers")):
        arrays = run.part_arrays(name)
        series = (
            over_seeds("trained", arrays["step"], arrays["eval"]),
            level("gradient descent, best shared rate", arrays["step"], float(deep[f"{name}/gd"][0])),
            level("GD++, best parameters", arrays["step"], float(deep[f"{name}/plus"][0])),
        )
        charts.append(Lines(label.capitalize(), "training step", "half-MSE", series, log_y=True))
    for name, label in (("K2", "two looped layers"), ("K5", "five layers")):
        series = (
            Series("GD++", DEEP_SCALES, deep[f"{name}/shift_plus"], style="dashed"),
            over_seeds("trained", DEEP_SCALES, deep[f"{name}/shift_trained"]),
        )
        charts.append(
            Lines(f"{label.capitalize()}, scaled inputs", "scale of the inputs", "half-MSE", series, log_y=True)
        )
    return Grid("Deeper models find GD++ (Fig. 3)", tuple(charts), 2)


def rollout_figure(rollouts: dict[str, np.ndarray]) -> Chart:
    loops = np.arange(1, LOOPS + 1)
    series = [
        Series(f"gradient descent, {d:g}", loops, np.where(row < 1, row, np.nan), style="dashed")
        for d, row in zip(rollouts["dampening"], rollouts["gd"], strict=True)
    ]
    series.append(over_seeds("trained layer, 0.75", loops, rollouts["trained"].T))
    return Lines("One layer rolled out, by dampening", "loops", "half-MSE", tuple(series), log_y=True)


def separate_figure(run: Run) -> Chart:
    soft, linear = run.part_arrays("separate-softmax"), run.part_arrays("separate-linear")
    loss = (
        over_seeds("softmax first", soft["step"], soft["eval"]),
        over_seeds("linear first", linear["step"], linear["eval"]),
        level("one gradient step", soft["step"], 0.2062),
        level("two gradient steps", soft["step"], 0.1566),
    )
    copying = tuple(
        over_seeds(f"{name.replace('_', ' ')} token(s)", soft["step"], soft[f"copying/{name}"])
        for name in ("own", "next", "other_without_next")
    )
    charts = (
        Lines("Loss", "training step", "half-MSE", loss),
        Lines("Sensitivity of the first layer's tokens", "training step", "norm of the mean gradient", copying),
    )
    return Grid("Separate tokens: copying comes first (Fig. 5)", charts, 2)


def sine_figure(run: Run) -> Chart:
    transformer, gd = run.part_arrays("sine-transformer"), run.part_arrays("sine-gd")
    series = (
        over_seeds("MLP and linear attention", transformer["step"], transformer["eval"]),
        over_seeds("MLP and a fixed gradient step", gd["step"], gd["eval"]),
    )
    return Lines("Sine waves (Fig. 4)", "training step", "half-MSE", series, log_y=True)
