"""`meta-icl probe RUN-or-CHECKPOINT`: mechanistic probes on a trained run or a pretrained language model."""

import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from meta_icl.apps.cli import checkpoints, compare, listing, own, spec, tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.train import checked
from meta_icl.apps.cli.which import find_run
from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import Run, default_root
from meta_icl.sweeps import compile_soon, use_compilation_cache

EXAMPLES = (
    "blocks",
    "blocks --probe implicit_updates --prompts 50 --json",
    "last --probe ./my_probe.py",
    "memory --probe memories",
    "smollm2 --examples 'hot -> cold' 'big -> small' 'fast -> slow' --text 'high ->' --probe attention circuits",
    "./gpt2 --tokens 464,2068,7586,21831,11687 --out fox.html",
    "model.Q8_0.gguf --text 'The capital of France is' --no-twin",
    "./llama --tokens 306,29871,29974,13,319,29871,29899,13,306 --separator 13",
)


NEEDED = ("check", "measure", "rows", "figures")
PROBE = own.Kind("probe", f"a file that defines {', '.join(NEEDED)}", bool)


@dataclass(frozen=True)
class Options:
    """Look inside a run of `meta-icl train` (every seed and point of its sweep, and untrained weights beside them) or a
    language model (its folder in Hugging Face's format, a .gguf file, the name of a fetched model; shuffled weights
    beside it); print tables and write a report with figures.

    Probes are the files of `meta_icl.probes`, or your own file as ./file.py.
    """

    subject: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN-or-CHECKPOINT")]
    """The run (its folder, name or the beginning of it, or last), or a language model: its folder, a .gguf file, or
    the name of one that `meta-icl models get` fetched."""
    probe: tuple[str, ...] = ()
    """The probes (default: all that can look at the model)."""
    prompts: int = 20
    """Prompts of the task of a run."""
    key: int = 1
    """Number of the random key of these prompts."""
    text: str = ""
    """The prompt of a language model; every line but the last is an example, unless there are --examples."""
    examples: tuple[str, ...] = ()
    """Examples that stand before the text, each with the separator behind it, whatever lines they have; the class of
    an example is its last word."""
    tokens: str = ""
    """The prompt as token numbers instead: 464,2068,7586."""
    separator: str | None = None
    """What ends every example: a text (default: a new line), or with token numbers one of them (default: every token is
    an example)."""
    no_twin: bool = False
    """Leave out the untrained or shuffled weights."""
    out: Path | None = None
    """The report (default: probe.html in the run's folder, probe-NAME.html in the folder of the runs for a model)."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="probe", examples=EXAMPLES)
    require(options.prompts >= 1, "--prompts", options.prompts, "a positive integer")
    use_compilation_cache()
    checkpoints.require_subject(options.subject)
    modules = probes(options.probe)
    answer: list[dict[str, Any]] = []
    if checkpoints.is_language_model(options.subject):
        name, subjects, provenance, answer = language_model(options)
        path = options.out or options.root / f"probe-{name}.html"
    else:
        compile_soon()
        run, subjects = trained_run(options)
        name, provenance = run.name, dict(run.provenance) | {"config": run.config}
        path = options.out or run.folder / "probe.html"
    found, charts, intro = {}, {}, []
    names, refused = fitting(modules, next(iter(subjects.values())), bool(options.probe))
    for probe in names:
        module = modules[probe]
        measured = {label: module.measure(subject) for label, subject in subjects.items()}
        found[probe] = {label: known(module.rows(arrays)) for label, arrays in measured.items()}
        charts |= {f"{probe}-{key}": chart for key, chart in module.figures(measured).items()}
        intro.append((module.__doc__ or probe).strip())
    from meta_icl.apps.report import Table, write_report

    title = f"{name}: {', '.join((modules[probe].__doc__ or probe).strip().partition(':')[0] for probe in names)}"
    intro += [answer_told(answer)] if answer else []
    intro += [f"{probe} does not fit: {why}" for probe, why in refused.items()]
    told = [
        Table(f"{probe}, {label}", list(rows[0]), [list(row.values()) for row in rows])
        for probe, by_label in found.items()
        for label, rows in by_label.items()
    ]
    text = "\n\n".join(intro)
    write_report(path, title=title, kind="probe", figures=charts, tables=told, provenance=provenance, intro=text)
    if options.json:
        print_json({"report": path, "probes": found, "answer": answer, "left_out": refused})
    else:
        for probe, by_label in found.items():
            for label, rows in by_label.items():
                table = tables.plain_table(list(rows[0]), [list(row.values()) for row in rows], f"{probe}, {label}")
                tables.show(table)
        if answer:
            tables.show_text(answer_told(answer))
        for probe, why in refused.items():
            tables.show_text(f"{probe} does not fit: {why}")
        say(f"report  {path}")
    return 0


def probes(names: Sequence[str]) -> dict[str, Any]:
    """The modules of the probes asked for, those of the user's own too, or all that there are, by name."""
    listed = listing.probes()
    for name in names:
        if own.place(name) is None:
            choose("probe", name, listed)
    found: dict[str, Any] = {}
    for name in names or listed:
        if own.place(name) is not None:
            module, record = own.find_module(PROBE, name, NEEDED)
            found[Path(record["file"]).stem] = module
        else:
            found[name] = importlib.import_module(f"meta_icl.probes.{name}")
    return found


def known(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the columns of which nothing is known, such as the errors of a single prompt."""
    columns = [name for name in rows[0] if any(row[name] is not None and row[name] == row[name] for row in rows)]
    return [{name: row[name] for name in columns} for row in rows]


def fitting(modules: Mapping[str, Any], subject: Any, asked: bool = False) -> tuple[list[str], dict[str, str]]:
    """The probes that can look at a subject, and why each of the others cannot.

    Raises `BadInput` for the first that cannot where they are `asked` for, and with all reasons if none can.
    """
    refused: dict[str, str] = {}
    for name, module in modules.items():
        try:
            module.check(subject)
        except BadInput as error:
            if asked:
                raise
            refused[name] = str(error)
    if len(refused) == len(modules):
        raise BadInput("no probe can look at this model: " + "; ".join(f"{n}: {why}" for n, why in refused.items()))
    return [name for name in modules if name not in refused], refused


def language_model(options: Options) -> tuple[str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Its name, the model with its prompt and shuffled weights beside it, what is known of them, and its answer."""
    if bool(options.tokens) == bool(options.text):
        what = "an example such as --text 'The capital of France is', or --tokens 464,2068,7586"
        raise BadInput(f"--text or --tokens must be given for a language model: {what}")
    name = checkpoints.name_of(options.subject)
    subject, described = (of_text if options.text else of_tokens)(options)
    subjects = {name: subject}
    import jax

    if not options.no_twin and jax.tree.leaves(subject.network):  # weights within transformers cannot be shuffled
        subjects["shuffled weights"] = subject.twin(key=jax.random.key(0))
    return name, subjects, {"config": described}, answer_of(subject, options)


def answer_of(subject: Any, options: Options) -> list[dict[str, Any]]:
    """The tokens that the model would most probably put next; their texts where there is a tokenizer."""
    import numpy as np

    from meta_icl.lm.answers import most_probable
    from meta_icl.lm.tokenizer import read_tokenizer

    text = read_tokenizer(options.subject).text if options.text else str
    best = most_probable(subject.network, np.asarray(subject.prompts.tokens)[0])
    return [{"token": token, "text": text(token), "probability": share} for token, share in best]


def answer_told(answer: Sequence[Mapping[str, Any]]) -> str:
    """The most probable next tokens in a line."""
    each = ", ".join(f"{one['text']!r} {one['probability']:.3f}" for one in answer)
    return f"The model's answer: {each}"


def learner_of(subject: str) -> Any:
    """A language model of any family as a predictor."""
    from meta_icl.lm.loaded import any_network
    from meta_icl.models import InContextLearner, TokenLayout

    return InContextLearner(TokenLayout(), any_network(subject).network)


def of_tokens(options: Options) -> tuple[Any, dict[str, Any]]:
    """The subject of a prompt of token numbers, and its description."""
    require(not options.examples, "--examples", options.examples, "given with --text")
    tokens = spec.converted(tuple[int, ...], options.tokens, "--tokens", {})
    separator = spec.converted(int | None, options.separator or "", "--separator", {})
    import numpy as np

    from meta_icl.probes import language_subject

    subject = language_subject(learner_of(options.subject), np.array(tokens), separator)
    return subject, {"tokens": tokens, "separator": separator}


def of_text(options: Options) -> tuple[Any, dict[str, Any]]:
    """The subject of a prompt of text, and its description."""
    from meta_icl.lm import read_tokenizer
    from meta_icl.lm.prompts import TextPrompt, tokenize
    from meta_icl.lm.tasks import Example
    from meta_icl.probes import prompt_subject, text_subject

    separator = "\n" if options.separator is None else options.separator
    require(separator != "", "separator", separator, "at least one character")
    tokenizer = read_tokenizer(options.subject)
    described = {"text": options.text, "separator": separator, "examples": list(options.examples)}
    if options.examples:
        for text in options.examples:
            require(text.strip() != "", "example", text, "a text that is not blank")
        cut = [Example(text[: -len(last)], last) for text in options.examples for last in [_last_word(text)]]
        prompt = TextPrompt(tuple(cut), Example(options.text, ""), (), (*range(len(cut)), 0))
        parts = tokenize(prompt, tokenizer, separator=separator, opening=tokenizer.opening)
        classes = [example.answer.strip() for example in cut]
        subject = prompt_subject(learner_of(options.subject), parts, options.examples, classes)
        return subject, described | {"tokens": parts.tokens.tolist()}
    tokens = tokenizer.opened(options.text)
    subject = text_subject(learner_of(options.subject), tokens, options.text, separator)
    return subject, described | {"tokens": tokens.numbers.tolist()}


def _last_word(text: str) -> str:
    """The last word of a text with the space before it, which tokenizers keep with it, and what stands behind it."""
    found = re.search(r" ?\S+\s*$", text)
    return found[0] if found else text


def trained_run(options: Options) -> tuple[Run, dict[str, Any]]:
    """The run, and every trained member of it with prompts of its task; an untrained twin of the first too."""
    for field in ("text", "examples", "tokens", "separator"):
        value = getattr(options, field)
        require(value in ("", (), None), f"--{field}", value, "given for a language model only")
    run = find_run(options.subject, options.root)
    checked(run.config, run)
    import jax

    from meta_icl.probes import learner_subject

    subjects: dict[str, Any] = {}
    for point, (task, members) in compare.members_of(run).items():
        prompts = task.sample_batch(options.prompts, key=jax.random.key(options.key))
        for seed in range(len(members)):
            label = ", ".join(part for part in (point, f"seed {seed}") if part)
            subjects[label] = learner_subject(members[seed], prompts)
    if not options.no_twin:
        first = next(iter(subjects.values()))
        label = "untrained" if first.is_drawn else "shuffled weights"
        subjects[label] = first.twin(key=jax.random.key(0))
    return run, subjects
