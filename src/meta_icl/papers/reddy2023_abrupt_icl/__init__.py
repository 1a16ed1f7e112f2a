"""The mechanistic basis of data dependence and abrupt learning in an in-context classification task (Reddy, 2023).

arXiv 2312.03002, ICLR 2024. Claims. Whether a two-layer attention network learns labels in its weights (IWL) or reads
them in the context (ICL) depends on burstiness, number of classes, noise and skew of the data; ICL is learned abruptly,
when an induction head forms: first the network learns to choose among the labels of the context, then the right one.

Setting. N = 8 pairs, L = 32 labels, label of class k = k mod L, items of 63 channels, places in a window of 65, width
128, one head, no output projection, three hidden layers with one bias each; SGD 0.01 on batches of 128, parameters
multiplied by 1 - 1e-6 every step, 200,000 steps. The text was not at hand: settings are those of public forks of the
author's code. Evaluation sets: `test`, `ic` (novel classes), `ic2` (labels shifted by one), `iw` (no context to read).

The reduced model of three parameters is derived here (`three_parameter_loss`); it is not the paper's equation.

Orders in time are asked of the seeds that learn in context; sweeps are decided only where every training has learned
its own law (accuracy above the half that copying one of two labels gives), up to two standard errors of an accuracy.

Command: `meta-icl reproduce reddy2023`. Times: see `TIMES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import (
    chunk_example,
    in_context_choice,
    label_attention,
    log_spaced,
    matching_label_attention,
    onset,
    three_parameter_descent,
)
from meta_icl.models import AttentionStack, Induction, Learner, Window
from meta_icl.plotting import Chart, Grid, Lines, Series, over_seeds
from meta_icl.prompt import answer_batch
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, absolute, at_least, at_most, is_true, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import BurstyGaussian, bursty_gaussian
from meta_icl.training import OnTask, Optimiser, cross_entropy, train

TIMES = {"smoke": "1 CPU-min", "small": "25 CPU-min", "paper": "days of CPU (GPU)"}
IDS = tuple(f"R{i}" for i in range(1, 10))
TRAIN_KEY = 0
SETS = ("test", "ic", "ic2", "iw")
NOT_TRAINED = "this preset does not train the settings"
LEARNED = 0.6  # accuracy on the training law from which on a sweep means something
MARGIN = 0.05  # two standard errors of the difference of two accuracies of 1,024 prompts
ABRUPT = {"n_classes": 256, "p_novel": 0.8}
SETTINGS: dict[str, dict[str, Any]] = {
    "abrupt": ABRUPT,
    "L=N": ABRUPT | {"n_labels": 8},
    **{f"B={b}": {"n_classes": 512, "repeats": b} for b in (1, 2, 4)},
    **{f"K={k}": {"n_classes": k, "repeats": 2} for k in (128, 256, 1024, 2048)},
    **{f"eps={e}": {"n_classes": 1024, "eps": e} for e in (0.0, 0.25, 0.5, 0.75)},
    **{f"alpha={a}": {"n_classes": 1024, "alpha": a, "p_bursty": 0.5} for a in (0.0, 0.5, 1.0, 1.5)},
}


@dataclass(frozen=True)
class Config:
    """Sizes; `extra` are settings beyond "abrupt"."""

    seeds: int = 2
    steps: int = 40_000
    extra: tuple[str, ...] = ("B=1", "B=4")
    extra_seeds: int = 1
    extra_steps: int = 20_000
    batch: int = 128
    records: int = 80
    n_eval: int = 1_024
    n_traced: int = 256


PRESETS = {
    "smoke": Config(seeds=1, steps=6, extra=("L=N", "B=1", "B=4"), extra_steps=4, batch=8, records=3, n_eval=32,
                    n_traced=8),
    # Shrunk: 40,000 of 200,000 steps and two seeds; of the sweeps only the two ends of burstiness.
    "small": Config(),
    "paper": Config(seeds=6, steps=200_000, extra=tuple(SETTINGS)[1:], extra_seeds=6, extra_steps=200_000,
                    n_eval=10_000),
}  # fmt: skip


# What is trained and measured.


def describe(n_labels: int) -> Learner:
    """The published network for a number of labels."""
    stack = AttentionStack(init_std=63**-0.5)
    network = Induction(n_labels, stack, n_hidden=3, classifier="he", d_label=63, fixed_labels=True)
    return Learner(network, Window())


def train_setting(part: Run, *, name: str, seed: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed of one setting: accuracies on the four sets and the progress measures while it learns."""
    steps = config["steps" if name == "abrupt" else "extra_steps"]
    trained = train(
        partial(bursty_gaussian, **SETTINGS[name]),
        describe(SETTINGS[name].get("n_labels", 32)),
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=config["batch"],
        objective=cross_entropy,
        optimiser=Optimiser("sgd", learning_rate=0.01, weight_decay=1e-4),  # rate times decay = 1e-6
        freeze=lambda learner: learner.network.labels,
        record=log_spaced(steps, config["records"], first=100),
        probes={"at": OnTask(partial(measures, n_eval=config["n_eval"], n_traced=config["n_traced"]))},
        store=part,
    )
    return {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}


def measures(predictor: Any, task: BurstyGaussian, key: Any, *, n_eval: int, n_traced: int) -> dict[str, Any]:
    """Accuracies on the evaluation sets, and ILA, TILA, TLA and CLA on novel classes."""
    out: dict[str, Any] = {}
    for i, name in enumerate(SETS):
        prompts = task.evaluation(name).sample_batch(n_eval, key=jax.random.fold_in(key, i))
        logits = answer_batch(predictor, prompts)
        out[name] = (jnp.argmax(logits, -1) == prompts.y[:, -1]).mean()
        if name == "ic":
            out["cla"] = in_context_choice(logits, prompts.y[:, :-1]).mean()
            shown = jax.tree.map(lambda leaf: leaf[:n_traced], prompts)
            patterns = jax.vmap(lambda prompt: predictor.trace(prompt.hidden())[1]["pattern"])(shown)[:, :, 0]
            # Labels of a bursty context are distinct, so the items of the query's class are those with its label.
            matches = shown.y[:, :-1] == shown.y[:, -1:]
            out |= {
                "ila": chunk_example(patterns[:, 0]).mean(),
                "tila": matching_label_attention(patterns[:, 1], matches).mean(),
                "tla": label_attention(patterns[:, 1]).mean(),
            }
    return out


def run(config: Config, run: Run) -> None:
    """Every seed of the abrupt setting, those of the others, and the reduced model."""
    shared = asdict(config)
    names = [("abrupt", config.seeds), *((name, config.extra_seeds) for name in config.extra)]
    run_parts(
        run,
        train_setting,
        {f"{n}-seed{s}": {"name": n, "seed": s, "config": shared} for n, seeds in names for s in range(seeds)},
    )
    losses, parameters = three_parameter_descent(
        jnp.asarray([0.01, 0.01, 0.01]), n_context=8, n_labels=32, steps=4_000, rate=0.1
    )
    run.save_arrays("reduced", {"loss": np.asarray(losses), "parameters": np.asarray(parameters)})


# Claims.


Seeds = Sequence[Mapping[str, np.ndarray]]  # what every seed of a setting left behind


def seeds_of(run: Run, name: str) -> list[dict[str, np.ndarray]]:
    """What every seed of a setting left behind."""
    return [
        part.load_arrays("result") for part_name, part in run.parts().items() if part_name.startswith(f"{name}-seed")
    ]


def claim(
    number: int,
    statement: str,
    source: str,
    checks: list[Check],
    reason: str = NOT_TRAINED,
) -> Claim:
    """A claim; without checks it is undecided for the reason given."""
    return Claim(f"reddy2023/R{number}", statement, source, tuple(checks), None if checks else reason)


def plateau(arrays: Mapping[str, np.ndarray]) -> float:
    """The median IC accuracy over the quarter of records before it first exceeds .5 (or the last quarter)."""
    above = np.flatnonzero(arrays["ic"] > 0.5)
    end = int(above[0]) if above.size else len(arrays["ic"])
    return float(np.median(arrays["ic"][max(0, end - max(1, len(arrays["ic"]) // 4)) : max(end, 1)]))


def claims(run: Run) -> list[Claim]:
    """R1 .. R9; tolerances are those set for the reproduction."""
    return judged({name: seeds for name in SETTINGS if (seeds := seeds_of(run, name))})


def judged(found: Mapping[str, Seeds]) -> list[Claim]:
    """The claims from what was recorded of every trained setting."""
    abrupt = found["abrupt"]
    learned = [a for a in abrupt if a["ic"][-1] > 0.9]
    nobody = "no seed learned in context"

    def when(arrays: Mapping[str, np.ndarray], name: str) -> float:
        return onset(arrays["step"], arrays[name])

    def trend(number: int, statement: str, source: str, family: str, values: Sequence[Any], **signs: int) -> Claim:
        """Accuracies rise (1) or fall (-1) over a sweep: between its ends, and nowhere back."""
        seeds = {name: found[name] for value in values if (name := f"{family}={value}") in found}
        if len(seeds) < 2:
            return claim(number, statement, source, [])
        test = {name: float(np.median([a["test"][-1] for a in group])) for name, group in seeds.items()}
        below = ", ".join(f"{name} ({value:.2f})" for name, value in test.items() if not value >= LEARNED)
        checks = []
        for kind, sign in signs.items():
            course = sign * np.array([np.median([a[kind][-1] for a in group]) for group in seeds.values()])
            label = f"{kind.upper()} accuracy, {'rise' if sign > 0 else 'fall'} with {family}"
            checks += [Check(label, at_least(MARGIN), course[-1] - course[0]),
                       Check(f"{label}, smallest step", at_least(-MARGIN), np.diff(course).min())]  # fmt: skip
        why_not = f"accuracy on the training law below {LEARNED}: {below}"
        return claim(number, statement, source, [] if below else checks, why_not)

    tracks = [a["ic2"][-1] - a["ic"][-1] for a in learned]
    equal = found.get("L=N", [])
    alpha = found.get("alpha=1.0", [])
    peaks = [(float(a["ic"].max()), float(a["ic"][-1])) for name in ("B=1", "B=2", "alpha=0.0")
             for a in found.get(name, [])]  # fmt: skip
    falls = [peak - end for peak, end in peaks if peak >= 0.7]
    return [
        claim(1, "IC accuracy waits near 1/N, then jumps to 1", "Fig. 3", [
            Check("plateau of the IC accuracy", within(0.08, 0.2), [plateau(a) for a in abrupt]),
            Check("final IC accuracy", at_least(0.95), [a["ic"][-1] for a in abrupt])]),
        claim(2, "The choice among context labels comes first, the induction head with the jump", "Fig. 3", [
            Check("CLA before IC accuracy", is_true(), [float(when(a, "cla") < when(a, "ic")) for a in learned]),
            *(Check(f"{name} later than CLA", is_true(), [float(when(a, name) > when(a, "cla")) for a in learned])
              for name in ("ila", "tila"))] if learned else [], nobody),
        claim(3, "With L = N in-context learning does not come", "Fig. A.5", [
            Check("seeds that learn", at_most(1), (float(sum(a["ic"][-1] > 0.5 for a in equal)),)),
        ] if equal and learned else [],
              "asked only where seeds of L > N learn in context" if equal else NOT_TRAINED),
        trend(4, "Burstiness: ICL up, IWL down", "Fig. 2a", "B", (1, 2, 4), ic=1, iw=-1),
        trend(5, "Classes: ICL up, IWL down", "Fig. 2a", "K", (128, 256, 1024, 2048), ic=1, iw=-1),
        trend(6, "Noise within classes favours ICL", "Fig. 2b", "eps", (0.0, 0.25, 0.5, 0.75), iw=-1),
        claim(7, "At alpha = 1 both are learned", "Fig. 2c", [
            Check(f"{name.upper()} accuracy", at_least(0.8), [a[name][-1] for a in alpha])
            for name in ("ic", "iw")] if alpha else []),
        claim(8, "ICL may fade while IWL grows", "competition", [
            Check("largest fall of IC accuracy from a peak above .7", at_least(0.1), max(falls))] if falls else [],
              "no training without novel classes reaches an IC accuracy of .7"),
        claim(9, "Shifted labels are followed when ICL is used", "Fig. 2",
              [Check("final IC2 less IC accuracy", absolute(0, 0.1), tracks)] if tracks else [], nobody),
    ]  # fmt: skip


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """The jump and its progress measures, the settings, and the reduced model."""
    seeds = seeds_of(run, "abrupt")
    steps = seeds[0]["step"][1:]

    def lines(title: str, names: Sequence[str]) -> Lines:
        series = [over_seeds(name.upper(), steps, np.stack([a[name][1:] for a in seeds], -1)) for name in names]
        return Lines(title, "training step", "share", series, log_x=True)

    reduced = run.load_arrays("reduced")
    at = np.unique(np.geomspace(1, len(reduced["loss"]) - 1, 300).astype(int))
    out: dict[str, Chart] = {
        "abrupt": Grid("Abrupt learning in context (Fig. 3)", (
            lines("Accuracy", SETS), lines("Progress measures", ("cla", "tla", "ila", "tila"))), 2),
        "reduced": Lines("Three numbers: a plateau and a cliff", "step", "loss in nats",
                         (Series("loss", at, reduced["loss"][at]),), log_x=True),
    }  # fmt: skip
    others = {name: arrays for name in SETTINGS if name != "abrupt" and (arrays := seeds_of(run, name))}
    if others:
        out["settings"] = Grid("Other settings (Fig. 2)", tuple(
            Lines(f"{kind.upper()} accuracy", "training step", "accuracy",
                  [Series(name, a[0]["step"][1:], a[0][kind][1:]) for name, a in others.items()], log_x=True)
            for kind in ("ic", "iw")), 2)  # fmt: skip
    return out
