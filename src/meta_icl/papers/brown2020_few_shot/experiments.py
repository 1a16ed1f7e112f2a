"""What is measured: answers of a language model by number of examples, with right and wrong answers in its prompt."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_icl.errors import choose
from meta_icl.lm.few_shot import FewShot, few_shot
from meta_icl.lm.loaded import language_model
from meta_icl.lm.task_files import read_task
from meta_icl.lm.tasks import TextTask, shipped, task_of
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts

from .config import Config

# Word pairs as a task with labels: which side of a pair is a word from?
SIDES = {
    "country_capital": ("country", "city"),
    "english_french": ("English", "French"),
    "present_past": ("present", "past"),
    "singular_plural": ("one", "many"),
}
PAIRS = 200  # of each list, so that a label is as likely as the other
CONTROLS = ("random", "flipped")  # of labels; open answers have no order to flip


def sides_of(name: str) -> TextTask:
    """Words of either side of word pairs, each labelled with its side."""
    first, second = SIDES[choose("labelled word pairs", name, SIDES)]
    rows = []
    for example in shipped(name).examples[:PAIRS]:
        rows.append({"input": example.question.removesuffix(" ->"), "output": first})
        rows.append({"input": example.answer.strip(), "output": second})
    return task_of(f"side_{name}", rows, separator="\n")


def measure(part: Run, *, model: str, task: str, labelled: bool, prompts: int, shots: list[int]) -> dict[str, Any]:
    """Accuracy and loss, "prompts shots", of one task under every control."""
    del part
    own, asked = language_model(model), sides_of(task) if labelled else read_task(task)
    settings: dict[str, Any] = {
        "shots": shots, "prompts": prompts, "opening": own.opening, "longest": own.longest,
    }  # fmt: skip
    has_labels = bool(asked.labels)
    right = few_shot(own.network, own.tokenizer, asked, controls=("right",), content_free=has_labels, **settings)
    controls = CONTROLS if has_labels else CONTROLS[:1]
    found = {"labels": np.array(len(asked.labels)), "shots": np.array(right.shots)} | arrays_of(right)
    if has_labels:
        found["accuracy/content free"] = right.accuracy("right", by_content=True)
    return found | arrays_of(few_shot(own.network, own.tokenizer, asked, controls=controls, **settings))


def arrays_of(found: FewShot) -> dict[str, np.ndarray]:
    """Accuracy and loss of every control."""
    each = {f"accuracy/{control}": found.accuracy(control) for control in found.scores}
    return each | {f"loss/{control}": found.losses(control) for control in found.scores}


def run(config: Config, run: Run) -> None:
    """Every task by itself."""
    shared = {"model": config.model, "prompts": config.prompts, "shots": list(config.shots)}
    parts = {f"open-{name}": shared | {"task": name, "labelled": False} for name in config.open_tasks}
    parts |= {f"labelled-{name}": shared | {"task": name, "labelled": True} for name in config.labelled}
    parts |= {f"file{i}": shared | {"task": name, "labelled": False} for i, name in enumerate(config.files)}
    run_parts(run, measure, parts)


# What claims and figures read of a finished run.

Found = Mapping[str, Mapping[str, np.ndarray]]


def tasks_of(run: Run, *, labelled: bool) -> Found:
    """What every task with labels, or without, left behind, by name."""
    files = {f"file{i}": str(name) for i, name in enumerate(run.config["config"]["files"])}
    found = {name: part.load_arrays("result") for name, part in run.parts().items()}
    return {
        files.get(name, name.partition("-")[2]): arrays
        for name, arrays in found.items()
        if bool(arrays["labels"]) == labelled
    }
