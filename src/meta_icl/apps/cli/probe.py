"""`meta-icl probe RUN-or-CHECKPOINT`: mechanistic probes on a trained run or a pretrained language model."""

import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from meta_icl.apps.cli import compare, listing, own, spec, tables
from meta_icl.apps.cli.catalogue import model_of, optimiser_of, task_of
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.train import checked
from meta_icl.apps.cli.which import find_run, is_path
from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import Run, default_root
from meta_icl.sweeps import use_compilation_cache

EXAMPLES = (
    "blocks",
    "blocks --probe implicit_updates --prompts 50 --json",
    "last --probe ./my_probe.py",
    "memory --probe memories",
    "./gpt2 --tokens 464,2068,7586,21831,11687 --out fox.html",
    "./gpt2 --examples 'hot -> cold' 'big -> small' 'fast -> slow' --text 'high ->'",
    "./llama --tokens 306,29871,29974,13,319,29871,29899,13,306 --separator 13",
)


NEEDED = ("check", "measure", "rows", "figures")
PROBE = own.Kind("probe", f"a file that defines {', '.join(NEEDED)}", bool)


@dataclass(frozen=True)
class Options:
    """Look inside a run of `meta-icl train` (every seed and point of its sweep, and untrained weights beside them) or a
    language model (a folder with config.json and *.safetensors, of GPT-2 or the Llama family); print tables and write
    a report with figures.

    Probes are the files of `meta_icl.probes`, or your own file as ./file.py.
    """

    subject: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN-or-CHECKPOINT")]
    """The run (its folder, name or the beginning of it, or last), or the folder of a language model."""
    probe: tuple[str, ...] = ()
    """The probes (default: all that can look at the model)."""
    prompts: int = 20
    """Prompts of the task of a run."""
    key: int = 1
    """Number of the random key of these prompts."""
    text: str = ""
    """The prompt of a language model whose folder holds a tokenizer.json; every line but the last is an example."""
    examples: tuple[str, ...] = ()
    """Examples that stand before the text, each with the separator behind it; an example's class is its last word."""
    tokens: str = ""
    """The prompt as token numbers instead: 464,2068,7586."""
    separator: str | None = None
    """What ends every example: a text (default: a new line), or with token numbers one of them (default: every token is
    an example)."""
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
    require_subject(options.subject)
    modules = probes(options.probe)
    if is_language_model(Path(options.subject)):
        name, subjects, provenance = language_model(options)
        path = options.out or options.root / f"probe-{name}.html"
    else:
        run, subjects = trained_run(options)
        name, provenance = run.name, dict(run.provenance) | {"config": run.config}
        path = options.out or run.folder / "probe.html"
    found, charts, intro = {}, {}, []
    names = list(modules) if options.probe else fitting(modules, next(iter(subjects.values())))
    for probe in names:
        module = modules[probe]
        measured = {label: module.measure(subject) for label, subject in subjects.items()}
        found[probe] = {label: module.rows(arrays) for label, arrays in measured.items()}
        charts |= {f"{probe}-{key}": chart for key, chart in module.figures(measured).items()}
        intro.append((module.__doc__ or probe).strip())
    from meta_icl.apps.report import Table, write_report

    title = f"{name}: {', '.join((modules[probe].__doc__ or probe).strip().partition(':')[0] for probe in names)}"
    told = [
        Table(f"{probe}, {label}", list(rows[0]), [list(row.values()) for row in rows])
        for probe, by_label in found.items()
        for label, rows in by_label.items()
    ]
    text = "\n\n".join(intro)
    write_report(path, title=title, kind="probe", figures=charts, tables=told, provenance=provenance, intro=text)
    if options.json:
        print_json({"report": path, "probes": found})
    else:
        for probe, by_label in found.items():
            for label, rows in by_label.items():
                table = tables.plain_table(list(rows[0]), [list(row.values()) for row in rows], f"{probe}, {label}")
                tables.show(table)
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


def fitting(modules: Mapping[str, Any], subject: Any) -> list[str]:
    """The probes that can look at a subject; `BadInput` with all their reasons if none can."""
    refused: dict[str, str] = {}
    for name, module in modules.items():
        try:
            module.check(subject)
        except BadInput as error:
            refused[name] = str(error)
    if len(refused) == len(modules):
        raise BadInput("no probe can look at this model: " + "; ".join(f"{n}: {why}" for n, why in refused.items()))
    return [name for name in modules if name not in refused]


def require_subject(subject: str) -> None:
    """Refuse a path that leads nowhere, or to a folder with neither a run nor a model in it."""
    path = Path(subject)
    if is_path(subject) and not path.exists():
        raise BadInput(f"there is no folder {path.resolve()} to probe")
    if path.is_dir() and not (path / "config.json").is_file():
        wanted = "a run nor a language model"
        raise BadInput(f"{path.resolve()} holds neither {wanted}: it has no config.json")


def is_language_model(folder: Path) -> bool:
    """Whether a folder holds a model as the Hugging Face libraries save one."""
    path = folder / "config.json"
    try:
        return path.is_file() and "model_type" in json.loads(path.read_text("utf-8"))
    except (ValueError, TypeError):
        return False  # a damaged run, of which `find_run` tells more


def language_model(options: Options) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Its name, the model with its prompt, and what is known of them."""
    if bool(options.tokens) == bool(options.text):
        raise BadInput("--text or --tokens must be given for a language model, such as --tokens 464,2068,7586")
    name = Path(options.subject).resolve().name
    subject, described = (of_text if options.text else of_tokens)(options)
    return name, {name: subject}, {"config": described}


def of_tokens(options: Options) -> tuple[Any, dict[str, Any]]:
    """The subject of a prompt of token numbers, and its description."""
    require(not options.examples, "--examples", options.examples, "given with --text")
    tokens = spec.converted(tuple[int, ...], options.tokens, "--tokens", {})
    separator = spec.converted(int | None, options.separator or "", "--separator", {})
    import numpy as np

    from meta_icl.lm import load_language_model
    from meta_icl.probes import language_subject

    subject = language_subject(load_language_model(options.subject), np.array(tokens), separator)
    return subject, {"tokens": tokens, "separator": separator}


def of_text(options: Options) -> tuple[Any, dict[str, Any]]:
    """The subject of a prompt of text, and its description."""
    from meta_icl.lm import load_language_model, tokenized
    from meta_icl.probes import text_subject

    separator = "\n" if options.separator is None else options.separator
    text = separator.join([*options.examples, options.text])
    tokens = tokenized(options.subject, text)
    subject = text_subject(load_language_model(options.subject), tokens, text, separator)
    return subject, {"text": text, "separator": separator, "tokens": tokens.numbers.tolist()}


def trained_run(options: Options) -> tuple[Run, dict[str, Any]]:
    """The run, and every trained member of it with prompts of its task; the weights as drawn for the first one too."""
    for field in ("text", "examples", "tokens", "separator"):
        value = getattr(options, field)
        require(value in ("", (), None), f"--{field}", value, "given for a language model only")
    run = find_run(options.subject, options.root)
    config = checked(run.config, run)
    import jax

    from meta_icl.probes import learner_subject
    from meta_icl.training.replicas import make_replicas

    subjects: dict[str, Any] = {}
    for point, (task, members) in compare.members_of(run).items():
        prompts = task.sample_batch(options.prompts, key=jax.random.key(options.key))
        for seed in range(len(members)):
            label = ", ".join(part for part in (point, f"seed {seed}") if part)
            subjects[label] = learner_subject(members[seed], prompts)
        if "untrained" not in subjects:
            drawn = make_replicas(task_of(config), optimiser_of(config), jax.random.key(0), 1, {})[0][0]
            subjects["untrained"] = learner_subject(model_of(config)(key=drawn.init_key), prompts)
    return run, subjects
