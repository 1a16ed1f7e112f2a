"""In-context learning and induction heads (Olsson et al., 2022): the metrics, on repeated random tokens.

Transformer Circuits Thread, 2022 (arXiv 2209.11895). Claims. In attention-only models of two layers, heads that match
prefixes and copy appear at the moment at which in-context learning does; one layer has neither, unless its keys are
smeared over neighbours; removing those heads removes in-context learning.

Setting. The published runs see 15 billion tokens of text, which is beyond a workstation and not offline. Here: a start
token, then a block of distinct random tokens out of 64 again and again, of 13 to 25 tokens in training (with one length
for all, one layer copies by position alone: measured, its score is that of two layers; with 13 lengths it still narrows
the place down, to a score near -3) and of 25, four times, where models are measured; the score of in-context learning
is the loss on the last copy less that on the first, in nats (a table of bigrams has 0, perfect copying -log 40 or
more). Widths, rate and batch are chosen here. Prefix matching sums the attention to all earlier successors (its bounded
form). Heads are removed together, since several match prefixes and stand in for each other (measured: without the best
one nothing is lost); the effect of each alone is in the figure `ablation`. What the change of two layers consists of
(O2, O3, O5) is asked of the seeds that have it: a score of -1 nat or less at the end. Text is read by a pretrained
model (preset `language`, O6 to O10), whose training is over.

Command: `meta-icl reproduce olsson2022`. Times: see `TIMES`.
"""

from meta_icl.lm.loaded import model_of
from meta_icl.plotting import Chart
from meta_icl.runs import Claim, Run

from .claims import claims as trained_claims
from .config import Config
from .experiments import run as train_all
from .figures import figures as trained_figures
from .language import LanguageConfig, language_claims, language_figures, run_language

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "LanguageConfig", "claims", "figures", "run"]

FINDING = (
    "two layers learn in context when prefix-matching heads form and stop when these are removed (O1, O2, O3); with "
    "smeared keys one layer does, too (O4); of SmolLM2 four heads match prefixes, without which what stood behind an "
    "earlier copy costs more on text (O6, O7, O9), but a fifth of its score there is lost, not half, and their "
    "eigenvalues do not tell of copying (not O8, O10)"
)
TIMES = {
    "smoke": "1 CPU-min",
    "small": "18 CPU-min",
    "paper": "1 GPU-hour (synthetic tokens only)",
    "language": "2 CPU-min",
}
IDS = tuple(f"O{i}" for i in range(1, 11))
NEEDS = {
    "O1": ("one-seed*", "two-seed*"),
    **dict.fromkeys(("O2", "O3", "O5"), ("two-seed*",)),
    "O4": ("one-seed*", "one_smeared-seed*"),
    **dict.fromkeys((f"O{i}" for i in range(6, 11)), ()),
}

PRESETS = {
    "smoke": Config(
        seeds=1, steps=4, batch=4, n_tokens=12, period=5, shortest=3, width=8, heads=2, records=2, n_eval=4
    ),
    "small": Config(),
    "paper": Config(seeds=5, steps=20_000, batch=256, n_tokens=512, width=256, heads=8, n_eval=512),
    # O6 to O10, on text: SmolLM2 and docstrings; `--set model=FOLDER text=FILE` for others.
    "language": LanguageConfig(),
}


def run(config: Config | LanguageConfig, run: Run) -> None:
    """Train on repeated tokens, or ask a language model."""
    run_language(config, run) if isinstance(config, LanguageConfig) else train_all(config, run)


def claims(run: Run) -> list[Claim]:
    """O1 .. O10 of trained networks, those on text undecided; O6 .. O10 of a language model."""
    return language_claims(run) if model_of(run.config) else trained_claims(run)


def figures(run: Run) -> dict[str, Chart]:
    """The figures of what was trained, or of a language model."""
    return language_figures(run) if model_of(run.config) else trained_figures(run)
