"""The claim about a language model: attention of few-shot prompts by layer (section 6; preset `language`).

The source reads GPT-2 XL (48 layers) on SST-2: two reviews with their sentiment, then a review and "Sentiment:". Here
the model is SmolLM2-135M-Instruct unless `--set model=FOLDER` says otherwise, and the reviews are made by rule unless
`--set reviews=FILE` names SST-2 (`sentence`, `label`, or lines "0 a text") or another task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from meta_icl.evaluation.by_position import bootstrap
from meta_icl.lm.answers import padded
from meta_icl.lm.loaded import language_model, model_of, undecided_by
from meta_icl.lm.prompts import draw_prompt, tokenize
from meta_icl.lm.task_files import read_task
from meta_icl.models import Network
from meta_icl.plotting import Chart, Grid, Lines, Series, deciding
from meta_icl.runs import Claim, Run
from meta_icl.runs.claims import Check, at_least
from meta_icl.sweeps import run_parts

CIRCUITS = {"bigram": "bigram", "label": "label attention", "chunk": "chunk-example"}
GROUPS = 4  # of prompts, each of which gives a value


@dataclass(frozen=True)
class LanguageConfig:
    """The model, the reviews, how many prompts, and how many examples stand in each."""

    model: str = "smollm2"
    reviews: str = "sentiment"
    prompts: int = 60
    shots: int = 2


def measure(part: Run, *, model: str, reviews: str, prompts: int, shots: int) -> dict[str, np.ndarray]:
    """The three scores "prompts layers heads" raw, and as shares of what does not go to the first token."""
    del part
    own, task = language_model(model), read_task(reviews)
    found: list[dict[str, Any]] = []
    for i in range(prompts):
        drawn = draw_prompt(task, shots, rng=np.random.default_rng((0, i)))
        cut = tokenize(drawn, own.tokenizer, separator=task.separator, opening=own.opening)
        tokens = np.zeros(padded(len(cut.tokens), own.network), int)
        tokens[: len(cut.tokens)] = cut.tokens
        labels = np.array([answer.stop - 1 for answer in cut.of("answer")])
        reads = np.zeros((shots, len(tokens)), bool)
        for k, question in enumerate(cut.of("question")[:shots]):
            reads[k, question.start : question.stop] = True
        last = len(cut.tokens) - 1
        found.append(_scores(own.network, jnp.asarray(tokens), jnp.asarray(labels), jnp.asarray(reads), last))
    return {name: np.stack([np.asarray(one[name]) for one in found]) for name in found[0]}


@eqx.filter_jit
def _scores(
    network: Network, tokens: Int[Array, " t"], labels: Int[Array, " k"], reads: Bool[Array, "k t"], last: Any
) -> dict[str, Float[Array, "layers heads"]]:
    """Bigram, label and chunk as the source means them: means over labels, and over the tokens of a review."""
    pattern = network.through(network.embedded(tokens))[1]["pattern"]
    found = {}
    for end, size in (("", jnp.ones_like(pattern[..., 0])), ("_corrected", jnp.maximum(1 - pattern[..., 0], 1e-6))):
        to_own = jnp.einsum("lhkt,kt->lhk", pattern[:, :, labels], reads / reads.sum(1, keepdims=True))
        found |= {
            f"bigram{end}": pattern[:, :, last, last] / size[:, :, last],
            f"label{end}": pattern[:, :, last, labels].mean(-1) / size[:, :, last],
            f"chunk{end}": jnp.mean(to_own / size[:, :, labels], axis=-1),
        }
    return found


def run_language(config: LanguageConfig, run: Run) -> None:
    """One part: the model reads every prompt once."""
    arguments = {"model": config.model, "reviews": config.reviews, "prompts": config.prompts, "shots": config.shots}
    run_parts(run, measure, {"language": arguments})


def language_claims(run: Run) -> list[Claim]:
    """M32 alone: nothing is trained."""
    return [claim_m32(run.part_arrays("language"), str(model_of(run.config)))]


def claim_m32(found: Mapping[str, np.ndarray], model: str) -> Claim:
    """M32 from the scores "prompts layers heads" of a model."""
    label, chunk = (found[name].mean(-1) for name in ("label", "chunk"))
    groups = np.array_split(np.arange(len(label)), GROUPS)
    later = [peak(label[group]) - peak(chunk[group]) for group in groups if len(group)]
    corrected = {name: peak(found[f"{name}_corrected"].mean(-1)) for name in CIRCUITS}
    told = ", ".join(f"{CIRCUITS[name]} {peak(found[name].mean(-1))}" for name in CIRCUITS)
    apart = ", ".join(f"{CIRCUITS[name]} {at}" for name, at in corrected.items())
    note = (
        f"Measured on {model} ({label.shape[1]} layers, counted from 1; {len(label)} prompts), not on GPT-2 XL. Peaks: "
        f"{told}; as shares of what does not go to the first token: {apart}."
    )
    check = Check("layer of the peak of label attention less that of chunk-example", at_least(1), later)
    statement = "In GPT-2 XL chunk-example peaks in earlier layers than label attention"
    return Claim("minegishi2025/M32", statement, "Fig. 10", (check,), undecided_by(model), note)


def peak(scores: Float[np.ndarray, "prompts layers"]) -> int:
    """The layer, from 1, with the highest mean over prompts."""
    return int(scores.mean(0).argmax()) + 1


def language_figures(run: Run) -> dict[str, Chart]:
    """The three scores by layer, raw and corrected for the first token."""
    found = run.part_arrays("language")
    panels = []
    for end, title in (("", "all attention"), ("_corrected", "without the first token")):
        series = []
        for name, told in CIRCUITS.items():
            band = bootstrap(found[name + end].mean(-1))
            layers = np.arange(1, len(band.mean) + 1)
            series.append(Series(told, layers, band.mean, band.low, band.high, band="90% interval over prompts"))
        panels.append(Lines(f"Mean over heads, {title}", "layer", "attention", series))
    return deciding({"language": Grid("A language model's attention by layer (Fig. 10)", tuple(panels), 2)},
                    {"language": "M32"})  # fmt: skip
