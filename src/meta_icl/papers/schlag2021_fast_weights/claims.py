"""The claims of Schlag et al. (2021), judged from a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import hebbian_error, least_squares_error
from meta_icl.runs import Run, asked
from meta_icl.runs.claims import Check, Claim, Converged, at_least, at_most, is_true, relative, within

from .experiments import CG_STEPS, RECALL, RULES, SINGLE, STYLES, plateau, swept

LEFT = 0.5  # of the loss of a guess among the values in the context: what has begun to recall is below
RECALLED = 0.9  # accuracy that a width must reach
UNDECIDED = {
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
# Extrapolated from steps that were timed on one core, in proportion to tokens, depth and the square of the width.
REASONS = {
    "P": "12 layers of width 256 for 500,000 steps: 50 CPU-days a model, from 0.14 s a step of 3 layers of width 64",
    "R": "200 epochs over 5,000 automata at 8 layers of width 128 and about 375 tokens: 60 CPU-hours a model, from "
    "0.12 s a step of 2 layers of attention of width 64 on 128 tokens",
    "M": "a statement about 400M parameters after 15B tokens, 3.6e19 operations: 12 years at 98 GFLOP/s of one core",
    "G": "published for 1,000 to 8,000 tokens of language models; needles of 1,000 tokens take 6 CPU-hours for three "
    "mixers, two rates, three seeds of 2,000 steps, from 18 ms a step of Gated DeltaNet on 32 tokens",
}


def claim(id: str, source: str, statement: str, checks: Sequence[Check], **more: Any) -> Claim:
    return Claim(f"schlag2021/{id}", statement, source, tuple(checks), **more)


def claims(run: Run) -> list[Claim]:
    """F-2 to F-4 of single layers, Q, L and M of small networks, and what is not decided here."""
    sizes = run.load_arrays("sizes")
    undecided = [
        Claim(f"schlag2021/{id}", statement, source, undecided=REASONS[id[0]])
        for id, (source, statement) in UNDECIDED.items()
    ]
    return asked(
        run,
        {
            "F-2 F-3 F-4": lambda run: claims_rules(run, int(sizes["d"])),
            "Q-1": lambda run: claim_recall(run, int(sizes["pairs"])),
            "Q-3": lambda run: claim_convolution(run, int(sizes["pairs"])),
            "M-1": lambda run: claim_steps(run, int(sizes["pairs"])),
            "Q-2": lambda run: claim_widths(swept(run), sizes["widths"]),
            "L-1 L-2": claims_styles,
            " ".join(UNDECIDED): lambda run: undecided,
        },
    )


def claims_rules(run: Run, d: int) -> list[Claim]:
    arrays = {name: run.part_arrays(f"rule-{name}") for name in RULES}
    t, last = arrays["mesa"]["t"], {name: arrays[name]["errors"][:, -1] for name in RULES}
    most = jnp.asarray(t[-1], float)
    linear, solved = float(hebbian_error(most, d)), float(least_squares_error(most, d))
    late = arrays["mesa"]["errors"][:, t >= 3 * d // 2].max(axis=1)
    after = f"after {t[-1]} examples: error / d"

    def learned(name: str, quantity: str, least: float) -> Converged:
        """The training loss at the best rate, over a reference: seeds that are stuck at the start do not count."""
        row = int(np.argmin(arrays[name]["losses"].mean(axis=1)))
        return Converged(quantity, at_most(1), 2 * arrays[name]["losses"][row] / d / least)

    zero = "training loss / 0.9 times that of predicting zero"
    return [
        claim(
            "F-2",
            "von Oswald et al., 2023",
            "One trained layer of linear attention has the error of one gradient step, (d + 1) / (t + d + 1)",
            [Check(after, relative(linear, 0.05), last["linear_attention"])],
            converged=learned("linear_attention", zero, 0.9),
        ),
        claim(
            "F-3",
            "von Oswald et al., 2025",
            "One trained Mesa layer solves linear regression once there are d examples",
            [Check("largest error / d from 1.5 d examples on", at_most(0.02), late)],
            converged=learned("mesa", "training loss / that of one gradient step", linear),
            revised="judged from 1.5 d examples on, no longer from d: with the smallest penalty that the layer allows "
            "exact ridge itself leaves 0.10 at d examples",
        ),
        claim(
            "F-4",
            "derived",
            "One trained layer of the delta rule stands between linear attention and Mesa",
            [Check(f"DeltaNet, {after}", within(solved, linear), last["deltanet"])],
            converged=learned("deltanet", zero, 0.9),
        ),
    ]


def begun(arrays: Mapping[str, np.ndarray], pairs: int) -> Converged:
    """The guard: training has left the loss of a guess among the values in the context."""
    return Converged("training loss / log P", at_most(LEFT), plateau(arrays, pairs))


def claim_recall(run: Run, pairs: int) -> Claim:
    found = {name: run.part_arrays(f"recall-{name}") for name in RECALL}
    recall = [
        Check(f"{name}: accuracy", at_least(0.98), a["score/1x"], converged=begun(a, pairs))
        for name, a in found.items()
    ]
    statement = "Two layers of attention, DeltaNet, Gated DeltaNet and Mesa recall all pairs"
    return claim(
        "Q-1",
        "Zoology",
        statement,
        recall,
        note="at width 32 and 32 tokens; published at width 64 and 64 tokens, with "
        "attention on Taylor features (Based) beside these, which is not among the mixers here",
    )


def claim_convolution(run: Run, pairs: int) -> Claim:
    single = []
    for name in SINGLE:
        with_one, without = (run.part_arrays(f"single-{name}-conv={conv}") for conv in (True, False))
        gained = with_one["score/1x"] - without["score/1x"]
        guard = begun(with_one, pairs)
        single.append(Check(f"{name}: accuracy with - without", at_least(0), gained, converged=guard))
    statement = "Without its convolution one recurrent layer recalls less"
    return claim("Q-3", "implementations of the family", statement, single)


def claim_steps(run: Run, pairs: int) -> Claim:
    arrays = run.part_arrays("recall-mesa")
    losses = arrays["cg"]
    monotone = Check("largest rise of the loss with more steps, nats", at_most(1e-3), np.diff(losses).max(axis=1))
    ten, most = CG_STEPS.index(10), len(CG_STEPS) - 1
    flat = Check("loss at 10 steps - at 30, nats", at_most(1e-3), losses[:, ten] - losses[:, most])
    statement = "The loss of Mesa falls with steps of conjugate gradient"
    return claim("M-1", "MesaNet, Fig. 7", statement, [monotone, flat], converged=begun(arrays, pairs))


def claim_widths(found: Mapping[str, tuple[np.ndarray, np.ndarray]], widths: np.ndarray) -> Claim:
    """Q-2 of attention and of a mixer with a state of fixed size, from what `swept` returns.

    A network that does worse than to guess among the values in its context has not begun to learn, and does not tell
    what its width could hold: the guard is the worst of all. One whose state is too small for its pairs does better.
    """
    statement = "Attention recalls at any length with one width; fixed states need width as pairs grow"
    least = {name: np.where(a >= RECALLED, widths[:, None], np.inf).min(axis=0) for name, (a, _) in found.items()}
    guards = {
        name: Converged(f"{name.replace('_', ' ')}: largest training loss / log P", at_most(1), [left.max()])
        for name, (_, left) in found.items()
    }
    if not found:
        why_not = "trained by the preset `full` only: 70 CPU-min, from 0.12 s a step of attention on the 128 tokens"
    elif not np.isfinite(least["attention"]).all():
        why_not = f"attention reaches {RECALLED} nowhere at some length: the widths that it needs were not trained"
    else:
        flat, state = least["attention"], least["linear_attention"]
        grows = state[-1] > state[0] and (state[:-1] <= state[1:]).all()
        checks = [
            Check("attention: least width, longest / shortest", at_most(1), flat[-1] / flat[0],
                  converged=guards["attention"]),
            Check("linear attention: its least width grows with the pairs", is_true(), float(grows),
                  converged=guards["linear_attention"]),
        ]  # fmt: skip
        return claim("Q-2", "Zoology, Fig. 2", statement, checks)
    return claim("Q-2", "Zoology, Fig. 2", statement, (), undecided=why_not)


def claims_styles(run: Run) -> list[Claim]:
    arrays = {name: run.part_arrays(f"style-{name}") for name in STYLES}
    learn = [Check(f"{name}: error / zero predictor's", at_most(0.9), a["score/2d"]) for name, a in arrays.items()]
    error = np.stack([a["score/1x"] for a in arrays.values()])
    learned = error <= 0.9
    stays = learned & (np.stack([a["score/4x"] for a in arrays.values()]) >= 0.9 * error)
    share = stays.sum(axis=0) / np.maximum(learned.sum(axis=0), 1)
    guard = Converged("share of architectures whose error at 1x is at most 0.9", at_least(0.5), learned.mean(axis=0))
    return [
        claim("L-1", "Lee et al., 2024", "All architectures learn in context: below 0.9 after 2 d examples", learn),
        claim(
            "L-2",
            "Lee et al., 2024",
            "With more examples than in training most architectures stay where they are or get worse",
            [Check("of these, share whose error at 4x is at least 0.9 of that at 1x", at_least(0.5), share)],
            converged=guard,
        ),
    ]
