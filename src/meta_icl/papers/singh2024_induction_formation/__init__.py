"""What needs to go right for an induction head? Formation of in-context circuits (Singh et al., 2024).

arXiv 2404.07129. Claims. Several heads of layer 2 learn to look labels up, additively and of different strength; the
sudden drop of the loss comes from three subcircuits that are useful only together (previous token in layer 1, matching
and copying in layer 2), shown by clamping some of them while the others are trained.

Setting. Two exemplars with labels and a query; 50 classes, one drawing each in training; 5 labels, 8 of their 10 pairs
in training. Two attention-only layers of 8 heads, width 64, rotary positions, norms before the layers, Adam 1e-5 on 32
sequences, loss at the query; 1e6 sequences are 31,250 steps. The public features of a ResNet are not available offline:
exemplars here are 512 standard normal numbers per class, drawings differ by `spread` (0.3 of the variance), so that the
published numbers of single heads (S2) are compared by their spread only, as the checklist has it.
"Copy perfect" keeps one head of layer 2, which then makes the logits; so does the condition it is compared with.
Claims about what single heads do (S3 .. S5, S7) are asked of the seeds that have learned, orders in time (S6, S8, S10)
where the network that is to be later or earlier has learned; without such a network they are not decided.

Command: `meta-icl reproduce singh2024`. Times: see `TIMES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis import rank_correlation
from meta_icl.analysis.circuits import (
    all_but_one,
    each_head,
    in_context_loss,
    induction_strength,
    log_spaced,
    rank_one_descent,
    without_heads,
)
from meta_icl.models import AttentionStack, Induction, LabelLayout, Learner
from meta_icl.models.clamped import Clamped, ClampedLearner, same_items
from meta_icl.plotting import Bars, Chart, Grid, Lines, Series, over_seeds
from meta_icl.prompt import Prompt, answer_batch
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Rule, at_least, at_most, is_true, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import TwoPairs, every_two_pairs, split_label_pairs
from meta_icl.training import Optimiser, cross_entropy, train

TIMES = {"smoke": "1 CPU-min", "small": "20 CPU-min", "paper": "2 CPU-hours (estimated)"}
IDS = tuple(f"S{i}" for i in range(1, 11))
TRAIN_KEY, WORLD_KEY, D = 5, 1, 512
HEADS = 8
HELD_OUT = {5: 2, 10: 9, 15: 21}
LEARNED = 0.9  # accuracy of the whole network from which on it means something what single heads do
CLAMPS: dict[str, tuple[tuple[str, ...], tuple[int, ...] | None]] = {
    "free": ((), None),
    "layer1": (("layer1",), None),
    "match": (("match",), None),
    "layer1+copy": (("layer1", "copy"), (0,)),
    **{f"only {h}": ((), (h,)) for h in range(HEADS)},
}


@dataclass(frozen=True)
class Config:
    """Sizes; `conditions` are of `CLAMPS`, `classes` and `labels` the sweeps of S10."""

    seeds: int = 3
    steps: int = 31_250
    batch: int = 32
    learning_rate: float = 1e-5
    conditions: tuple[str, ...] = ("layer1", "match", "layer1+copy", "only 0", "only 3")
    classes: tuple[int, ...] = (100,)
    labels: tuple[int, ...] = (10,)
    n_classes: int = 50
    records: int = 80
    n_eval: int = 1_024
    n_final: int = 8_192
    toy_seeds: int = 8


PRESETS = {
    "smoke": Config(seeds=1, steps=6, conditions=("layer1", "match", "layer1+copy", "only 0"), classes=(), labels=(),
                    n_classes=6, records=3, n_eval=32, n_final=64),
    # Shrunk: one seed per clamp and sweep, two of eight heads alone.
    "small": Config(),
    "paper": Config(seeds=5, steps=62_500, conditions=tuple(CLAMPS)[1:], classes=(100, 200), labels=(10, 15)),
}  # fmt: skip


# What is trained and measured.


def world(n_classes: int, n_labels: int, spread: float = 0.3) -> tuple[TwoPairs, dict[str, TwoPairs]]:
    """The training task, and its tests: other label pairs, other drawings, other classes."""
    class_key, drawing_key, label_key = jax.random.split(jax.random.key(WORLD_KEY), 3)
    means = jax.random.normal(class_key, (n_classes + 100, 1, D))
    noise = jax.random.normal(drawing_key, (n_classes + 100, 5, D))
    drawings = (1 - spread) ** 0.5 * means + spread**0.5 * noise
    known, new = drawings[:n_classes], drawings[n_classes:]
    pairs, held_out = split_label_pairs(n_labels, HELD_OUT[n_labels], key=label_key)
    tests = {
        "train": TwoPairs(known[:, :1], pairs),
        "label_pairs": TwoPairs(known[:, :1], held_out),
        "drawings": TwoPairs(known[:, 1:], pairs),
        "classes": TwoPairs(new, pairs),
    }
    return tests["train"], tests


def describe(name: str, n_labels: int) -> Clamped:
    """The network under one condition."""
    stack = AttentionStack(64, 2, HEADS, project=True, scaled=True, norm="pre", rotary=True)
    clamps, kept = CLAMPS[name]
    network = Induction(n_labels, stack, n_hidden=0, classifier="lecun", label_std=0.02, d_in=D)
    return Clamped(Learner(network, LabelLayout()), clamps, kept)


def compute(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part: the toy, or one training."""
    return toy(config) if kind == "toy" else train_condition(part, config=config, **arguments)


def toy(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Losses "seeds steps" of the rank-one toy, free and with one or two vectors at their target."""
    keys = jax.random.split(jax.random.key(0), config["toy_seeds"])
    return {
        "".join(clamped) or "free": np.asarray(jax.vmap(partial(_descent, clamped))(keys))
        for clamped in ((), ("c",), ("b", "c"))
    }


def _descent(clamped: tuple[str, ...], key: Any) -> Any:
    return rank_one_descent(key=key, clamped=clamped)


def train_condition(
    part: Run, *, name: str, seed: int, n_classes: int, n_labels: int, config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """One training: losses and accuracies on all tests and the strengths of the heads while it learns."""
    task, tests = world(n_classes, n_labels)

    def probe(predictor: Any, key: Any) -> dict[str, Any]:
        out = {}
        for i, (test, law) in enumerate(tests.items()):
            prompts = law.sample_batch(config["n_eval"], key=jax.random.fold_in(key, i))
            logits = answer_batch(predictor, prompts)
            losses = in_context_loss(logits, prompts.y[:, :-1], prompts.y[:, -1])
            out |= {f"{test}_loss": losses.mean(), f"{test}_right": (jnp.argmax(logits, -1) == prompts.y[:, -1]).mean()}
            if test == "train":
                full = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, prompts.y[:, -1:], 1)[:, 0]
                out |= {"loss": full.mean(), "strength": strengths(predictor, prompts)}
        return out

    trained = train(
        task,
        describe(name, n_labels),
        steps=config["steps"],
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=config["batch"],
        objective=cross_entropy,
        optimiser=Optimiser(learning_rate=config["learning_rate"]),
        record=log_spaced(config["steps"], config["records"]),
        probes={"at": probe},
        store=part,
    )
    history = {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    # The sweeps tell times only; their lists of all sequences would take gigabytes.
    main = name == "free" and (n_classes, n_labels) == (config["n_classes"], 5)
    return history | (heads_at_end(trained[0], task, config["n_final"]) if main else {})


def strengths(predictor: Any, prompts: Prompt) -> Any:
    """The mean induction strength of every head of layer 2."""

    def one(prompt: Prompt) -> Any:
        _, trace = predictor.trace(prompt.hidden())
        return induction_strength(trace["pattern"][1], same_items(prompt)[None] > 0)

    return jax.vmap(one)(prompts).mean(0)


def heads_at_end(predictor: Any, task: TwoPairs, n: int) -> dict[str, np.ndarray]:
    """The strength of every head over all sequences, and accuracies with heads removed."""
    pairs = every_two_pairs(task.exemplars[:, 0], task.label_pairs)
    # Networks and prompts are arguments: as constants they are folded for a minute, in every program anew.
    measure = eqx.filter_jit(strengths)
    sizes = [len(part) for part in np.array_split(np.arange(pairs.x.shape[0]), 16)]  # equal for the 78,400 sequences
    found = [
        np.asarray(measure(predictor, jax.tree.map(lambda leaf, i=i, n=n: leaf[i : i + n], pairs)))
        for i, n in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)
    ]
    prompts = task.sample_batch(n, key=jax.random.key(11))

    def right(answer: Any, prompt: Prompt) -> Any:
        return (jnp.argmax(answer) == prompt.y[-1]).astype(float)

    accuracy = partial(eqx.filter_jit(without_heads), predictor.trace, right, prompts)
    alone = all_but_one(1, 2, HEADS)
    strength = np.average(found, axis=0, weights=sizes)
    best = int(np.argmax(strength))
    kept = [accuracy_of(predictor, prompts, (best,))] + [
        accuracy_of(predictor, prompts, tuple({best, h})) for h in range(HEADS)
    ]
    fixed = [float((row & ~kept[0]).sum() / max(int((~kept[0]).sum()), 1)) for row in kept[1:]]
    first_layer = jnp.zeros((1, 2, HEADS), bool).at[0, 0].set(True)
    return {
        "final_strength": strength,
        "alone": np.asarray(accuracy(alone)),
        "without": np.asarray(accuracy(each_head(2, HEADS)[1])),
        "fixed": np.array(fixed),
        "best": np.array(best),
        "whole": np.asarray(accuracy(jnp.zeros((1, 2, HEADS), bool))[0]),
        "layer1_direct": np.asarray(accuracy(first_layer, keep=("pattern", "v"))[0]),
    }


def accuracy_of(predictor: Any, prompts: Prompt, kept: tuple[int, ...]) -> np.ndarray:
    """Which prompts are answered right with only some heads of layer 2."""
    only = ClampedLearner(predictor.learner, Clamped(predictor.config.learner, (), kept))
    return np.asarray(jnp.argmax(answer_batch(only, prompts), -1) == prompts.y[:, -1])


def run(config: Config, run: Run) -> None:
    """The toy, the seeds of the free network, one training per clamp, and the sweeps of classes and labels."""
    shared = asdict(config)
    n = config.n_classes
    names = [("free", seed, n, 5) for seed in range(config.seeds)]
    names += [(name, 0, n, 5) for name in config.conditions]
    names += [("free", 0, k, 5) for k in config.classes] + [("free", 0, n, k) for k in config.labels]
    parts: dict[str, dict[str, Any]] = {
        part_name(*of): dict(zip(("name", "seed", "n_classes", "n_labels"), of, strict=True)) | {"kind": "training"}
        for of in names
    }
    parts["toy"] = {"kind": "toy"}
    run_parts(run, compute, {name: {**arguments, "config": shared} for name, arguments in parts.items()})


def part_name(name: str, seed: int, n_classes: int, n_labels: int) -> str:
    """The part of one training."""
    return f"{name.replace(' ', '_').replace('+', '_')}-K{n_classes}-L{n_labels}-seed{seed}"


# Claims.


def first_below(arrays: Mapping[str, np.ndarray], level: float) -> float:
    """The first recorded step with a training loss (among the context's labels) below a level; infinite if never."""
    below = np.flatnonzero(arrays["train_loss"] < level)
    return float(arrays["step"][below[0]]) if below.size else np.inf


def claims(run: Run) -> list[Claim]:
    """S1 .. S10; tolerances are those set for the reproduction."""
    return judged(run.arrays_of_parts())


def judged(found: Mapping[str, Mapping[str, np.ndarray]]) -> list[Claim]:
    """The claims from what every part has left."""
    time = {name: first_below(arrays, 0.4 * np.log(2)) for name, arrays in found.items() if name != "toy"}
    main = [name for name in time if name.startswith("free-")]
    free = [found[name] for name in main if f"{free_size(main)}-seed" in name]
    learned = [a for a in free if a["whole"] >= LEARNED]
    full = float(np.median([time[name] for name in main if f"{free_size(main)}-seed" in name]))
    toy_times = {name: toy_time(losses) for name, losses in found["toy"].items()}

    def under(name: str) -> float | None:
        start = part_name(name, 0, 0, 0).split("-K")[0] + "-"
        return next((t for part, t in time.items() if part.startswith(start)), None)

    def of_heads(
        number: int, statement: str, source: str, quantity: str, rule: Rule, what: Callable[..., Any]
    ) -> Claim:
        checks = [Check(quantity, rule, [what(a) for a in learned])] if learned else []
        return claim(number, statement, source, checks, f"no seed reaches an accuracy of {LEARNED}")

    late = "the network to compare with has not learned"
    alone = [t for part, t in time.items() if part.startswith("only_")]
    orders = [
        Check(f"{name} learns before the {than} network", is_true(), (float(t < reference),))
        for name, than, reference in (("layer1", "free", full), ("match", "free", full),
                                      ("layer1+copy", "one-head", under("only 0") or np.inf))
        if (t := under(name)) is not None and np.isfinite(reference)
    ]  # fmt: skip
    grown = [(int(name.split("-K")[1].split("-")[0]), int(name.split("-L")[1].split("-")[0]), time[name])
             for name in main if name.endswith("seed0")]  # fmt: skip
    sweeps = []
    for axis, label in ((0, "classes"), (1, "labels")):
        base = min(g[1 - axis] for g in grown)
        times = [g[2] for g in sorted(g for g in grown if g[1 - axis] == base)]
        if len(times) > 1 and np.isfinite(times[0]):
            later = all(a < b or a == b == np.inf for a, b in zip(times, times[1:], strict=False))
            sweeps.append(Check(f"more {label}, later drop", is_true(), (float(later),)))
    strong = [a["final_strength"] for a in free]
    tests = ("train", "label_pairs", "drawings")
    return [
        claim(1, "Plateau at ln 2, then a sharp drop on all tests", "Fig. 2", [
            *(Check(f"final accuracy, {t}", at_least(0.99), [a[f"{t}_right"][-1] for a in free]) for t in tests),
            Check("share of the log time above half ln 2 within .05 of ln 2", at_least(0.5),
                  [plateau_share(a) for a in free])]),
        claim(2, "Several heads of layer 2 become induction heads of different strength", "Fig. 3", [
            Check("heads with a strength above .5", at_least(2), [float((s > 0.5).sum()) for s in strong]),
            Check("strongest less weakest head", at_least(0.5), [s.max() - s.min() for s in strong])]),
        of_heads(3, "The accuracy of a head alone grows with its strength", "Fig. 3", "rank correlation",
                 at_least(0.8), lambda a: rank_correlation(a["final_strength"], a["alone"])),
        of_heads(4, "Removing one head of layer 2 hardly matters", "Fig. 3", "largest loss of accuracy",
                 at_most(0.05), lambda a: a["whole"] - a["without"].min()),
        of_heads(5, "Heads are additive: others repair errors of the strongest", "Fig. 4",
                 "share of errors repaired by the second best helper", at_least(0.4),
                 lambda a: np.sort(a["fixed"])[-2]),
        claim(6, "Single heads can learn alone, later", "Fig. 5", [
            Check("share of heads that learn alone", at_least(0.5), (float(np.isfinite(alone).mean()),)),
            Check("learns later than the full network", is_true(), (float(np.median(alone) > full),)),
        ] if alone and np.isfinite(full) else [], late if alone else None),
        of_heads(7, "Layer 1 acts only through layer 2", "Sec. 4", "loss of accuracy without its direct effect",
                 at_most(0.01), lambda a: a["whole"] - a["layer1_direct"]),
        claim(8, "A clamped subcircuit brings the drop forward", "Fig. 7", orders,
              late if under("layer1") is not None else None),
        claim(9, "The rank-one toy: the fewer vectors are free, the sooner", "Fig. 6", [
            Check("median steps to 1 %, free", within(170, 1000), (toy_times["free"],)),
            Check("order free > c > b and c", is_true(),
                  (float(toy_times["free"] > toy_times["c"] > toy_times["bc"]),))]),
        claim(10, "More classes or labels, later drop", "Figs. 8, 9", sweeps, late if len(grown) > 1 else None),
    ]  # fmt: skip


def toy_time(losses: np.ndarray) -> float:
    """The median over seeds of the steps to 1 % of the first loss; infinite where it is not reached."""
    below = losses <= 0.01 * losses[:, :1]
    return float(np.median(np.where(below.any(1), below.argmax(1), np.inf)))


def plateau_share(arrays: Mapping[str, np.ndarray]) -> float:
    """Of the records before the drop, the share that lies within .05 nats of ln 2, on a log axis."""
    before = ~(arrays["train_loss"] <= 0.5 * np.log(2))  # NaN is no drop
    early = arrays["train_loss"][: int(np.argmin(before)) if not before.all() else None]
    return float((np.abs(early - np.log(2)) < 0.05).mean())


def free_size(names: list[str]) -> str:
    """The size that most trainings of the free network have."""
    sizes = [name.removeprefix("free-").rsplit("-seed", 1)[0] for name in names]
    return max(set(sizes), key=sizes.count) if len(sizes) > 1 else sizes[0]


def free_seeds(run: Run) -> list[dict[str, np.ndarray]]:
    """All seeds of the free network at its main size."""
    names = [name for name in run.parts() if name.startswith("free-")]
    size = free_size(names)
    return [run.part_arrays(name) for name in names if name.startswith(f"free-{size}-seed")]


def claim(number: int, statement: str, source: str, checks: list[Check], why_not: str | None = None) -> Claim:
    """A claim; without checks it is undecided for the reason given, or because nothing was trained for it."""
    undecided = None if checks else why_not or "this preset does not train the conditions"
    return Claim(f"singh2024/S{number}", statement, source, tuple(checks), undecided)


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """Losses, heads, clamps and the toy."""
    free = free_seeds(run)
    steps = free[0]["step"][1:]
    losses = [
        over_seeds(test, steps, np.stack([a[f"{test}_loss"][1:] for a in free], -1))
        for test in ("train", "label_pairs", "drawings", "classes")
    ]
    heads = [Series(f"head {h}", steps, free[0]["strength"][1:, h]) for h in range(HEADS)]
    names = [f"head {h}" for h in range(HEADS)]
    clamped = [
        Series(name.rsplit("-K", 1)[0], part["step"][1:], part["train_loss"][1:])
        for name in run.parts()
        if name != "toy" and (part := run.part_arrays(name)) is not None and name.endswith("seed0")
    ]
    toy = [
        Series(name, np.arange(losses.shape[1]), np.median(losses / losses[:, :1], 0))
        for name, losses in run.part_arrays("toy").items()
    ]
    level = [("ln 2", float(np.log(2)))]
    return {
        "loss": Lines("Loss among the context's labels (Fig. 2)", "training step", "nats", losses, True, h_lines=level),
        "heads": Grid("Heads of layer 2, first seed (Fig. 3)", (
            Lines("Strength", "training step", "induction strength", heads, True),
            Bars("Accuracy of a head alone", "", "accuracy", names, free[0]["alone"]),
        ), 2),
        "clamps": Lines("Training with clamps (Fig. 7)", "training step", "nats", clamped, True, h_lines=level),
        "toy": Lines("Rank-one toy (Fig. 6)", "step", "loss / first loss, median", toy, log_y=True),
    }  # fmt: skip
