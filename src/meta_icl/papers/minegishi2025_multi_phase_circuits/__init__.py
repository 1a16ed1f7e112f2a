"""In-context meta learning induces multi-phase circuit emergence (Minegishi et al., ICML 2025).

Full title: Beyond induction heads: in-context meta learning induces multi-phase circuit emergence.

Claims. If one of several maps from classes to labels has to be inferred in context, a two-layer attention-only network
learns in three phases, each with a circuit of its own: the query alone (NCC, accuracy 1/T), the labels of the context
as a set (SCC, about 75 %), items with their labels (FCC, 100 %).

Setting. T = 3 maps, K = 64 classes, L = 32 labels, N = 4 pairs, items of 63 channels with noise 0.1, width 128, SGD
0.01 on batches of 128. Text and public code differ, and `default` mixes them: data and layout are the code's (maps are
cyclic shifts; items carry the number of the item, labels no place; labels are a trained table), the network is the
text's (an output projection W_O, a classifier of one hidden layer). Only so did the published course appear in all of
the settings tried. `public code` has no W_O and two hidden layers; `published text` has random maps, places in a
random window, and fixed label vectors like items; `abs` has the default's network, with a place of its own for every
token and trained labels of 63 channels. Up to 200,000 steps (the code has 400,000, the text gives none); a training
ends when its loss stays below .005. Every seed has its own world and is compared with the ceilings of that world, since
the best accuracy of an SCC varies from .67 to .89.

Causes. While a network trains it is also asked with kinds of attention removed, nothing retrained: label rows may not
read their own item ("no own"), or no other item ("only own"); the query of layer 2, or of layer 1, reads no labels. The
circuits are judged by what these cost; raw attention and the own item's share of it are shown beside.

Presets: `small` is the default and networks held in one circuit; `sweeps` what one seed decides quickly; `laws` other
laws of the data, `classes` more of them, `tasks` two and four maps; `networks` other depths, heads and objectives;
`variants` the settings above; `full` everything, a day or more. Other `SETTINGS` are trained by `--set extra=..`.

Phases are read off the smoothed accuracy over log10 of the step: plateaus between rises of at least a tenth of the
whole, from the ceiling of the query alone upwards; a rest below it is a shoulder of the first rise. Claim M9 takes
"coincide" as within a tenth of the log of all steps. Claims about variations are decided only where every training of
them has learned (final accuracy of .9 or more).

Command: `meta-icl reproduce minegishi2025`. Times: see `TIMES`.
"""

from meta_icl.lm.loaded import model_of
from meta_icl.plotting import Chart
from meta_icl.runs import Claim, Run

from .claims import claims as trained_claims
from .config import FULL_STEPS, SETTINGS, VARIANTS, Config
from .experiments import run as train_all
from .figures import figures as trained_figures
from .figures import story as trained_story
from .language import LanguageConfig, language_claims, language_figures, run_language

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "LanguageConfig", "claims", "figures", "run", "story"]

FINDING = (
    "three of four seeds learn in three phases: the accuracy hangs first on the query, then on the labels as a set, in "
    "the end on items with their labels (M3, M5, M6, M7, M8), and these change where it jumps (M9); phase 1 is at 1/T "
    "for two, three and four maps (M13); permuted labels tell little in the second phase and cost much in the end "
    "(M11, M12); one seed never rests on the labels as a set, nor do networks of more classes (M16); noise of half to "
    "all of the items' size delays the phases, but removes none (not M17, M18); skewed classes are learned in one rise "
    "(M19), of skewed maps the frequent one first (M20), and repeats shorten the first phase (M22); burstiness takes "
    "the plateaus away, from two to none, but with it the steepest rise grows (not M21); one map is learned in the "
    "weights, by no induction head (not M23); a standard transformer ends with the same circuit (M30)"
)
TIMES = {
    "smoke": "2 CPU-min",
    "small": "~45 CPU-min",
    "variants": "~90 CPU-min",
    "sweeps": "~50 CPU-min",
    "laws": "85 CPU-min",
    "classes": "~30 CPU-min",
    "tasks": "~30 CPU-min",
    "networks": "~90 CPU-min",
    "full": "~25 CPU-hours",
    "paper": "~100 CPU-hours",
    "language": "3 CPU-min",
}
IDS = tuple(f"M{i}" for i in range(1, 33))
NEEDS = {
    **dict.fromkeys((*(f"M{i}" for i in range(1, 10)), "M11", "M12"), ("default-*",)),
    "M10": ("theory_K=*",),
    "M13": ("default-*", "T=2-*", "T=4-*"),
    "M14": ("T=1-*",),
    "M15": ("K=32-*",),
    "M16": ("K=128-*", "K=256-*"),
    "M17": ("eps=0.5-*", "eps=0.75-*"),
    "M18": ("eps=1.0-*",),
    "M19": ("alpha=1.25-*",),
    "M20": ("beta=1.0-*",),
    "M21": ("p_B=*",),
    "M22": ("B=2_p_B=0.25-*", "p_B=0.25-*"),
    "M23": ("induction-*",),
    "M24": ("default-*", "only_*"),
    "M25": ("heads=*",),
    "M26": ("heads=2-*",),
    "M27": ("default-*", "T=6-*", "T=9-*", "T=12-*"),
    "M28": ("N=*",),
    "M29": ("layers=*",),
    "M30": ("standard-*",),
    "M31": ("all_labels-*",),
}
MASKS, THEORY = ("only ncc", "only scc", "only fcc"), ("theory K=8", "theory K=16", "theory K=32")
# What one seed decides in minutes: little to learn, or learned early.
QUICK = (
    "T=1",
    "induction",
    "p_B=1.0",
    "p_B=0.75",
    "p_B=0.5",
    "p_B=0.25",
    "B=2, p_B=0.25",
    "K=32",
    "eps=0.5",
    "heads=2",
)
CLASSES = ("K=128", "K=256")
TASKS = ("T=2", "T=4")
LAWS = ("alpha=1.25", "B=2, p_B=0.25", "p_B=0.25", "p_B=0.5", "p_B=0.75", "p_B=1.0")
NETWORKS = ("heads=4", "layers=3", "layers=4", "standard", "all labels")

PRESETS = {
    "smoke": Config(
        seeds=1, steps=20, extra=("published text", "only fcc", "theory K=8", "T=2", "heads=2", "all labels"),
        extra_steps=8,
        records=4, batch=16, n_eval=64, n_shuffled=32, n_removed=32, n_traced=16, n_ceiling=400,
    ),
    # Shrunk: half of the code's steps; networks held in one circuit until they rest.
    "small": Config(extra=MASKS, extra_steps=50_000),
    # The published code, the published text, and fixed places for all tokens.
    "variants": Config(seeds=0, extra=VARIANTS[1:], extra_seeds=2, extra_steps=200_000),
    "sweeps": Config(seeds=0, extra=(*QUICK, *THEORY), extra_steps=60_000),
    # Skewed, repeated and bursty classes, trained to the end, one seed each.
    "laws": Config(seeds=0, extra=LAWS, extra_steps=FULL_STEPS),
    # Two and four times the classes (M16), as long.
    "classes": Config(seeds=0, extra=CLASSES, extra_steps=FULL_STEPS),
    # One map fewer and one more (M13), as long.
    "tasks": Config(seeds=0, extra=TASKS, extra_steps=FULL_STEPS),
    # Other networks and another objective, one seed each.
    "networks": Config(seeds=0, extra=NETWORKS, extra_steps=100_000),
    "full": Config(extra=tuple(SETTINGS)[1:], extra_steps=FULL_STEPS),
    "paper": Config(steps=400_000, extra=tuple(SETTINGS)[1:], extra_seeds=3, extra_steps=400_000),
    # M32 on SmolLM2 and reviews made by rule: `--set model=FOLDER reviews=FILE` asks GPT-2 XL on SST-2.
    "language": LanguageConfig(),
}  # fmt: skip


def run(config: Config | LanguageConfig, run: Run) -> None:
    """Train the settings of a preset, or ask a language model."""
    run_language(config, run) if isinstance(config, LanguageConfig) else train_all(config, run)


def claims(run: Run) -> list[Claim]:
    """M1 .. M32 of trained networks; M32 alone of a language model."""
    return language_claims(run) if model_of(run.config) else trained_claims(run)


def figures(run: Run) -> dict[str, Chart]:
    """The figures of what was trained, or of a language model."""
    return language_figures(run) if model_of(run.config) else trained_figures(run)


def story(run: Run) -> dict[str, str]:
    """The first screen of a report on what was trained."""
    return {} if model_of(run.config) else trained_story(run)
