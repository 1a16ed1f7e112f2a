"""Emergence and effectiveness of task vectors: how tasks are encoded and decoded in context (Han et al., ICML 2025).

arXiv 2412.12276 (2024). Claims. When a decoder is trained on sparse linear functions that live on one of several
blocks of coordinates, it learns to infer the block: the hidden state of the query becomes decodable for the block
(task decodability, TD), the moments at which blocks become decodable are those at which their errors drop, and
overwriting the state by that of another block makes the network answer for that block.

Setting. D = 16, four disjoint blocks of r = 4 coordinates, w ~ N(0, I) on one block, x ~ N(0, I), noise of variance
0.01, K = 20 pairs; errors are of noise-free targets over r. Decoder of 12 layers, 8 heads, width 256 (the appendix; the
main text says 128), Adam 1e-4 with b2 = 0.9999, 80,000 steps of 128 prompts, 5 seeds. TD: leave-one-out vote of the 10
nearest (Euclidean) of 100 prompts per block, at the last x token; here at the last y token as well. Interventions
replace the state after layer 5, here that of the last y token, since a mean of states at the query's erases its x.

Shrunk in `small`: D = 4, r = 1, K = 6, 4 layers and 4 heads of width 64, larger initial weights, 24,000 steps of 32
prompts by Muon at a rate of 3e-3; the layer of interventions is the same share of the depth. Four blocks are kept, and
blocks of one coordinate are the largest that are learned in minutes: with D = 8, r = 2 and 6,000 steps no seed came
below ridge (2.2 to 3.7 times the Bayes error), with D = 6, r = 2 20,000 steps came to 1.29. More noise does
not make up for steps: with D = 6, r = 2, K = 10 and variance 0.1 4,000 steps of 64 prompts end at 2.8 times Bayes over
k > r, and the block is read in 0.49 of the prompts at the query's, in 0.48 at the last y token (chance 0.33). The
optimal curves are computed, at the published size for claim B-1 and at the preset's for the others. B-1 compares the
means of two samples, ours and that behind an independent table, whose size is not known: 1000 prompts are assumed. Its
tolerance is three standard errors of the difference, plus half a unit of the last digit of the table.
What can be decoded is bounded by the posterior itself, which with one coordinate and 5 examples names the right block
in 0.93 of the prompts (D = 6, r = 2 and 9 examples: 0.997; the published size: all); H-4 is judged in units of it.

`noisy` is `small` with noise of variance 0.25 and K = 10, where the error ends at 1.17 of Bayes' (one seed, before the
preset was made): what states hold of the block is judged there. Blocks are learned together, since what tells them
apart is soft, so that H-1 fails there and H-6 has no moment to look at. States are replaced after layer 2 of 4, and
blocks can be read from layer 3 on: replacing them moves the error by 0.04 at most, in either direction. `families` is
the mixture of function families alone, D = 4, r = 2, K = 8. With six blocks of one coordinate 12,000 steps end at
ridge's error, and so do 10,000 on overlapping bases of D = 8.

`full` trains one seed on each of the four mixtures with blocks of two coordinates (D = 8, and 12 for six blocks), K =
12, in 40,000 steps of 64 prompts.

A block counts as learned at the first record at which its error is closer to Bayes' than to that of D-dimensional ridge
(the paper reads these moments off its figures). Claims H-12 to H-19 are about
pretrained language models: the preset `language` asks SmolLM2 for those that need no finetuning.

Command: `meta-icl reproduce han2024`. Times on two CPU cores: see `TIMES`.
"""

from meta_icl.lm.loaded import model_of
from meta_icl.plotting import Chart
from meta_icl.runs import Claim, Run

from .claims import claims as trained_claims
from .config import MIXTURES, Config
from .experiments import run as train_all
from .figures import figures as trained_figures
from .language import LanguageConfig, language_claims, language_figures, run_language

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "LanguageConfig", "claims", "figures", "run"]

FINDING = (
    "blocks are learned at different times, from one regression to one for every block (H-1, H-3), with little noise, "
    "where the error ends at more than twice that of Bayes (not H-2); with more noise, where it ends at 1.11, late "
    "layers tell the block and early ones do not (H-5), and heads differ by block (H-11), but a state tells it in .64 "
    "of the prompts, the posterior in .80 (not H-4), and replacing the state of one token, after whichever layer, does "
    "not replace the block (not H-7); of four families the quadratic one is learned least (H-10); lists of word pairs "
    "can be told apart by SmolLM2's states, best at layer 21 of 30, but how well does not predict its accuracy, and "
    "naming the task does not raise it (not H-12, H-13, H-14, H-18)"
)
TIMES = {
    "smoke": "1 CPU-min",
    "small": "22 CPU-min",
    "noisy": "32 CPU-min",
    "families": "6 CPU-min",
    "full": "hours (not timed)",
    "paper": "days (GPU)",
    "language": "4 CPU-min",
}
IDS = ("B-1", *(f"H-{i}" for i in range(1, 20)))
NEEDS = {
    "B-1": ("baseline",),
    **dict.fromkeys((*(f"H-{i}" for i in range(1, 8)), "H-11"), ("baseline", "blocks-*")),
    "H-8": ("baseline", "blocks-*", "six-*"),
    "H-9": ("baseline", "overlapping-*"),
    "H-10": ("baseline", "families-*"),
    **dict.fromkeys((f"H-{i}" for i in range(12, 20)), ()),
}

PRESETS = {
    "smoke": Config(
        seeds=1, d=4, rank=2, rows=4, width=8, layers=2, heads=2, steps=4, batch=4, per_task=12, per_task_patched=4,
        n_eval=20, n_baseline=40,
    ),
    "small": Config(),
    # Small, where networks come near to Bayes.
    "noisy": Config(noise_variance=0.25, rows=10, steps=32_000, learning_rate=2e-3),
    "families": Config(rank=2, rows=8, mixtures=("families",), steps=6_000),
    "full": Config(seeds=1, d=8, rank=2, rows=12, mixtures=MIXTURES, steps=40_000, batch=64),
    "paper": Config(
        seeds=5, d=16, rank=4, rows=20, width=256, layers=12, heads=8, mixtures=MIXTURES, steps=80_000, batch=128,
        optimiser="adam", learning_rate=1e-4, b2=0.9999, decay=False, init_std=0.02, per_task_patched=100,
    ),
    # Shrunk: 12 prompts a task, in place of 100.
    "language": LanguageConfig(),
}  # fmt: skip


def run(config: Config | LanguageConfig, run: Run) -> None:
    """Train decoders, or ask a language model."""
    run_language(config, run) if isinstance(config, LanguageConfig) else train_all(config, run)


def claims(run: Run) -> list[Claim]:
    """All claims of trained decoders; H-12 .. H-19 of a language model."""
    return language_claims(run) if model_of(run.config) else trained_claims(run)


def figures(run: Run) -> dict[str, Chart]:
    """The figures of what was trained, or of a language model."""
    return language_figures(run) if model_of(run.config) else trained_figures(run)
