"""The claims of Olsson et al. (2022), judged from a finished run."""

from collections.abc import Mapping, Sequence

import numpy as np

from meta_icl.analysis.circuits import co_occur, onset
from meta_icl.runs import Run, asked
from meta_icl.runs.claims import Check, Claim, at_least, at_most, is_true

from .experiments import MATCHES, MODELS, matching_heads, scores_of, seeds_of
from .language import undecided_language_claims

LEARNED = -1.0  # nats: the in-context score at and below which a model has learned in context


def claim(number: int, statement: str, source: str, checks: list[Check], why_not: str = "") -> Claim:
    """A claim; without checks it is undecided for the reason given."""
    return Claim(f"olsson2022/O{number}", statement, source, tuple(checks), None if checks else why_not)


def claims(run: Run) -> list[Claim]:
    """O1 .. O5; tolerances are those set for the reproduction (synthetic repeats). O6 .. O10 are of language models."""
    return asked(
        run,
        {
            " ".join(f"O{i}" for i in range(1, 6)): lambda run: judged({name: seeds_of(run, name) for name in MODELS}),
            " ".join(f"O{i}" for i in range(6, 11)): lambda run: undecided_language_claims(),
        },
    )


def judged(found: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> list[Claim]:
    """The claims from what the seeds of every model left behind."""
    two, one, smeared = (found[name] for name in MODELS)
    # Claims about one model alone need no seeds of the others.
    gaps, smears = ([scores_of(a)[-1] - scores_of(b)[-1] for a, b in zip(one, other, strict=bool(one and other))]
                    for other in (two, smeared))  # fmt: skip
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
    left_out = "the models that are compared were left out: the claims that were asked for do not need them"
    nobody = "no seed of two layers has learned in context (score of -1 nat or less)"
    return [
        claim(1, "Two layers learn in context, one layer does not", "Argument 1", [
            Check("score of one layer less that of two, nats", at_least(1.0), gaps)] if gaps else [], left_out),
        claim(2, "Prefix matching and in-context learning appear together", "Argument 1", [
            Check("onsets within a tenth of the training", is_true(), together)] if learned else [], nobody),
        claim(3, "Removing the prefix-matching heads removes in-context learning", "Argument 3", [
            Check("share of the score lost without them, later patterns kept", at_least(0.5), lost),
            *([Check("share lost without one other head (median)", at_most(0.25), others)] if others else []),
        ] if learned else [], nobody),
        claim(4, "With smeared keys one layer has the change too", "Argument 2", [
            Check("score of one layer less that with smeared keys, nats", at_least(1.0), smears)] if smears else [],
            left_out),
        claim(5, "Heads that match prefixes copy", "Argument 4", [
            Check("median eigenvalue score of heads with prefix matching above .5", at_least(0.5), copying),
        ] if copying else [], "no head of the models that have learned matches prefixes (score above .5)"),
    ]  # fmt: skip
