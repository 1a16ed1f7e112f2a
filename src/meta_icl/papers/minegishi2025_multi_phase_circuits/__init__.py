"""In-context meta learning induces multi-phase circuit emergence (Minegishi et al., ICML 2025).

Full title: Beyond induction heads: in-context meta learning induces multi-phase circuit emergence.

Claims. If one of several maps from classes to labels has to be inferred in context, a two-layer attention-only network
learns in three phases, each with a circuit of its own: the query alone (NCC, accuracy 1/T), the labels of the context
as a set (SCC, about 75 %), items with their labels (FCC, 100 %).

Setting. T = 3 maps, K = 64 classes, L = 32 labels, N = 4 pairs, items of 63 channels with noise 0.1, width 128, SGD
0.01 on batches of 128. Text and public code differ; both are options here, and `default` is the code: maps are cyclic
shifts, items carry the number of the item and labels no position, heads have no output projection, the classifier has
two hidden layers. `published text` has places in a random window, label vectors like items, an output projection and
one hidden layer. The number of steps is that of the code (400,000); the text gives none. Every seed has its own
world, and is compared with the ceilings of that world, since the best accuracy of an SCC varies from .67 to .89.
The figure `variants`, and the numbers in it, `variants.json`, compare these two and the steps between them: plateaus
and final circuit of every seed (preset `variants`; none ends with the published circuit: chunk-example of layer 1 is
.19 to .32, and label attention of layer 2 is high with windows only). Preset `sweeps` varies T, K, noise and p_B; other
`SETTINGS` are trained by `--set extra=..`.

Phases are read off the smoothed accuracy over log10 of the step: plateaus between rises of at least a tenth of the
whole. Claim M9 takes "coincide" as within a tenth of the log of all steps. Claims about variations are decided only
where every training of them has learned (final accuracy of .9 or more).

Command: `meta-icl reproduce minegishi2025`. Times: see `TIMES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import every_item_ceiling, label_ceilings, semi_context_theory
from meta_icl.analysis.circuits import (
    accuracy_plateaus,
    circuit_mask,
    circuit_scores,
    log_spaced,
    onset,
    phase_numbers,
    rises,
    shuffled_labels,
    smoothed,
    uniform_circuit_scores,
)
from meta_icl.models import AttentionStack, Induction, ItemIndex, Learner, Window
from meta_icl.models.clamped import Clamped
from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, over_seeds
from meta_icl.prompt import answer_batch, answer_positions
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Rule, absolute, at_least, at_most, is_true, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import MetaClassification, meta_classification
from meta_icl.tasks.meta_classification import rank_law
from meta_icl.training import OnTask, Optimiser, cross_entropy, every_position_cross_entropy, train
from meta_icl.training.replicas import make_replicas

TIMES = {
    "smoke": "2 CPU-min",
    "small": "98 CPU-min",
    "variants": "84 CPU-min",
    "sweeps": "46 CPU-min",
    "pruned": "49 CPU-min (estimated)",
    "paper": "hours (GPU)",
}
IDS = tuple(f"M{i}" for i in range(1, 33))
TRAIN_KEY, P = 0, 65
CIRCUITS = ("NCC", "SCC", "FCC")
SHUFFLES = ("permutation", "derangement", "iid")
BIGRAM, LABEL, CHUNK = range(3)
LEARNED = 0.9  # final accuracy from which on the absence of plateaus, or an order of times, means something
Seeds = Sequence[Mapping[str, np.ndarray]]  # what every seed of a setting left behind


@dataclass(frozen=True)
class Setting:
    """One experiment: deviations of the world and of the network from the public code's, and a circuit mask."""

    world: Mapping[str, Any] = field(default_factory=dict)
    stack: Mapping[str, Any] = field(default_factory=dict)
    positions: str = "item"
    n_hidden: int = 2
    content_labels: bool = False  # fixed label vectors of the items' width, as the text has them
    circuit: str | None = None
    all_labels: bool = False
    learning_rate: float = 0.01
    share: float = 1.0  # of the preset's steps


def _theory(k: int) -> Setting:
    world = {"n_tasks": 2, "n_classes": k, "n_labels": k, "assign": "bijection", "distinct_query": True}
    return Setting(world, circuit="scc", share=0.5)


def _worlds(name: str, values: Sequence[Any], **more: Any) -> dict[str, Setting]:
    short = {"n_tasks": "T", "n_classes": "K", "p_bursty": "p_B", "n_context": "N", "repeats": "B"}.get(name, name)
    return {f"{short}={value}": Setting({name: value, **more}) for value in values}


SETTINGS: dict[str, Setting] = {
    "default": Setting(),
    "item, W_O, 1 hidden": Setting(stack={"project": True}, n_hidden=1),
    "window": Setting(positions="window"),
    "published text": Setting({}, {"project": True}, "window", 1, content_labels=True),
    **{f"only {circuit}": Setting(circuit=circuit, share=0.5) for circuit in ("ncc", "scc", "fcc")},
    **{f"theory K={k}": _theory(k) for k in (8, 16, 32)},
    **_worlds("n_tasks", (1, 2, 4, 6, 9, 12)),
    **_worlds("n_classes", (32, 128, 256, 512)),
    **_worlds("eps", (0.25, 0.5, 0.75, 1.0)),
    **_worlds("alpha", (0.5, 1.0, 1.25)),
    **_worlds("beta", (0.5, 1.0)),
    **_worlds("p_bursty", (0.25, 0.5, 0.75, 1.0)),
    **_worlds("n_context", (1, 2, 8, 16, 32)),
    "B=2, p_B=0.25": Setting({"repeats": 2, "p_bursty": 0.25}),
    "induction": Setting({"n_tasks": 1, "p_bursty": 1.0}),
    **{f"heads={h}": Setting(stack={"n_heads": h}) for h in (2, 4, 8, 16)},
    **{f"layers={n}": Setting(stack={"n_layers": n}) for n in (3, 4, 5)},
    "standard": Setting(stack={"norm": "post", "d_mlp": 512, "project": True, "scaled": True}),
    "all labels": Setting(all_labels=True),
}
PRUNED = ("only ncc", "only scc", "only fcc", "theory K=8", "theory K=16", "theory K=32")
VARIANTS = ("default", "item, W_O, 1 hidden", "window", "published text")
KNOBS = {"n_tasks": ("T", "Maps", 3), "n_classes": ("K", "Classes", 64), "eps": ("eps", "Noise of items", 0.1),
         "p_bursty": ("p_B", "Share of queries from the context", 0.0)}  # fmt: skip


def sweep(knob: str) -> dict[float, str]:
    """The settings that differ from the default in one field of `KNOBS` alone, by its value, in order."""
    found = {KNOBS[knob][2]: "default"}
    found |= {s.world[knob]: name for name, s in SETTINGS.items() if set(s.world) == {knob} and s == Setting(s.world)}
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Config:
    """Sizes; `extra` are settings beyond the default, with `extra_seeds` seeds."""

    seeds: int = 4
    steps: int = 210_000
    extra: tuple[str, ...] = ()
    extra_seeds: int = 1
    extra_steps: int = 100_000
    batch: int = 128
    records: int = 120
    n_eval: int = 4_096
    n_shuffled: int = 1_024
    n_traced: int = 256
    n_ceiling: int = 20_000


PRESETS = {
    "smoke": Config(
        seeds=1, steps=20, extra=("published text", "only fcc", "theory K=8", "T=2", "heads=2", "all labels"),
        extra_steps=8,
        records=4, batch=16, n_eval=64, n_shuffled=32, n_traced=16, n_ceiling=400,
    ),
    # Shrunk: 210,000 of 400,000 steps (after 100,000 one seed of four rested in phase 2; it reached .99 at
    # 197,000, the others by 80,000); networks held in one circuit get 20,000, where some still learn.
    "small": Config(extra=PRUNED, extra_steps=40_000),
    # The published code, the published text, and two steps from one to the other.
    "variants": Config(seeds=2, steps=100_000, extra=VARIANTS[1:], extra_seeds=2),
    # Two values of each knob beside the default: all 18 in the same half hour would stop at 24,000 steps, before
    # phase 3.
    "sweeps": Config(seeds=1, steps=48_000, extra=("T=1", "T=2", "K=32", "K=128", "eps=0.5", "eps=1.0", "p_B=0.5",
                                                   "p_B=1.0"), extra_steps=48_000),
    # Networks held in one circuit, until they rest: `small` stops them on their way.
    "pruned": Config(seeds=1, steps=100_000, extra=PRUNED, extra_steps=120_000),
    "paper": Config(steps=400_000, extra=tuple(SETTINGS)[1:], extra_seeds=3, extra_steps=400_000),
}  # fmt: skip


# What is trained and measured.


def learner_of(setting: Setting, n_labels: int, n_context: int) -> Callable[..., Any]:
    """The description of the network of a setting."""
    stack = AttentionStack(**setting.stack)
    content = {"d_label": 63, "fixed_labels": True} if setting.content_labels else {}
    layout = (ItemIndex if setting.positions == "item" else Window)(setting.all_labels, P)
    learner = Learner(Induction(n_labels, stack, n_hidden=setting.n_hidden, **content), layout)
    if setting.circuit is None:
        return learner
    return Clamped(learner, visible=partial(circuit_mask, setting.circuit, n_context))


def train_setting(part: Run, *, name: str, seed: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed of one setting: accuracies, with shuffled labels too, and circuit scores, while it learns."""
    setting = SETTINGS[name]
    world = partial(meta_classification, **setting.world)
    key = jax.random.key(TRAIN_KEY)
    task = make_replicas(world, Optimiser(), key, [seed], {})[0][0].task
    assert isinstance(task, MetaClassification)
    n_labels = setting.world.get("n_labels", 32)
    steps = max(1, round(setting.share * config["steps" if name == "default" else "extra_steps"]))
    trained = train(
        world,
        learner_of(setting, n_labels, task.n_context),
        steps=steps,
        key=key,
        seeds=[seed],
        batch=config["batch"],
        objective=every_position_cross_entropy if setting.all_labels else cross_entropy,
        optimiser=Optimiser("sgd", learning_rate=setting.learning_rate),
        record=log_spaced(steps, config["records"], first=max(1, min(100, steps // 4))),
        probes={"at": OnTask(partial(measures, config=dict(config), n_labels=n_labels, every=setting.all_labels))},
        store=part,
    )
    history = {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    return history | ceilings_of(task, config["n_ceiling"], setting.all_labels)


def measures(
    predictor: Any, task: MetaClassification, key: Any, *, config: Mapping[str, Any], n_labels: int, every: bool
) -> dict[str, Any]:
    """Accuracy (and that of every map), random-label accuracies, scores "3 layers heads", mean patterns "l h t t"."""
    keys = jax.random.split(key, 4)
    drawn = task.sample_with_classes(config["n_eval"], key=keys[0])
    prompts = drawn.prompts

    def right(prompts: Any) -> Any:
        return (jnp.argmax(answer_batch(predictor, prompts), -1) == prompts.y[:, -1]).astype(float)

    correct = right(prompts)
    member = jax.nn.one_hot(drawn.tasks, task.labels.shape[0])
    out = {"accuracy": correct.mean(), "by_task": (correct @ member) / jnp.maximum(member.sum(0), 1)}
    few = jax.tree.map(lambda leaf: leaf[: config["n_shuffled"]], prompts)
    if task.n_context <= 6:
        for i, kind in enumerate(SHUFFLES):
            if kind != "derangement" or task.n_context > 1:
                out[kind] = right(shuffled_labels(few, kind, n_labels=n_labels, key=keys[1 + i])).mean()
    if every:
        answers = answer_positions(predictor, prompts)
        out["by_item"] = (jnp.argmax(answers, -1) == prompts.y).mean(0)
    shown = jax.tree.map(lambda leaf: leaf[: config["n_traced"]], prompts)
    patterns = jax.vmap(lambda prompt: predictor.trace(prompt.hidden())[1]["pattern"])(shown)
    return out | {"scores": jnp.stack(circuit_scores(patterns)).mean(1), "patterns": patterns.mean(0)}


def ceilings_of(task: MetaClassification, n: int, every: bool) -> dict[str, np.ndarray]:
    """The ceilings of the seed's own world; none where classes are not equally frequent."""
    labels = np.asarray(task.labels)
    law = np.asarray(rank_law(len(labels), task.beta), np.float64)
    out = {"ceilings": np.full(3, np.nan)}
    if float(task.alpha) == 0:
        options = {"repeats": task.repeats, "p_bursty": float(task.p_bursty), "distinct_query": task.distinct_query}
        found = label_ceilings(labels, task.n_context, task_law=law / law.sum(), n_samples=n, **options)
        out = {"ceilings": np.array(found)}
    return out | ({"by_item_ceiling": every_item_ceiling(labels, task.n_context, n_samples=n)} if every else {})


def part_name(name: str) -> str:
    """A setting's name as that of a folder."""
    return name.replace(" ", "_").replace(",", "")


def run(config: Config, run: Run) -> None:
    """Every seed of the default setting, then those of the others."""
    shared = asdict(config)
    names = [("default", config.seeds), *((name, config.extra_seeds) for name in config.extra)]
    parts = {
        f"{part_name(name)}-seed{seed}": {"name": name, "seed": seed, "config": shared}
        for name, seeds in names
        for seed in range(seeds)
    }
    run_parts(run, train_setting, parts)
    run.save_json("variants", variant_rows(load(run)))


# Claims.


def load(run: Run) -> dict[str, Seeds]:
    """What the seeds of every trained setting left behind."""
    parts = run.parts().items()
    found = {
        name: [part.load_arrays("result") for of, part in parts if of.startswith(f"{part_name(name)}-seed")]
        for name in SETTINGS
    }
    return {name: seeds for name, seeds in found.items() if seeds}


@dataclass(frozen=True)
class Course:
    """The course of one seed: its plateaus (accuracy, record index) and its end."""

    arrays: Mapping[str, np.ndarray]
    levels: tuple[float, ...]
    records: tuple[int, ...]

    def at(self, phase: int, score: int, layer: int) -> float:
        """A circuit score (mean over heads) in a phase, from 1; -1 is the end; NaN if the phase does not exist."""
        index = -1 if phase == -1 else (self.records[phase - 1] if phase <= len(self.records) else None)
        return np.nan if index is None else float(self.arrays["scores"][index, score, layer].mean())

    def level(self, phase: int) -> float:
        return self.levels[phase - 1] if phase <= len(self.levels) else np.nan

    def value(self, name: str, phase: int) -> float:
        """A recorded number in a phase or, -1, at the end."""
        if phase == -1:
            return float(self.arrays[name][-1])
        return float(self.arrays[name][self.records[phase - 1]]) if phase <= len(self.records) else np.nan


def course(arrays: Mapping[str, np.ndarray]) -> Course:
    found = accuracy_plateaus(arrays["step"], arrays["accuracy"])
    records = tuple(int(np.argmin(np.abs(arrays["step"] - 10**p.time))) for p in found)
    return Course(arrays, tuple(p.height for p in found), records)


def jump_groups(arrays: Mapping[str, np.ndarray], threshold: float = 0.025) -> int:
    """How many separate stretches of records have a DeltaAcc (of the smoothed accuracy) above the threshold."""
    high = rises(arrays["step"], smoothed(arrays["step"], arrays["accuracy"])) > threshold
    return int(high[0]) + int((high[1:] & ~high[:-1]).sum())


def last_rise(arrays: Mapping[str, np.ndarray]) -> float:
    """The step of the steepest rise above the SCC ceiling's half way to 1."""
    level = 0.5 * (1 + arrays["ceilings"][1])
    above = np.flatnonzero(arrays["accuracy"] >= level)
    return float(arrays["step"][above[0]]) if above.size else np.nan


def claims(run: Run) -> list[Claim]:
    """M1 .. M32; tolerances are those set for the reproduction."""
    return judged(load(run))


def judged(found: Mapping[str, Seeds]) -> list[Claim]:
    """The claims from what was recorded of every trained setting."""
    return [*default_claims(found["default"]), *setting_claims(found)]


def claim(number: int, statement: str, source: str, checks: list[Check], note: str = "") -> Claim:
    missing = "this preset does not train the setting"
    return Claim(f"minegishi2025/M{number}", statement, source, tuple(checks), None if checks else missing, note)


def unlearned(found: Mapping[str, Seeds], names: Sequence[str]) -> str | None:
    """Why settings decide nothing, if so: the median final accuracy of one of them is below `LEARNED`."""
    finals = {name: float(np.median([a["accuracy"][-1] for a in found[name]])) for name in names if name in found}
    below = ", ".join(f"{name} ({value:.2f})" for name, value in finals.items() if not value >= LEARNED)
    return f"final accuracy below {LEARNED}: {below}" if below else None


def default_claims(seeds: Seeds) -> list[Claim]:
    """M1 .. M9, M11, M12: the default setting, every seed against its own world."""
    courses = [course(arrays) for arrays in seeds]

    def check(quantity: str, rule: Rule, values: Sequence[float], share: float | None = None) -> Check:
        return Check(quantity, rule, tuple(values), share=share)

    n = 4
    untrained = [
        check(f"layer {layer + 1}, {name}", absolute(value, 0.03), [a["scores"][0, i, layer].mean() for a in seeds])
        for i, (name, value) in enumerate(zip(("bigram", "label", "chunk"), uniform_circuit_scores(n), strict=True))
        for layer in range(2)
    ]
    both = [
        check(f"phase 1, layer {layer + 1}: bigram", at_least(0.5), [c.at(1, BIGRAM, layer) for c in courses])
        for layer in range(2)
    ]
    second = [
        check("phase 2, layer 1: label attention", at_least(0.6), [c.at(2, LABEL, 0) for c in courses]),
        check("phase 2, layer 2: bigram", at_least(0.5), [c.at(2, BIGRAM, 1) for c in courses]),
        check("layer 1: bigram of phase 2 less that of phase 1", at_most(0.0),
              [c.at(2, BIGRAM, 0) - c.at(1, BIGRAM, 0) for c in courses]),
    ]  # fmt: skip
    end = [
        check("end, layer 1: chunk-example", at_least(0.6), [c.at(-1, CHUNK, 0) for c in courses]),
        check("end, layer 2: label attention", at_least(0.6), [c.at(-1, LABEL, 1) for c in courses]),
    ]
    total = np.log10(seeds[0]["step"][-1])
    chunk = [a["scores"][:, CHUNK, 0].mean(-1) for a in seeds]
    apart = [np.abs(np.log10(onset(a["step"], c)) - np.log10(last_rise(a))) for a, c in zip(seeds, chunk, strict=True)]
    permuted = [c.value("permutation", 2) - c.value("permutation", 1) for c in courses]
    groups = [jump_groups(a) for a in seeds]
    return [
        claim(1, "Untrained attention is uniform over visible tokens", "Table 2", untrained),
        claim(2, "The first plateau is at 30 to 40 %", "Fig. 2",
              [check("height of the first plateau", within(1 / 3 - 0.03, 1 / 3 + 0.05),
                     [c.level(1) for c in courses])]),
        claim(3, "The second plateau is near 75 %: the best that the labels as a set allow in this world", "Fig. 2",
              [check("second plateau less own SCC ceiling", within(-0.10, 0.03),
                     [c.level(2) - c.arrays["ceilings"][1] for c in courses])]),
        claim(4, "The final accuracy is 100 %", "Fig. 2",
              [check("final accuracy", at_least(0.98), [c.value("accuracy", -1) for c in courses])]),
        claim(5, "The accuracy jumps three times", "Fig. 3",
              [check("stretches with a rise above 0.025 per 100 steps", absolute(3, 0), groups, share=0.5)]),
        claim(6, "Phase 1: bigram attention in both layers", "Fig. 4", both),
        claim(7, "Phase 2: label attention in layer 1, bigram in layer 2", "Fig. 4", second),
        claim(8, "End: chunk-example in layer 1, label attention in layer 2", "Fig. 4", end),
        claim(9, "Circuits change where the accuracy jumps", "Fig. 4",
              [check("log10 of step, onset of chunk-example to last jump", at_most(0.1 * total), apart),
               check("rise of chunk-example in layer 1", at_least(0.1), [c.max() - c[0] for c in chunk])]),
        claim(11, "The accuracy with permuted labels rises with phase 2", "Fig. 6",
              [check("phase 2: permuted less clean accuracy", absolute(0, 0.05),
                     [c.value("permutation", 2) - c.level(2) for c in courses]),
               check("accuracy with permuted labels, phase 2 less phase 1", at_least(0.2), permuted)]),
        claim(12, "At the end the accuracy with permuted labels falls below the clean one", "Fig. 6",
              [check("end: accuracy with permuted labels", within(0.5, 0.8),
                     [c.value("permutation", -1) for c in courses]),
               check("end: clean less permuted accuracy", at_least(0.1),
                     [c.value("accuracy", -1) - c.value("permutation", -1) for c in courses])]),
    ]  # fmt: skip


def setting_claims(found: Mapping[str, Seeds]) -> list[Claim]:
    """M10 and M13 .. M32: variations of the setting, where the preset trained them."""

    def values(name: str, what: Callable[[Mapping[str, np.ndarray]], float]) -> tuple[float, ...]:
        return tuple(what(arrays) for arrays in found.get(name, []))

    def checks(quantity: str, rule: Rule, names: Sequence[str], what: Callable[..., float]) -> list[Check]:
        return [Check(f"{name}: {quantity}", rule, values(name, what)) for name in names if name in found]

    def final(a: Mapping[str, np.ndarray]) -> float:
        return float(a["accuracy"][-1])

    def first(a: Mapping[str, np.ndarray]) -> float:
        return course(a).level(1)

    def n_plateaus(a: Mapping[str, np.ndarray]) -> float:
        return float(len(accuracy_plateaus(a["step"], a["accuracy"])))

    def near(a: Mapping[str, np.ndarray], i: int) -> float:
        """Whether there is a plateau within .05 of a ceiling."""
        return float(any(abs(height - a["ceilings"][i]) < 0.05 for height in course(a).levels))

    def end_circuit(a: Mapping[str, np.ndarray]) -> float:
        return float(a["scores"][-1, CHUNK, 0].max() > 0.6 and a["scores"][-1, LABEL, 1].max() > 0.6)

    def steepest(a: Mapping[str, np.ndarray]) -> float:
        return float(rises(a["step"], a["accuracy"]).max())

    def ordered(quantity: str, names: Sequence[str], what: Callable[..., float], sign: int) -> list[Check]:
        medians = [np.median(values(name, what)) for name in names if name in found]
        pairs = sign * np.diff(medians) > 0
        return [Check(quantity, is_true(), (float(pairs.all()),))] if len(medians) > 1 else []

    def learned(number: int, statement: str, source: str, names: Sequence[str], checks: Sequence[Check]) -> Claim:
        """A claim that is left open where a network has not learned: it has no plateaus, and its order is noise."""
        why_not = unlearned(found, names)
        if checks and why_not:
            return Claim(f"minegishi2025/M{number}", statement, source, (), why_not)
        return claim(number, statement, source, list(checks))

    def few(names: Sequence[str], most: int = 0) -> list[Check]:
        return checks("plateaus", at_most(most), names, n_plateaus)

    def absent(names: Sequence[str], i: int) -> list[Check]:
        return checks(f"plateau at the {CIRCUITS[i]} ceiling", at_most(0), names, lambda a: near(a, i))

    def same_end(names: Sequence[str]) -> list[Check]:
        return checks("chunk and label above .6", is_true(), names, end_circuit)

    theory = [
        Check(f"K = {k}: plateau", absolute(semi_context_theory(k, 4), 0.02), values(f"theory K={k}", final))
        for k in (8, 16, 32)
        if f"theory K={k}" in found
    ]
    levels = [
        Check(f"T = {t}: first plateau, or end", within(1 / t - 0.03, 1 / t + 0.05), values(name, first))
        for t, name in ((2, "T=2"), (3, "default"), (4, "T=4"))
        if name in found and (t == 3 or "T=2" in found)
    ]
    # A mask's own ceiling stands at another place than the full network's for FCC only: 1.
    masks = [
        Check(f"{circuit}: final accuracy less own ceiling", absolute(0, 0.05), values(
            f"only {circuit}", lambda a, i=i: final(a) - float(a["ceilings"][i])))
        for i, circuit in enumerate(("ncc", "scc", "fcc")) if f"only {circuit}" in found
    ]  # fmt: skip
    if "only fcc" in found:
        times = [np.median([last_rise(a) for a in group]) for group in (found["default"], found["only fcc"])]
        masks.append(Check("steps to learn: full network over FCC alone", at_least(10), (times[0] / times[1],)))
    by_task = [
        Check(f"{name}: the first map is learned before the last", is_true(), values(
            name, lambda a: float(onset(a["step"], a["by_task"][:, 0]) <= onset(a["step"], a["by_task"][:, -1]))))
        for name in ("beta=1.0",) if name in found
    ]  # fmt: skip
    every = [
        Check("all labels: mean accuracy over items", within(0.82, 0.93), values(
            "all labels", lambda a: float(a["by_item"][-1].mean())))
    ] if "all labels" in found else []  # fmt: skip
    large, noisy, long = ("K=128", "K=256"), ("eps=0.5", "eps=0.75"), ("N=16", "N=32")
    bursty, repeated = [f"p_B={p}" for p in (0.25, 0.5, 0.75, 1.0)], ("B=2, p_B=0.25", "p_B=0.25")
    maps, heads = ("default", "T=6", "T=9", "T=12"), ("heads=4", "heads=8", "heads=16")
    deep = ("layers=3", "layers=4", "layers=5")
    return [
        claim(10, "The plateau of the semi-context circuit follows theory", "Fig. 5", theory),
        learned(13, "The first plateau is at 1/T", "Fig. 7a", ("T=2", "default", "T=4"), levels),
        learned(14, "A single map is learned in one jump", "Fig. 7a", ("T=1",), few(("T=1",))),
        learned(15, "K = 32 has no first phase", "Fig. 7b", ("K=32",), absent(("K=32",), 0)),
        learned(16, "K = 128 and 256 have no second phase", "Fig. 7b", large, absent(large, 1)),
        learned(17, "Noise of .5 and .75 removes the second phase", "Fig. 7c", noisy, absent(noisy, 1)),
        learned(18, "Noise of 1 removes both", "Fig. 7c", ("eps=1.0",), few(("eps=1.0",))),
        learned(19, "Skewed classes remove phases", "Fig. 7d", ("alpha=1.25",), few(("alpha=1.25",), 1)),
        learned(20, "With skewed maps the frequent one is learned first", "Fig. 7e", ("beta=1.0",), by_task),
        learned(21, "Burstiness smooths the course", "Fig. 15", bursty,
                ordered("the steepest rise falls with p_B", bursty, steepest, -1)),
        learned(22, "Repeated classes shorten the first phase", "Fig. 15", repeated,
                ordered("end of phase 1: B = 2 before B = 1", repeated,
                        lambda a: onset(a["step"], a["accuracy"]), 1)),
        learned(23, "One map and a bursty query give an induction head", "Fig. 12", ("induction",),
                [*few(("induction",)), *same_end(("induction",))]),
        claim(24, "Pruned to one circuit, the network stays at that phase's level", "Fig. 13", masks),
        learned(25, "More heads, no plateaus", "Figs. 8, 16", heads, few(heads)),
        claim(26, "Two heads pass a hidden semi-context state", "Fig. 9",
              checks("largest label attention of a head of layer 1", at_least(0.6), ("heads=2",),
                     lambda a: float(a["scores"][:, LABEL, 0].max()))),
        learned(27, "More maps, later jumps", "Fig. 18", maps,
                ordered("last jump by T", maps if "T=6" in found else [], last_rise, 1)),
        learned(28, "Long contexts are learned in one phase, by the same circuit", "Fig. 19", long,
                [*few(long), *same_end(long)]),
        learned(29, "Three layers show phases, four and five do not", "Figs. 22, 23", deep,
                [*checks("plateaus", at_least(1), deep[:1], n_plateaus), *few(deep[1:])]),
        claim(30, "A standard transformer ends with the same circuit", "Fig. 20", same_end(("standard",))),
        claim(31, "With all labels as targets the accuracy stays below 1", "Fig. 21", every),
        Claim("minegishi2025/M32", "In GPT-2 XL chunk-example peaks in earlier layers than label attention", "Fig. 10",
              (), "needs the weights of GPT-2 XL and SST-2, which are not part of this run"),
    ]  # fmt: skip


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """Accuracy with the ceilings and by phase, circuit scores, random labels, patterns, variants, and the settings."""
    return drawn(load(run))


def drawn(found: Mapping[str, Seeds]) -> dict[str, Chart]:
    """The figures of what was recorded of every trained setting."""
    seeds = found["default"]
    shown = max((course(arrays) for arrays in seeds), key=lambda one: len(one.records))
    out: dict[str, Chart] = {
        "accuracy": accuracy_figure(seeds),
        "phases": phase_figure(shown),
        "circuits": circuit_figure("Circuits while training (Fig. 4)", seeds),
        "random_labels": shuffled_figure(seeds),
        "patterns": pattern_figure(shown),
        "variants": variant_figure(found),
    }
    for name in (name for name in found if name.startswith("heads=")):
        # One seed: which head is which differs from seed to seed.
        title = f"Circuits with {name.removeprefix('heads=')} heads, first seed (Figs. 9, 17)"
        out[f"circuits_{name.replace('=', '_')}"] = circuit_figure(title, found[name][:1])
    diagrams = [diagram for knob in KNOBS if (diagram := phase_diagram(knob, found)) is not None]
    if diagrams:
        out["phase_diagrams"] = Grid("Accuracy by setting (rows) and step (Figs. 7, 15)", diagrams, 2)
    others = {name: arrays[0] for name, arrays in found.items() if name != "default"}
    return out | ({"settings": settings_figure(others)} if others else {})


def accuracy_figure(seeds: Seeds) -> Chart:
    series = [Series(f"seed {i}", a["step"][1:], a["accuracy"][1:]) for i, a in enumerate(seeds)]
    lines = [(name, float(np.median([a["ceilings"][i] for a in seeds]))) for i, name in enumerate(CIRCUITS)]
    caption = (
        "Lines: the best accuracies from the query alone, with the set of labels, and in full (median over worlds)."
    )
    return Lines("Accuracy in three phases (Fig. 2)", "training step", "accuracy", series, log_x=True, caption=caption,
                 h_lines=lines)  # fmt: skip


def phase_figure(shown: Course) -> Chart:
    """The accuracy of one seed, coloured by phase, and the ceilings of its own world."""
    steps, accuracy = shown.arrays["step"], shown.arrays["accuracy"]
    numbers = phase_numbers(steps, accuracy, accuracy_plateaus(steps, accuracy))
    series = []
    for phase in np.unique(numbers):
        at = np.flatnonzero(numbers == phase)
        at = np.append(at, at[-1] + 1)[: len(steps) - at[0]]  # up to the first record of the next, without a gap
        at = at[steps[at] > 0]
        series.append(Series(f"phase {phase}" if phase else "before", steps[at], accuracy[at]))
    levels = [(name, float(c)) for name, c in zip(CIRCUITS, shown.arrays["ceilings"], strict=True) if np.isfinite(c)]
    caption = (
        "The seed with the most plateaus. Phases are parted where the accuracy is half way between two plateaus."
        " Lines: the best accuracies in this seed's world from the query alone, with the set of labels, and in full."
    )
    return Lines("Phases of one seed (Figs. 2, 3)", "training step", "accuracy", series, log_x=True, caption=caption,
                 h_lines=levels)  # fmt: skip


def circuit_figure(title: str, seeds: Seeds) -> Chart:
    """The three scores of every layer (rows) and head (columns) over the logarithm of the step."""
    layers, heads = seeds[0]["scores"].shape[2:]
    charts = [
        Lines(f"Layer {layer + 1}" + (f", head {head + 1}" if heads > 1 else ""), "training step", "attention", [
            over_seeds(name, seeds[0]["step"][1:], np.stack([a["scores"][1:, i, layer, head] for a in seeds], -1))
            for i, name in enumerate(("bigram", "label attention", "chunk-example"))
        ], log_x=True)
        for layer in range(layers) for head in range(heads)
    ]  # fmt: skip
    return Grid(title, charts, heads if heads > 1 else layers)


def shuffled_figure(seeds: Seeds) -> Chart:
    series = [
        over_seeds(name, seeds[0]["step"][1:], np.stack([a[name][1:] for a in seeds], -1))
        for name in ("accuracy", *SHUFFLES)
    ]
    return Lines("Accuracy with other labels in the context (Fig. 6)", "training step", "accuracy", series, log_x=True)


def pattern_figure(shown: Course) -> Chart:
    """Mean attention on every plateau and at the end (rows), in every layer and head (columns)."""
    patterns, steps = shown.arrays["patterns"], shown.arrays["step"]
    names = [f"{'xl'[i % 2]}{i // 2 + 1}" for i in range(patterns.shape[-1] - 1)] + ["q"]
    moments = [(f"plateau {i + 1}", record) for i, record in enumerate(shown.records)] + [("end", len(steps) - 1)]
    rows = []
    for moment, record in moments:
        panels = [
            Panel(f"{moment}, layer {layer + 1}, head {head + 1}", pattern, names, names)
            for layer, heads in enumerate(patterns[record])
            for head, pattern in enumerate(heads)
        ]
        rows.append(Heatmaps(f"{moment.capitalize()}, step {steps[record]:,.0f}", panels, diverging=False))
    caption = "One seed. Rows read, columns are read. Patterns are means over prompts."
    return Grid("Attention on the plateaus and at the end (Fig. 4)", rows, 1, caption)


def variant_rows(found: Mapping[str, Seeds]) -> dict[str, dict[str, float]]:
    """Plateaus, own SCC ceiling, final accuracy and final scores (means over heads) of every seed of every variant."""
    rows = {}
    for name in (name for name in VARIANTS if name in found):
        for i, arrays in enumerate(found[name]):
            c = course(arrays)
            row = {"P1": c.level(1), "P2": c.level(2), "SCC": float(arrays["ceilings"][1])}
            row["end"] = c.value("accuracy", -1)
            for layer in range(2):
                row |= {f"{letter}{layer + 1}": c.at(-1, score, layer) for score, letter in enumerate("BLC")}
            rows[f"{name}, seed {i}"] = row
    return rows


def variant_figure(found: Mapping[str, Seeds]) -> Chart:
    rows = variant_rows(found)
    panels = [
        Panel(title, [[row[column] for column in columns] for row in rows.values()], columns, list(rows))
        for title, columns in (
            ("accuracy", ("P1", "P2", "SCC", "end")),
            ("final circuit", ("B1", "L1", "C1", "B2", "L2", "C2")),
        )
    ]
    caption = (
        "One row per seed. P1, P2: plateaus; SCC: the best accuracy from the set of labels in that seed's world. B:"
        " bigram, L: label attention, C: chunk-example, of layers 1 and 2. Published at the end: C1 and L2 both high."
    )
    return Heatmaps("Variants: plateaus and final circuit", panels, caption, False, shared_scale=True)


def phase_diagram(knob: str, found: Mapping[str, Seeds]) -> Chart | None:
    """Accuracy by the value of a knob (rows) and step (columns, the last one too), the median over seeds; none for a
    single value."""
    values = {value: found[name] for value, name in sweep(knob).items() if name in found}
    if len(values) < 2:
        return None
    last = int(max(seeds[0]["step"][-1] for seeds in values.values()))
    marks = [k * 10**power for power in range(len(str(last))) for k in (1, 2, 5)]
    columns = [*(n for n in marks if min(100, last // 4) <= n < last), last]
    rows = [np.median([at_steps(arrays, columns) for arrays in seeds], 0) for seeds in values.values()]
    letter, title, _ = KNOBS[knob]
    names = [f"{n}" if n < 1_000 else f"{n / 1_000:g}k" for n in columns]
    panel = Panel(f"{letter} by step", rows, names, [f"{value:g}" for value in values])
    return Heatmaps(title, [panel], diverging=False)


def at_steps(arrays: Mapping[str, np.ndarray], steps: Sequence[int]) -> np.ndarray:
    """The accuracy at given steps, linear in their logarithm; NaN outside of the training."""
    times = np.log10(arrays["step"][1:])
    return np.interp(np.log10(steps), times, arrays["accuracy"][1:], left=np.nan, right=np.nan)


def settings_figure(others: Mapping[str, Mapping[str, np.ndarray]]) -> Chart:
    series = [Series(name, a["step"][1:], a["accuracy"][1:]) for name, a in others.items()]
    return Lines("Other settings", "training step", "accuracy", series, log_x=True)
