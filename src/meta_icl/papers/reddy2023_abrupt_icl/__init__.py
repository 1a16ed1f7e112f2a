"""The mechanistic basis of data dependence and abrupt learning in an in-context classification task (Reddy, 2023).

arXiv 2312.03002, ICLR 2024. Claims. Whether a two-layer attention network learns labels in its weights (IWL) or reads
them in the context (ICL) depends on burstiness, number of classes, noise and skew of the data; ICL is learned abruptly,
when an induction head forms: first the network learns to choose among the labels of the context, then the right one.

Setting. N = 8 pairs, L = 32 labels, label of class k = k mod L, items of 63 channels, places in a window of 65, width
128, one head, no output projection, three hidden layers with one bias each; SGD 0.01 on batches of 128, parameters
multiplied by 1 - 1e-6 every step, 200,000 steps. The text was not at hand: settings are those of public forks of the
author's code. Evaluation sets: `test`, `ic` (novel classes), `ic2` (labels shifted by one), `iw` (no context to read).

The reduced model of three parameters is derived here (`three_parameter_loss`); it is not the paper's equation.

Orders in time are asked of the seeds that learn in context; sweeps are decided only where every training has learned
its own law (accuracy above the half that copying one of two labels gives), up to two standard errors of an accuracy.

Command: `meta-icl reproduce reddy2023`. Times: see `TIMES`.
"""

from .claims import claims
from .config import SETTINGS, Config
from .experiments import run
from .figures import figures

__all__ = ["IDS", "PRESETS", "TIMES", "Config", "claims", "figures", "run"]

FINDING = (
    "accuracy in context waits near 1/N and jumps with the induction head, after the choice among context labels is "
    "learned (R1, R2); burstiness favours it over the weights (R4)"
)
TIMES = {"smoke": "1 CPU-min", "small": "25 CPU-min", "paper": "days of CPU (GPU)"}
IDS = tuple(f"R{i}" for i in range(1, 10))

PRESETS = {
    "smoke": Config(seeds=1, steps=6, extra=("L=N", "B=1", "B=4"), extra_steps=4, batch=8, records=3, n_eval=32,
                    n_traced=8),
    # Shrunk: 40,000 of 200,000 steps and two seeds; of the sweeps only the two ends of burstiness.
    "small": Config(),
    "paper": Config(seeds=6, steps=200_000, extra=tuple(SETTINGS)[1:], extra_seeds=6, extra_steps=200_000,
                    n_eval=10_000),
}  # fmt: skip
