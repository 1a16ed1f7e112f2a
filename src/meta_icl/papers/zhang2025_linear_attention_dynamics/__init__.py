"""Training dynamics of in-context learning in linear attention (Zhang, Singh, Latham & Saxe, ICML 2025; 2501.16265).

Claims. With key and query merged into one matrix, linear attention is a two-layer linear network on cubic features and
learns regression in context in one drop of the loss. With separate keys and queries of rank one it passes through D - 1
plateaus, at which it does principal component regression in context with one, two, .. components. Heights, time courses
and conserved quantities have closed forms.

Setting. x ~ N(0, Lambda), w ~ N(0, I), y = w.x, N = 31 context pairs (the code's length 32 includes the query), D = 4
with eigenvalues .4, .3, .2, .1; loss is the full mean squared error. Most runs need no samples: they are gradient flow,
tau dW/dt = -1/2 dL/dW with tau = 1, on the exact population loss. "Sampled" runs are gradient descent on a finite set
of prompts, as in the public code; that code omits the factor 1/N of the text, so its rates and initial scales are
multiplied by powers of N here, which makes the two the same path. They run in float64: what descent changes in the
conserved quantities, of the order of the rate, is below what float32 rounds away over as many steps.

Expected: plateaus at .64057971, .37737216, .20980460 and the end at .13599507 (D = 4); D = 8 in `levels`.

Command: `meta-icl reproduce zhang2025`. Times on two CPU cores: see `TIMES`.
"""

from .claims import claims
from .config import Config
from .experiments import SPECTRA, run
from .figures import figures

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "claims", "figures", "run"]

FINDING = (
    "merged keys and queries learn in one drop, separate ones of rank one in plateaus of principal component "
    "regression, at the heights and times of the theory (Z1, Z4, Z5, Z10)"
)
TIMES = {"smoke": "30 s", "small": "7 CPU-min", "paper": "1 h"}
IDS = tuple(f"Z{i}" for i in range(1, 12))
_FLOWS = tuple(f"separate-{name}" for name in SPECTRA)
NEEDS = {
    "Z1": ("merged", "sampled-merged"),
    "Z2": ("mlp",),
    "Z3": ("white-*",),
    "Z4": (*_FLOWS, *(f"sampled-{name}" for name in SPECTRA)),
    "Z5": _FLOWS,
    "Z6": ("merged", *_FLOWS, "white-*", "sampled-linear", "sampled-half-rate"),
    "Z7": ("rank-*",),
    "Z8": ("mixture-*",),
    "Z9": ("softmax-*",),
    "Z10": ("init-*", "merged-init-*"),
    "Z11": ("heads-*",),
}

PRESETS = {
    "smoke": Config(
        seeds=2, points=600, separate_init=0.05, separate_end=20_000.0, ranks=(), few_heads=(), white=(4,),
        inits=(0.1, 0.05), n_prompts=2_000, sampled_steps=200, merged_prompts=1_000, merged_steps=100, mlp_steps=20,
        shares=(0.0, 1.0), mixture_steps=100, softmax_steps=10, softmax_prompts=50, softmax_seeds=1
    ),
    # As published but for the starts of population flow, 0.02 instead of 0.01 and 0.05 instead of 0.005 in the rank
    # sweep: plateaus last as 1 / start, their heights do not depend on it. Sampled linear attention takes ten times the
    # published 10,000 steps, because population flow from the same starts says that slow seeds need 90,000 to end.
    # Softmax attention has 600 prompts, 5 seeds, and a rate (0.1) at which its loss never rises.
    "small": Config(),
    "paper": Config(
        separate_init=0.01, separate_end=400_000.0, inits=(0.04, 0.02, 0.01), rank_init=0.005, rank_end=10_000_000.0,
        softmax_prompts=5_000, softmax_steps=20_000, softmax_seeds=6
    ),
}  # fmt: skip
