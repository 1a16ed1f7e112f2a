"""The claims on language models (preset `language`): what of a task can be read from a state, and what states do.

The source asks Llama-3.1-8B and others, of parts of speech in licensed sentences and of bitwise operations. Here it is
SmolLM2-135M-Instruct unless `--set model=FOLDER` says otherwise, of bitwise operations as published (two numbers of
five digits) and, in place of parts of speech, of lists of word pairs (Todd et al., 2024). The null task has random
answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from meta_icl.analysis import decodability_by_layer
from meta_icl.lm.answers import Asked
from meta_icl.lm.loaded import LanguageModel, language_model, model_of, undecided_by
from meta_icl.lm.prompts import draw_prompt
from meta_icl.lm.states import Replaced, answers_with_states, replaced_answers
from meta_icl.lm.task_vectors import asked_of
from meta_icl.lm.tasks import BITWISE, TextTask, generated, shipped
from meta_icl.plotting import Chart, Grid, Lines, Series, deciding
from meta_icl.runs import Claim, Run
from meta_icl.runs.claims import Check, Converged, at_least, at_most, within
from meta_icl.sweeps import run_parts

NEIGHBOURS = 10
PUBLISHED = {"bitwise": 13 / 32, "pairs": 15 / 32}  # the best layer over the number of layers; pairs: parts of speech
NAMED = {
    **{f"bitwise_{name}": f"Bitwise {name.upper()} of two binary numbers:" for name in BITWISE},
    "antonym": "The opposite of a word:", "capitalize": "A word with a capital letter:",
    "country_capital": "The capital of a country:", "english_french": "An English word in French:",
    "next_item": "What comes next:", "present_past": "The past tense of a verb:",
    "singular_plural": "The plural of a noun:",
}  # fmt: skip
FAMILIES = {"bitwise": [n for n in NAMED if n.startswith("bitwise")],
            "pairs": [n for n in NAMED if not n.startswith("bitwise")]}  # fmt: skip
STATEMENTS = {
    "H-12": ("Llama-3.1-8B: decodability peaks at mid-depth", "Fig. 19"),
    "H-13": ("Llama-3.1-8B: decodability predicts accuracy", "Fig. 4"),
    "H-14": ("The same in other language models", "Figs. 21, 22"),
    "H-15": ("Interventions on the state change accuracy", "Fig. 20"),
    "H-16": ("Finetuning early layers raises decodability and accuracy (parts of speech)", "Table 1"),
    "H-17": ("The same on bitwise operations", "Table 1"),
    "H-18": ("Naming the task in the prompt raises both", "Table 1"),
    "H-19": ("OLMo-7B: both rise together over pretraining", "Figs. 5, 6"),
}
TRAINING = "needs a language model to be finetuned, which no preset does"
NEVER = {"H-16": TRAINING, "H-17": TRAINING, "H-19": "needs checkpoints of a language model's pretraining"}


@dataclass(frozen=True)
class LanguageConfig:
    """The model, prompts per task, numbers of examples; the first after which interventions are made is `shots[1]`."""

    model: str = "smollm2"
    per_task: int = 12
    shots: tuple[int, ...] = (1, 4, 10)


def task_named(name: str) -> TextTask:
    """Word pairs, or a bitwise operation."""
    return generated(name, 1000) if name.startswith("bitwise") else shipped(name)


def prompts_of(
    own: LanguageModel, task: TextTask, shots: int, n: int, *, control: str = "right", named: str = ""
) -> list[Asked]:
    """Prompts of a task, with its name in the first line if one is given."""
    found = []
    for i in range(n):
        drawn = draw_prompt(task, shots, rng=np.random.default_rng((0, i)), control=control)
        asked = asked_of(drawn, own.tokenizer, task.separator, own.opening)
        line = own.tokenizer.numbers(f"{named}{task.separator}") if named else []
        k = len(own.before)
        found.append(Asked((*asked.before[:k], *line, *asked.before[k:]), asked.answer))
    return found


def measure(part: Run, *, model: str, family: str, shots: int, per_task: int, named: bool) -> dict[str, np.ndarray]:
    """Decodability "layers tasks" and right answers "tasks prompts" after so many examples; interventions with 4.

    `positive` and `null` "tasks prompts" are right answers with the mean state of other prompts of the task that were
    answered right in place, and with that of the null task, at the layer of the best decodability.
    """
    del part
    own, tasks = language_model(model), FAMILIES[family]
    prompts = [prompts_of(own, task_named(n), shots, per_task, named=NAMED[n] if named else "") for n in tasks]
    told, states = answers_with_states(own.network, [one for each in prompts for one in each])
    owner = np.repeat(np.arange(len(tasks)), per_task)
    neighbours = min(NEIGHBOURS, per_task - 1)
    by_layer = decodability_by_layer(
        jnp.asarray(np.moveaxis(states, 1, 0)), jnp.asarray(owner), n_tasks=len(tasks), n_neighbours=neighbours
    )
    decoded, right = np.asarray(by_layer), told.greedy.reshape(len(tasks), per_task)
    found = {"decoded": decoded, "right": right, "losses": -told.scores.reshape(right.shape)}
    if named or shots != 4:
        return found
    best = int(decoded.mean(1).argmax())
    nothing = null_states(own, family, shots, per_task)[:, best].mean(0)
    mine = states[:, best].reshape(len(tasks), per_task, -1)
    positive = [replacement(mine[i], right[i]) for i in range(len(tasks))]
    wanted = [Replaced(one, best, positive[i][j]) for i, each in enumerate(prompts) for j, one in enumerate(each)]
    found["positive"] = replaced_answers(own.network, wanted).greedy.reshape(right.shape)
    wanted = [Replaced(one, best, nothing) for each in prompts for one in each]
    return found | {"null": replaced_answers(own.network, wanted).greedy.reshape(right.shape)}


def null_states(own: LanguageModel, family: str, shots: int, n: int) -> np.ndarray:
    """States behind examples whose answers follow no rule."""
    if family == "bitwise":
        asked = prompts_of(own, task_named("bitwise_null"), shots, n)
    else:
        each = [prompts_of(own, task_named(name), shots, n, control="random") for name in FAMILIES[family]]
        asked = [each[i % len(each)][i] for i in range(n)]
    return answers_with_states(own.network, asked)[1]


def replacement(states: np.ndarray, right: np.ndarray) -> np.ndarray:
    """For every prompt the mean state of the others that were answered right, or of all others where none was."""
    found = []
    for j in range(len(states)):
        others = right & (np.arange(len(states)) != j)
        found.append(states[others if others.any() else np.arange(len(states)) != j].mean(0))
    return np.stack(found)


def run_language(config: LanguageConfig, run: Run) -> None:
    """Every family after every number of examples, and with its tasks named after four."""
    shared: dict[str, Any] = {"model": config.model, "per_task": config.per_task}
    parts = {
        f"{family}-{shots}": shared | {"family": family, "shots": shots, "named": False}
        for family in FAMILIES for shots in config.shots
    }  # fmt: skip
    parts |= {f"{family}-named": shared | {"family": family, "shots": 4, "named": True} for family in FAMILIES}
    run_parts(run, measure, parts)


Found = Mapping[str, Mapping[str, np.ndarray]]


def undecided_language_claims() -> list[Claim]:
    """H-12 .. H-19 where small decoders are trained."""
    why = "asked of a language model by the preset `language`"
    return [Claim(f"han2024/{id}", *STATEMENTS[id], (), NEVER.get(id, why)) for id in STATEMENTS]


def language_claims(run: Run) -> list[Claim]:
    """H-12 .. H-19 alone: nothing is trained."""
    shots = tuple(run.config["config"]["shots"])
    return judged_language({name: run.part_arrays(name) for name in run.parts()}, shots, str(model_of(run.config)))


def judged_language(found: Found, shots: Sequence[int], model: str) -> list[Claim]:
    """The claims from what every family left behind; tolerances are those of the facts, in shares of the depth."""
    four = {family: found[f"{family}-4"] for family in FAMILIES if f"{family}-4" in found}
    depth = {name: (int(a["decoded"].mean(1).argmax()) + 1) / len(a["decoded"]) for name, a in four.items()}
    fits = {family: points(found, family, shots) for family in FAMILIES}
    squares = [r_squared(*fits[family]) for family in FAMILIES]
    varies = Converged("spread of accuracy over tasks and shots", at_least(0.05), [fits[f][1].std() for f in FAMILIES])
    plain = np.concatenate([a["right"].mean(1) for a in four.values()])
    answered = Converged("accuracy of a task after 4 examples", at_least(0.1), plain)
    told = "; ".join(
        f"{name}: decoded {a['decoded'].mean(1).max():.2f} at layer {int(a['decoded'].mean(1).argmax()) + 1}, right "
        f"{a['right'].mean():.2f}, with positive states {a['positive'].mean():.2f}, with null {a['null'].mean():.2f}"
        for name, a in four.items()
    )  # fmt: skip
    base = f"Measured on {model}; word pairs in place of parts of speech. After 4 examples: {told}."
    pairs = [(four[f], found[f"{f}-named"]) for f in four]
    gains = {k: [float(b[k].mean(1 - (k == "right")).max() - a[k].mean(1 - (k == "right")).max()) for a, b in pairs]
             for k in ("decoded",)}  # fmt: skip
    right = [float(b["right"].mean() - a["right"].mean()) for a, b in pairs]
    changed = {n: np.concatenate([(a[n].mean(1) - a["right"].mean(1)) for a in four.values()])
               for n in ("positive", "null")}  # fmt: skip
    checks: dict[str, list[Check]] = {
        "H-12": [Check(f"best layer / number of layers, {f}", within(PUBLISHED[f] - 3 / 32, PUBLISHED[f] + 3 / 32),
                       [depth[f]]) for f in four],
        "H-13": [Check("R^2 of accuracy on decodability", at_least(0.3), squares)],
        "H-14": [Check("R^2 of accuracy on decodability", at_least(0.2), squares)],
        "H-15": [Check("accuracy with positive states less plain, by task", at_least(0), changed["positive"]),
                 Check("accuracy with null states less plain, by task", at_most(0), changed["null"])],
        "H-18": [Check("decodability with the task named less without", at_least(0), gains["decoded"]),
                 Check("accuracy with the task named less without", at_least(0), right)],
    }  # fmt: skip
    return [
        Claim(f"han2024/{id}", *STATEMENTS[id], tuple(checks.get(id, ())), NEVER.get(id) or undecided_by(model),
              base if id in checks else None, {"H-13": varies, "H-14": varies, "H-15": answered}.get(id))
        for id in STATEMENTS
    ]  # fmt: skip


def points(found: Found, family: str, shots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Decodability, at the best layer of all tasks, and accuracy of every task after every number of examples."""
    each = [found[f"{family}-{k}"] for k in shots]
    decoded = [a["decoded"][a["decoded"].mean(1).argmax()] for a in each]
    return np.concatenate(decoded), np.concatenate([a["right"].mean(1) for a in each])


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """The share of the variance of y that a line in x explains; 0 where one of the two is constant."""
    return float(np.corrcoef(x, y)[0, 1] ** 2) if x.std() > 0 and y.std() > 0 else 0.0


def language_figures(run: Run) -> dict[str, Chart]:
    """Decodability by layer, and accuracy against it."""
    shots = tuple(run.config["config"]["shots"])
    found = {name: run.part_arrays(name) for name in run.parts()}
    by_layer, against = [], []
    for family in FAMILIES:
        for name in (*(f"{family}-{k}" for k in shots), f"{family}-named"):
            decoded = found[name]["decoded"].mean(1)
            style = "dashed" if name.endswith("named") else "line"
            by_layer.append(Series(name, np.arange(1, len(decoded) + 1), decoded, style=style))
        against.append(Series(family, *points(found, family, shots), style="points"))
    return deciding({
        "language": Grid("Tasks in the states of a language model (Figs. 4, 19)", (
            Lines("Decodability by layer and number of examples", "layer", "share decoded", by_layer),
            Lines("Accuracy against decodability, by task and number of examples", "decoded", "right", against)), 2),
    }, {"language": "H-12 H-13 H-14 H-15 H-18"})  # fmt: skip
