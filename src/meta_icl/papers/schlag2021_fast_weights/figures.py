"""The figures of Schlag et al. (2021), drawn from a finished run."""

import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import hebbian_error
from meta_icl.plotting import Bars, Chart, Lines, Series, deciding, over_seeds
from meta_icl.runs import Run, drawn

from .experiments import CG_STEPS, RECALL, RULES, SINGLE, STYLES, swept

WORDS = {
    "deltanet": "DeltaNet",
    "gated_deltanet": "gated DeltaNet",
    "mesa": "Mesa",
    "retnet": "RetNet",
    "gla": "GLA",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "rwkv7": "RWKV-7",
    "ttt_linear": "TTT-linear",
    "mlstm": "mLSTM",
    "lstm": "LSTM",
}


def words(name: str) -> str:
    """A mixer as the figures name it."""
    return WORDS.get(name) or name.replace("_", " ")


def figures(run: Run) -> dict[str, Chart]:
    """Single layers and their closed forms, recall, conjugate gradient, styles by length."""
    makers = {"rules": rules_figure, "recall": recall_figure, "styles": styles_figure, "cg": steps_figure}
    makers |= {"widths": widths_figure} if run.load_arrays("sizes")["widths"].size else {}
    decides = {"rules": "F-2 F-3 F-4", "recall": "Q-1 Q-3", "cg": "M-1", "styles": "L-1 L-2", "widths": "Q-2"}
    return deciding(drawn(run, makers, decides), decides)


def rules_figure(run: Run) -> Chart:
    d, arrays = int(run.load_arrays("sizes")["d"]), {name: run.part_arrays(f"rule-{name}") for name in RULES}
    t = np.arange(0, arrays["mesa"]["t"][-1] + 1)
    curves = [over_seeds(words(name), a["t"], a["errors"].T, style="points") for name, a in arrays.items()]
    curves += [
        Series("one gradient step", t, hebbian_error(jnp.asarray(t, float), d), style="dashed"),
        Series("least squares", t, np.maximum(0, 1 - t / d), style="dashed"),
    ]
    return Lines("One trained layer on linear regression", "examples", "error / d", tuple(curves))


def recall_figure(run: Run) -> Chart:
    names = [*(f"recall-{n}" for n in RECALL), *(f"single-{n}-conv={c}" for n in SINGLE for c in (True, False))]
    told = [words(n) for n in RECALL]
    told += [f"one {words(n)}, {c} convolution" for n in SINGLE for c in ("with", "without")]
    scores = np.stack([run.part_arrays(name)["score/1x"] for name in names])
    low, high = scores.min(axis=1), scores.max(axis=1)
    return Bars("Associative recall", "", "accuracy", told, np.median(scores, axis=1), low, high)


def widths_figure(run: Run) -> Chart:
    sizes, curves = run.load_arrays("sizes"), []
    for (name, (recall, _)), style in zip(swept(run).items(), ("line", "dashed"), strict=True):
        curves += [
            Series(f"{words(name)}, width {width}", sizes["lengths"] // 8, row, style=style)
            for width, row in zip(sizes["widths"], recall, strict=True)
        ]
    return Lines("Recall by width", "pairs", "accuracy", tuple(curves), log_x=True)


def styles_figure(run: Run) -> Chart:
    styles = {name: run.part_arrays(f"style-{name}") for name in STYLES}
    lengths = np.array([1, 2, 4])
    by_length = [
        over_seeds(words(name), lengths, np.stack([a[f"score/{n}x"] for n in lengths])) for name, a in styles.items()
    ]
    return Lines("Linear functions by length", "length / training length", "error", tuple(by_length), log_x=True)


def steps_figure(run: Run) -> Chart:
    cg = [over_seeds("Mesa", np.array(CG_STEPS), run.part_arrays("recall-mesa")["cg"].T)]
    return Lines("Mesa by steps of conjugate gradient", "steps", "loss, nats", tuple(cg))
