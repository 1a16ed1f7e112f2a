"""The claims on text (preset `language`): in-context score, induction heads, what is lost without them, token by token.

A pretrained model, SmolLM2-135M-Instruct unless `--set model=FOLDER` says otherwise, reads docstrings of Python's
library, unless `--set text=FILE` names another text, and repeated random tokens. Its training is over, so that when
heads and score appear (arguments 1 and 2) cannot be asked of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meta_icl.analysis.circuits import heads_copying
from meta_icl.evaluation.by_position import bootstrap
from meta_icl.lm.loaded import language_model, model_of, undecided_by
from meta_icl.lm.texts import (
    among_their_layers,
    head_scores,
    in_context_score,
    repeated_tokens,
    strongest_heads,
    text_of,
    token_losses,
    windows_of,
)
from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, Series, deciding
from meta_icl.runs import Claim, Run
from meta_icl.runs.claims import Check, at_least, at_most, is_true
from meta_icl.sweeps import run_parts

MATCHES = 0.3  # prefix matching from which on a head of a language model counts as an induction head
IDS = tuple(f"O{i}" for i in range(6, 11))


@dataclass(frozen=True)
class LanguageConfig:
    """The model, the text, its windows, repeated random tokens, and draws of random heads."""

    model: str = "smollm2"
    text: str = ""
    windows: int = 8
    length: int = 512
    period: int = 100
    sequences: int = 10
    draws: int = 2


def measure(
    part: Run, *, model: str, text: str, windows: int, length: int, period: int, sequences: int, draws: int
) -> dict[str, np.ndarray]:
    """Losses "windows t" with all heads, without those that match prefixes, and without random ones of their layers."""
    del part
    own = language_model(model)
    repeats = repeated_tokens(own, period, range(sequences))
    heads = head_scores(own.network, repeats, period)
    prefix = heads["prefix"].mean(0)
    matching = prefix >= min(MATCHES, prefix.max())
    tokens = windows_of(own, text_of(text), length, windows)
    rng = np.random.default_rng(0)
    drawn = [among_their_layers(matching, rng) for _ in range(draws)]
    twice = token_losses(own.network, repeats[: max(1, sequences // 2)])
    return {
        **heads,
        "matching": matching,
        "copying": heads_copying(own.network, range(own.network.n_layers)),
        "tokens": tokens,
        "losses": token_losses(own.network, tokens),
        "without": token_losses(own.network, tokens, matching),
        "without random": np.stack([token_losses(own.network, tokens, mask) for mask in drawn]),
        "repeated": twice,
        "repeated without": token_losses(own.network, repeats[: len(twice)], matching),
        "repeated without random": np.stack([token_losses(own.network, repeats[: len(twice)], m) for m in drawn]),
    }


def seen_before(tokens: np.ndarray) -> np.ndarray:
    """Which tokens but the first, "windows t-1", are the second B of "A B .. A B"."""
    found = np.zeros((len(tokens), tokens.shape[1] - 1), bool)
    for row, window in enumerate(tokens):
        pairs: set[tuple[int, int]] = set()
        for i, pair in enumerate(zip(window[:-1].tolist(), window[1:].tolist(), strict=True)):
            found[row, i] = pair in pairs
            pairs.add(pair)
    return found


def run_language(config: LanguageConfig, run: Run) -> None:
    """One part: everything is asked of one model."""
    run_parts(run, measure, {"language": {
        "model": config.model, "text": config.text, "windows": config.windows, "length": config.length,
        "period": config.period, "sequences": config.sequences, "draws": config.draws,
    }})  # fmt: skip


def undecided_language_claims() -> list[Claim]:
    """O6 .. O10 where networks are trained on repeated tokens."""
    why = "asked of a language model by the preset `language`"
    return [Claim(f"olsson2022/{id}", *STATEMENTS[id], (), why) for id in IDS]


STATEMENTS = {
    "O6": ("On text, a pretrained model has learned in context: late tokens cost less", "Argument 1"),
    "O7": ("It has heads that match prefixes, and heads that attend to the previous token below them", "Argument 4"),
    "O8": ("Without the heads that match prefixes most of the in-context score on text is lost", "Argument 3"),
    "O9": ("Token by token, they serve what stood behind an earlier copy of the present token", "Per-token analysis"),
    "O10": ("Its heads that match prefixes copy", "Argument 4"),
}


def language_claims(run: Run) -> list[Claim]:
    """O6 .. O10 alone: nothing is trained."""
    return judged_language(run.part_arrays("language"), str(model_of(run.config)))


def judged_language(found: Mapping[str, np.ndarray], model: str) -> list[Claim]:
    """The claims from what a model's losses and heads were; tolerances are those of O1, O3, O5 and ours, set before."""
    prefix, previous, matching = found["prefix"].mean(0), found["previous"].mean(0), found["matching"]
    best, before = (np.unravel_index(scores.argmax(), scores.shape) for scores in (prefix, previous))
    score = in_context_score(found["losses"])
    lost = 1 - in_context_score(found["without"]).mean() / score.mean()
    others = [1 - in_context_score(losses).mean() / score.mean() for losses in found["without random"]]
    again = seen_before(found["tokens"])
    harm = found["without"] - found["losses"]
    harms = harm[again].mean(), harm[~again].mean()
    random_harm = (found["without random"] - found["losses"][None])[:, again].mean()
    band = bootstrap(score[:, None])
    strongest = ", ".join(
        f"{i + 1}.{h + 1} {prefix[i, h]:.3f}" for i, h in zip(*np.nonzero(strongest_heads(prefix, 6)), strict=True)
    )
    half = found["repeated"].shape[1] // 2
    copies = [found[name][..., -half:].mean() for name in ("repeated", "repeated without", "repeated without random")]

    def claim(id: str, checks: Sequence[Check], told: str) -> Claim:
        note = f"Measured on {model}. {told}"
        return Claim(f"olsson2022/{id}", *STATEMENTS[id], tuple(checks), undecided_by(model), note)

    return [
        claim("O6", [Check("loss of the last quarter less that of the first, nats, by window", at_most(-0.15), score)],
              f"Mean {band.mean[0]:.3f} [{band.low[0]:.3f}, {band.high[0]:.3f}] over {len(score)} windows."),
        claim("O7", [
            Check("prefix matching of the best head", at_least(0.5), [prefix.max()]),
            Check("attention to the previous token of the best head", at_least(0.5), [previous.max()]),
            Check("the latter is in an earlier layer", is_true(), [before[0] < best[0]]),
        ], f"Prefix matching by layer.head, from 1: {strongest}; previous token {before[0] + 1}.{before[1] + 1} "
           f"{previous.max():.3f}; {int(matching.sum())} heads match prefixes (above {MATCHES})."),
        claim("O8", [
            Check("share of the score lost without them", at_least(0.5), [lost]),
            Check("share lost without as many random heads of their layers", at_most(0.25), others),
        ], f"The second copy of random tokens costs {copies[0]:.2f} nats each, without these heads {copies[1]:.2f}, "
           f"without random ones {copies[2]:.2f}."),
        claim("O9", [
            Check("loss added to such tokens / to all others", at_least(2), [harms[0] / max(harms[1], 1e-3)]),
            Check("the same / that of random heads", at_least(2), [harms[0] / max(random_harm, 1e-3)]),
        ], f"Without these heads such tokens cost {harms[0]:+.3f} nats, all others {harms[1]:+.3f}; without random "
           f"heads {random_harm:+.3f}. {again.mean():.0%} of the tokens are such."),
        claim("O10", [Check("median eigenvalue score of heads that match prefixes", at_least(0.5),
                            [np.median(found["copying"][matching])])],
              f"All heads: {np.median(found['copying']):.2f}; of {int(matching.sum())} heads "
              f"{np.min(found['copying'][matching]):.2f} to {np.max(found['copying'][matching]):.2f}."),
    ]  # fmt: skip


def language_figures(run: Run) -> dict[str, Chart]:
    """Losses by position with and without heads; prefix matching of all heads, raw and corrected, and their copying."""
    found = run.part_arrays("language")
    edges = np.unique(np.geomspace(1, found["losses"].shape[1], 16).astype(int))
    series = []
    named = {"all heads": found["losses"], "without those that match prefixes": found["without"],
             "without random heads of their layers": found["without random"].mean(0)}  # fmt: skip
    for name, losses in named.items():
        band = bootstrap(np.stack([losses[:, i:j].mean(1) for i, j in zip(edges, edges[1:], strict=False)], axis=1))
        series.append(Series(name, (edges[:-1] + edges[1:]) / 2, band.mean, band.low, band.high))
    maps = {"prefix matching": "prefix", "corrected for the first token": "prefix_corrected",
            "previous token": "previous"}  # fmt: skip
    names = [f"{h + 1}" for h in range(found["matching"].shape[1])]
    layers = [f"layer {i + 1}" for i in range(found["matching"].shape[0])]
    panels = [Panel(title, found[name].mean(0), names, layers) for title, name in maps.items()]
    copying = Series("heads", found["prefix"].mean(0).ravel(), found["copying"].ravel(), style="points")
    return deciding({
        "text": Lines("Loss by position in a text", "token", "nats per token", series, log_x=True),
        "language_heads": Grid("Heads of a language model", (
            Heatmaps("What every head attends to", panels, "Repeated random tokens, behind the opening token."),
            Lines("Matching and copying", "prefix matching", "eigenvalue copying", [copying])), 1),
    }, {"text": "O6 O8 O9", "language_heads": "O7 O10"})  # fmt: skip
