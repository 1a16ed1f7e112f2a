"""`meta-icl card SUBJECT`: how a language model or a trained run learns in context, as one report and one JSON."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from meta_icl.apps.cli import checkpoints, probe, tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import BadInput, first_line, require
from meta_icl.runs import default_root
from meta_icl.runs.files import plain, write_json
from meta_icl.sweeps import compile_soon, use_compilation_cache

SCHEMA = 1  # of the JSON: raised when a name in it changes its meaning
LENGTH = 2048  # tokens that a model is taken to be for where its checkpoint does not say
EXAMPLES = (
    "smollm2",
    "smollm2 --task antonym --prompts 32 --out antonym.html",
    "./model --text book.txt --json",
    "last",
    "./model card-smollm2.json",
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
    reading and the limits of the method for every section. Of several, one page with all side by side.
    """

    subjects: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="CHECKPOINT-or-RUN")]
    """Language models (a folder, a .gguf file, the name of a fetched one), runs of `meta-icl train`, or cards that were
    written before (.json): several stand side by side."""
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
    require(len(options.subjects) >= 1, "subjects", options.subjects, "at least one model, run or card")
    use_compilation_cache()
    for subject in options.subjects:
        if not is_card(subject):
            checkpoints.require_subject(subject)
    if not any(checkpoints.is_language_model(subject) for subject in options.subjects):
        compile_soon()
    made_or_read = [read_card(subject) if is_card(subject) else made(subject, options) for subject in options.subjects]
    cards = named_apart(made_or_read)
    name = "-".join(card["subject"] for card, _, _ in cards)
    path = options.out or options.root / f"card-{name}.html"
    for (card, _, _), subject in zip(cards, options.subjects, strict=True):
        if len(cards) > 1 and not is_card(subject):
            write_json(path.parent / f"card-{card['subject']}.json", card)
    whole = cards[0][0] if len(cards) == 1 else {"schema": SCHEMA, "cards": [card for card, _, _ in cards]}
    write_json(path.with_suffix(".json"), whole)
    write_page(path, cards)
    if options.json:
        print_json(whole)
        return 0
    for card, _, _ in cards:
        show(card, several=len(cards) > 1)
    say(f"card  {path} and {path.with_suffix('.json').name}")
    return 0


Drawn = tuple[dict[str, Any], str, dict[str, Any]]  # a card, its introduction, its figures


def made(subject: str, options: Options) -> Drawn:
    """The card of a language model or a run."""
    of = of_language_model if checkpoints.is_language_model(subject) else of_run
    name, kind, settings, intro, found, left_out = of(subject, options)
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
    return plain(card), intro, {key: chart for s in found for key, chart in s.figures.items()}


def named_apart(cards: Sequence[Drawn]) -> list[Drawn]:
    """The cards, those of equal names numbered: a name is that of a file too."""
    found: list[Drawn] = []
    for card, intro, charts in cards:
        taken, name, place = {other["subject"] for other, _, _ in found}, card["subject"], 1
        while name in taken:
            place += 1
            name = f"{card['subject']}-{place}"
        found.append(({**card, "subject": name}, intro, charts))
    return found


def is_card(subject: str) -> bool:
    """Whether a subject is a card that was written before."""
    return Path(subject).suffix == ".json"


def read_card(subject: str) -> Drawn:
    """A card from its JSON, without figures; `BadInput` for what is no card of this form."""
    try:
        card = json.loads(Path(subject).read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{subject} cannot be read as a card ({first_line(error)})") from None
    named = isinstance(card, dict) and {"schema", "subject", "kind", "settings", "sections", "left_out"} <= set(card)
    require(named, "card", subject, "a JSON that `meta-icl card` wrote of one model or run")
    kinds = {"subject": str, "settings": dict, "sections": dict, "left_out": dict}
    formed = all(isinstance(card[field], kind) for field, kind in kinds.items())
    sections = card["sections"].values() if formed else ()
    formed = formed and all(isinstance(s, dict) and {"title", "reading", "limits", "rows"} <= set(s) for s in sections)
    require(formed, "card", subject, "a JSON that `meta-icl card` wrote, unchanged")
    require(card["schema"] == SCHEMA, f"schema of {subject}", card["schema"], f"{SCHEMA}")
    return card, f"{card['subject']} is read from a card.", {}


def write_page(path: Path, cards: Sequence[Drawn]) -> None:
    """One page: the figures of every subject, what each section says of each, and their tables with a column more."""
    from meta_icl.apps.report import Table, write_report

    several = len(cards) > 1
    names = [card["subject"] for card, _, _ in cards]
    sections = {name: s["title"] for card, _, _ in cards for name, s in card["sections"].items()}
    text = list(dict.fromkeys(intro for _, intro, _ in cards))
    tables = []
    for name, title in sections.items():
        having = [(card["subject"], card["sections"][name]) for card, _, _ in cards if name in card["sections"]]
        for subject, s in having:
            text.append(f"{f'{subject}: ' if several else ''}{s['title']}. {s['reading']} Limits: {s['limits']}")
        rows = [({"model": subject} if several else {}) | row for subject, s in having for row in s["rows"]]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        if rows:
            tables.append(Table(title, columns, [[row.get(column) for column in columns] for row in rows]))
    for card, _, _ in cards:
        told = f"{card['subject']}: " if several else ""
        text += [f"{told}{probe} does not fit: {why}" for probe, why in card["left_out"].items()]
    write_report(
        path,
        title=f"{', '.join(names)}: how {'they learn' if several else 'it learns'} in context",
        figures={f"{card['subject']}-{key}" if several else key: chart
                 for card, _, charts in cards for key, chart in charts.items()},
        provenance={"config": {card["subject"]: card["settings"] for card, _, _ in cards} if several
                    else cards[0][0]["settings"]},
        intro="\n\n".join(text),
        tables=tables,
        kind="card",
    )  # fmt: skip


def show(card: dict[str, Any], several: bool) -> None:
    """The tables and readings of a card, on the terminal."""
    if several:
        say(f"{card['subject']}\n")
    for s in card["sections"].values():
        if s["rows"]:
            shown = s["rows"][:12]
            tables.show(tables.plain_table(list(shown[0]), [list(row.values()) for row in shown], s["title"]))
        say(s["reading"])
        say(f"limits: {s['limits']}\n")
    for probe_name, why in card["left_out"].items():
        say(f"{probe_name} does not fit: {why}")


Card = tuple[str, str, dict[str, Any], str, list[Any], dict[str, str]]


def of_language_model(subject: str, options: Options) -> Card:
    """Name, kind, settings, introduction and sections of a language model, and what does not fit."""
    from meta_icl.apps.cli.card_of_language import Asking, sections
    from meta_icl.lm.loaded import LanguageModel, any_network
    from meta_icl.lm.task_files import read_task
    from meta_icl.lm.texts import text_of
    from meta_icl.lm.tokenizer import read_tokenizer

    task, tokenizer = read_task(options.task), read_tokenizer(subject)
    opening, told = checkpoints.opening_of(tokenizer, options.opening)
    text = text_of(options.text)
    opened = any_network(subject)
    own = LanguageModel(opened.network, tokenizer, opening, opened.longest or LENGTH)
    found, left_out = sections(Asking(own, task, options.prompts, text))
    settings = {
        "family": opened.family,
        "layers": opened.network.n_layers,
        "heads": opened.heads,
        "task": task.name,
        "prompts": options.prompts,
        "opening": told,
        "text": "docstrings of Python's library" if options.text is None else str(options.text),
        "notes": list(opened.notes),
    }
    name = checkpoints.name_of(subject)
    return name, "language model", settings, LANGUAGE.format(opening=told), found, left_out


def of_run(subject: str, options: Options) -> Card:
    """The same of a trained run: every probe that fits."""
    from meta_icl.apps.cli.card_of_language import of_probe

    run, subjects = probe.trained_run(probe.Options(subject, prompts=options.prompts, root=options.root))
    modules = probe.probes(())
    names, refused = probe.fitting(modules, next(iter(subjects.values())))
    found = [of_probe(modules[name], name, subjects) for name in names]
    settings = {"config": plain(run.config), "prompts": options.prompts}
    return run.name, "trained run", settings, RUN.format(prompts=options.prompts), found, refused
