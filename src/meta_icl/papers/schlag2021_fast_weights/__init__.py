"""Linear transformers are secretly fast weight programmers (Schlag, Irie & Schmidhuber, 2021; arXiv 2102.11174).

Claims. Linear attention programs a fast-weight matrix by sums of outer products; the delta rule, which writes only what
is missing, programs it better. The family that grew from this, up to layers that solve their regression (MesaNet, von
Oswald et al., 2025) and that forget by gates (Gated DeltaNet, Yang et al., 2025), recalls from its context as attention
does within the capacity of its state, and learns functions in context. Its claims come from several publications, each
named as a source, besides those Zoology (Arora et al., 2024), Lee et al. (2024), Park et al. (2024) and RegBench
(Akyurek et al., 2024). F-1 and F-5 stand in `behrouz2025_titans`.

Setting. F: one layer and nothing else, no norms and no MLP, on y = w.x with x, w ~ N(0, I_10); tokens (x, y, is an
example, 1); loss on the query after 20 pairs only. Keys of Mesa keep their length there: unit keys fit y / |x|, not y.
Q, M: backbones of width 32 on associative recall of 4 pairs in 32 tokens. L: the same backbones on linear functions of
4 inputs, 15 pairs. Every architecture has its own rate. What was measured on corpora, on automata or after long
training is marked undecided with its reason.

Command: `meta-icl reproduce schlag2021`. Times on two CPU cores: see `TIMES`.
"""

from .claims import claims
from .config import Config
from .experiments import run
from .figures import figures

__all__ = ["IDS", "PRESETS", "TIMES", "Config", "claims", "figures", "run"]

FINDING = (
    "a layer of linear attention learns one gradient step, and the delta rule stands between it and Mesa (F-2, F-4); "
    "attention does not recall all pairs after the same short training (not Q-1)"
)
TIMES = {"smoke": "2 min", "small": "32 CPU-min", "paper": "hours (GPU)"}
IDS = ("F-2", "F-3", "F-4", *(f"{k}-{i}" for k in "LMPQR" for i in (1, 2)), "Q-3", "R-3", "G-1")

PRESETS = {
    "smoke": Config(
        seeds=2, d=2, rule_steps=3, rule_batch=4, rule_rates=(1e-2,), rule_eval=50, steps=2, style_steps=2, batch=4,
        rates=(1e-2,), d_model=8, length=16, chunk_size=4, n_eval=8,
    ),
    # Shrunk: recall in 32 tokens at width 32, not in 64 at width 64; 600 steps of 32 prompts at each of two rates, 200
    # on linear functions. A single layer has one rate, the best of .003, .01 and .03 for linear attention and DeltaNet.
    "small": Config(),
    "paper": Config(
        seeds=5, rule_steps=20_000, rule_batch=512, rule_rates=(1e-3, 3e-3, 1e-2), rule_eval=100_000, steps=20_000,
        style_steps=20_000, batch=256, rates=(3e-4, 1e-3, 3e-3, 1e-2), d_model=64, length=64, n_eval=3_000,
    ),
}  # fmt: skip
