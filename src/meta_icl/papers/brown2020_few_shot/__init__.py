"""Language models are few-shot learners (Brown et al., 2020; arXiv 2005.14165), and what right labels are worth.

Claims. A language model answers better the more examples stand in its prompt, without a change of its weights (B-1,
B-2); arithmetic comes only with size: 175 billion parameters add numbers of two digits without a mistake, 13 billion
half of the time, smaller ones hardly (B-3). What the labels of the examples are worth was asked later: labels drawn at
random cost at most five points of accuracy (Min et al., 2022, arXiv 2202.12837: L-1, L-2); only large models follow
labels that are exchanged (Wei et al., 2023, arXiv 2303.03846: L-3); dividing out what a model answers to a question
without content raises accuracy (Zhao et al., 2021, arXiv 2102.09690: L-4).

Setting. SmolLM2-135M-Instruct, which `meta-icl models get smollm2` fetches, in place of GPT-3 (125 million to 175
billion parameters) and of models from 774 million on; any other checkpoint by `--set model=FOLDER`. Open tasks: seven
lists of word pairs (Todd et al., 2024) and sums of two numbers; labels: which side of such a pair a word is from, so
that what labels mean is known to the model before; own files by `--set files=..` (SST-2, TREC, JSON). No instructions:
an example is "input -> output" and a line break. Labels are scored as whole answers; an open answer is right where
greedy decoding gives it and then the line break, which no model can know without an example, so that B-1 also asks for
the loss of the answer alone. The values of a check are those of the tasks; the median decides.

Numbers of the sources are read from their abstracts and texts, so tolerances are of direction, not of size. What counts
as better is five points; L-4 at first took no change for a rise, by which it held with a median of none.

Command: `meta-icl reproduce brown2020`. Times: see `TIMES`.
"""

from .claims import claims
from .config import Config
from .experiments import run
from .figures import figures

__all__ = ["IDS", "NEEDS", "PRESETS", "TIMES", "Config", "claims", "figures", "run"]

FINDING = (
    "examples help, and several more than one (B-1, B-2); a model of 135 million parameters does not follow exchanged "
    "labels (L-3), but loses eleven points where labels are drawn at random, which help no more than none (not L-1, "
    "L-2); dividing out what is answered to no content raises accuracy where it is at chance and lowers it where it is "
    "not (not L-4)"
)
TIMES = {"smoke": "1 CPU-min", "small": "8 CPU-min", "paper": "~40 CPU-min"}
IDS = ("B-1", "B-2", "B-3", "L-1", "L-2", "L-3", "L-4")
NEEDS = {
    "B-1": ("[!l]*",),  # all but those with labels: files of the user's, too
    "B-2": ("*",),
    "B-3": ("open-addition",),
    **dict.fromkeys(("L-1", "L-2", "L-3", "L-4"), ("labelled-*",)),
}

PRESETS = {
    # A random model made on the spot: that it runs.
    "smoke": Config(
        model="tiny", prompts=3, shots=(0, 1, 2), open_tasks=("next_item", "addition"), labelled=("country_capital",)
    ),
    # Shrunk: 32 prompts a task, and 8 examples at most where the source has 10 to 100.
    "small": Config(),
    "paper": Config(prompts=200, shots=(0, 1, 2, 4, 8, 16, 32)),
}
