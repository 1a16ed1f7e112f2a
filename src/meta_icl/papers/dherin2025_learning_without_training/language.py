"""The claims on a language model (preset `language`): its examples as changes of its MLPs, the opening token kept.

SmolLM2-135M-Instruct, unless `--set model=FOLDER` says otherwise, reads symbols with labels that only the prompt tells.
Attention that has nothing to do rests on the token that opens a prompt; without that token every answer changes,
examples or not. So examples are left out, never the opening. The same is asked of the model with the entries of every
array in another order: an identity holds for it too, what was learned does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from meta_icl.analysis import shuffled
from meta_icl.analysis.implicit import class_similarity, example_updates, implicit_update, replacement_error
from meta_icl.lm.loaded import language_model, model_of, undecided_by
from meta_icl.lm.prompts import draw_prompt, tokenize
from meta_icl.lm.task_files import read_task
from meta_icl.models import Network
from meta_icl.plotting import Chart, Grid, Lines, Series, deciding
from meta_icl.runs import Claim, Run
from meta_icl.runs.claims import Check, at_least, at_most
from meta_icl.sweeps import run_parts

IDS = ("D14", "D15", "D16")
STATEMENTS = {
    "D14": ("In a language model changes of the MLPs, block by block, replace the examples", "thm C.2, sec. 2"),
    "D15": ("In a language model the updates shrink along the examples", "Fig. 3 (v1)"),
    "D16": ("Examples of one class move its weights more alike than others; shuffled weights do not", "own control"),
}
FLOAT32 = 1e-4  # relative, after all blocks: as D10
WEIGHTS = ("trained", "shuffled")


@dataclass(frozen=True)
class LanguageConfig:
    """The model, a task with labels, how many prompts of how many examples."""

    model: str = "smollm2"
    task: str = "symbols"
    prompts: int = 4
    shots: int = 8


def measure(part: Run, *, model: str, task: str, prompts: int, shots: int, weights: str) -> dict[str, np.ndarray]:
    """Errors "prompts" of the answer without examples, patched and not; sizes "prompts layers examples" of updates.

    `same` and `other` "prompts layers" are the similarities of updates of examples with one label, and with two.
    """
    del part
    own, asked = language_model(model), read_task(task)
    network: Network = own.network if weights == "trained" else shuffled(own.network, 0)
    found: dict[str, list[np.ndarray]] = {
        name: [] for name in ("patched", "bare", "appended", "removed", "same", "other")
    }  # fmt: skip
    for i in range(prompts):
        rng = np.random.default_rng((0, i))
        drawn = draw_prompt(asked, shots, rng=rng)
        while len({example.answer for example in drawn.context}) < 2:  # two classes, so that both are compared
            drawn = draw_prompt(asked, shots, rng=rng)
        cut = tokenize(drawn, own.tokenizer, separator=asked.separator, opening=own.opening)
        tokens, owner = jnp.asarray(cut.tokens), cut.example_of[:-1]
        owner = np.where(owner < shots, owner, -1)  # the opening and the query belong to no example
        context, query, examples = tokens[:-1], tokens[-1], np.flatnonzero(owner >= 0)
        patch = implicit_update(network, context, query, examples)
        found["patched"].append(np.asarray(replacement_error(network, context, query, examples, patch)))
        found["bare"].append(np.asarray(replacement_error(network, context, query, examples, None)))
        for order in ("appended", "removed"):
            updates = example_updates(network, context, query, owner, order=order)
            found[order].append(np.asarray(updates.relative))
        classes = np.unique([example.answer for example in drawn.context], return_inverse=True)[1]
        for name, values in zip(("same", "other"), class_similarity(updates.similarity, classes), strict=True):
            found[name].append(np.asarray(values))
    return {name: np.stack(values) for name, values in found.items()}


def run_language(config: LanguageConfig, run: Run) -> None:
    """A part for the model, and one for its shuffled weights."""
    shared = {"model": config.model, "task": config.task, "prompts": config.prompts, "shots": config.shots}
    run_parts(run, measure, {weights: shared | {"weights": weights} for weights in WEIGHTS})


def undecided_language_claims() -> list[Claim]:
    """D14 .. D16 where small blocks are trained."""
    why = "asked of a language model by the preset `language`"
    return [Claim(f"dherin2025/{id}", *STATEMENTS[id], (), why) for id in IDS]


def language_claims(run: Run) -> list[Claim]:
    """D14 .. D16 alone: nothing is trained."""
    return judged_language({weights: run.part_arrays(weights) for weights in WEIGHTS}, str(model_of(run.config)))


def judged_language(found: Mapping[str, Mapping[str, np.ndarray]], model: str) -> list[Claim]:
    """The claims from both sets of weights; D15's bound is half, where 1/i would give 1/shots."""
    trained, mixed = found["trained"], found["shuffled"]
    shrunk = {name: np.median(a["appended"][..., -1] / a["appended"][..., 1].clip(1e-12), axis=1)
              for name, a in found.items()}  # fmt: skip
    more = {name: (a["same"] - a["other"]).mean(1) for name, a in found.items()}
    sizes = ", ".join(f"{x:.3g}" for x in np.median(trained["appended"], axis=(0, 1)))

    def claim(id: str, checks: Sequence[Check], told: str) -> Claim:
        note = f"Measured on {model}, the opening token always kept; a value per prompt. {told}"
        return Claim(f"dherin2025/{id}", *STATEMENTS[id], tuple(checks), undecided_by(model), note)

    return [
        claim("D14", [
            Check("relative error of the logits, float32", at_most(FLOAT32), trained["patched"]),
            Check("the same, shuffled weights", at_most(FLOAT32), mixed["patched"]),
            Check("relative error without the patch", at_least(0.01), trained["bare"]),
        ], "An identity: it holds for shuffled weights as well and says nothing of learning."),
        claim("D15", [Check("update of the last example / of the second, median over blocks", at_most(0.5),
                            shrunk["trained"])],
              f"Shuffled weights: {np.median(shrunk['shuffled']):.2f}. Sizes |dW| / |W| along the examples, median "
              f"over blocks and prompts: {sizes}."),
        claim("D16", [
            Check("cosine of updates of one label less of two, mean over blocks", at_least(0), more["trained"]),
            Check("the same less that of shuffled weights", at_least(0), more["trained"] - more["shuffled"]),
        ], f"Updates of examples left out of the whole prompt; cosines of one label {trained['same'].mean():.3f}, of "
           f"two {trained['other'].mean():.3f}; shuffled {mixed['same'].mean():.3f}, {mixed['other'].mean():.3f}."),
    ]  # fmt: skip


def language_figures(run: Run) -> dict[str, Chart]:
    """Sizes of updates along the examples and by block, and similarities by block, beside shuffled weights."""
    found = {weights: run.part_arrays(weights) for weights in WEIGHTS}
    along, by_block, alike = [], [], []
    for weights, arrays in found.items():
        appended, removed = arrays["appended"], arrays["removed"]
        blocks, places = np.arange(1, appended.shape[1] + 1), np.arange(1, appended.shape[2] + 1)
        along.append(Series(weights, places, np.median(appended, axis=(0, 1))))
        by_block.append(Series(weights, blocks, np.median(removed, axis=(0, 2))))
        alike.append(Series(f"{weights}: one label", blocks, arrays["same"].mean(0)))
        alike.append(Series(f"{weights}: two labels", blocks, arrays["other"].mean(0), style="dashed"))
    return deciding({"language": Grid("The examples of a language model as changes of its weights", (
        Lines("Along the prompt", "example", "|dW| / |W|", along, log_y=True),
        Lines("By block", "block", "|dW| / |W|", by_block, log_y=True),
        Lines("Which examples move them alike", "block", "cosine", alike)), 2)},
        {"language": "D14 D15 D16"})  # fmt: skip
