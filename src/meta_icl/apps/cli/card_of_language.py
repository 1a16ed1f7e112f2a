"""The sections of a language model's card: each asks one question of it, reads the numbers and names its limits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import heads_copying
from meta_icl.apps.cli import fewshot
from meta_icl.errors import BadInput
from meta_icl.evaluation.by_position import bootstrap
from meta_icl.lm.answers import Asked, log_probabilities
from meta_icl.lm.few_shot import few_shot
from meta_icl.lm.loaded import LanguageModel
from meta_icl.lm.prompts import draw_prompt, tokenize
from meta_icl.lm.task_vectors import carried, contexts_of
from meta_icl.lm.tasks import TextTask
from meta_icl.lm.texts import (
    among_their_layers,
    head_scores,
    in_context_score,
    repeated_tokens,
    strongest_heads,
    token_losses,
    windows_of,
)
from meta_icl.models import Intervention, Network
from meta_icl.plotting import Chart, Heatmaps, Lines, Panel, Series
from meta_icl.probes import Subject, circuits, implicit_updates, prompt_subject
from meta_icl.probes._shared import layer_names, strongest

CONTROLS = ("right", "random", "permuted")
SHOTS = (0, 1, 2, 4, 8)
PERIOD, SEQUENCES, WINDOW = 50, 4, 256
REMOVED, DRAWS = (4, 8, 16), 4
LACKING = "its blocks do not show"
VECTOR_SHOTS, LAYERS = 5, 10  # examples behind a task vector; layers at which it is tried


@dataclass(frozen=True)
class Section:
    """A question, what the numbers say, what the method cannot say, and the numbers."""

    name: str
    title: str
    reading: str
    limits: str
    rows: Sequence[dict[str, Any]]
    figures: dict[str, Chart] = field(default_factory=dict)


@dataclass(frozen=True)
class Asking:
    """The model that is asked, and what with."""

    own: LanguageModel
    task: TextTask
    prompts: int
    text: str


def sections(asking: Asking) -> tuple[list[Section], dict[str, str]]:
    """The sections, the cheapest to read first, and why each of the others, or a column of one, is left out."""
    found, left_out = [from_examples(asking), by_position(asking)], {}
    subject = examples_subject(asking)
    shown = subject.shape_of_trace()
    if "pattern" in shown:
        scores, heads = heads_of(asking)
        found.append(heads)
        if not isinstance(asking.own.network, Network):
            left_out["copying"] = "it is read off matrices, of which the library transformers has no one form"
        if "z" in shown:
            found.append(without_heads(asking, scores))
        else:
            left_out["without_heads"] = f"{LACKING} `z`, what every head answers"
    else:
        left_out |= dict.fromkeys(("heads", "without_heads"), f"{LACKING} `pattern`, what every head looks at")
    if "resid_post" in shown:
        found.append(vectors_of(asking))
    else:
        left_out["task_vectors"] = f"{LACKING} `resid_post`, the stream behind a block"
    for name, module in (("circuits", circuits), ("implicit_updates", implicit_updates)):
        try:
            module.check(subject)
        except BadInput as error:
            left_out[name] = str(error)
            continue
        twin = {"shuffled weights": subject.twin(key=jax.random.key(0))} if module is implicit_updates else {}
        found.append(of_probe(module, name, {"model": subject} | twin))
    return found, left_out


def from_examples(a: Asking) -> Section:
    """Few-shot curves with controls."""
    found = few_shot(
        a.own.network, a.own.tokenizer, a.task, shots=SHOTS, controls=CONTROLS, prompts=a.prompts,
        opening=a.own.opening, longest=a.own.longest, progress=fewshot.progress,
    )  # fmt: skip
    charts = {f"few_shot-{name}": chart for name, chart in fewshot.figures({"model": found}).items()}
    right = [row for row in found.rows() if row["control"] == "right"]
    first, last = right[0], right[-1]
    reading = (
        f"On {a.task.name} accuracy is {first['accuracy']:.2f} without examples and {last['accuracy']:.2f} "
        f"[{last['accuracy_low']:.2f}, {last['accuracy_high']:.2f}] after {last['shots']}. "
        + " ".join(fewshot.worth_told(found))
    )
    limits = "One task, one way of writing it and one opening token; intervals are over prompts, not over tasks."
    return Section("few_shot", "What it learns from examples", reading, limits, found.rows(), charts)


def by_position(a: Asking) -> Section:
    """The loss on a text by position, and late less early."""
    losses = token_losses(a.own.network, windows_of(a.own, a.text, WINDOW, SEQUENCES))
    quarter = losses.shape[1] // 4
    score = bootstrap(in_context_score(losses)[:, None])
    edges = [0, *(2**i for i in range(3, 12) if 2**i < losses.shape[1]), losses.shape[1]]
    spans = list(zip(edges, edges[1:], strict=False))
    bands = [bootstrap(losses[:, i:j].mean(1)[:, None]) for i, j in spans]
    rows = [
        {"tokens": f"{i + 1}-{j}", "loss": float(b.mean[0]), "loss_low": float(b.low[0]), "loss_high": float(b.high[0])}
        for (i, j), b in zip(spans, bands, strict=True)
    ]
    rows.append({"tokens": "score", "loss": float(score.mean[0]), "loss_low": float(score.low[0]),
                 "loss_high": float(score.high[0])})  # fmt: skip
    reading = (
        f"The last quarter of {losses.shape[1]} tokens costs {score.mean[0]:+.2f} nats per token "
        f"[{score.low[0]:+.2f}, {score.high[0]:+.2f}] against tokens {quarter // 4 + 1} to {quarter}: the in-context "
        "score, below zero where context helps."
    )
    middle = [(i + j) / 2 for i, j in spans]
    mean, low, high = (np.array([r[k] for r in rows[:-1]]) for k in ("loss", "loss_low", "loss_high"))
    series = Series("model", middle, mean, low, high)
    chart = Lines("Loss by position in a text", "token", "nats per token", [series], log_x=True)
    limits = (
        f"{len(losses)} windows of one text (by default docstrings of Python's library, which a model may have seen); "
        "a score says that context helps, not by what."
    )
    return Section("by_position", "What context is worth on a text", reading, limits, rows, {"by_position": chart})


def heads_of(a: Asking) -> tuple[np.ndarray, Section]:
    """Prefix matching "layers heads" on repeated random tokens, and the section of all heads."""
    tokens, period = repeats_of(a)
    found = {name: scores.mean(0) for name, scores in head_scores(a.own.network, tokens, period).items()}
    prefix, previous, first = (found[name] for name in ("prefix", "previous", "first"))
    network = a.own.network
    copying = heads_copying(network, range(network.n_layers)) if isinstance(network, Network) else None
    losses = token_losses(a.own.network, tokens)
    start, again = float(losses[:, :period].mean()), float(losses[:, -period:].mean())
    chosen = dict.fromkeys([*strongest(prefix, 8), *strongest(previous, 4)])
    rows = [
        {
            "layer": i + 1, "head": h + 1, "prefix matching": float(prefix[i, h]),
            "without the first token": float(found["prefix_corrected"][i, h]),
            **({} if copying is None else {"copying": float(copying[i, h])}),
            "previous token": float(previous[i, h]), "first token": float(first[i, h]),
        }
        for i, h in chosen
    ]  # fmt: skip
    (i, h), (j, g) = strongest(prefix, 1)[0], strongest(previous, 1)[0]
    reading = (
        f"Layer {i + 1}, head {h + 1} gives {prefix[i, h]:.2f} of its attention to what followed the token before; "
        f"layer {j + 1}, head {g + 1} gives {previous[j, g]:.2f} to the previous token. Random tokens cost {start:.1f} "
        f"nats each, their second copy {again:.1f}."
    )
    names = [f"{n + 1}" for n in range(prefix.shape[1])]
    charts: dict[str, Chart] = {
        f"heads-{name}": Heatmaps(title, [Panel("model", values, names, layer_names(range(len(values))))], told)
        for name, title, values, told in (
            ("prefix", "Prefix matching", prefix, "Attention to what followed the earlier copy of a token."),
            (
                "corrected",
                "Prefix matching without the first token",
                found["prefix_corrected"],
                "The same as a share of the attention that does not go to the first token.",
            ),
            ("previous", "Attention to the previous token", previous, "Mean over readers and sequences."),
            ("first", "Attention to the first token", first, "Where attention with nothing to do rests."),
        )
    }
    limits = (
        f"{SEQUENCES} sequences of {period} distinct random tokens twice, behind the opening token; a head that looks "
        "need not move the answer, which the next section asks."
        + ("" if copying is None else " Copying is by eigenvalues of weights alone.")
    )
    return prefix, Section("heads", "Induction and previous-token heads", reading, limits, rows, charts)


def without_heads(a: Asking, prefix: np.ndarray) -> Section:
    """What is lost without the strongest induction heads, against random heads of their layers."""
    tokens, period = repeats_of(a)
    tokens = tokens[:2]
    whole = token_losses(a.own.network, tokens)[:, -period:].mean()
    examples = answers_of(a)
    answers = examples_loss(a, examples, prefix > np.inf)
    rng, rows = np.random.default_rng(0), []
    for size in [k for k in REMOVED if k < prefix.size // 2]:
        mask = strongest_heads(prefix, size)
        drawn = [among_their_layers(mask, rng) for _ in range(DRAWS)]
        repeats = [token_losses(a.own.network, tokens, m)[:, -period:].mean() - whole for m in (mask, *drawn)]
        row = {"removed heads": size, "repeated tokens": float(repeats[0]), "random heads": float(np.mean(repeats[1:]))}
        if size == REMOVED[1] or prefix.size // 2 <= REMOVED[1]:
            lost = [examples_loss(a, examples, m) - answers for m in (mask, *drawn)]
            row |= {a.task.name: float(lost[0]), "random heads there": float(np.mean(lost[1:]))}
        rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in columns} for row in rows]
    told = rows[min(1, len(rows) - 1)] if rows else {}
    reading = "The network has too few heads for this." if not rows else (
        f"Without its {told['removed heads']} strongest induction heads the second copy of random tokens costs "
        f"{told['repeated tokens']:+.2f} nats per token, without random heads of the same layers "
        f"{told['random heads']:+.2f}; the answers of {a.task.name} after {examples[1]} examples cost "
        f"{told[a.task.name] or 0:+.2f} and {told['random heads there'] or 0:+.2f}."
    )  # fmt: skip
    limits = (
        f"Answers of heads are set to zero, which no network ever saw; random heads are as many others of the "
        f"same layers, the mean of {DRAWS} draws. Later layers can make up for what is missing."
    )
    return Section("without_heads", "What is lost without these heads", reading, limits, rows)


def vectors_of(a: Asking) -> Section:
    """Whether one state holds the task, and in which layers."""
    shots = min(VECTOR_SHOTS, len(a.task.examples) - 2)
    n = a.own.network.n_layers
    layers = sorted({*range(0, n, max(1, n // LAYERS)), n - 1})
    found = contexts_of(
        a.own.network, a.own.tokenizer, a.task, shots=shots, prompts=a.prompts, opening=a.own.opening, seed=2
    )
    told = carried(a.own.network, found, layers)
    bare = carried(a.own.network, found, [told.best], found.bare)
    rows: list[dict[str, Any]] = [
        {"state put in place": "none", "accuracy": float(told.alone.mean()), "loss": float(told.loss_alone.mean())},
        {"state put in place": f"none, after {shots} examples", "accuracy": float(told.with_examples.mean()),
         "loss": float(told.loss_with_examples.mean())},
        *({"state put in place": f"layer {layer + 1}", "accuracy": float(right.mean()), "loss": float(loss.mean())}
          for layer, right, loss in zip(layers, told.by_layer, told.losses, strict=True)),
        {"state put in place": f"layer {told.best + 1}, without examples", "accuracy": float(bare.by_layer.mean()),
         "loss": float(bare.losses.mean())},
    ]  # fmt: skip
    at = told.layers.index(told.best)
    reading = (
        f"The query alone is answered right in {told.alone.mean():.2f} of the prompts, behind {shots} examples in "
        f"{told.with_examples.mean():.2f}; alone, with the state of another query behind these examples put in place "
        f"after layer {told.best + 1}, in {told.by_layer[at].mean():.2f} (loss {told.loss_alone.mean():.1f}, "
        f"{told.loss_with_examples.mean():.1f} and {told.losses[at].mean():.1f} nats)."
    )
    series = [Series("task vector", [layer + 1 for layer in layers], told.losses.mean(1))]
    lines = [("alone", float(told.loss_alone.mean())), ("examples", float(told.loss_with_examples.mean()))]
    chart = Lines("Loss of the answer with a task vector in place", "layer", "nats", series, h_lines=lines)
    limits = (
        f"{a.prompts} prompts of one task; the best layer is chosen on the prompts that it is shown for. A state that "
        "holds the task for the last token need not be all that the examples do (Hendel et al., 2023)."
    )
    return Section("task_vectors", "Whether one state holds the task", reading, limits, rows, {"task_vectors": chart})


def of_probe(module: Any, name: str, subjects: dict[str, Subject]) -> Section:
    """A probe as a section: its first row read, its own words on what it cannot say."""
    measured = {label: module.measure(subject) for label, subject in subjects.items()}
    by_label = {label: module.rows(arrays) for label, arrays in measured.items()}
    rows = [{"subject": label} | row for label, each in by_label.items() for row in each]
    title, *paragraphs = [" ".join(part.split()) for part in (module.__doc__ or name).strip().split("\n\n")]
    limits = next((p.removeprefix("What it says. ") for p in paragraphs if p.startswith("What it says.")), "")
    reading = "; ".join(f"{label}: {_first(each)}" for label, each in by_label.items() if each)
    figures = {f"{name}-{key}": chart for key, chart in module.figures(measured).items()}
    return Section(name, title.rstrip("."), f"The first line of each table. {reading}.", limits, rows, figures)


def _first(rows: Sequence[dict[str, Any]]) -> str:
    values = {key: value for key, value in rows[0].items() if value is not None and value == value}
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def answers_of(a: Asking) -> tuple[list[Asked], int]:
    """The answers of prompts with the most examples, and how many examples that is."""
    n, asked = min(SHOTS[-1], len(a.task.examples) - 1), []
    for i in range(min(a.prompts, 8)):
        prompt = draw_prompt(a.task, n, rng=np.random.default_rng((1, i)))
        cut = tokenize(prompt, a.own.tokenizer, separator=a.task.separator, opening=a.own.opening, answered=True)
        *_, (_, _, start, stop) = cut.of("answer")
        asked.append(Asked(tuple(map(int, cut.tokens[:start])), tuple(map(int, cut.tokens[start:stop]))))
    return asked, n


def examples_loss(a: Asking, examples: tuple[list[Asked], int], removed: np.ndarray) -> float:
    """Nats of a whole answer, on average."""
    return float(-log_probabilities(a.own.network, examples[0], _without(removed)).scores.mean())


def _without(removed: np.ndarray | None) -> tuple[Intervention, ...]:
    return () if removed is None else (Intervention("z", jnp.asarray(removed)[:, :, None, None]),)


def examples_subject(a: Asking) -> Subject:
    """One prompt of a few examples."""
    n = min(4, len(a.task.examples) - 1)
    prompt = draw_prompt(a.task, n, rng=np.random.default_rng((0, 0)))
    cut = tokenize(prompt, a.own.tokenizer, separator=a.task.separator, opening=a.own.opening)
    texts = [example.question + example.answer for example in prompt.context]
    return prompt_subject(a.own.learner, cut, texts, [example.answer for example in prompt.context])


def repeats_of(a: Asking) -> tuple[np.ndarray, int]:
    """Sequences of repeated random tokens, and the length of a block: shorter where the model has few tokens."""
    period = min(PERIOD, a.own.network.embedding.table.shape[0] - 1, (a.own.longest - len(a.own.before)) // 2)
    return repeated_tokens(a.own, period, range(SEQUENCES)), period
