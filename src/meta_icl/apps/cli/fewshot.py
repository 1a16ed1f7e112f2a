"""`meta-icl fewshot CHECKPOINT --task FILE`: what a language model learns from examples, with controls."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from meta_icl.apps.cli import checkpoints, spec, tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import require
from meta_icl.runs import default_root
from meta_icl.sweeps import use_compilation_cache

EXAMPLES = (
    "smollm2 --task country_capital",
    "smollm2 --task addition --shots 0,4 --controls right,permuted",
    "./model --task sst2.tsv --prompts 100 --controls right,random,flipped,symbols",
    "model.Q8_0.gguf --task pairs.jsonl --template 'Q: {question}\\nA: {answer}' --json",
)
INTRO = """What does the model learn from examples in its prompt?

Every prompt holds the most examples asked for; the answer of its example k is one after k examples, so that other
numbers of examples are asked other questions. Only log-probabilities of answers leave the device. Labels are scored as
whole answers: accuracy is that of the most probable label, `calibrated` after each label's mean probability over the
prompts is divided out (`content_free`: its probability for a question without content), the loss is in nats among the
labels.
An open answer is right where each of its tokens, and then the separator, is the most probable; its loss is that of the
whole answer. Intervals hold 90% of resampled sets of prompts. All controls see the same examples.

Results depend on the token that opens a prompt, on which attention with nothing to do rests: here {opening}."""


@dataclass(frozen=True)
class Options:
    """Few-shot curves of a language model on a task: accuracy, AUC and loss by number of examples in the prompt, under
    right answers and under controls, and what right answers are worth.
    """

    checkpoint: tyro.conf.Positional[str]
    """A folder in Hugging Face's format, a .gguf file, or the name of a fetched model."""
    task: str
    """A file (JSON, JSONL, CSV, TSV, lines of SST-2 or TREC), word pairs such as country_capital, or a generated task
    such as addition."""
    template: str = ""
    """How an example is written, such as '{input} -> {output}'; the last field is the answer."""
    separator: str | None = None
    """What stands between examples (default: a new line, or an empty one where examples have several lines)."""
    shots: str = "0,1,2,4,8"
    """Numbers of examples."""
    prompts: int = 32
    """Prompts per control."""
    controls: str = "right,random,permuted"
    """Of right, random, permuted, flipped, symbols, shuffled."""
    content_free: bool = False
    """Labels: also calibrate by their probabilities after the same examples and a question without content, N/A."""
    opening: str = "auto"
    """The token that opens every prompt: auto (the one that opens documents), none, or its text."""
    seed: int = 0
    """Number of the draw of the examples."""
    dtype: str = "float32"
    """How matrices are kept: float32 or, in half of the memory, bfloat16 (computed in float32 either way)."""
    out: Path | None = None
    """The report (default: fewshot-NAME-TASK.html in the folder of the runs)."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="fewshot", examples=EXAMPLES)
    shots = spec.converted(tuple[int, ...], options.shots, "--shots", {})
    require(len(shots) > 0, "--shots", options.shots, "numbers such as 0,1,2,4,8")
    use_compilation_cache()
    checkpoints.require_checkpoint(options.checkpoint)
    from meta_icl.lm.few_shot import few_shot
    from meta_icl.lm.loaded import any_network
    from meta_icl.lm.task_files import read_task
    from meta_icl.lm.tokenizer import read_tokenizer

    task = read_task(options.task, template=options.template or None, separator=options.separator)
    require(max(shots) < len(task.examples), "shots", max(shots), f"between 0 and {len(task.examples) - 1}")
    tokenizer = read_tokenizer(options.checkpoint)
    opening, told = checkpoints.opening_of(tokenizer, options.opening)
    opened = any_network(options.checkpoint, dtype=options.dtype)
    found = few_shot(
        opened.network,
        tokenizer,
        task,
        shots=shots,
        controls=options.controls.split(","),
        prompts=options.prompts,
        seed=options.seed,
        opening=opening,
        longest=opened.longest,
        content_free=options.content_free,
        progress=progress,
    )
    name = checkpoints.name_of(options.checkpoint)
    path = options.out or options.root / f"fewshot-{name}-{task.name}.html"
    rows, worth = found.rows(), found.worth()
    lines = worth_told(found)
    settings = {
        "task": task.name,
        "labels": list(task.labels),
        "shots": list(shots),
        "prompts": options.prompts,
        "opening": told,
        "seed": options.seed,
        "longest_prompt": found.longest,
        "passes": found.passes,
    }
    from meta_icl.apps.report import Table, write_report

    columns = list(rows[0])
    write_report(
        path,
        title=f"{name}: few-shot learning of {task.name}",
        figures=figures({name: found}),
        provenance={"config": settings},
        intro=INTRO.format(opening=told) + "\n\n" + "\n\n".join(lines),
        tables=[Table("By number of examples", columns, [list(row.values()) for row in rows])],
        kind="few-shot",
    )
    if options.json:
        print_json(settings | {"report": path, "rows": rows, "worth": worth, "notes": list(opened.notes)})
        return 0
    for note in opened.notes:
        tables.show_text(f"note: {note}")
    cells = [[_cell(row, column) for column in short(columns)] for row in rows]
    tables.show(tables.plain_table(short(columns), cells, f"{task.name}, {options.prompts} prompts, opened by {told}"))
    for line in lines:
        tables.show_text(line)
    say(f"report  {path}")
    return 0


def progress(done: int, total: int) -> None:
    """How many passes are done, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total} passes", end="\n" if done == total else "", file=sys.stderr, flush=True)


def short(columns: Sequence[str]) -> list[str]:
    """The columns with bounds beside their values."""
    return [column for column in columns if not column.endswith(("_low", "_high"))]


def _cell(row: dict[str, Any], column: str) -> Any:
    value = row[column]
    if f"{column}_low" not in row:
        return value if not isinstance(value, float) else f"{value:.3f}"
    return f"{value:.3f} [{row[f'{column}_low']:.3f}, {row[f'{column}_high']:.3f}]"


def worth_told(found: Any) -> list[str]:
    """What right answers are worth, a sentence per control."""
    n = found.shots[-1]
    return [
        f"After {n} examples right answers are worth {w['accuracy']:+.3f} of accuracy "
        f"[{w['accuracy_low']:+.3f}, {w['accuracy_high']:+.3f}] and {w['loss']:+.3f} nats "
        f"[{w['loss_low']:+.3f}, {w['loss_high']:+.3f}] more than {control} ones."
        for control, w in found.worth().items()
    ]


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """Accuracy and loss by number of examples, a curve per control with its interval."""
    from meta_icl.plotting import Lines, Series

    charts = {}
    for name, title, unit in (("accuracy", "Accuracy", "share right"), ("loss", "Loss", "nats of the right answer")):
        series = []
        for label, one in found.items():
            by_control: dict[str, list[dict[str, Any]]] = {}
            for row in one.rows():
                by_control.setdefault(row["control"], []).append(row)
            for control, rows in by_control.items():
                mean, low, high = ([row[key] for row in rows] for key in (name, f"{name}_low", f"{name}_high"))
                own = control if len(found) == 1 else f"{label}: {control}"
                style = "line" if control == "right" else "dashed"
                series.append(Series(own, one.shots, mean, low, high, style, band="90% interval over prompts"))
        charts[name] = Lines(f"{title} by number of examples", "examples in the prompt", unit, series)
    return charts
