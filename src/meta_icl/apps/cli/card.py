"""`meta-icl card SUBJECT`: how a language model or a trained run learns in context, as one report and one JSON."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from meta_icl.apps.cli import checkpoints, probe, tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import BadInput, require
from meta_icl.runs import default_root
from meta_icl.runs.files import plain, write_json
from meta_icl.sweeps import use_compilation_cache

SCHEMA = 1  # of the JSON: raised when a name in it changes its meaning
EXAMPLES = (
    "smollm2",
    "smollm2 --task antonym --prompts 32 --out antonym.html",
    "./model --text book.txt --json",
    "last",
)
LANGUAGE = """How does this language model learn in context?

Few-shot curves with controls, the loss by position in a text, the heads that look for what came before and what is lost
without them, and what its examples do to the weights. Every prompt is opened by {opening}, on which attention with
nothing to do rests; other openings give other numbers. Layers and heads are counted from 1."""
RUN = """How does this trained network learn in context?

Every probe that can look at it, on {prompts} prompts of its own task, beside an untrained twin."""


@dataclass(frozen=True)
class Options:
    """Write the card of a language model or of a trained run: one report and, beside it, one JSON, with a sentence of
    reading and the limits of the method for every section.
    """

    subject: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHECKPOINT-or-RUN")]
    """A language model (its folder, a .gguf file, the name of a fetched one), or a run of `meta-icl train`."""
    task: str = "country_capital"
    """The few-shot task of a language model: a file or a name, as `meta-icl fewshot` takes it."""
    text: Path | None = None
    """A file whose text a language model reads (default: docstrings of Python's library)."""
    prompts: int = 16
    """Prompts of the task."""
    opening: str = "auto"
    """The token that opens prompts of a language model: auto, none, or its text."""
    out: Path | None = None
    """The report (default: card-NAME.html in the folder of the runs); the JSON stands beside it."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    json: bool = False
    """Print the JSON."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="card", examples=EXAMPLES)
    require(options.prompts >= 2, "--prompts", options.prompts, "at least 2")
    use_compilation_cache()
    checkpoints.require_subject(options.subject)
    of = of_language_model if checkpoints.is_language_model(options.subject) else of_run
    name, kind, settings, intro, found, left_out = of(options)
    path = options.out or options.root / f"card-{name}.html"
    card = {
        "schema": SCHEMA,
        "subject": name,
        "kind": kind,
        "settings": settings,
        "sections": {
            s.name: {"title": s.title, "reading": s.reading, "limits": s.limits, "rows": list(s.rows)} for s in found
        },
        "left_out": left_out,
    }
    from meta_icl.apps.report import Table, write_report

    read = [f"{s.title}. {s.reading} Limits: {s.limits}" for s in found]
    read += [f"{probe} does not fit: {why}" for probe, why in left_out.items()]
    write_report(
        path,
        title=f"{name}: how it learns in context",
        figures={key: chart for s in found for key, chart in s.figures.items()},
        provenance={"config": settings},
        intro="\n\n".join([intro, *read]),
        tables=[Table(s.title, list(s.rows[0]), [list(row.values()) for row in s.rows]) for s in found if s.rows],
        kind="card",
    )
    write_json(path.with_suffix(".json"), plain(card))
    if options.json:
        print_json(card)
        return 0
    for s in found:
        if s.rows:
            shown = s.rows[:12]
            tables.show(tables.plain_table(list(shown[0]), [list(row.values()) for row in shown], s.title))
        say(s.reading)
        say(f"limits: {s.limits}\n")
    for probe_name, why in left_out.items():
        say(f"{probe_name} does not fit: {why}")
    say(f"card  {path} and {path.with_suffix('.json').name}")
    return 0


Card = tuple[str, str, dict[str, Any], str, list[Any], dict[str, str]]


def of_language_model(options: Options) -> Card:
    """Name, kind, settings, introduction and sections of a language model, and what does not fit."""
    from meta_icl.apps.cli.card_of_language import Asking, library_text, sections
    from meta_icl.lm.files import read_checkpoint
    from meta_icl.lm.networks import network_of
    from meta_icl.lm.task_files import read_task
    from meta_icl.lm.tokenizer import read_tokenizer
    from meta_icl.models import InContextLearner, TokenLayout

    task, tokenizer = read_task(options.task), read_tokenizer(options.subject)
    opening, told = checkpoints.opening_of(tokenizer, options.opening)
    try:
        text = library_text() if options.text is None else options.text.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{options.text} cannot be read as text ({error})") from None
    checkpoint = read_checkpoint(options.subject)
    model = InContextLearner(TokenLayout(), network_of(checkpoint))
    longest = checkpoint.shape.n_positions
    found = list(sections(Asking(model, tokenizer, task, options.prompts, opening, text, longest)))
    settings = {
        "family": checkpoint.shape.family,
        "layers": checkpoint.shape.n_layers,
        "heads": checkpoint.shape.n_heads,
        "task": task.name,
        "prompts": options.prompts,
        "opening": told,
        "text": "docstrings of Python's library" if options.text is None else str(options.text),
        "notes": list(checkpoint.notes),
    }
    name = checkpoints.name_of(options.subject)
    return name, "language model", settings, LANGUAGE.format(opening=told), found, {}


def of_run(options: Options) -> Card:
    """The same of a trained run: every probe that fits."""
    from meta_icl.apps.cli.card_of_language import of_probe

    run, subjects = probe.trained_run(probe.Options(options.subject, prompts=options.prompts, root=options.root))
    modules = probe.probes(())
    names, refused = probe.fitting(modules, next(iter(subjects.values())))
    found = [of_probe(modules[name], name, subjects) for name in names]
    settings = {"config": plain(run.config), "prompts": options.prompts}
    return run.name, "trained run", settings, RUN.format(prompts=options.prompts), found, refused
