"""In-context learning and induction heads (Olsson et al., 2022): the metrics, on repeated random tokens.

Transformer Circuits Thread, 2022 (arXiv 2209.11895). Claims. In attention-only models of two layers, heads that match
prefixes and copy appear at the moment at which in-context learning does; one layer has neither, unless its keys are
smeared over neighbours; removing those heads removes in-context learning.

Setting. The published runs see 15 billion tokens of text, which is beyond a workstation and not offline. Here: a start
token, then a block of distinct random tokens out of 64 again and again, of 13 to 25 tokens in training (with one length
for all, one layer copies by position alone: measured, its score is that of two layers; with 13 lengths it still narrows
the place down, to a score near -3) and of 25, four times, where models are measured; the score of in-context learning
is the loss on the last copy less that on the first, in nats (a table of bigrams has 0, perfect copying -log 40 or
more). Widths, rate and batch are chosen here. Prefix matching sums the attention to all earlier successors (its bounded
form). Heads are removed together, since several match prefixes and stand in for each other (measured: without the best
one nothing is lost); the effect of each alone is in the figure `ablation`. What the change of two layers consists of
(O2, O3, O5) is asked of the seeds that have it: a score of -1 nat or less at the end.

Command: `meta-icl reproduce olsson2022`. Times: see `TIMES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from meta_icl.analysis.circuits import (
    co_occur,
    each_head,
    eigenvalue_copying,
    onset,
    prefix_matching,
    previous_token,
    without_heads,
)
from meta_icl.models import AttentionStack, TokenAttention
from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, over_seeds
from meta_icl.prompt import TokenPrompt
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, is_true
from meta_icl.sweeps import run_parts
from meta_icl.tasks import RepeatedTokens
from meta_icl.training import Optimiser, next_token_cross_entropy, train

TIMES = {"smoke": "1 CPU-min", "small": "26 CPU-min", "paper": "1 GPU-hour (synthetic tokens only)"}
IDS = tuple(f"O{i}" for i in range(1, 6))
TRAIN_KEY, EVAL_KEY = 0, 2024
LEARNED = -1.0  # nats: the in-context score at and below which a model has learned in context
MATCHES = 0.5  # prefix matching above which a head counts as an induction head
MODELS: dict[str, dict[str, Any]] = {
    "two": {"n_layers": 2},
    "one": {"n_layers": 1},
    "one_smeared": {"n_layers": 1, "smeared": True},
}


@dataclass(frozen=True)
class Config:
    """Sizes of the task, the models and the training."""

    seeds: int = 3
    steps: int = 4_000
    batch: int = 32
    learning_rate: float = 1e-3
    n_tokens: int = 64
    period: int = 25
    shortest: int = 13
    width: int = 64
    heads: int = 4
    records: int = 80
    n_eval: int = 64


PRESETS = {
    "smoke": Config(
        seeds=1, steps=4, batch=4, n_tokens=12, period=5, shortest=3, width=8, heads=2, records=2, n_eval=4
    ),
    "small": Config(),
    "paper": Config(seeds=5, steps=20_000, batch=256, n_tokens=512, width=256, heads=8, n_eval=512),
}


# What is trained and measured.


def task_of(config: Mapping[str, Any], *, training: bool) -> RepeatedTokens:
    """The repeated blocks of a preset: of many lengths in training, of the longest where models are measured."""
    return RepeatedTokens(config["n_tokens"], config["period"], 4, config["shortest"] if training else None)


def train_model(part: Run, *, name: str, seed: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed of one model: losses by place, scores of heads and their copying while it learns; ablations after."""
    prompts = task_of(config, training=False).sample_batch(config["n_eval"], key=jax.random.key(EVAL_KEY))
    stack = AttentionStack(
        config["width"], n_heads=config["heads"], project=True, scaled=True, norm="pre", **MODELS[name]
    )
    period = config["period"]

    def probe(predictor: Any, key: Any) -> dict[str, Any]:
        del key
        logits, trace = jax.vmap(predictor.trace)(prompts)
        pattern = trace["pattern"]
        return {
            "losses": losses(logits, prompts.tokens).mean(0),
            "prefix": prefix_matching(pattern, period).mean(0),
            "previous": previous_token(pattern).mean(0),
        }

    trained = train(
        task_of(config, training=True),
        TokenAttention(config["n_tokens"], 1 + 4 * period, stack),
        steps=config["steps"],
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=config["batch"],
        objective=next_token_cross_entropy,
        optimiser=Optimiser(learning_rate=config["learning_rate"]),
        record=max(1, config["steps"] // config["records"]),
        probes={"at": probe},
        store=part,
    )
    model = trained[0]
    history = {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    return history | heads_at_end(model, prompts, period, matching_heads(history["prefix"][-1]))


def losses(logits: Any, tokens: Any) -> Any:
    """The loss of every token but the first, in nats, "... t-1"."""
    return optax.softmax_cross_entropy_with_integer_labels(logits[..., :-1, :], tokens[..., 1:])


def score_of(losses: Any, period: int) -> Any:
    """Mean loss on the last copy less that on the first; the first token of a copy follows from nothing at first."""
    return losses[..., -period:].mean(-1) - losses[..., :period].mean(-1)


def matching_heads(prefix: np.ndarray) -> np.ndarray:
    """Which heads match prefixes, "layers heads": those with a score above `MATCHES`, or the best if there is none."""
    return prefix >= min(MATCHES, prefix.max())


def heads_at_end(model: Any, prompts: TokenPrompt, period: int, matching: np.ndarray) -> dict[str, np.ndarray]:
    """Copying by eigenvalues, and the in-context score without each head and without all `matching` heads together.

    Later patterns are kept ("kept") or react to the loss ("free").
    """
    stack = model.stack
    # The scales of the norms belong to the matrices that they meet.
    values = stack.w_v * stack.norm[:, 0][:, None, :, None]
    unembed = stack.norm_final[0][:, None] * model.unembed
    copying = eigenvalue_copying(model.embed, values, stack.writes(), unembed)

    def score(logits: Any, prompt: TokenPrompt) -> Any:
        return score_of(losses(logits, prompt.tokens), period)

    layers, heads = stack.w_q.shape[:2]
    out = {"copying": copying}
    ablated = eqx.filter_jit(without_heads)  # with the model as an argument: as a constant it is folded for a minute
    for name, keep in (("kept", ("pattern",)), ("free", ())):
        sets = jnp.concatenate([each_head(layers, heads).reshape(-1, layers, heads), jnp.asarray(matching)[None]])
        *single, together = np.asarray(ablated(model.trace, score, prompts, sets, keep=keep))
        out[f"without_{name}"] = np.reshape(single, (layers, heads))
        out[f"without_matching_{name}"] = together
    return out


def run(config: Config, run: Run) -> None:
    """Every seed of every model."""
    shared = asdict(config)
    parts = {
        f"{name}-seed{seed}": {"name": name, "seed": seed, "config": shared}
        for name in MODELS
        for seed in range(config.seeds)
    }
    run_parts(run, train_model, parts)


# Claims.


def seeds_of(run: Run, name: str) -> list[dict[str, np.ndarray]]:
    """What every seed of a model left behind."""
    return [
        part.load_arrays("result") for part_name, part in run.parts().items() if part_name.startswith(f"{name}-seed")
    ]


def scores_of(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The in-context score at every record."""
    return score_of(arrays["losses"], arrays["losses"].shape[-1] // 4)


def claim(number: int, statement: str, source: str, checks: list[Check], why_not: str = "") -> Claim:
    """A claim; without checks it is undecided for the reason given."""
    return Claim(f"olsson2022/O{number}", statement, source, tuple(checks), None if checks else why_not)


def claims(run: Run) -> list[Claim]:
    """O1 .. O5; tolerances are those set for the reproduction (synthetic repeats)."""
    return judged({name: seeds_of(run, name) for name in MODELS})


def judged(found: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> list[Claim]:
    """The claims from what the seeds of every model left behind."""
    two, one, smeared = (found[name] for name in MODELS)
    gaps = [scores_of(a)[-1] - scores_of(b)[-1] for a, b in zip(one, two, strict=True)]
    learned = [a for a in two if scores_of(a)[-1] <= LEARNED]
    together = [
        float(co_occur(onset(a["step"], a["prefix"].max((1, 2))), onset(a["step"], scores_of(a)),
                       total=float(a["step"][-1])))
        for a in learned
    ]  # fmt: skip
    lost, others = [], []
    for a in learned:
        whole, heads = scores_of(a)[-1], matching_heads(a["prefix"][-1])
        lost.append(1 - float(a["without_matching_kept"]) / whole)
        if not heads.all():
            others.append(float(np.median(1 - a["without_kept"][~heads] / whole)))
    matching = [a["copying"][a["prefix"][-1] > MATCHES] for a in learned]
    copying = [float(np.median(c)) for c in matching if c.size]
    nobody = "no seed of two layers has learned in context (score of -1 nat or less)"
    return [
        claim(1, "Two layers learn in context, one layer does not", "Argument 1", [
            Check("score of one layer less that of two, nats", at_least(1.0), gaps)]),
        claim(2, "Prefix matching and in-context learning appear together", "Argument 1", [
            Check("onsets within a tenth of the training", is_true(), together)] if learned else [], nobody),
        claim(3, "Removing the prefix-matching heads removes in-context learning", "Argument 3", [
            Check("share of the score lost without them, later patterns kept", at_least(0.5), lost),
            *([Check("share lost without one other head (median)", at_most(0.25), others)] if others else []),
        ] if learned else [], nobody),
        claim(4, "With smeared keys one layer has the change too", "Argument 2", [
            Check("score of one layer less that with smeared keys, nats", at_least(1.0),
                  [scores_of(a)[-1] - scores_of(b)[-1] for a, b in zip(one, smeared, strict=True)])]),
        claim(5, "Heads that match prefixes copy", "Argument 4", [
            Check("median eigenvalue score of heads with prefix matching above .5", at_least(0.5), copying),
        ] if copying else [], "no head of the models that have learned matches prefixes (score above .5)"),
    ]  # fmt: skip


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """Scores of in-context learning and of heads while training; heads by prefix matching and copying."""
    found = {name: seeds_of(run, name) for name in MODELS}
    two = found["two"]
    score = [
        over_seeds(name.replace("_", " "), seeds[0]["step"], np.stack([scores_of(a) for a in seeds], -1))
        for name, seeds in found.items()
    ]
    prefix = [
        over_seeds(name.replace("_", " "), seeds[0]["step"],
                   np.stack([a["prefix"].max((1, 2)) for a in seeds], -1))
        for name, seeds in found.items()
    ]  # fmt: skip
    heads = [Series(f"layer {i + 1}", np.concatenate([a["prefix"][-1, i] for a in two]),
                    np.concatenate([a["copying"][i] for a in two]), style="points") for i in range(2)]  # fmt: skip
    names = [f"head {h + 1}" for h in range(two[0]["copying"].shape[1])]
    panels = [
        Panel(title, scores_of(two[0])[-1] - two[0][key], names, ["layer 1", "layer 2"])
        for title, key in (("patterns kept", "without_kept"), ("patterns free", "without_free"))
    ]
    return {
        "change": Grid("In-context learning and prefix matching", (
            Lines("In-context score", "training step", "nats", score),
            Lines("Best head", "training step", "prefix matching", prefix)), 2),
        "heads": Lines("Heads of two layers: matching and copying", "prefix matching", "eigenvalue copying", heads),
        "ablation": Heatmaps("In-context score with all heads less that without one, first seed", panels),
    }  # fmt: skip
