"""The claims of Schlag et al. (2021), judged from a finished run."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import hebbian_error, least_squares_error
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, relative, within

from .experiments import CG_STEPS, RECALL, RULES, SINGLE, STYLES

UNDECIDED = {
    "Q-2": ("Zoology, Fig. 2", "Attention recalls at any length with one width; fixed states need width as pairs grow"),
    "P-1": ("Park et al., 2024", "Mamba learns sparse parity in context, a plain transformer does not"),
    "P-2": ("Park et al., 2024", "Mamba is behind on decision trees and retrieval, hybrids are best"),
    "R-1": ("Akyurek et al., 2024", "Transformers learn random automata in context better than recurrent networks"),
    "R-2": ("Akyurek et al., 2024", "Heads that count n-grams help every model"),
    "R-3": ("MesaNet, Fig. 9", "Mesa is on random automata where the transformer is"),
    "M-2": ("MesaNet, Tab. 3", "Mesa stays behind attention on recall in context"),
    "G-1": (
        "Gated DeltaNet, Tab. 2",
        "With length, gates lose the pass-key and delta rules the number; both keep more",
    ),
}
REASONS = {
    "Q": "needs a sweep of widths and lengths up to 512 tokens: the `paper` preset's scale on a GPU",
    "P": "needs far longer training than minutes on two cores: the `paper` scale of that publication on a GPU",
    "R": "needs 200 epochs over thousands of automata at width 128 and 8 layers",
    "M": "a statement about language models of 400M parameters and more",
    "G": "published for 1,000 to 8,000 tokens; training at that length needs a GPU",
}


def claim(id: str, source: str, statement: str, checks: Sequence[Check], note: str | None = None) -> Claim:
    return Claim(f"schlag2021/{id}", statement, source, tuple(checks), note=note)


def claims(run: Run) -> list[Claim]:
    """F-2 to F-4 of single layers, Q, L and M of small networks, and what is not decided here."""
    undecided = [
        Claim(f"schlag2021/{id}", statement, source, undecided=REASONS[id[0]])
        for id, (source, statement) in UNDECIDED.items()
    ]
    return [*claims_rules(run), *claims_recall(run), *claims_styles(run), *undecided]


def claims_rules(run: Run) -> list[Claim]:
    d = int(run.load_arrays("sizes")["d"])
    arrays = {name: run.part_arrays(f"rule-{name}") for name in RULES}
    t, last = arrays["mesa"]["t"], {name: arrays[name]["errors"][:, -1] for name in RULES}
    linear, solved = float(hebbian_error(t[-1], d)), float(least_squares_error(jnp.asarray(t[-1]), d))
    late = arrays["mesa"]["errors"][:, t >= d].max(axis=1)
    after = f"after {t[-1]} examples: error / d"
    return [
        claim(
            "F-2",
            "von Oswald et al., 2023",
            "One trained layer of linear attention has the error of one gradient step, (d + 1) / (t + d + 1)",
            [Check(after, relative(linear, 0.05), last["linear_attention"])],
        ),
        claim(
            "F-3",
            "von Oswald et al., 2025",
            "One trained Mesa layer solves linear regression once there are d examples",
            [Check("largest error / d from d examples on", at_most(0.02), late)],
        ),
        claim(
            "F-4",
            "derived",
            "One trained layer of the delta rule stands between linear attention and Mesa",
            [Check(f"DeltaNet, {after}", within(solved, linear), last["deltanet"])],
        ),
    ]


def claims_recall(run: Run) -> list[Claim]:
    scores = {name: run.part_arrays(f"recall-{name}")["score/1x"] for name in RECALL}
    single = {
        name: run.part_arrays(f"single-{name}-conv=True")["score/1x"]
        - run.part_arrays(f"single-{name}-conv=False")["score/1x"]
        for name in SINGLE
    }
    losses = run.part_arrays("recall-mesa")["cg"]
    monotone = Check("largest rise of the loss with more steps, nats", at_most(1e-3), np.diff(losses).max(axis=1))
    ten, most = CG_STEPS.index(10), len(CG_STEPS) - 1
    flat = Check("loss at 10 steps - at 30, nats", at_most(1e-3), losses[:, ten] - losses[:, most])
    return [
        claim(
            "Q-1",
            "Zoology",
            "Two layers of attention, DeltaNet, Gated DeltaNet and Mesa recall all pairs",
            [Check(f"{name}: accuracy", at_least(0.98), score) for name, score in scores.items()],
            "at width 32 and 32 tokens; published at width 64 and 64 tokens",
        ),
        claim(
            "Q-3",
            "implementations of the family",
            "Without its convolution one recurrent layer recalls less",
            [Check(f"{name}: accuracy with - without", at_least(0), gain) for name, gain in single.items()],
        ),
        claim("M-1", "MesaNet, Fig. 7", "The loss of Mesa falls with steps of conjugate gradient", [monotone, flat]),
    ]


def claims_styles(run: Run) -> list[Claim]:
    arrays = {name: run.part_arrays(f"style-{name}") for name in STYLES}
    learn = [Check(f"{name}: error / zero predictor's", at_most(0.9), a["score/2d"]) for name, a in arrays.items()]
    no_better = np.mean([a["score/4x"] >= 0.9 * a["score/1x"] for a in arrays.values()], axis=0)
    return [
        claim("L-1", "Lee et al., 2024", "All architectures learn in context: below 0.9 after 2 d examples", learn),
        claim(
            "L-2",
            "Lee et al., 2024",
            "With more examples than in training most architectures stay where they are or get worse",
            [Check("share whose error at 4x is at least 0.9 of that at 1x", at_least(0.5), no_better)],
        ),
    ]
