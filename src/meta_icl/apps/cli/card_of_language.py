"""The sections of a language model's card: each asks one question of it, reads the numbers and names its limits."""

import importlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import prefix_matching
from meta_icl.apps.cli import fewshot
from meta_icl.errors import require
from meta_icl.evaluation.by_position import bootstrap
from meta_icl.lm.few_shot import Asked, few_shot, log_probabilities
from meta_icl.lm.prompts import draw_prompt, tokenize
from meta_icl.lm.tasks import TextTask
from meta_icl.lm.tokenizer import Tokenizer
from meta_icl.models import InContextLearner, Intervention
from meta_icl.plotting import Chart, Heatmaps, Lines, Panel, Series
from meta_icl.probes import Subject, attention, circuits, implicit_updates, language_subject, prompt_subject, weights
from meta_icl.probes._shared import layer_names, strongest
from meta_icl.probes.induction import repeated

CONTROLS = ("right", "random", "permuted")
SHOTS = (0, 1, 2, 4, 8)
PERIOD, SEQUENCES, WINDOW = 50, 4, 256
REMOVED, DRAWS = (4, 8, 16), 4
MODULES = ("argparse", "ast", "asyncio", "decimal", "doctest", "inspect", "json", "logging", "pickle", "random")


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

    model: InContextLearner
    tokenizer: Tokenizer
    task: TextTask
    prompts: int
    opening: int | None
    text: str
    longest: int  # tokens that the model takes

    @property
    def network(self) -> Any:
        """The network inside."""
        return self.model.network

    @property
    def before(self) -> list[int]:
        """The opening token, or nothing."""
        return [] if self.opening is None else [self.opening]


def sections(asking: Asking) -> Iterator[Section]:
    """The sections one after another, the cheapest to read first."""
    yield from_examples(asking)
    yield by_position(asking)
    scores, heads = heads_of(asking)
    yield heads
    yield without_heads(asking, scores)
    subject = examples_subject(asking)
    yield of_probe(circuits, "circuits", {"model": subject})
    twins = {"model": subject, "shuffled weights": subject.twin(key=jax.random.key(0))}
    yield of_probe(implicit_updates, "implicit_updates", twins)


def from_examples(a: Asking) -> Section:
    """Few-shot curves with controls."""
    found = few_shot(
        a.network, a.tokenizer, a.task, shots=SHOTS, controls=CONTROLS, prompts=a.prompts, opening=a.opening,
        longest=a.longest, progress=fewshot.progress,
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
    numbers = a.tokenizer.numbers(a.text)
    n = min(WINDOW, a.longest) - len(a.before)
    windows = [[*a.before, *numbers[i : i + n]] for i in range(0, min(len(numbers), SEQUENCES * n) - n + 1, n)]
    require(len(windows) >= 2, "text", f"one of {len(numbers)} tokens", f"at least {2 * n} tokens")
    losses = token_losses(a, windows)
    quarter = losses.shape[1] // 4
    score = bootstrap((losses[:, -quarter:].mean(1) - losses[:, quarter // 4 : quarter].mean(1))[:, None])
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
        f"{len(windows)} windows of one text (by default docstrings of Python's library, which a model may have seen); "
        "a score says that context helps, not by what."
    )
    return Section("by_position", "What context is worth on a text", reading, limits, rows, {"by_position": chart})


def heads_of(a: Asking) -> tuple[np.ndarray, Section]:
    """Prefix matching "layers heads" on repeated random tokens, and the section of all heads."""
    subject = repeated_subject(a)
    tokens, period = repeated(subject, PERIOD, SEQUENCES)
    read = _Heads(period)
    found = subject.traced(read, tokens=tokens)
    prefix, previous, first = (found[name].mean(0) for name in ("prefix", "previous", "first"))
    copying = weights.measure(subject)["copying"]
    losses = token_losses(a, np.asarray(tokens).tolist())
    start, again = float(losses[:, :period].mean()), float(losses[:, period:].mean())
    chosen = dict.fromkeys([*strongest(prefix, 8), *strongest(previous, 4)])
    rows = [
        {
            "layer": i + 1, "head": h + 1, "prefix matching": float(prefix[i, h]), "copying": float(copying[i, h]),
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
            ("previous", "Attention to the previous token", previous, "Mean over readers and sequences."),
            ("first", "Attention to the first token", first, "Where attention with nothing to do rests."),
        )
    }
    limits = (
        f"{SEQUENCES} sequences of {period} distinct random tokens twice, behind the opening token; a head that looks "
        "need not move the answer, which the next section asks. Copying is that of bare weights, without norms."
    )
    return prefix, Section("heads", "Induction and previous-token heads", reading, limits, rows, charts)


def without_heads(a: Asking, prefix: np.ndarray) -> Section:
    """What is lost without the strongest induction heads, against random heads of their layers."""
    subject = repeated_subject(a)
    tokens, period = repeated(subject, PERIOD, 2)
    whole = token_losses(a, np.asarray(tokens).tolist(), prefix > np.inf)[:, period:].mean()
    examples = answers_of(a)
    answers = examples_loss(a, examples, prefix > np.inf)
    rng, rows = np.random.default_rng(0), []
    for size in [k for k in REMOVED if k < prefix.size // 2]:
        mask = np.zeros(prefix.shape, bool)
        for i, h in strongest(prefix, size):
            mask[i, h] = True
        drawn = []
        for _ in range(DRAWS):
            other = np.zeros_like(mask)
            for layer in np.flatnonzero(mask.any(1)):
                other[layer, rng.permutation(np.flatnonzero(~mask[layer]))[: mask[layer].sum()]] = True
            drawn.append(other)
        repeats = [token_losses(a, np.asarray(tokens).tolist(), m)[:, period:].mean() - whole for m in (mask, *drawn)]
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


def token_losses(a: Asking, sequences: Sequence[Sequence[int]], removed: np.ndarray | None = None) -> np.ndarray:
    """Nats of every token but the first, "sequences t", with some heads set to zero."""
    asked = [Asked(tuple(row[:i]), (row[i],)) for row in sequences for i in range(1, len(row))]
    told = log_probabilities(a.network, asked, _without(removed))
    return -told.scores.reshape(len(sequences), -1)


def answers_of(a: Asking) -> tuple[list[Asked], int]:
    """The answers of prompts with the most examples, and how many examples that is."""
    n, asked = min(SHOTS[-1], len(a.task.examples) - 1), []
    for i in range(min(a.prompts, 8)):
        prompt = draw_prompt(a.task, n, rng=np.random.default_rng((1, i)))
        cut = tokenize(prompt, a.tokenizer, separator=a.task.separator, opening=a.opening, answered=True)
        *_, (_, _, start, stop) = cut.of("answer")
        asked.append(Asked(tuple(map(int, cut.tokens[:start])), tuple(map(int, cut.tokens[start:stop]))))
    return asked, n


def examples_loss(a: Asking, examples: tuple[list[Asked], int], removed: np.ndarray) -> float:
    """Nats of a whole answer, on average."""
    return float(-log_probabilities(a.network, examples[0], _without(removed)).scores.mean())


def _without(removed: np.ndarray | None) -> tuple[Intervention, ...]:
    return () if removed is None else (Intervention("z", jnp.asarray(removed)[:, :, None, None]),)


def examples_subject(a: Asking) -> Subject:
    """One prompt of a few examples."""
    n = min(4, len(a.task.examples) - 1)
    prompt = draw_prompt(a.task, n, rng=np.random.default_rng((0, 0)))
    cut = tokenize(prompt, a.tokenizer, separator=a.task.separator, opening=a.opening)
    texts = [example.question + example.answer for example in prompt.context]
    return prompt_subject(a.model, cut, texts, [example.answer for example in prompt.context])


def repeated_subject(a: Asking) -> Subject:
    """The subject whose opening token starts repeated tokens."""
    return language_subject(a.model, np.array([a.opening or 0, 0]))


def library_text() -> str:
    """Docstrings of modules of Python's library, which every machine has, in the same order."""
    texts = []
    for name in MODULES:
        module = importlib.import_module(name)
        members = [module, *(member for _, member in sorted(vars(module).items()) if inspect.isclass(member))]
        texts += [inspect.cleandoc(member.__doc__) for member in members if isinstance(member.__doc__, str)]
    return "\n\n".join(texts)


class _Heads:
    """Reads every head's scores from a trace; equal ones share a program."""

    def __init__(self, period: int):
        self.period = period

    def __call__(self, trace: Any) -> dict[str, Any]:
        shares = attention.shares(trace)
        return {"prefix": prefix_matching(trace["pattern"], self.period)} | {
            n: shares[n] for n in ("previous", "first")
        }

    def __hash__(self) -> int:
        return hash((type(self), self.period))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Heads) and other.period == self.period
