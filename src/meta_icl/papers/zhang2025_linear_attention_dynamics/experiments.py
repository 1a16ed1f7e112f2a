"""What is computed: gradient flow, and descent on samples, of linear attention."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import tasks
from meta_icl.algorithms import SampleMapLoss, map_loss, sample_map_loss, sample_token_loss, time_course
from meta_icl.analysis import conservation_drift, plateau_table
from meta_icl.models import CubicMLP, MergedLinearAttention, OneLayerAttention, SeparateLinearAttention
from meta_icl.models.theory import MergedPredictor, OneLayerPredictor
from meta_icl.prompt import answer_batch
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.training import FiniteSet, OnMap, Optimiser, finite_set_loss, gradient_flow, train

from .config import Config

N = 31
KEY = 2025
SPECTRA: dict[str, tuple[float, ...]] = {
    "linear": (0.4, 0.3, 0.2, 0.1),
    "geometric": (0.8, 0.4, 0.2, 0.1),
    "power": tuple(tasks.power_spectrum(4, 0.8, trace=2.0)),
}


def flow(part: Run, *, setting: Mapping[str, Any], seeds: int, points: int) -> dict[str, np.ndarray]:
    """Population gradient flow from several seeds: loss curves, plateaus with what is learned there, conserved drift.

    `setting` holds model, spectrum, heads, rank, init, end, and slack: the flow rests once the loss is that far above
    its minimum (nothing: never). Times are denser towards the start.
    """
    loss = map_loss(covariance(setting["spectrum"]), N)
    times = setting["end"] * np.linspace(0, 1, points) ** 2
    stop = None if setting["slack"] is None else float(loss.levels()[-1]) + setting["slack"]
    model, probes = describe(**setting), {"conserved": conserved, "map": effective}
    flows = [
        gradient_flow(model(key=seed_key(seed)), OnMap(loss), times, probes=probes, stop_below=stop)
        for seed in range(seeds)
    ]
    drift = [conservation_drift(path.probes["conserved"]) for path in flows]
    losses, maps = np.stack([path.loss for path in flows]), np.stack([path.probes["map"] for path in flows])
    best = loss.minimiser()
    found = plateau_table(times, losses, maps, best, loss.directions(), min_drop=0.005)
    shared = {"times": times, "loss": losses, "drift": np.array(drift), "levels": loss.levels(), "best_map": best}
    return shared | {f"plateau_{name}": values for name, values in found.items()}


def white_flow(part: Run, *, d: int, heads: int, inits: list[float], points: int, seeds: int) -> dict[str, np.ndarray]:
    """Merged attention on white inputs of trace one: the flow beside its closed form, for several initial scales."""
    loss = map_loss(np.eye(d) / d, N)
    out: dict[str, list[np.ndarray]] = {"times": [], "loss": [], "closed_form": [], "half": [], "half_formula": []}
    drift = 0.0
    for init in inits:
        rows: dict[str, list[Any]] = {name: [] for name in out}
        for seed in range(seeds):
            start = MergedLinearAttention(d, heads, init)(key=seed_key(seed))
            course = time_course.white_course(start.v, start.w_kq, variance=1 / d, n_context=N)
            times = np.linspace(0, 2.5 * course.half_time(), points)
            path = gradient_flow(start, OnMap(loss), times, probes={"conserved": conserved})
            drift = max(drift, conservation_drift(path.probes["conserved"]))
            middle = (course.loss_start + course.loss_end) / 2
            measured = np.interp(-middle, -path.loss, times)
            values = (times, path.loss, course.loss(times), measured, course.half_time())
            for name, value in zip(rows, values, strict=True):
                rows[name].append(np.asarray(value))
        for name, values in rows.items():
            out[name].append(np.stack(values))
    return {name: np.stack(values) for name, values in out.items()} | {
        "inits": np.array(inits),
        "drift": np.array(drift),
    }


def sampled(part: Run, *, setting: Mapping[str, Any], steps: int, n_prompts: int, seeds: int) -> dict[str, np.ndarray]:
    """Gradient descent in float64 on a fixed set of prompts per seed, with rate and initial scale in the code's units.

    Beside it, for the first seeds, population gradient flow from the same weights: the trajectory without a sample.
    `setting` holds model, spectrum, heads, rank, init and rate.
    """
    # U is a product of as many weights, which share the factor N that the code leaves out.
    factors = 3 if setting["model"] == "separate" else 2
    matrix = covariance(setting["spectrum"])
    exact = map_loss(matrix, N)
    model = describe(**{**setting, "init": setting["init"] * N ** (1 / factors)})
    rate = setting["rate"] * N ** (2 / factors)
    with jax.enable_x64(True):
        task = tasks.gaussian_regression(matrix, N)

        def on_set(key: Any) -> SampleMapLoss:
            return sample_map_loss(tasks.whitened_prompts(task, n_prompts, key=key))

        probes = {"conserved": conserved}
        history = descend(part, lambda *, key: FiniteSet(on_set(key)), model, rate, steps, seeds, probes)
        times, maps = history["step"].astype(float), history["map"]
        losses = np.stack([on_set(world_key(seed)).along(maps[:, seed]) for seed in range(seeds)])
        flows = [
            gradient_flow(model(key=seed_key(seed)), OnMap(exact), rate * times, tau=0.5).loss
            for seed in range(min(seeds, 2))
        ]
    drift = [conservation_drift(history["conserved"][:, seed]) for seed in range(seeds)]
    found = plateau_table(
        times, losses, np.moveaxis(maps, 1, 0), exact.minimiser(), exact.directions(), min_drop=0.005, max_slowness=0.2
    )
    shared = {"times": times, "loss": losses, "drift": np.array(drift), "levels": exact.levels()}
    return shared | {"plateau_height": found["height"], "flow": np.stack(flows)}


def mlp_beside_attention(
    part: Run, *, spectrum: list[float], heads: int, steps: int, n_prompts: int
) -> dict[str, np.ndarray]:
    """The MLP on cubic features and merged attention from the same weights, step by step in float64."""
    found = {}
    with jax.enable_x64(True):
        task = tasks.gaussian_regression(covariance(spectrum), N)
        on_set = sample_map_loss(tasks.whitened_prompts(task, n_prompts, key=world_key(0)))
        prompts = task.sample_batch(8, key=jax.random.key(1))
        kinds = {"merged": (MergedLinearAttention, as_attention), "mlp": (CubicMLP, lambda mlp: mlp)}
        for name, (kind, form) in kinds.items():
            probes = {"answers": lambda predictor, form=form: answer_batch(form(predictor), prompts)}
            model = kind(len(spectrum), heads, 0.01)
            history = descend(None, FiniteSet(on_set), model, 0.1, steps, 1, probes, record=1)
            found |= {name: on_set.along(history["map"][:, 0]), f"answers/{name}": history["answers"][:, 0]}
    return found


def as_attention(merged: MergedPredictor) -> OneLayerPredictor:
    """Merged attention as a layer that reads tokens: values of their y, keys and queries of their x."""
    v = jnp.pad(merged.v[:, None], ((0, 0), (merged.w_kq.shape[1], 0)))
    return OneLayerPredictor(v, jnp.pad(merged.w_kq, ((0, 0), (0, 1), (0, 0))), None, "linear")


def mixture(part: Run, *, share: float, steps: int, n_prompts: int, seeds: int) -> dict[str, np.ndarray]:
    """Merged attention with all its blocks on a mixture of new and fixed weights, white inputs, D = 4.

    Test sets: prompts with new weights (in context), and with the fixed ones behind a context of noise (in weights).
    """
    d = 4
    regression = tasks.gaussian_regression(np.eye(d) / d, N)

    def losses(key: Any) -> dict[str, SampleMapLoss]:
        data_key, fixed_key, test_key = jax.random.split(key, 3)
        fixed = jax.random.normal(fixed_key, (d, 1))
        fixed = fixed * np.sqrt(d) / jnp.linalg.norm(fixed)
        # As in the code: with no new weights at all, the context of the fixed ones is noise in training too.
        seen = tasks.FixedWeightMixture(regression, fixed, share=share, context="noise" if share == 0 else "labels")
        remembered = tasks.FixedWeightMixture(regression, fixed, share=0.0, context="noise")
        sets = {"train": (seen, data_key), "in_context": (regression, test_key), "in_weights": (remembered, test_key)}
        return {name: sample_token_loss(task.sample_batch(n_prompts, key=k)) for name, (task, k) in sets.items()}

    model = OneLayerAttention(d, 8, init=1e-6 * N**0.5)
    history = descend(part, lambda *, key: FiniteSet(losses(key)["train"]), model, 5e-4 * N, steps, seeds, {})
    worlds = [losses(world_key(seed)) for seed in range(seeds)]
    names = ("in_context", "in_weights")
    return {"step": history["step"]} | {
        name: np.stack([world[name].along(history["map"][:, seed]) for seed, world in enumerate(worlds)])
        for name in names
    }


def softmax(
    part: Run, *, rank: int | None, init: float, steps: int, n_prompts: int, seed: int
) -> dict[str, np.ndarray]:
    """Softmax attention, merged (no rank) or separate, by gradient descent on a fixed set of prompts."""
    task = tasks.gaussian_regression(covariance(SPECTRA["linear"]), N)
    prompts = task.sample_batch(n_prompts, key=world_key(seed))

    def loss(predictor: Any) -> Any:
        return jnp.mean(jnp.square(answer_batch(predictor, prompts) - prompts.y[:, -1]))

    trained = train(
        task,
        OneLayerAttention(4, 5, rank, "softmax", init),
        steps=steps,
        key=jax.random.key(KEY),
        seeds=[seed],
        optimiser=Optimiser(name="sgd", learning_rate=0.1),
        objective=lambda predictor, task, batch, key: loss(predictor),
        probes={"exact": of_predictor(loss)},
        record=early_records(steps, 200),
        store=part,
    )
    return {"step": trained.history["step"], "loss": trained.history["exact"][:, 0]}


def descend(
    part: Run | None,
    world: Any,
    model: Any,
    rate: float,
    steps: int,
    seeds: int,
    probes: Mapping[str, Callable[[Any], Any]],
    record: int | None = None,
) -> dict[str, np.ndarray]:
    """Full-batch gradient descent; the history holds the learned map at every record, denser towards the start."""
    measured = {name: of_predictor(probe) for name, probe in {"map": effective, **probes}.items()}
    return train(
        world,
        model,
        steps=steps,
        key=jax.random.key(KEY),
        seeds=seeds,
        objective=finite_set_loss,
        probes=measured,
        optimiser=Optimiser(name="sgd", learning_rate=rate),
        record=record or early_records(steps, 400),
        store=part,
    ).history


def run(config: Config, run: Run) -> None:
    """Everything is a part of its own; there is nothing to measure across them."""
    c, linear = config, list(SPECTRA["linear"])
    shared = {"model": "separate", "spectrum": linear, "heads": 5, "rank": 1, "init": c.separate_init}
    base = {**shared, "end": c.separate_end, "slack": 1e-7}
    merged = {**base, "model": "merged", "heads": 8, "end": 1_500.0}
    eight = {**base, "spectrum": list(tasks.linear_spectrum(8)), "heads": 9, "init": c.rank_init, "end": c.rank_end}
    flows: dict[str, dict[str, Any]] = {
        f"separate-{name}": {**base, "spectrum": list(s)} for name, s in SPECTRA.items()
    }
    flows |= {f"heads-{h}": {**base, "heads": h, "end": c.few_heads_end, "slack": None} for h in c.few_heads}
    flows |= {f"init-{init:g}": {**base, "init": init} for init in c.inits}
    flows |= {"merged": {**merged, "init": 1e-6}}
    flows |= {f"merged-init-{init:g}": {**merged, "init": init} for init in (1e-2, 1e-4)}
    ranks = {f"rank-{r}": {**eight, "rank": r, "slack": 1e-5} for r in c.ranks}
    run_parts(run, flow, {name: {"setting": s, "seeds": c.seeds, "points": c.points} for name, s in flows.items()})
    run_parts(run, flow, {name: {"setting": s, "seeds": c.rank_seeds, "points": c.points} for name, s in ranks.items()})
    white = {"heads": 8, "inits": [1e-2, 1e-3, 1e-4], "points": 400, "seeds": c.seeds}
    run_parts(run, white_flow, {f"white-{d}": {"d": d, **white} for d in c.white})
    published = {**shared, "init": 0.01, "rate": 0.02}
    size = {"steps": c.sampled_steps, "n_prompts": c.n_prompts, "seeds": c.seeds}
    sets = {f"sampled-{name}": {"setting": {**published, "spectrum": list(s)}, **size} for name, s in SPECTRA.items()}
    sets["sampled-half-rate"] = {"setting": {**published, "rate": 0.01}, **size, "steps": 2 * c.sampled_steps}
    smaller = {"steps": c.merged_steps, "n_prompts": c.merged_prompts}
    setting = {**published, "model": "merged", "heads": 8, "init": 1e-6, "rate": 1e-3}
    sets["sampled-merged"] = {"setting": setting, **smaller, "seeds": c.seeds}
    run_parts(run, sampled, sets)
    run_parts(run, mlp_beside_attention, {"mlp": {"spectrum": linear, "heads": 8, **smaller, "steps": c.mlp_steps}})
    mixtures = {"steps": c.mixture_steps, "n_prompts": c.merged_prompts, "seeds": c.seeds}
    run_parts(run, mixture, {f"mixture-{share:g}": {"share": share, **mixtures} for share in c.shares})
    soft = {"steps": c.softmax_steps, "n_prompts": c.softmax_prompts}
    kinds = {"merged": {"rank": None, "init": 0.01, **soft}, "separate": {"rank": 1, "init": 0.05, **soft}}
    seeds = range(c.softmax_seeds)
    run_parts(run, softmax, {f"softmax-{k}-{seed}": {**s, "seed": seed} for k, s in kinds.items() for seed in seeds})


# Pieces.


def covariance(spectrum: Any) -> np.ndarray:
    """The covariance of a spectrum, in a random basis that is the same for every run."""
    return tasks.covariance_from(spectrum, tasks.random_rotation(len(spectrum), key=jax.random.key(KEY)))


def seed_key(seed: int) -> Any:
    """The key of a seed's weights: `train` derives its init keys in the same way."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(KEY), seed), 0)


def world_key(seed: int) -> Any:
    """The key from which `train` draws a seed's world, here its set of prompts."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(KEY), seed), 3)


def early_records(steps: int, n: int) -> list[int]:
    """At most `n` steps at which to record, denser towards the start, where drops follow each other quickly."""
    return sorted({round(steps * share**2) for share in np.linspace(0, 1, n)})


def describe(*, model: str, spectrum: Sequence[float], heads: int, rank: int, init: float, **rest: Any) -> Any:
    """The description of the model of a setting."""
    d = len(spectrum)
    return MergedLinearAttention(d, heads, init) if model == "merged" else SeparateLinearAttention(d, heads, rank, init)


def conserved(predictor: Any) -> Any:
    """What gradient flow conserves, as a probe."""
    return predictor.conserved()


def effective(predictor: Any) -> Any:
    """The learned map U, as a probe."""
    return predictor.effective_map()


def of_predictor(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A function of a predictor as a probe of `train`."""
    return lambda predictor, key: function(predictor)
