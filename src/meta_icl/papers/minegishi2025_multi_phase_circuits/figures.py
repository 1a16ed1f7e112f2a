"""The figures of Minegishi et al. (2025), drawn from a finished run."""

from collections.abc import Mapping, Sequence

import numpy as np

from meta_icl.analysis.circuits import REMOVALS, phase_numbers
from meta_icl.plotting import (
    Chart,
    Grid,
    Heatmaps,
    Lines,
    Panel,
    Series,
    attention_explorer,
    attention_film,
    over_seeds,
)
from meta_icl.runs import Run

from .config import SETTINGS, VARIANTS, Setting
from .experiments import CIRCUITS, SHUFFLES, Course, Seeds, costs, course, load, variant_rows

KNOBS = {"n_tasks": ("T", "Maps", 3), "n_classes": ("K", "Classes", 64), "eps": ("noise", "Noise of items", 0.1),
         "p_bursty": ("share", "Share of queries from the context", 0.0)}  # fmt: skip


LEVELS = ("query alone", "labels as a set", "items with labels")  # what NCC, SCC and FCC use
REMOVED = {
    "no own": "layer 1: labels without their own item",
    "only own": "layer 1: labels with nothing but their own item",
    "L2 no labels": "layer 2: query without labels",
    "L1 query no labels": "layer 1: query without labels",
}
WITH_LABELS = {
    "accuracy": "as they are",
    "permutation": "permuted",
    "derangement": "permuted, none in its place",
    "iid": "drawn anew",
}
NAMES = {f"only {name.lower()}": f"held to {level}" for name, level in zip(CIRCUITS, LEVELS, strict=True)}
NAMES |= {"abs": "fixed places", "induction": "one map, all queries from the context"}
WORDS = {"T": "maps", "K": "classes", "eps": "noise of items", "alpha": "Zipf exponent of classes",
         "beta": "Zipf exponent of maps", "p_B": "queries from the context", "N": "pairs",
         "B": "copies of the query's class", "theory K": "labels as a set, classes"}  # fmt: skip


def words(setting: str) -> str:
    """A setting as the figures name it."""
    parts = [(NAMES.get(part, part), *part.partition("=")[::2]) for part in setting.split(", ")]
    return ", ".join(f"{WORDS.get(letter, letter)}: {value}" if value else told for told, letter, value in parts)


def sweep(knob: str) -> dict[float, str]:
    """The settings that differ from the default in one field of `KNOBS` alone, by its value, in order."""
    found = {KNOBS[knob][2]: "default"}
    found |= {s.world[knob]: name for name, s in SETTINGS.items() if set(s.world) == {knob} and s == Setting(s.world)}
    return dict(sorted(found.items()))


def figures(run: Run) -> dict[str, Chart]:
    """Accuracy with the ceilings and by phase, circuit scores, random labels, patterns, variants, and the settings."""
    return drawn(load(run))


def story(run: Run) -> dict[str, str]:
    """The first screen of a report: how many seeds go through the phases, and what they hang on."""
    return told(load(run))


def told(found: Mapping[str, Seeds]) -> dict[str, str]:
    """The story of what was recorded of every trained setting; none without the default."""
    courses = [course(arrays) for arrays in found.get("default", ())]
    resting = [one for one in courses if len(one.levels) > 1]
    if not courses:
        return {}

    def lost(removal: str, phase: int, of: Sequence[Course]) -> str:
        return f"{np.median([one.cost(removal, phase) for one in of]):.2f}"

    answer = f"{len(resting)} of {len(courses)} seeds rest where labels as a set are all that is used"
    if resting:
        answer += f" (there the labels of layer 1 are worth {lost('L1 query no labels', 2, resting)} of accuracy"
        answer += f", those of layer 2 {lost('L2 no labels', 2, resting)})"
    answer += f"; at the end a label's own item is worth {lost('no own', -1, courses)}"
    answer += f" and the labels of layer 2 {lost('L2 no labels', -1, courses)} (medians)."
    question = "Does a two-layer attention network learn in phases, each with a circuit that its answers hang on?"
    return {"question": question, "answer": answer, "figure": "phases"}


def drawn(found: Mapping[str, Seeds]) -> dict[str, Chart]:
    """The figures of what was recorded of every trained setting."""
    out: dict[str, Chart] = default_figures(found["default"]) if "default" in found else {}
    if set(VARIANTS) & set(found):
        out["variants"] = variant_figure(found)
    for name in (name for name in found if name.startswith("heads=")):
        # One seed: which head is which differs from seed to seed.
        title = f"Circuits with {name.removeprefix('heads=')} heads, first seed (Figs. 9, 17)"
        out[f"circuits_{name.replace('=', '_')}"] = circuit_figure(title, found[name][:1])
    diagrams = [diagram for knob in KNOBS if (diagram := phase_diagram(knob, found)) is not None]
    if diagrams:
        out["phase_diagrams"] = Grid("Accuracy by setting (rows) and step (Figs. 7, 15)", diagrams, 2)
    others = {name: arrays[0] for name, arrays in found.items() if name != "default"}
    return out | ({"settings": settings_figure(others)} if others else {})


def default_figures(seeds: Seeds) -> dict[str, Chart]:
    """The course of the default setting."""
    courses = [course(arrays) for arrays in seeds]
    shown = max(courses, key=lambda one: len(one.records))
    return {
        "phases": Grid(
            "Accuracy by phase, every seed (Figs. 2, 3)",
            [phase_figure(f"Seed {i}", one) for i, one in enumerate(courses)],
            2,
        ),
        "removals": Grid(
            "What removing a kind of attention costs, every seed (Fig. 4)",
            [removal_figure(f"Seed {i}", one) for i, one in enumerate(courses)],
            2,
        ),
        "accuracy": accuracy_figure(seeds),
        "circuits": circuit_figure("Raw attention while training (Fig. 4)", seeds),
        "random_labels": shuffled_figure(seeds),
        "patterns": pattern_figure(shown),
        "film": film_figure(shown),
        "explorer": explorer_figure(shown),
    }


def accuracy_figure(seeds: Seeds) -> Chart:
    series = [Series(f"seed {i}", a["step"][1:], a["accuracy"][1:]) for i, a in enumerate(seeds)]
    lines = [(name, float(np.median([a["ceilings"][i] for a in seeds]))) for i, name in enumerate(LEVELS)]
    caption = (
        "Lines: the best accuracies from the query alone (the source's NCC), with the labels as a set (SCC), and from "
        "items with their labels (FCC); medians over worlds."
    )
    return Lines("Accuracy of all seeds (Fig. 2)", "training step", "accuracy", series, log_x=True, caption=caption,
                 h_lines=lines)  # fmt: skip


def phase_figure(title: str, shown: Course) -> Lines:
    """The accuracy of one seed, coloured by phase, and the ceilings of its own world."""
    steps, accuracy = shown.arrays["step"], shown.arrays["accuracy"]
    numbers = phase_numbers(steps, accuracy, shown.phases)
    series = []
    for phase in np.unique(numbers):
        at = np.flatnonzero(numbers == phase)
        at = np.append(at, at[-1] + 1)[: len(steps) - at[0]]  # up to the first record of the next, without a gap
        at = at[steps[at] > 0]
        series.append(Series(f"phase {phase}" if phase else "before", steps[at], accuracy[at]))
    levels = [(name, float(c)) for name, c in zip(LEVELS, shown.arrays["ceilings"], strict=True) if np.isfinite(c)]
    caption = (
        "Phases are parted where the accuracy is half way between two plateaus. Lines: the best accuracies in this"
        " seed's world from the query alone (the source's NCC), with the labels as a set (SCC), and from items with"
        " their labels (FCC)."
    )
    return Lines(title, "training step", "accuracy", series, log_x=True, caption=caption, h_lines=levels)


def removal_figure(title: str, shown: Course) -> Lines:
    """What each removal costs of the accuracy of one seed at each step, with its phases as bands."""
    arrays = shown.arrays
    later = arrays["step"] > 0
    series = [Series(REMOVED[name], arrays["step"][later], costs(arrays, name)[later]) for name in REMOVALS]
    caption = "Attention of that kind is removed in evaluation; nothing is retrained."
    return Lines(title, "training step", "accuracy lost", series, log_x=True, caption=caption, spans=spans_of(shown))


def spans_of(shown: Course) -> list[tuple[str, float, float]]:
    """The phases of one seed, with their first and last steps."""
    steps, accuracy = shown.arrays["step"], shown.arrays["accuracy"]
    numbers, later = phase_numbers(steps, accuracy, shown.phases), steps > 0
    phases = np.unique(numbers[later])
    starts = [steps[later & (numbers == phase)][0] for phase in phases]
    return [
        (f"phase {phase}" if phase else "before", float(start), float(end))
        for phase, start, end in zip(phases, starts, [*starts[1:], steps[-1]], strict=True)
    ]


def circuit_figure(title: str, seeds: Seeds) -> Chart:
    """The three scores of every layer (rows) and head (columns) over the logarithm of the step."""
    layers, heads = seeds[0]["scores"].shape[2:]
    charts = [
        Lines(f"Layer {layer + 1}" + (f", head {head + 1}" if heads > 1 else ""), "training step", "mean attention", [
            over_seeds(name, seeds[0]["step"][1:], np.stack([a["scores"][1:, i, layer, head] for a in seeds], -1))
            for i, name in enumerate(("query to itself (bigram)", "query to labels", "labels to their items"))
        ], log_x=True)
        for layer in range(layers) for head in range(heads)
    ]  # fmt: skip
    return Grid(title, charts, heads if heads > 1 else layers)


def shuffled_figure(seeds: Seeds) -> Chart:
    series = [
        over_seeds(WITH_LABELS[name], seeds[0]["step"][1:], np.stack([a[name][1:] for a in seeds], -1))
        for name in ("accuracy", *SHUFFLES)
    ]
    title = "Accuracy with other labels in the context (Fig. 6)"
    return Lines(title, "training step", "accuracy", series, log_x=True, caption="By what is done to the labels.")


def pattern_figure(shown: Course) -> Chart:
    """Mean attention on every plateau and at the end (rows), in every layer and head (columns)."""
    patterns, steps = shown.arrays["patterns"], shown.arrays["step"]
    names = token_names(patterns)
    moments = [(f"plateau {i + 1}", record) for i, record in enumerate(shown.records)] + [("end", len(steps) - 1)]
    rows = []
    for moment, record in moments:
        panels = [
            Panel(f"{moment}, layer {layer + 1}, head {head + 1}", pattern, names, names)
            for layer, heads in enumerate(patterns[record])
            for head, pattern in enumerate(heads)
        ]
        rows.append(Heatmaps(f"{moment.capitalize()}, step {steps[record]:,.0f}", panels, diverging=False))
    caption = "One seed. Rows read, columns are read (x: item, l: label, q: query). Patterns are means over prompts."
    return Grid("Attention on the plateaus and at the end (Fig. 4)", rows, 1, caption)


def token_names(patterns: np.ndarray) -> list[str]:
    """x1 l1 x2 l2 ... q: items, their labels, and the query."""
    return [f"{'xl'[i % 2]}{i // 2 + 1}" for i in range(patterns.shape[-1] - 1)] + ["q"]


def some_records(shown: Course) -> np.ndarray:
    """Some forty records after the first step, with the plateaus and the end."""
    later = np.flatnonzero(shown.arrays["step"] > 0)
    return np.unique([*later[:: max(1, len(later) // 40)], *shown.records, later[-1]])


def explorer_figure(shown: Course) -> Chart:
    patterns, kept = shown.arrays["patterns"], some_records(shown)
    title = "Attention by layer, head and step, mean over prompts"
    names, steps = token_names(patterns), shown.arrays["step"][kept].tolist()
    return attention_explorer(patterns[kept][:, None], steps=steps, prompts=[names], title=title)


def film_figure(shown: Course) -> Chart:
    """Mean attention at every record, below the accuracy of that seed with its phases as bands."""
    steps, accuracy, patterns = (shown.arrays[name] for name in ("step", "accuracy", "patterns"))
    later = steps > 0
    curve = (Series("accuracy", steps[later], accuracy[later]),)
    course = Lines("Accuracy", "training step", "accuracy", curve, log_x=True, spans=spans_of(shown))
    kept = some_records(shown)
    caption = "The seed with the most plateaus. Rows read, columns are read (x: item, l: label, q: query)."
    chosen = [int(np.searchsorted(kept, record)) for record in (*shown.records, len(steps) - 1)]
    title = "Attention while the circuits form (Fig. 4)"
    return attention_film(
        steps[kept], patterns[kept], course, labels=token_names(patterns), chosen=chosen, title=title, caption=caption
    )


def variant_figure(found: Mapping[str, Seeds]) -> Chart:
    rows = variant_rows(found)
    told = [words(name) for name in rows]
    letters = {"B": "query to itself", "L": "query to labels", "C": "labels to items"}
    circuit = {f"{letter}{layer}": f"{name}, {layer}" for layer in (1, 2) for letter, name in letters.items()}
    queries = ("labels, query of 2", "labels, query of 1")
    panels = [
        Panel(title, [[row[column] for column in columns] for row in rows.values()], list(columns.values()), told)
        for title, columns in (
            ("accuracy", {"P1": "plateau 1", "P2": "plateau 2", "SCC": "labels as a set", "end": "end"}),
            ("final circuit", circuit | {"own share": "own item"}),
            ("final cost of removing", dict(zip(REMOVALS, ("own item", "other items", *queries), strict=True))),
        )
    ]
    caption = (
        "One row per seed. Labels as a set: the best accuracy from them in that seed's world. Final circuit: mean"
        " attention in layers 1 and 2; own item: of what labels give to items in layer 1, the share of their own. Cost"
        " of removing: own and other items for labels of layer 1, all labels for the query of a layer."
    )
    return Heatmaps("Variants: plateaus and final circuit", panels, caption, False, shared_scale=True)


def phase_diagram(knob: str, found: Mapping[str, Seeds]) -> Chart | None:
    """Accuracy by the value of a knob (rows) and step (columns, the last one too), the median over seeds; none for a
    single value."""
    values = {value: found[name] for value, name in sweep(knob).items() if name in found}
    if len(values) < 2:
        return None
    last = int(max(seeds[0]["step"][-1] for seeds in values.values()))
    marks = [k * 10**power for power in range(len(str(last))) for k in (1, 2, 5)]
    columns = [*(n for n in marks if min(100, last // 4) <= n < last), last]
    rows = [np.median([at_steps(arrays, columns) for arrays in seeds], 0) for seeds in values.values()]
    _, title, _ = KNOBS[knob]
    names = [f"{n}" if n < 1_000 else f"{n / 1_000:g}k" for n in columns]
    panel = Panel(f"{title} by step", rows, names, [f"{value:g}" for value in values])
    return Heatmaps(title, [panel], diverging=False)


def at_steps(arrays: Mapping[str, np.ndarray], steps: Sequence[int]) -> np.ndarray:
    """The accuracy at given steps, linear in their logarithm; NaN outside of the training."""
    times = np.log10(arrays["step"][1:])
    return np.interp(np.log10(steps), times, arrays["accuracy"][1:], left=np.nan, right=np.nan)


def settings_figure(others: Mapping[str, Mapping[str, np.ndarray]]) -> Chart:
    series = [Series(words(name), a["step"][1:], a["accuracy"][1:]) for name, a in others.items()]
    title = "Other settings" if len(series) > 1 else series[0].name.capitalize()  # one curve has no legend
    masked = any(name.startswith("only ") for name in others)
    return Lines(f"{title}, first seed", "training step", "accuracy", series, log_x=True,
                 caption="Held to: other attention is masked while training." if masked else "")  # fmt: skip
