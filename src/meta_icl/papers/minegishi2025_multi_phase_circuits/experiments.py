"""What is trained and measured: attention-only transformers, and the circuits in their patterns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import every_item_ceiling, label_ceilings
from meta_icl.analysis import Plateau
from meta_icl.analysis.circuits import (
    REMOVALS,
    accuracy_plateaus,
    circuit_mask,
    circuit_scores,
    log_spaced,
    own_item_share,
    shuffled_labels,
    without,
)
from meta_icl.models import Clamped, InContextLearner, ItemIndex, Learner, Window, minegishi
from meta_icl.prompt import answer_batch, answer_positions
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import MetaClassification, meta_classification
from meta_icl.tasks.meta_classification import rank_law
from meta_icl.training import OnTask, Optimiser, cross_entropy, every_position_cross_entropy, train
from meta_icl.training.replicas import make_replicas

from .config import SETTINGS, VARIANTS, Config, Setting

TRAIN_KEY, P = 0, 65
CIRCUITS = ("NCC", "SCC", "FCC")
SHUFFLES = ("permutation", "derangement", "iid")
NEAR = 0.05  # of a ceiling: a plateau there is one of its circuit
Seeds = Sequence[Mapping[str, np.ndarray]]  # what every seed of a setting left behind


def learner_of(setting: Setting, n_labels: int, n_context: int) -> Callable[..., Any]:
    """The description of the network of a setting."""
    labels = {} if setting.labels == "table" else {"d_label": 63, "fixed_labels": setting.labels == "fixed"}
    layout = (ItemIndex if setting.positions == "item" else Window)(setting.all_labels, P)
    network = minegishi(n_labels, project=setting.project, n_hidden=setting.n_hidden, **labels, **setting.stack)
    learner = Learner(network, layout)
    if setting.circuit is None:
        return learner
    return Clamped(learner, visible=partial(circuit_mask, setting.circuit, n_context))


def train_setting(part: Run, *, name: str, seed: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed of one setting: accuracies, with shuffled labels and without kinds of attention too, and circuit scores.

    All are recorded while it learns, at `planned` steps; where the training ended early, the later ones have no entry.
    """
    setting = SETTINGS[name]
    world = partial(meta_classification, **setting.world)
    key = jax.random.key(TRAIN_KEY)
    task = make_replicas(world, Optimiser(), key, [seed], {})[0][0].task
    assert isinstance(task, MetaClassification)
    n_labels = setting.world.get("n_labels", 32)
    steps = max(1, round(setting.share * config["steps" if name == "default" else "extra_steps"]))
    planned = log_spaced(steps, config["records"], first=max(1, min(100, steps // 4)))
    trained = train(
        world,
        learner_of(setting, n_labels, task.n_context),
        steps=steps,
        key=key,
        seeds=[seed],
        batch=config["batch"],
        objective=every_position_cross_entropy if setting.all_labels else cross_entropy,
        optimiser=Optimiser("sgd", learning_rate=setting.learning_rate),
        record=planned,
        stop_below=config["stop_below"],
        probes={"at": OnTask(partial(measures, config=dict(config), n_labels=n_labels, every=setting.all_labels))},
        store=part,
    )
    history = {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    return history | {"planned": np.array([0, *planned])} | ceilings_of(task, config["n_ceiling"], setting.all_labels)


def measures(
    predictor: Any, task: MetaClassification, key: Any, *, config: Mapping[str, Any], n_labels: int, every: bool
) -> dict[str, Any]:
    """Accuracy (and that of every map), random-label accuracies, scores "3 layers heads", mean patterns "l h t t".

    Where nothing else restricts attention, also the accuracy with each kind of it removed, and without (`intact`), on
    the same prompts.
    """
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
    if isinstance(predictor, InContextLearner) and not every:
        some = jax.tree.map(lambda leaf: leaf[: config["n_removed"]], prompts)
        n_layers = predictor.network.n_layers
        masks = [jnp.asarray(without(removal, task.n_context, n_layers)) for removal in REMOVALS]
        out["removed"] = jnp.stack(
            [(jnp.argmax(predictor.batched(some, mask), -1) == some.y[:, -1]).mean() for mask in masks]
        )
        out["intact"] = correct[: config["n_removed"]].mean()
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


# What claims and figures read of a finished run.


def load(run: Run) -> dict[str, Seeds]:
    """What the seeds of every trained setting left behind, up to the last step that was planned (`held`)."""
    parts = run.parts().items()
    found = {
        name: [held(part.load_arrays("result")) for of, part in parts if of.startswith(f"{part_name(name)}-seed")]
        for name in SETTINGS
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def held(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The records of one seed at all planned steps: those after an early end are the last one, for nothing changed.

    `trained` is the number of steps that were taken.
    """
    done, planned = len(arrays["step"]), arrays["planned"]
    once = ("planned", "ceilings", "by_item_ceiling")
    out = {name: v if name in once else v[np.minimum(np.arange(len(planned)), done - 1)] for name, v in arrays.items()}
    return out | {"step": planned, "trained": arrays["step"][-1]}


def costs(arrays: Mapping[str, np.ndarray], removal: str) -> np.ndarray:
    """What removing a kind of attention costs of the accuracy, at every record."""
    return arrays["intact"] - arrays["removed"][:, REMOVALS.index(removal)]


def own_share(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of what labels give to items in layer 1, the share of their own item, at every record (mean over heads)."""
    return np.asarray(own_item_share(jnp.asarray(arrays["patterns"][:, 0])).mean(-1))


@dataclass(frozen=True)
class Course:
    """The course of one seed: its phases, which are plateaus, and its end."""

    arrays: Mapping[str, np.ndarray]
    phases: tuple[Plateau, ...]

    @property
    def levels(self) -> tuple[float, ...]:
        """The accuracies of the phases."""
        return tuple(phase.height for phase in self.phases)

    @property
    def records(self) -> tuple[int, ...]:
        """The records in the middle of the phases."""
        return tuple(int(np.argmin(np.abs(self.arrays["step"] - 10**phase.time))) for phase in self.phases)

    def of(self, values: np.ndarray, phase: int) -> float:
        """One of the values at every record: that in a phase, from 1, or at the end, -1; NaN without such a phase."""
        if phase > len(self.records):
            return np.nan
        return float(values[-1 if phase == -1 else self.records[phase - 1]])

    def at(self, phase: int, score: int, layer: int) -> float:
        """A circuit score (mean over heads)."""
        return self.of(self.arrays["scores"][:, score, layer].mean(-1), phase)

    def level(self, phase: int) -> float:
        return self.levels[phase - 1] if phase <= len(self.levels) else np.nan

    def cost(self, removal: str, phase: int) -> float:
        """What removing a kind of attention costs of the accuracy."""
        return self.of(costs(self.arrays, removal), phase)

    def value(self, name: str, phase: int) -> float:
        """A recorded number."""
        return self.of(self.arrays[name], phase)


def course(arrays: Mapping[str, np.ndarray]) -> Course:
    """The course of one seed; a plateau below what the query alone allows is a shoulder of the first rise, no phase."""
    found = accuracy_plateaus(arrays["step"], arrays["accuracy"])
    return Course(arrays, tuple(p for p in found if not p.height < arrays["ceilings"][0] - NEAR))


def variant_rows(found: Mapping[str, Seeds]) -> dict[str, dict[str, float]]:
    """Plateaus, own SCC ceiling, final accuracy, circuit (means over heads), costs of every seed of every variant."""
    rows = {}
    for name in (name for name in VARIANTS if name in found):
        for i, arrays in enumerate(found[name]):
            c = course(arrays)
            row = {"P1": c.level(1), "P2": c.level(2), "SCC": float(arrays["ceilings"][1])}
            row["end"] = c.value("accuracy", -1)
            for layer in range(2):
                row |= {f"{letter}{layer + 1}": c.at(-1, score, layer) for score, letter in enumerate("BLC")}
            row |= {"own share": own_share(arrays)[-1]} | {removal: c.cost(removal, -1) for removal in REMOVALS}
            rows[f"{name}, seed {i}"] = row
    return rows
