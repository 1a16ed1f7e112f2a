"""Titans: learning to memorize at test time (Behrouz, Zhong & Mirrokni, 2025; arXiv 2501.00663).

Claims. A memory that learns while it reads, by gradient descent with momentum and forgetting, models long sequences
better than linear memories; deeper memories are better; forgetting and momentum matter most, then the convolution, then
persistent tokens; hybrids with attention are better still.

Setting. The paper trains language models of 170M to 760M parameters and gives neither widths, depths, chunk sizes,
initialisations nor code. Here everything is a synthetic task of recall at small width, so targets are orders, never
numbers; in `full` every variant has its own learning rate, but on far needles, where larger ones than 1e-3 diverge;
what the paper leaves open is listed in `models.mixers.titans_rule`. Losses are compared of seeds that have begun to
recall (below half of the loss of a guess among the values in the context), longer needles of those that find 9 of 10 at
the length of training.

The published tables contradict each other, and this bears on T-2, T-4 and T-5: accuracies of the ablation are those of
the 400M models, but its perplexities (27.01 for the LMM) belong to none of them; at 400M the LMM (25.03) is better than
MAC (25.61), in the ablation worse; the text puts MAG and MAC above MAL, but MAL has the better perplexity than MAC at
all three sizes. The linear memory of the ablation still beats several baselines, so most of the gain is not depth.
Independent work (Di Nepi et al., 2025) found that Titans do not always beat baselines, because of chunking: T-6.

F-1 is about untrained memory rules; their error curves are derived in `algorithms.memory_rules`. F-5 trains one layer
to recall overwritten keys, because two layers of sums can tell the later write, on 8 keys written twice, because a
convolution sees the ends of the sequence and so which of few writes was the first.

Command: `meta-icl reproduce behrouz2025`. Times on two CPU cores: see `TIMES`.
"""

from .claims import claims
from .config import Config
from .experiments import PLAYED, run
from .figures import figures

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "claims", "figures", "run"]

FINDING = (
    "forgetting, momentum and convolution each lower the loss (T-2), and the delta rule overwrites where sums cannot "
    "(F-5); the loss is lowest in chunks of 16 tokens, not of one (not T-6); of needles four times as long as those of "
    "training Mamba-2 and DeltaNet find all, the LMM .50, .97 and .65 by seed (not T-3); of twice as many pairs two "
    "layers of memory recall all, one layer hardly any, and three layers a little less than two, so that deeper is not "
    "better (not T-1); hybrids with attention find no more of far needles than the LMM (not T-4)"
)
TIMES = {"smoke": "2 min", "small": "~20 CPU-min", "full": "~3 CPU-hours", "paper": "hours (GPU)"}
IDS = (*(f"T-{i}" for i in range(1, 9)), "F-1", "F-5")
NEEDS = {
    **dict.fromkeys(("T-2", "T-5", "T-6", "T-8"), ("mqar-*",)),
    "T-1": ("hard-*",),
    "T-3": ("needle-*",),
    "T-4": ("far-*",),
    "F-5": ("overwrite-*",),
    "T-7": (),
    "F-1": (),
}

PRESETS = {
    "smoke": Config(
        tuple(PLAYED), seeds=2, steps=4, long_steps=4, batch=4, rates=(3e-3,), d_model=8, n_layers=1, length=16,
        chunk_size=4, n_eval=8, n_ladder=200, d_ladder=5, lengths=(32, 64),
    ),
    # Shrunk: width 32, 600 steps of 32 prompts of 32 tokens, at the rate at which recall leaves its plateau within 300
    # steps; neither depths nor needles, which take longer.
    "small": Config(),
    # Everything, at two rates; depths on twice as many pairs and needles of several lengths for 2,000 steps.
    "full": Config(tuple(PLAYED), rates=(3e-3, 1e-2)),
    "paper": Config(
        tuple(PLAYED), seeds=5, steps=20_000, long_steps=20_000, batch=256, rates=(3e-4, 1e-3, 3e-3, 1e-2), d_model=256,
        length=256, chunk_size=64, n_eval=3_000, lengths=(512, 1024, 2048, 4096, 8192),
    ),
}  # fmt: skip
