"""Transmuting prompts into weights (Mazzawi et al., arXiv 2510.08734, 2025).

Claim. The updates of single tokens, averaged by least squares over calibration tokens, give a patch that does not
depend on the query: thought matrices for the weights and thought vectors for the biases of every block. They stand in
for a prompt approximately, the better the more calibration tokens.

Setting. The paper steers pretrained models with arithmetic and translation prompts and was read in abstract only; the
form of the averages, delta = mean of the bias patches and Delta = ridge solution over calibration queries, is that of
thought patches (Dherin et al., 2025). A form with the last matrix fitted too, because attention's own addition to the
residual stream depends on the query and a bias does not, was added after a first run; the claim is judged without it.
Here: three pre-LN blocks of width 16 (MLP 32, two heads) trained on linear
regression with d = 2 and N = 20; a prompt is a context, calibration and held-out tokens are queries to it. Untrained
blocks are measured beside them, because the approximation may work for any weights.

Expected: the error on held-out queries lies between that of no patch and of exact patches (asked for once there are as
many calibration queries as channels) and falls with the number of calibration queries. The approximation may work for
any weights: that it works says nothing of learning, a difference between trained and untrained blocks would.

Command: `meta-icl reproduce mazzawi2025`. Times on two CPU cores: see `TIMES`.
"""

from .claims import claims
from .config import Config
from .experiments import run
from .figures import figures

__all__ = ["IDS", "PRESETS", "TIMES", "Config", "claims", "figures", "run"]

FINDING = (
    "one patch fitted to many queries does worse on new ones than none if biases alone carry what attention adds, but "
    "leaves under 1 % of the error if the last matrix does; which of them is the paper's is not known (open: M1)"
)
TIMES = {"smoke": "1 CPU-min", "small": "4 CPU-min", "paper": "hours"}
IDS = ("M1",)

PRESETS = {
    "smoke": Config(seeds=2, steps=5, batch=8, n_context=6, n_contexts=2, n_test=4, calibration=(2, 32)),
    # Shrunk: a small model trained here in place of a pretrained language model.
    "small": Config(),
    "paper": Config(seeds=10, steps=20_000, n_contexts=100, n_test=1_000, calibration=(1, 4, 16, 64, 256, 1024)),
}
