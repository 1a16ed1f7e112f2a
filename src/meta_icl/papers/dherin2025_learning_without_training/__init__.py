"""Learning without training: the implicit dynamics of in-context learning (Dherin et al., arXiv 2507.16003, 2025).

Claims. A contextual block (a layer that mixes tokens, then an MLP) answers with a context exactly as it answers without
it once its first matrix is changed by a matrix of rank one; token by token this is a chain of gradient steps. The
changes shrink along the prompt, and the loss falls as under fine-tuning on the same pairs.

Two kinds of results are kept apart here. D1-D6, D10 and D13 are identities: they hold for any weights, and are checked
on random, untrained blocks. Only D7-D9, D11 and D12 look at trained blocks, and only D9 and D12 are about learning.
D14-D16 are asked of a pretrained language model, beside its shuffled weights (preset `language`).

Setting. w, x ~ N(0, I), y = w.x, tokens (x_i, y_i) and (x_q, 0) without embedding, half squared error, fresh tasks in
every step. One block without skips, d = 2, N = 50. Not stated: width, optimiser and rate; taken here: one softmax head
of size 16 without causal mask, MLP of width 64, Adam at 5e-3 on 128 tasks a step. Random blocks: width 32, MLP 128, 4
heads, N = 50, causal softmax.

Expected: identities at most 1e-12 (float64) and 1e-5 (float32) in relative error, 1e-4 after ten blocks in float32 (the
paper reports about 1e-6, absolute); the update at token 49 below 0.15 of that at token 2; recurrent layers without
such a decay; fine-tuning slower than the prompt, with the same end within a factor of two at its best rate; thought
patches that settle at 10 to 25 calibration queries.

Command: `meta-icl reproduce dherin2025`. Times on two CPU cores: see `TIMES`.
"""

from meta_icl.lm.loaded import model_of
from meta_icl.plotting import Chart
from meta_icl.runs import Claim, Run

from .claims import claims as trained_claims
from .config import Config
from .experiments import run as run_all
from .figures import figures as trained_figures
from .language import LanguageConfig, language_claims, language_figures, run_language

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "LanguageConfig", "claims", "figures", "run"]

FINDING = (
    "a context is exactly a rank-one change of the first matrix of the MLP, and a chain of gradient steps (D1, D5, "
    "D10); fine-tuning on the same pairs does the same, more slowly (D9); in SmolLM2 the updates do not shrink along "
    "the examples (not D15)"
)
TIMES = {"smoke": "3 CPU-min", "small": "2 CPU-min", "paper": "hours", "language": "4 CPU-min"}
IDS = tuple(f"D{i}" for i in range(1, 17))
NEEDS = {
    **dict.fromkeys((*(f"D{i}" for i in range(1, 7)), "D13"), ("identities-*",)),
    **dict.fromkeys(("D7", "D8", "D9"), ("attention",)),
    "D10": ("identities-*", "deep"),
    "D11": ("recurrent",),
    "D12": ("attention", "thought-random"),
    **dict.fromkeys(("D14", "D15", "D16"), ()),
}

PRESETS = {
    "smoke": Config(
        seeds=2,
        n_blocks=2,
        d_model=8,
        d_mlp=12,
        n_heads=2,
        n_context=50,
        depth=10,
        steps=20,
        batch=8,
        n_eval=4,
        deep_steps=2,
        rates=(0.01,),
        calibration=(3, 10),
        n_contexts=2,
    ),
    # Shrunk: three trainings of each kind, and the ten-block stack is trained for 150 steps only.
    "small": Config(),
    "paper": Config(seeds=10, n_blocks=100, steps=20_000, deep_steps=20_000, n_contexts=100),
    "language": LanguageConfig(),
}


def run(config: Config | LanguageConfig, run: Run) -> None:
    """Check random blocks and train small ones, or ask a language model."""
    run_language(config, run) if isinstance(config, LanguageConfig) else run_all(config, run)


def claims(run: Run) -> list[Claim]:
    """D1 .. D16, those on language models undecided; D14 .. D16 of a language model."""
    return language_claims(run) if model_of(run.config) else trained_claims(run)


def figures(run: Run) -> dict[str, Chart]:
    """The figures of what was trained, or of a language model."""
    return language_figures(run) if model_of(run.config) else trained_figures(run)
