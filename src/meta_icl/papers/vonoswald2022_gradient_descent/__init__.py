"""Transformers learn in-context by gradient descent (von Oswald et al., ICML 2023; arXiv 2212.07677, 2022).

Claims. One layer of linear self-attention can implement a step of gradient descent, and training finds just that step;
deeper ones find GD++, steps that also correct the curvature; with softmax, separate tokens or an MLP in front, training
finds what corresponds.

Setting. d = N = 10, w ~ N(0, I), no noise, loss half-MSE on the query. The paper says x ~ U(-1, 1), its released code
draws U(-0.5, 0.5): the code's law is taken here, since all published loss levels fit it (one step: 0.206). Training as
in the code: Adam with b2 0.98, rate 1e-3 (5e-4 from four layers on), gradient clipped to 1e-3 (10 from three layers),
batch 2048, activations clipped to 10 from four layers on.
Settled after early runs, not before: losses of GD and GD++ and roll-outs are medians over several evaluation sets,
since one set of 10,000 prompts may hold a few that outweigh all others.
The order of events in VO-22 counts the drop from the plateau of the zero predictor, with steps interpolated between
records; deep models at scaled inputs (VO-16) are medians over five sets. Both were changed after a run had been seen.
So was the guard of VO-8: a layer can get stuck for good where keys hold y and values x, which answers by a map of rank
one. Adam leaves three or four seeds of six there at d = 2, at the published batch and steps, too; Muon none. And so was
that of one softmax head (VO-19), once two kept seeds of three had not left the loss of the zero predictor.

Command: `meta-icl reproduce vonoswald2022`. Times on two CPU cores: see `TIMES`.
"""

from .claims import claims
from .config import Config
from .experiments import run
from .figures import figures

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "claims", "figures", "run"]

FINDING = (
    "training finds the construction: one layer is a gradient step at every size (VO-4, VO-6, VO-8), two looped ones "
    "are GD++ (VO-14), and five follow it near their training law (VO-16)"
)
TIMES = {"smoke": "2 min", "small": "~15 CPU-min", "paper": "2 h (GPU)"}
IDS = tuple(f"VO-{i}" for i in range(1, 25))
NEEDS = {
    **dict.fromkeys(("VO-1", "VO-2", "VO-24"), ()),
    **dict.fromkeys((*(f"VO-{i}" for i in (*range(3, 8), *range(9, 13))), "VO-17", "VO-18"), ("K1",)),
    "VO-8": ("K1", "K1-d*"),
    **dict.fromkeys((f"VO-{i}" for i in range(13, 17)), ("K2", "K5")),
    "VO-19": ("K1", "softmax-*"),
    "VO-20": ("sine-*",),
    **dict.fromkeys((f"VO-{i}" for i in range(21, 24)), ("separate-*",)),
}

PRESETS = {
    "smoke": Config(
        seeds=2,
        n_eval=200,
        n_spectra=500,
        steps=20,
        batch=32,
        sizes=(2,),
        steps_sizes=20,
        batch_sizes=32,
        steps_two=10,
        batch_two=16,
        steps_five=5,
        batch_five=16,
        steps_softmax=5,
        batch_softmax=16,
        steps_sine=5,
        batch_sine=16,
        steps_separate=5,
        batch_separate=16,
    ),
    # Shrunk, so that it fits 20 core-minutes: three seeds, 3,000 steps for the other N = d (published 5,000), smaller
    # batches except for one layer of linear attention at d = 10. Where the batch is below 1,024, the rate falls to
    # zero, since a constant one leaves the noise of the batch; it starts higher, to take fewer steps: two layers 2e-3
    # (1e-3), five 2e-3 in 6,000 steps (5e-4 in 50,000), sine 2e-3 in 12,000 (1e-3 and 3e-4 in 20,000). Muon takes the
    # place of Adam for the other N = d, where Adam gets stuck, for softmax, where Adam leaves two of three seeds of one
    # head at the loss of the zero predictor after 5,000 steps of 1,024 (Muon: all at 1.44 of GD's, where 1.43 is the
    # least that one head can have), and on separate tokens, there from larger weights (0.2, published 0.02): at a
    # rate of 1e-2 all seeds come within 2 % of one gradient step in the published 10,000 steps, with batches of 256; at
    # 2e-2 three of six rested at .247, a fifth above it, and one kept run failed where another held.
    "small": Config(
        seeds=3,
        steps_sizes=3_000,
        batch_sizes=256,
        optimiser_sizes="muon",
        rate_sizes=1e-2,
        steps_two=8_000,
        batch_two=512,
        rate_two=2e-3,
        steps_five=6_000,
        batch_five=256,
        rate_five=2e-3,
        steps_softmax=3_000,
        batch_softmax=256,
        optimiser_softmax="muon",
        rate_softmax=2e-2,
        steps_sine=12_000,
        batch_sine=128,
        rates_sine=(2e-3, 2e-3),
        batch_separate=256,
        optimiser_separate="muon",
        rate_separate=1e-2,
        init_separate=0.2,
        decay=True,
    ),
    "paper": Config(),
}
