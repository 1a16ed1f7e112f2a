"""Pretraining task diversity and the emergence of non-Bayesian in-context learning (Raventos et al., NeurIPS 2023).

Claims. A decoder pretrained on linear regressions from a finite pool of M tasks answers like the Bayesian with that
pool as prior (dMMSE) when M is small, and like the Bayesian with the Gaussian prior (ridge) when M is large: beyond a
threshold M* more training brings it closer to ridge on new tasks, below it further away. In between it does better on
new tasks than any smoothing of dMMSE.

Setting. w ~ N(0, I_D), x ~ N(0, I_D), y = w.x + N(0, 0.25), D = 8, K = 16 points; tokens (0, x) and (y, 0); loss on
all K noisy targets. Base decoder: 8 layers, width 128, 2 heads, no bias in the maps in and out; Adam 1e-3 with a
triangular rate, 500,000 steps of 256 prompts. Errors are over D and averaged over the K positions; Delta(a, b) is the
mean squared difference of two predictors over D.

Shrunk in `small`: D = 4, K = 8, noise variance 0.125 (the same ratio of signal to noise), 2 layers of width 64, larger
initial weights, 20,000 steps of 64 prompts by Muon at a rate of 3e-3. V-1 is measured at M = 8, V-2, V-7 and V-8 at the
ends of M = 8 .. 1024.

Command: `meta-icl reproduce raventos2023`. Times on two CPU cores: see `TIMES`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import draws
from meta_icl.algorithms import DiscreteMmse, EveryPosition, Ridge, smoothed_dmmse
from meta_icl.evaluation import (
    answers_by_position,
    between_tasks,
    closest_approach,
    crossing,
    errors_by_position,
)
from meta_icl.models import Decoder, Interleaved, Learner
from meta_icl.plotting import Chart, Grid, Lines, Series
from meta_icl.prompt import Prompt, answer_positions
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, absolute, at_least, at_most, is_true, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import FunctionRegression, Linear
from meta_icl.training import Optimiser, every_position_mse, train

TIMES = {"smoke": "1 CPU-min", "small": "19 CPU-min", "paper": "weeks (GPU)"}
IDS = ("B-1", *(f"V-{i}" for i in range(1, 14)))
MODELS = {
    "mini": (8, 1, 2),
    "tiny": (64, 2, 2),
    "small": (64, 4, 2),
    "base": (128, 8, 2),
    "base-wide": (256, 8, 2),
    "small-wide": (128, 4, 2),
    "small-deep": (64, 8, 2),
    "large": (256, 12, 4),
}  # width, layers, heads
EVAL_KEY, TRAIN_KEY, POOL_KEY = 104, 100, 102
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # on the arc between two tasks
WIDTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)  # of the Gaussians of smoothed dMMSE


@dataclass(frozen=True)
class Training:
    """One pretraining; `m` is the size of the pool of tasks, K = 2 d the number of points."""

    m: int
    model: str = "base"
    d: int = 8
    batch: int = 256
    steps: int = 500_000
    weight_decay: float = 0.0

    @property
    def name(self) -> str:
        """The name of the part."""
        decay = f"-wd{self.weight_decay:g}" if self.weight_decay else ""
        return f"{self.model}-D{self.d}-M{self.m}-B{self.batch}-S{self.steps}{decay}"

    @property
    def noise_variance(self) -> float:
        """0.25 at D = 8, with the ratio of signal to noise kept."""
        return 0.25 * self.d / 8


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments."""

    seeds: int = 1
    n_eval: int = 1_000
    n_baseline: int = 20_000
    optimiser: str = "muon"
    learning_rate: float = 3e-3
    init_std: float = 0.125  # 1 / sqrt(64); GPT-2's 0.02 is for wider networks
    trainings: tuple[Training, ...] = tuple(Training(m, "tiny", 4, 64, 20_000) for m in (8, 64, 1_024))


_LADDER = tuple(2**i for i in range(1, 21))
_PAPER = (
    *(Training(m, batch=batch) for batch in (256, 512) for m in _LADDER),
    *(Training(m, steps=1_000_000) for m in _LADDER[11:17]),
    *(Training(m, "small", batch=batch) for batch in (256, 512) for m in _LADDER),
    *(
        Training(m, model, batch=batch)
        for model in ("base-wide", "small-wide", "small-deep")
        for batch in (256, 512)
        for m in _LADDER[8:17]
    ),
    *(Training(m, "large", d, batch) for d in (8, 16, 32) for batch in (256, 512) for m in (*_LADDER[11:18], 2**20)),
    *(Training(m, batch=b, weight_decay=w) for w in (1e-4, 1e-3, 1e-2) for b in (256, 512) for m in _LADDER[8:17]),
)

PRESETS = {
    "smoke": Config(
        n_eval=12, n_baseline=50, trainings=tuple(Training(m, "mini", 2, 4, 6) for m in (2, 4, 8))
    ),
    "small": Config(),
    "paper": Config(n_eval=16_384, optimiser="adam", learning_rate=1e-3, init_std=0.02, trainings=_PAPER),
}  # fmt: skip


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
    decoder = Decoder(
        width, layers, heads, 4 * t.d, d_in=t.d + 1, read_bias=False, init_std=config["init_std"]
    )  # fmt: skip
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
    rising = max(1, t.steps // (20 if t.model in ("mini", "tiny") else 2))
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
            schedule="linear",
            warmup_steps=rising,
            schedule_steps=t.steps - rising,
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
    out |= {f"arc_{name}": np.stack([row[name] for row in arc]) for name in references}
    few = jax.tree.map(lambda leaf: leaf[:500], prompts["true"])
    if t.m <= 2**10:
        smooth = [smoothed_dmmse(task.pool, t.noise_variance, s) for s in WIDTHS]
        found = [float(errors_by_position(s, few).mean()) / t.d for s in smooth]
        own = [float(errors_by_position(member, few).mean()) / t.d for member in members]
        out |= {"smoothed_true": np.array(found), "network_on_few": np.array(own)}
    return {name: np.asarray(value) for name, value in out.items()}


def in_chunks(predictor: Any, prompts: Prompt, t: Training) -> Any:
    """The answers at every position, for so many prompts at a time that a pool's predictions fit into memory."""
    n, size = prompts.x.shape[0], max(1, 2**27 // (2 * t.d * t.m))
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i : i + size], prompts) for i in range(0, n, size)]
    return jnp.concatenate([answers_by_position(predictor, part) for part in parts])


def interpolation(
    member: Any, t: Training, task: FunctionRegression, references: Mapping[str, Any], n: int
) -> dict[str, np.ndarray]:
    """Delta to both references on prompts whose task lies on the arc between two of the pool (Fig. 5)."""
    x_key, pair_key, noise_key = jax.random.split(jax.random.key(EVAL_KEY + 1), 3)
    x = draws.normal(x_key, (n, 2 * t.d, t.d))
    first = jax.random.randint(pair_key, (n,), 0, t.m)
    second = (first + jax.random.randint(jax.random.fold_in(pair_key, 1), (n,), 1, max(t.m, 2))) % t.m
    noise = t.noise_variance**0.5 * draws.normal(noise_key, (n, 2 * t.d, 1))
    out: dict[str, list[float]] = {name: [] for name in references}
    for share in SHARES:
        w = between_tasks(task.pool[first], task.pool[second], share)
        prompts = Prompt(x, jnp.einsum("bnd,bd->bn", x, w)[..., None] + noise)
        own = answers_by_position(member, prompts)
        for name, reference in references.items():
            out[name].append(float(jnp.mean(jnp.square(own - in_chunks(reference, prompts, t)))) / t.d)
    return {name: np.array(values) for name, values in out.items()}


# Claims.


def trainings_of(run: Run) -> dict[Training, dict[str, np.ndarray]]:
    """What every pretraining left behind, by pool size."""
    names, found = Training.__dataclass_fields__, {}
    for part in run.parts().values():
        asked = part.config["arguments"]
        if asked["kind"] == "training":
            found[Training(**{k: asked[k] for k in names})] = part.load_arrays("result")
    return dict(sorted(found.items(), key=lambda pair: pair[0].m))


def claim(id: str, statement: str, source: str, checks: list[Check], undecided: str) -> Claim:
    """A claim; without checks it is undecided for the reason given."""
    return Claim(f"raventos2023/{id}", statement, source, tuple(checks), undecided=None if checks else undecided)


def claims(run: Run) -> list[Claim]:
    """V-1 .. V-13, and B-1 about the scale of the errors; tolerances are those set for the reproduction."""
    found = trainings_of(run)
    return [baseline_claim(run), *ends_claims(found), *threshold_claims(found), *shape_claims(found)]


def baseline_claim(run: Run) -> Claim:
    ridge = run.part("baseline").load_arrays("result")["ridge"]
    check = Check("error over D at the first position", absolute(1 + 0.25 / 8, 0.02), ridge[0])
    return claim("B-1", "Before any example the error over D is that of zero", "Fig. 2", [check], "")


def main_ladder(found: Mapping[Training, dict[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """The base networks at the smallest batch, or whatever this preset has in their place."""
    plain = [t for t in found if not t.weight_decay]
    kind = "base" if any(t.model == "base" for t in plain) else plain[0].model
    first = min((t for t in plain if t.model == kind), key=lambda t: (t.batch, t.steps))
    same = [t for t in plain if (t.model, t.d, t.batch, t.steps) == (kind, first.d, first.batch, first.steps)]
    return {t.m: found[t] for t in same}


def ends_claims(found: Mapping[Training, dict[str, np.ndarray]]) -> list[Claim]:
    """V-1, V-2 and V-8: both ends of the ladder."""
    ladder = main_ladder(found)
    published = any(t.model == "base" for t in found)
    small = [m for m in ladder if m <= 2**6] if published else [min(ladder)]
    large = [m for m in ladder if m >= 2**15] if published else [max(ladder)]
    one, two = [], []
    for m in small:
        a = ladder[m]
        one.append(
            Check(f"M = {m}: error / dMMSE error on the pool", at_most(1.1), a["mse_pool"][-1] / a["mse_dmmse_pool"])
        )
        closer = a["to_dmmse_true"][-1] < a["to_ridge_true"][-1]
        one.append(Check(f"M = {m}: closer to dMMSE than to ridge on new tasks", is_true(), closer.astype(float)))
    for m in large:
        a = ladder[m]
        two.append(
            Check(
                f"M = {m}: error / ridge error on new tasks",
                within(0.95, 1.05),
                a["mse_true"][-1] / a["mse_ridge_true"],
            )
        )
    ms = sorted(ladder)
    few, middle, many = (2**5, 2**10, 2**15) if published else (ms[0], ms[len(ms) // 2], ms[-1])
    centre = {m: ladder[m]["arc_ridge"][:, 2] / (ladder[m]["arc_ridge"] + ladder[m]["arc_dmmse"])[:, 2] for m in ladder}
    between = (centre[few] > centre[middle]) & (centre[middle] > centre[many])
    eight = [
        Check(f"M = {few}: distance to ridge / (to ridge + to dMMSE)", at_least(0.5), centre[few]),
        Check(f"M = {many}: distance to ridge / (to ridge + to dMMSE)", at_most(0.5), centre[many]),
        Check(f"M = {middle}: between the two", is_true(), between * 1.0),
    ]
    return [
        claim("V-1", "Few tasks: dMMSE on the pool, and poor on new tasks", "Fig. 2", one, ""),
        claim("V-2", "Many tasks: ridge on new tasks", "Fig. 2", two, ""),
        claim("V-8", "Half-way between two tasks: dMMSE for few, ridge for many tasks", "Fig. 5", eight, ""),
    ]


def threshold(found: Mapping[Training, dict[str, np.ndarray]], **fixed: Any) -> np.ndarray | None:
    """M* of every seed: where the larger of two batches stops being further from ridge on new tasks."""
    same = [t for t in found if all(getattr(t, name) == value for name, value in fixed.items())]
    batches = sorted({t.batch for t in same})
    if len(batches) < 2:
        return None
    less, more = ({t.m: found[t]["to_ridge_true"][-1] for t in same if t.batch == b} for b in (batches[0], batches[-1]))
    pools = np.array(sorted(set(less) & set(more)), float)
    columns = zip(*[[less[int(m)] for m in pools], [more[int(m)] for m in pools]], strict=True)
    a, b = (np.stack(side) for side in zip(*columns, strict=True))
    return np.array([crossing(pools, a[:, seed], b[:, seed]) for seed in range(a.shape[1])])


def threshold_claims(found: Mapping[Training, dict[str, np.ndarray]]) -> list[Claim]:
    """V-3 to V-6 and V-9 to V-12: what needs a ladder of pools at two batches."""
    plain = {"weight_decay": 0.0, "steps": 500_000}
    base = threshold(found, model="base", d=8, **plain)
    small = threshold(found, model="small", d=8, **plain)
    by_d = {d: threshold(found, model="large", d=d, **plain) for d in (8, 16, 32)}
    decays = sorted({t.weight_decay for t in found})
    by_decay = {w: threshold(found, model="base", d=8, steps=500_000, weight_decay=w) for w in decays}
    checks: dict[str, list[Check]] = {name: [] for name in ("V-3", "V-4", "V-5", "V-6", "V-9", "V-10", "V-11", "V-12")}
    if base is not None:
        checks["V-3"].append(Check("M*", within(2**13, 2**16), base))
        longer = {t.m: found[t]["to_ridge_true"][-1] for t in found if t.model == "base" and t.steps == 1_000_000}
        usual = {t.m: found[t]["to_ridge_true"][-1] for t in found if t == Training(t.m)}
        shared = sorted(set(longer) & set(usual))
        if shared:
            pools = np.array(shared, float)
            a, b = (np.stack([side[m] for m in shared]) for side in (usual, longer))
            moved = [crossing(pools, a[:, s], b[:, s]) for s in range(a.shape[1])]
            checks["V-4"].append(Check("M* by twice the steps / M* by twice the batch", within(0.5, 2), moved / base))
    if small is not None:
        checks["V-5"].append(Check("M*", within(2**10, 2**13), small))
        few = [t for t in found if t.model == "small" and t.m <= 2**10 and t.batch == 512]
        times = {
            t.m: closest_approach(found[t]["step"], np.median(found[t]["to_ridge_true"], 1), window=3) for t in few
        }
        inside = {m: step for m, (step, turned) in times.items() if turned and step > 0}
        if len(inside) >= 3:
            slope = np.polyfit(np.log(list(inside)), np.log(list(inside.values())), 1)[0]
            checks["V-6"].append(Check("slope of log t* against log M", absolute(0.47, 0.1), slope))
        for label, model in (("twice as wide", "small-wide"), ("twice as deep", "small-deep")):
            other = threshold(found, model=model, d=8, **plain)
            if other is not None:
                checks["V-12"].append(Check(f"the small network, {label}: M* rises", is_true(), (other > small) * 1.0))
        wide = threshold(found, model="base-wide", d=8, **plain)
        if base is not None and wide is not None:
            checks["V-12"].append(Check("the base network, twice as wide: M* / M*", within(0.5, 2), wide / base))
    if all(value is not None for value in by_d.values()):
        values = [np.asarray(by_d[d]) for d in by_d]
        checks["V-9"] += [
            Check(f"D = {d}: M* / 2^{e}", within(0.5, 2), v / 2.0**e)
            for d, e, v in zip(by_d, (14, 15, 16), values, strict=True)
        ]
        checks["V-9"].append(
            Check("M* rises with D", is_true(), ((values[0] < values[1]) & (values[1] < values[2])) * 1.0)
        )
        most = {t.d: found[t] for t in found if t.model == "large" and t.m == 2**20 and t.batch == 256}
        spread = [most[d]["mse_dmmse_true"] - most[d]["mse_ridge_true"] for d in sorted(most)]
        own = [np.median(most[d]["to_ridge_true"][-1]) for d in sorted(most)]
        if len(spread) == 3:
            checks["V-10"] += [
                Check("dMMSE's excess over ridge grows with D", is_true(), float(spread[0] < spread[1] < spread[2])),
                Check(
                    "the network's distance to ridge grows by a smaller factor",
                    is_true(),
                    float(own[2] / own[0] < spread[2] / spread[0]),
                ),
            ]
    decayed = [np.median(v) for v in by_decay.values() if v is not None]
    if len(decayed) >= 3:
        checks["V-11"].append(Check("M* falls with weight decay", is_true(), float(np.all(np.diff(decayed) <= 0))))
        strongest = max((t for t in found if t.weight_decay == decays[-1]), key=lambda t: (t.m, -t.batch))
        levels = [float(np.median(found[replace(strongest, weight_decay=w)]["mse_true"][-1])) for w in decays]
        rises = float(np.all(np.diff(levels) >= 0))
        checks["V-11"].append(Check(f"M = {strongest.m}: the error on new tasks rises with it", is_true(), rises))
    need = "a ladder of pools, each pretrained for 500,000 steps at two batches: the `paper` preset, on a GPU"
    told = {
        "V-3": ("The threshold of the base network lies between 2^14 and 2^15 tasks", "Figs. 2, 3"),
        "V-4": ("Twice the steps move the network as twice the batch does", "Figs. 2, 3"),
        "V-5": ("The threshold of the small network lies between 2^11 and 2^12 tasks", "Fig. 4, App. E"),
        "V-6": ("Below it, the step closest to ridge grows as M^0.47", "Fig. 4"),
        "V-9": ("The threshold rises with D at a fixed ratio of signal to noise", "Fig. 6"),
        "V-10": ("With 2^20 tasks dMMSE moves away from ridge as D grows, the network does not", "Fig. 6"),
        "V-11": ("Weight decay lowers the threshold", "Fig. 7"),
        "V-12": ("Depth and width raise the threshold of small networks, width not that of the base one", "Fig. 7"),
    }
    return [claim(id, statement, source, checks[id], need) for id, (statement, source) in told.items()]


def shape_claims(found: Mapping[Training, dict[str, np.ndarray]]) -> list[Claim]:
    """V-7 (of the small network, where it was trained) and V-13."""
    ladder = main_ladder(found)
    of_small = {t.m: a for t, a in found.items() if t.model == "small" and t.batch == 512}
    falling = of_small or ladder
    most = falling[max(falling)]["to_ridge_true"]
    window = 5
    smooth = np.stack([np.convolve(column, np.full(window, 1 / window), mode="valid") for column in most.T], axis=1)
    seven = [
        Check(
            f"M = {max(falling)}: running mean of 5 records never rises",
            is_true(),
            np.all(np.diff(smooth, axis=0) <= 0, axis=0) * 1.0,
        )
    ]
    middle = sorted(m for m in ladder if min(ladder) < m < max(ladder) and "smoothed_true" in ladder[m])
    thirteen = [
        Check(
            f"M = {m}: error / best smoothed dMMSE error on new tasks",
            at_most(1.0),
            ladder[m]["network_on_few"] / ladder[m]["smoothed_true"].min(),
        )
        for m in middle[-1:]
    ]
    return [
        claim("V-7", "Beyond the threshold the distance to ridge falls throughout training", "Fig. 4", seven, ""),
        claim(
            "V-13", "At middle M no smoothing of dMMSE does as well on new tasks", "Fig. 12", thirteen, "no middle M"
        ),
    ]


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """Errors and distances against M, over training, by position, and between tasks."""
    ladder = main_ladder(trainings_of(run))
    return {
        "diversity": diversity_figure(ladder),
        "training": training_figure(ladder),
        "by_position": position_figure(ladder),
        "between_tasks": arc_figure(ladder),
    }


def diversity_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts, m = [], list(ladder)
    for law, title in (("pool", "tasks of the pool"), ("true", "new tasks")):
        series = [Series("decoder", m, [np.median(a[f"mse_{law}"][-1]) for a in ladder.values()])]
        for name in ("dmmse", "ridge"):
            series.append(Series(name, m, [float(a[f"mse_{name}_{law}"]) for a in ladder.values()], style="dashed"))
        charts.append(Lines(title, "tasks in pretraining M", "error over D", tuple(series), log_x=True))
    return Grid("Task diversity (Fig. 2)", tuple(charts), 2)


def training_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts = []
    for name in ("ridge", "dmmse"):
        series = tuple(Series(f"M = {m}", a["step"], np.median(a[f"to_{name}_true"], 1)) for m, a in ladder.items())
        charts.append(Lines(f"to {name}", "training step", "Delta on new tasks", series, log_y=True))
    return Grid("Distances while training (Fig. 4)", tuple(charts), 2)


def position_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts = []
    for m, a in ladder.items():
        k = np.arange(a["by_position_true"].shape[1])
        series = (
            Series("decoder", k, np.median(a["by_position_true"], 0)),
            Series("ridge", k, a["by_position_ridge_true"], style="dashed"),
            Series("dMMSE", k, a["by_position_dmmse_true"], style="dotted"),
        )
        charts.append(Lines(f"M = {m}", "examples k", "error over D, new tasks", series))
    return Grid("Error by position on new tasks", tuple(charts[:6]), 3)


def arc_figure(ladder: Mapping[int, dict[str, np.ndarray]]) -> Chart:
    charts = []
    for m, a in ladder.items():
        series = tuple(Series(name, SHARES, np.median(a[f"arc_{name}"], 0)) for name in ("ridge", "dmmse"))
        charts.append(Lines(f"M = {m}", "share of the first task", "Delta to", series))
    return Grid("Between two tasks (Fig. 5)", tuple(charts[:6]), 3)
