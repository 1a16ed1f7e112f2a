"""What is measured: task vectors of a language model by layer, how tasks lie among them, and tasks in conflict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.errors import require
from meta_icl.lm.answers import Asked, log_probabilities
from meta_icl.lm.loaded import LanguageModel, language_model
from meta_icl.lm.prompts import TextPrompt
from meta_icl.lm.states import Replaced, replaced_answers
from meta_icl.lm.task_files import read_task
from meta_icl.lm.task_vectors import Contexts, asked_of, carried, contexts_of
from meta_icl.lm.tasks import Example, TextTask
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts

from .config import Config

CHOOSING, TESTING = 1, 2  # seeds of the prompts on which the layer is chosen, and of all others


def layers_of(n_layers: int, every: int) -> list[int]:
    """The layers that are tried, counted from 0; the last is among them."""
    return sorted({*range(0, n_layers, every), n_layers - 1})


def contexts(own: LanguageModel, task: TextTask, shots: int, prompts: int, seed: int) -> Contexts:
    """Prompts of a task with the vectors of their contexts."""
    return contexts_of(
        own.network, own.tokenizer, task, shots=shots, prompts=prompts, seed=seed, opening=own.opening
    )  # fmt: skip


def measure_task(part: Run, *, model: str, task: str, shots: int, choosing: int, testing: int, every: int) -> Any:
    """Answers with examples, alone, and with the vector of every layer; then, at the best layer, on other prompts.

    `control` has the state of the dummy without any examples in place. `vectors` are "prompts layers d".
    """
    del part
    own, asked = language_model(model), read_task(task)
    tried = carried(
        own.network, contexts(own, asked, shots, choosing, CHOOSING), layers_of(own.network.n_layers, every)
    )
    found = contexts(own, asked, shots, testing, TESTING)
    tested = carried(own.network, found, [tried.best])
    control = carried(own.network, found, [tried.best], found.bare)
    return {
        "layers": np.array(tried.layers),
        "by layer": tried.by_layer,
        "loss by layer": tried.losses,
        "best": np.array(tried.best),
        "n_layers": np.array(own.network.n_layers),
        "with examples": tested.with_examples,
        "alone": tested.alone,
        "vector": tested.by_layer[0],
        "control": control.by_layer[0],
        "loss with examples": tested.loss_with_examples,
        "loss alone": tested.loss_alone,
        "loss vector": tested.losses[0],
        "vectors": found.vectors,
    }


def measure_conflict(part: Run, *, model: str, pair: str, layer: int, shots: int, testing: int) -> dict[str, Any]:
    """Prompts with examples of A, plain and with the vector of B: how often the answer is that of A, and that of B."""
    del part
    first, _, second = pair.partition(">")
    own, a, b = language_model(model), read_task(first), read_task(second)
    require(first != second and bool(second), "conflicts", pair, "two names as A>B")
    answers = {example.question: example.answer for example in b.examples}
    shared = [
        i for i, example in enumerate(a.examples) if answers.get(example.question, example.answer) != example.answer
    ]
    require(len(shared) >= 2, f"words that {first} and {second} both answer", len(shared), "at least 2")
    vectors = contexts(own, b, shots, testing, TESTING).vectors[:, layer]
    prompts, others = [], []
    for i in range(testing):
        rng = np.random.default_rng((TESTING, i))
        query = int(rng.choice(shared))
        rest = [n for n in rng.permutation(len(a.examples)) if n != query][:shots]
        context, asked = tuple(a.examples[n] for n in rest), a.examples[query]
        prompts.append(prompt_of(own, a, context, asked))
        others.append(prompt_of(own, a, context, Example(asked.question, answers[asked.question])))
    plain = log_probabilities(own.network, [*prompts, *others]).greedy
    wanted = [Replaced(one, layer, vectors[i]) for each in (prompts, others) for i, one in enumerate(each)]
    placed = replaced_answers(own.network, wanted).greedy
    return {
        "plain A": plain[:testing], "plain B": plain[testing:], "vector A": placed[:testing],
        "vector B": placed[testing:],
    }  # fmt: skip


def prompt_of(own: LanguageModel, task: TextTask, context: Sequence[Example], query: Example) -> Asked:
    """A query and its answer behind a context."""
    return asked_of(TextPrompt(tuple(context), query, (), ()), own.tokenizer, task.separator, own.opening)


def run(config: Config, run: Run) -> None:
    """Every task, and then every conflict at the layer that was best for its second task."""
    shared = {"model": config.model, "shots": config.shots, "testing": config.testing}
    each = {name: f"task{i}" for i, name in enumerate(config.tasks)}
    found = run_parts(run, measure_task, {
        part: shared | {"task": name, "choosing": config.choosing, "every": config.every} for name, part in each.items()
    })  # fmt: skip
    pairs = [pair for pair in config.conflicts if pair.partition(">")[2] in each]
    run_parts(run, measure_conflict, {
        f"conflict{i}": shared | {"pair": pair, "layer": int(found[each[pair.partition(">")[2]]]["best"])}
        for i, pair in enumerate(pairs)
    })  # fmt: skip


# What claims and figures read of a finished run.

Found = dict[str, Mapping[str, np.ndarray]]


def tasks_of(run: Run) -> Found:
    """What every task left behind."""
    return {name: run.part_arrays(f"task{i}") for i, name in enumerate(run.config["config"]["tasks"])}


def conflicts_of(run: Run) -> Found:
    """What every pair of tasks left behind, by its name A>B."""
    names = run.config["config"]["tasks"]
    pairs = [pair for pair in run.config["config"]["conflicts"] if pair.partition(">")[2] in names]
    return {pair: run.part_arrays(f"conflict{i}") for i, pair in enumerate(pairs)}


def common_layer(found: Found) -> int:
    """The median of the tasks' best layers."""
    return int(np.median([int(arrays["best"]) for arrays in found.values()]))


def neighbours(found: Found) -> np.ndarray:
    """The share of each task's vectors, of one layer, whose nearest other vector by cosine is of the same task."""
    layer = common_layer(found)
    vectors = np.concatenate([arrays["vectors"][:, layer] for arrays in found.values()]).astype(np.float64)
    owner = np.repeat(np.arange(len(found)), [len(arrays["vectors"]) for arrays in found.values()])
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    right = owner[cosines.argmax(1)] == owner
    return np.array([right[owner == i].mean() for i in range(len(found))])
