"""Training dynamics of in-context learning in linear attention (Zhang, Singh, Latham & Saxe, ICML 2025; 2501.16265).

Claims. With key and query merged into one matrix, linear attention is a two-layer linear network on cubic features and
learns regression in context in one drop of the loss. With separate keys and queries of rank one it passes through D - 1
plateaus, at which it does principal component regression in context with one, two, .. components. Heights, time courses
and conserved quantities have closed forms.

Setting. x ~ N(0, Lambda), w ~ N(0, I), y = w.x, N = 31 context pairs (the code's length 32 includes the query), D = 4
with eigenvalues .4, .3, .2, .1; loss is the full mean squared error. Most runs need no samples: they are gradient flow,
tau dW/dt = -1/2 dL/dW with tau = 1, on the exact population loss. "Sampled" runs are gradient descent on a finite set
of prompts, as in the public code; that code omits the factor 1/N of the text, so its rates and initial scales are
multiplied by powers of N here, which makes the two the same path. They run in float64: what descent changes in the
conserved quantities, of the order of the rate, is below what float32 rounds away over as many steps.

Expected: plateaus at .64057971, .37737216, .20980460 and the end at .13599507 (D = 4); D = 8 in `levels`.

Command: `meta-icl reproduce zhang2025`. Times on two CPU cores: see `TIMES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import tasks
from meta_icl.algorithms import SampleMapLoss, map_loss, sample_map_loss, sample_token_loss, time_course
from meta_icl.analysis import conservation_drift, first_below, nearest_plateau, plateau_table, plateaus
from meta_icl.models import CubicMLP, MergedLinearAttention, OneLayerAttention, SeparateLinearAttention
from meta_icl.plotting import Bars, Chart, Grid, Heatmaps, Lines, Panel, Series, over_seeds, thin
from meta_icl.prompt import answer_batch
from meta_icl.runs import Check, Claim, Rule, Run, absolute, at_least, at_most, is_true, relative, within
from meta_icl.sweeps import run_parts
from meta_icl.training import FiniteSet, OnMap, Optimiser, finite_set_loss, gradient_flow, train

TIMES = {"smoke": "30 s", "small": "7 CPU-min", "paper": "1 h"}
IDS = tuple(f"Z{i}" for i in range(1, 12))
N = 31
KEY = 2025

SPECTRA: dict[str, tuple[float, ...]] = {
    "linear": (0.4, 0.3, 0.2, 0.1),
    "geometric": (0.8, 0.4, 0.2, 0.1),
    "power": tuple(tasks.power_spectrum(4, 0.8, trace=2.0)),
}


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments; an empty tuple leaves an experiment out. Times are in units of tau."""

    seeds: int = 6
    points: int = 3_000
    separate_init: float = 0.02
    separate_end: float = 200_000.0
    white: tuple[int, ...] = (2, 4)
    ranks: tuple[int, ...] = (1, 2, 4, 8)
    rank_seeds: int = 6
    rank_init: float = 0.05
    rank_end: float = 1_000_000.0
    few_heads: tuple[int, ...] = (1, 2, 3)
    few_heads_end: float = 50_000.0
    inits: tuple[float, ...] = (0.08, 0.04, 0.02)
    n_prompts: int = 80_000
    sampled_steps: int = 100_000
    merged_prompts: int = 5_000
    merged_steps: int = 6_000
    mlp_steps: int = 600
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    mixture_steps: int = 4_000
    softmax_steps: int = 6_000
    softmax_prompts: int = 600
    softmax_seeds: int = 5


PRESETS = {
    "smoke": Config(
        seeds=2, points=600, separate_init=0.05, separate_end=20_000.0, ranks=(), few_heads=(), white=(4,),
        inits=(0.1, 0.05), n_prompts=2_000, sampled_steps=200, merged_prompts=1_000, merged_steps=100, mlp_steps=20,
        shares=(0.0, 1.0), mixture_steps=100, softmax_steps=10, softmax_prompts=50, softmax_seeds=1
    ),
    # As published but for the starts of population flow, 0.02 instead of 0.01 and 0.05 instead of 0.005 in the rank
    # sweep: plateaus last as 1 / start, their heights do not depend on it. Sampled linear attention takes ten times the
    # published 10,000 steps, because population flow from the same starts says that slow seeds need 90,000 to end.
    # Softmax attention has 600 prompts, 5 seeds, and a rate (0.1) at which its loss never rises.
    "small": Config(),
    "paper": Config(
        separate_init=0.01, separate_end=400_000.0, inits=(0.04, 0.02, 0.01), rank_init=0.005, rank_end=10_000_000.0,
        softmax_prompts=5_000, softmax_steps=20_000, softmax_seeds=6
    ),
}  # fmt: skip


# What is computed. Every function below is one part of the run.


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
    losses = {}
    with jax.enable_x64(True):
        task = tasks.gaussian_regression(covariance(spectrum), N)
        on_set = sample_map_loss(tasks.whitened_prompts(task, n_prompts, key=world_key(0)))
        for name, model in (("merged", MergedLinearAttention), ("mlp", CubicMLP)):
            history = descend(None, FiniteSet(on_set), model(len(spectrum), heads, 0.01), 0.1, steps, 1, {}, record=1)
            losses[name] = on_set.along(history["map"][:, 0])
    return losses


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


# Claims; tolerances are those of the facts about the paper, fixed before any run.


def claims(run: Run) -> list[Claim]:
    """Z1 .. Z11."""
    return [claim(run) for claim in (z1, z2, z3, z4, z5, z6, z7, z8, z9, z10, z11)]


Row = tuple[str, Rule, Any]  # quantity, rule, measured: a number or one per seed


def claim(number: str, statement: str, source: str, rows: Sequence[Row], note: str | None = None) -> Claim:
    """A claim of the paper from the rows of its checks."""
    checks = tuple(Check(name, rule, tuple(np.atleast_1d(values).astype(float))) for name, rule, values in rows)
    undecided = None if checks else "this preset leaves the experiment out"
    return Claim(f"zhang2025/{number}", statement, source, checks, undecided, note)


def z1(run: Run) -> Claim:
    flow_arrays, set_arrays = run.part_arrays("merged"), run.part_arrays("sampled-merged")
    end = float(flow_arrays["levels"][-1])
    rows: list[Row] = []
    for name, arrays, rule in (
        ("population", flow_arrays, absolute(end, 1e-5)),
        ("sampled", set_arrays, relative(end, 0.05)),
    ):
        between = np.isfinite(arrays["plateau_height"]).sum(1)
        rows.append((f"{name}: plateaus between start and end", absolute(0, 0), between))
        rows.append((f"{name}: end loss", rule, arrays["loss"][:, -1]))
    return claim("Z1", "Merged attention learns in one abrupt drop to the best linear map", "merged loss figure", rows)


def z2(run: Run) -> Claim:
    losses = run.part_arrays("mlp")
    gap = np.abs(losses["merged"] - losses["mlp"]).max()
    rows: list[Row] = [("largest difference of the losses at any step, float64", at_most(1e-10), gap)]
    return claim("Z2", "Merged attention and an MLP on cubic features learn alike, step by step", "Fig. 1", rows)


def z3(run: Run) -> Claim:
    rows: list[Row] = []
    for d, arrays in run.arrays_of_parts("white-").items():
        errors = np.abs(arrays["loss"] - arrays["closed_form"]).max(-1)  # inits, seeds
        at = int(np.argmin(np.abs(arrays["inits"] - 1e-3)))
        rows.append((f"D = {d}: largest error of the closed form, start 1e-3", at_most(1e-3), errors[at]))
        falls = (np.diff(errors, axis=0) < 0).all(0)
        rows.append((f"D = {d}: the error falls with the start", is_true(), falls.astype(float)))
    return claim("Z3", "The loss of merged attention on white inputs follows the closed form", "time-course eq.", rows)


def z4(run: Run) -> Claim:
    rows: list[Row] = []
    for kind, start, rule, tolerance in (
        ("population", "separate-", absolute, 1e-3),
        ("sampled", "sampled-", relative, 0.02),
    ):
        for name in SPECTRA:
            arrays = run.part_arrays(start + name)
            for m, level in enumerate(arrays["levels"][1:-1], start=1):
                heights = plateau_near(arrays, "height", float(level))
                rows.append((f"{kind}, {name} spectrum: plateau {m}", rule(float(level), tolerance), heights))
            end = rule(float(arrays["levels"][-1]), tolerance)
            rows.append((f"{kind}, {name} spectrum: end", end, arrays["loss"][:, -1]))
    found = {name: run.part_arrays(f"separate-{name}") for name in SPECTRA}
    shares = [f"{n} {np.mean(a['loss'][:, -1] < a['levels'][-1] + 1e-3):g}" for n, a in found.items()]
    note = "share of seeds that reach the end of population flow: " + ", ".join(shares)
    statement = "Separate attention of rank one passes the level of every next eigenvector"
    return claim("Z4", statement, "loss figure", rows, note)


def z5(run: Run) -> Claim:
    rows: list[Row] = []
    for name in SPECTRA:
        arrays = run.part_arrays(f"separate-{name}")
        for m in range(1, len(arrays["levels"]) - 1):
            share, where = plateau_near(arrays, "share", float(arrays["levels"][m])), f"{name}, plateau {m}: largest"
            rows.append((f"{where} |share - 1| of learned directions", at_most(0.02), np.abs(share[:, :m] - 1).max(1)))
            rows.append((f"{where} |share| of others", at_most(0.02), np.abs(share[:, m:]).max(1)))
    return claim("Z5", "At plateau m the map is principal component regression with m components", "PCR claim", rows)


def z6(run: Run) -> Claim:
    rows: list[Row] = []
    flows = [
        "merged",
        *(f"separate-{name}" for name in SPECTRA),
        *(name for name in run.parts() if name.startswith("white")),
    ]
    for name in flows:
        drift = np.atleast_1d(run.part_arrays(name)["drift"])
        rows.append((f"{name}, population flow: drift", at_most(1e-10), drift))
    full, half = run.part_arrays("sampled-linear")["drift"], run.part_arrays("sampled-half-rate")["drift"]
    rows.append(
        ("descent: drift at a rate over drift at half the rate, same time (2 if linear)", within(1.5, 2.5), full / half)
    )
    return claim(
        "Z6", "Gradient flow conserves the differences of the weights' inner products", "conservation laws", rows
    )


def z7(run: Run) -> Claim:
    found = {int(r): arrays for r, arrays in run.arrays_of_parts("rank-").items()}
    ranks = sorted(found)
    rows: list[Row] = []
    for name, level in (("loss 0.25", 0.25), ("half-way to the last level", None)):
        times = {}
        for r in ranks:
            middle = float(found[r]["levels"][-2:].mean()) if level is None else level
            times[r] = np.median(first_below(found[r]["times"], found[r]["loss"], middle))
        for low, high in zip(ranks, ranks[1:], strict=False):
            ratio = times[low] / times[high]
            rows.append((f"median time to {name}, rank {low} / rank {high}", at_least(1.0), ratio))
    notes = []
    for r in ranks:
        levels = found[r]["levels"]
        heights = [row[np.isfinite(row)] for row in found[r]["plateau_height"]]
        learned = [int(np.argmin(np.abs(levels - height))) for height in heights[0]]
        notes.append(f"rank {r}: after {', '.join(map(str, learned)) or 'none'}")
        for m in range(r, 8, r):
            near = plateau_near(found[r], "height", float(levels[m]))
            rows.append((f"rank {r}: a plateau after {m} directions", absolute(float(levels[m]), 0.01), near))
    return claim(
        "Z7",
        "Higher rank learns faster, with conspicuous plateaus after multiples of the rank",
        "low-rank figure",
        rows,
        note="plateaus by number of learned directions, first seed: " + "; ".join(notes),
    )


def z8(run: Run) -> Claim:
    found = {float(s): arrays for s, arrays in run.arrays_of_parts("mixture-").items()}
    fall = {s: {k: a[k][:, -1] / a[k][:, 0] for k in ("in_context", "in_weights")} for s, a in found.items()}
    rows: list[Row] = []
    for share, falls, stays in ((0.0, "in_weights", "in_context"), (1.0, "in_context", "in_weights")):
        words = falls.replace("_", " "), stays.replace("_", " ")
        rows.append((f"share {share:g}: loss {words[0]}, end / start", at_most(0.5), fall[share][falls]))
        rows.append((f"share {share:g}: loss {words[1]}, end / start", at_least(0.95), fall[share][stays]))
    for share in sorted(set(fall) - {0.0, 1.0}):
        between = [
            fall[0.0]["in_weights"] < fall[share]["in_weights"],
            fall[share]["in_context"] > fall[1.0]["in_context"],
        ]
        rows.append(
            (
                f"share {share:g}: each ability learned less than by its specialist",
                is_true(),
                np.all(between, 0).astype(float),
            )
        )
    return claim(
        "Z8", "The share of new weights decides between learning in context and in weights", "ICL/IWL figure", rows
    )


def z9(run: Run) -> Claim:
    counts = {}
    for kind in ("merged", "separate"):
        parts = run.arrays_of_parts(f"softmax-{kind}-").values()
        counts[kind] = [1 + len(plateaus(a["step"], a["loss"], min_drop=0.03, max_slowness=0.25)) for a in parts]
    rows: list[Row] = [
        ("merged: number of drops", absolute(1, 0), counts["merged"]),
        ("separate, rank one: number of drops", at_least(2), counts["separate"]),
    ]
    return claim("Z9", "Softmax attention, too, learns in one drop if merged, in several if separate", "appendix", rows)


def z10(run: Run) -> Claim:
    found = {float(name): arrays for name, arrays in run.arrays_of_parts("init-").items()}
    inits = sorted(found, reverse=True)
    middle = {i: first_below(a["times"], a["loss"], (a["levels"][0] + a["levels"][1]) / 2) for i, a in found.items()}
    rows: list[Row] = []
    for large, small in zip(inits, inits[1:], strict=False):
        ratio = middle[small] / middle[large]
        rows.append(
            (f"separate: first plateau, start {small:g} / start {large:g}", relative(large / small, 0.2), ratio)
        )
    merged = {float(name): arrays for name, arrays in run.arrays_of_parts("merged-init-").items()}
    rate = time_course.merged_escape_rate(covariance(SPECTRA["linear"]))
    half = {i: first_below(a["times"], a["loss"], (a["levels"][0] + a["levels"][-1]) / 2) for i, a in merged.items()}
    big, small = sorted(merged, reverse=True)
    added = (half[small] - half[big]) / (2 * np.log(big / small) / rate)
    rows.append(
        (f"merged: added time, start {big:g} to {small:g}, over ln(s0 ratio) / escape rate", relative(1.0, 0.2), added)
    )
    return claim(
        "Z10",
        "Plateaus last as 1 / start for separate attention, and as its logarithm for merged",
        "dynamics eq.",
        rows,
    )


def z11(run: Run) -> Claim:
    rows: list[Row] = []
    for heads, arrays in sorted(run.arrays_of_parts("heads-").items()):
        level = float(arrays["levels"][int(heads)])
        rows.append((f"{heads} heads of rank one, D = 4: end loss", absolute(level, 1e-3), arrays["loss"][:, -1]))
    return claim(
        "Z11",
        "Every head of rank one adds one direction: with H < D heads training ends at level H",
        "derived from the dynamics",
        rows,
    )


def plateau_near(arrays: dict[str, np.ndarray], name: str, level: float) -> np.ndarray:
    """An entry of the plateau table at every seed's plateau nearest to a level; NaN for a seed without any."""
    index = nearest_plateau(arrays["plateau_height"], level)
    return np.stack(
        [
            row[at] if at >= 0 else np.full_like(row[0], np.nan)
            for row, at in zip(arrays[f"plateau_{name}"], index, strict=True)
        ]
    )


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """The paper's figures, with the levels of theory drawn in."""
    charts = {
        "merged": merged_figure(run),
        "separate": spectra_figure(
            run,
            "separate-",
            "time / tau",
            "Separate keys and queries of rank one: a plateau per eigenvector",
            "Population gradient flow from several seeds: heights are universal, times are not.",
        ),
        "sampled": spectra_figure(
            run,
            "sampled-",
            "step",
            "Separate attention, gradient descent on finite sets of prompts",
            "Every seed has its own set. Dashed: population flow from the same weights, without a sample.",
        ),
        "time_course": time_course_figure(run),
        "maps": maps_figure(run),
        "inits": init_figure(run),
        "mixture": mixture_figure(run),
        "softmax": softmax_figure(run),
        "conserved": conserved_figure(run),
    }
    for name, start, title in (
        ("ranks", "rank-", "Rank of keys and queries, D = 8, 9 heads"),
        ("few_heads", "heads-", "Fewer heads than dimensions, D = 4, rank one"),
    ):
        if found := run.arrays_of_parts(start):
            charts[name] = first_seeds_figure(found, start.removesuffix("-"), title)
    return charts


def curves(arrays: dict[str, np.ndarray], label: str = "seed") -> list[Series]:
    """One thinned curve per seed, up to the time at which all are at rest."""
    rest = arrays["loss"][:, -1:] + 1e-4 * (arrays["loss"][:, :1] - arrays["loss"][:, -1:])
    moving = (arrays["loss"] > rest).any(0)
    end = min(int(1.05 * (np.flatnonzero(moving)[-1] + 2)) if moving.any() else 2, arrays["loss"].shape[1])
    return [Series(f"{label} {i}", *thin(arrays["times"][:end], loss[:end])) for i, loss in enumerate(arrays["loss"])]


def level_lines(levels: np.ndarray) -> tuple[tuple[str, float], ...]:
    """The levels of theory as labelled lines."""
    return tuple((f"{m} learned", float(level)) for m, level in enumerate(levels))


def spectra_figure(run: Run, start: str, x_label: str, title: str, caption: str) -> Chart:
    """Loss curves of every spectrum between the levels of theory, with the flows beside sampled runs."""
    charts = []
    for name, spectrum in SPECTRA.items():
        arrays = run.part_arrays(start + name)
        series = curves(arrays)
        for seed, loss in enumerate(arrays.get("flow", ())):
            series.append(Series(f"flow, seed {seed}", *thin(arrays["times"], loss), style="dashed"))
        label = "Spectrum " + ", ".join(f"{value:.3g}" for value in spectrum)
        charts.append(Lines(label, x_label, "mean squared error", series, h_lines=level_lines(arrays["levels"])))
    return Grid(title, tuple(charts), 2, caption)


def merged_figure(run: Run) -> Chart:
    flow_arrays, set_arrays, mlp = (run.part_arrays(name) for name in ("merged", "sampled-merged", "mlp"))
    ends = (("zero map", float(flow_arrays["levels"][0])), ("best map", float(flow_arrays["levels"][-1])))
    left = Lines("Population flow", "time / tau", "mean squared error", curves(flow_arrays), h_lines=ends)
    middle = Lines("Gradient descent on a finite set", "step", "mean squared error", curves(set_arrays), h_lines=ends)
    step = np.arange(len(mlp["mlp"]))
    both = (
        Series("merged attention", *thin(step, mlp["merged"])),
        Series("MLP, cubic features", *thin(step, mlp["mlp"]), style="dashed"),
    )
    right = Lines("The same weights, step by step", "step", "mean squared error", both)
    return Grid("Merged key and query: one drop", (left, middle, right), 3)


def time_course_figure(run: Run) -> Chart:
    charts = []
    for d, arrays in run.arrays_of_parts("white-").items():
        series = []
        for init, t, loss, exact in zip(
            arrays["inits"], arrays["times"], arrays["loss"], arrays["closed_form"], strict=True
        ):
            series.append(Series(f"flow, start {init:g}", *thin(t[0], loss[0])))
            series.append(Series(f"closed form, start {init:g}", *thin(t[0], exact[0]), style="dashed"))
        charts.append(Lines(f"D = {d}", "time / tau", "mean squared error", series))
    return Grid("The closed-form time course of merged attention on white inputs", tuple(charts), 2)


def maps_figure(run: Run) -> Chart:
    arrays = run.part_arrays("separate-linear")
    n = int(np.isfinite(arrays["plateau_height"][0]).sum())
    panels = [Panel(f"plateau {m + 1}", arrays["plateau_map"][0, m]) for m in range(n)]
    return Heatmaps(
        "The learned map U at the plateaus",
        [*panels, Panel("best map", arrays["best_map"])],
        "First seed; the covariance stands in a random basis. Each plateau adds one eigenvector.",
        shared_scale=True,
    )


def first_seeds_figure(found: dict[str, dict[str, np.ndarray]], what: str, title: str) -> Chart:
    """The first seed of every part, over the logarithm of time."""
    series = [Series(f"{what} {n}", *thin(np.maximum(a["times"], 1.0), a["loss"][0])) for n, a in sorted(found.items())]
    levels = level_lines(next(iter(found.values()))["levels"])
    return Lines(title, "time / tau", "mean squared error", series, log_x=True, h_lines=levels)


def init_figure(run: Run) -> Chart:
    left, right = [], []
    for target, start in ((left, "init-"), (right, "merged-init-")):
        for init, arrays in sorted(run.arrays_of_parts(start).items(), key=lambda item: -float(item[0])):
            target.append(Series(f"start {init}", *thin(np.maximum(arrays["times"], 1.0), arrays["loss"][0])))
    charts = [
        Lines(name, "time / tau", "mean squared error", s, log_x=True)
        for name, s in (("Separate", left), ("Merged", right))
    ]
    return Grid("Smaller starts wait longer: as 1 / start if separate, as its logarithm if merged", tuple(charts), 2)


def mixture_figure(run: Run) -> Chart:
    charts = []
    found = sorted(run.arrays_of_parts("mixture-").items(), key=lambda item: float(item[0]))
    for name in ("in_context", "in_weights"):
        series = [over_seeds(f"share {s}", a["step"], a[name].T) for s, a in found]
        charts.append(Lines(f"Test loss {name.replace('_', ' ')}", "step", "mean squared error", series))
    return Grid("A share of prompts with new weights, the rest with one fixed weight vector", tuple(charts), 2)


def softmax_figure(run: Run) -> Chart:
    charts = []
    for kind in ("merged", "separate"):
        found = run.arrays_of_parts(f"softmax-{kind}-")
        series = [Series(f"seed {s}", *thin(a["step"], a["loss"])) for s, a in found.items()]
        charts.append(Lines(f"{kind.capitalize()} key and query", "step", "mean squared error", series))
    return Grid("Softmax attention", tuple(charts), 2)


def conserved_figure(run: Run) -> Chart:
    names = ("merged", *(f"separate-{name}" for name in SPECTRA), "white-4", "sampled-half-rate", "sampled-linear")
    drift = np.array([float(np.max(run.part_arrays(name)["drift"])) for name in names])
    values = np.log10(np.maximum(drift, 1e-18))
    return Bars("Drift of the conserved quantities, log10", "run", "log10 of the largest drift", names, values)
