"""`meta-icl models`: language models at hand, one that a package ships, GGUF files as folders, small ones made here."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from meta_icl.apps.cli import streams, tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import Run, default_root
from meta_icl.sweeps import run_parts, use_compilation_cache

EXAMPLES = (
    "list",
    "get smollm2",
    "convert smollm2 ./smollm2",
    "convert model.Q8_0.gguf ./model",
    "train attention2 ./mine --steps 2000",
    "train gpt2 ./mine --text ./books --n-tokens 4096",
)
NEEDS = {
    "list": (),
    "get": ("the name of a model",),
    "convert": ("a .gguf file or a name", "a folder to write"),
    "train": ("a shape: attention1, attention2 or gpt2", "a folder to write"),
}
INTRO = """{shape}, trained on {text}.

In-context score: the loss of the last quarter of held-out windows less that of their first quarter, in nats; below zero
where context helps. Prefix matching and attention to the previous token are those of the best head, on repeated random
tokens. Induction heads form where all three move together, often at a bump of the loss (Olsson et al., 2022)."""


@dataclass(frozen=True)
class Options:
    """Language models: `list` those that can be had by name, `get NAME`, `convert FILE FOLDER` from GGUF, `train SHAPE
    FOLDER` a small one here: attention1, attention2 (one, two layers of attention alone) or gpt2 (four of its layers).

    A model that was fetched is taken by its name wherever a checkpoint is taken. `get` asks pip for one package without
    its dependencies and checks its SHA-256; nothing else is ever downloaded.
    """

    action: tyro.conf.Positional[str] = "list"
    """One of list, get, convert, train."""
    what: tyro.conf.Positional[str] = ""
    """The name, the file to convert, or the shape to train."""
    folder: tyro.conf.Positional[str] = ""
    """convert, train: the folder to write, in Hugging Face's format."""
    text: Path | None = None
    """train: a folder of texts (.txt, .md, .rst, .py; default: sources of Python's library)."""
    n_tokens: int = 512
    """train: byte pairs of the tokenizer, which is learned from the text."""
    length: int = 128
    """train: tokens of a window."""
    width: int = 128
    """train: channels of the stream."""
    heads: int = 4
    """train: heads of a layer."""
    steps: int = 2_000
    """train: steps."""
    batch: int = 16
    """train: windows of a step."""
    rate: float = 0.02
    """train: learning rate of Muon, after a short warm-up."""
    seed: int = 0
    """train: number of the seed."""
    root: Path = dataclasses.field(default_factory=default_root)
    """train: folder of the runs; the same command again goes on with an interrupted training."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="models", examples=EXAMPLES)
    needed = NEEDS[choose("action", options.action, NEEDS)]
    given = [value for value in (options.what, options.folder) if value]
    if len(given) != len(needed):
        wanted = " and ".join(needed) or "nothing more"
        raise BadInput(f"models {options.action} takes {wanted}, got {' '.join(given) or 'nothing'}")
    {"list": _list, "get": _get, "convert": _convert, "train": _train}[options.action](options)
    return 0


def _list(options: Options) -> None:
    from meta_icl.lm.packages import PACKAGES, place

    rows: list[dict[str, Any]] = []
    for name, package in PACKAGES.items():
        where = place(name)
        there = where.is_file()
        rows.append(
            {
                "name": name,
                "model": package.about,
                "size_mb": package.model_bytes / 1e6,
                "licence": package.licence,
                "fetched": there,
                "place": str(where) if there else f"meta-icl models get {name}",
            }
        )
    if options.json:
        print_json(rows)
        return
    cells = [(r["name"], r["model"], f"{r['size_mb']:.1f} MB", r["licence"]) for r in rows]
    tables.show(tables.plain_table(("name", "model", "size", "licence"), cells))
    for r in rows:
        say(f"{r['name']}: {r['place'] if r['fetched'] else 'not here yet: ' + r['place']}")


def _get(options: Options) -> None:
    from meta_icl.lm.packages import PACKAGES, fetch

    path, fetched = fetch(options.what)
    if options.json:
        print_json({"name": options.what, "place": str(path), "fetched_now": fetched})
        return
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    say(f"{options.what} ({size}, {PACKAGES[options.what].licence}) {'is now' if fetched else 'was already'} in {path}")


def _convert(options: Options) -> None:
    from meta_icl.lm.exports import convert

    notes = convert(options.what, options.folder)
    if options.json:
        print_json({"folder": options.folder, "notes": notes})
        return
    for note in notes:
        say(f"note: {note}")
    say(f"wrote {options.folder}: config.json, model.safetensors, tokenizer.json")


def _train(options: Options) -> None:
    from meta_icl.lm.corpora import corpus
    from meta_icl.lm.exports import write_checkpoint
    from meta_icl.lm.pretraining import SHAPES, architecture_named, checkpoint_of, pretrain

    choose("shape", options.what, SHAPES)
    for name in ("steps", "batch", "width", "heads"):
        require(getattr(options, name) >= 1, f"--{name}", getattr(options, name), "a positive integer")
    require(options.length >= 8, "--length", options.length, "at least 8")
    require(options.rate > 0, "--rate", options.rate, "positive")
    folder = Path(options.folder)
    require(not (folder / "config.json").exists(), "folder", str(folder), "one without a model: it has a config.json")
    use_compilation_cache()
    source = corpus(options.text, n_tokens=options.n_tokens)
    architecture_named(options.what, options.n_tokens, options.length, options.width, options.heads)
    arguments: dict[str, Any] = {
        "shape": options.what,
        "text": "" if options.text is None else str(options.text.resolve()),
        "corpus": source.digest,
        **{name: getattr(options, name)
           for name in ("n_tokens", "length", "width", "heads", "steps", "batch", "rate", "seed")},
        "records": 50,
    }  # fmt: skip
    with Run.open(options.root, {"model": arguments}, name=f"models-{options.what}") as run:
        if not run.done:
            run.begin_again()
            run_parts(run, pretrain, {"model": arguments}, steps=options.steps)
            run.finish()
        found = run.part_arrays("model")
    config, tensors = checkpoint_of(found)
    write_checkpoint(folder, config, tensors, source.tokenizer)
    measured = learned(found)
    report = folder / "training.html"
    from meta_icl.apps.report import Table, write_report

    write_report(
        report,
        title=f"{folder.name}: a small language model, while it learned",
        figures=figures(found),
        provenance=dict(run.provenance) | {"config": arguments},
        intro=INTRO.format(shape=SHAPES[options.what].capitalize(), text=source.name),
        tables=[Table("At the end", list(measured), [list(measured.values())])],
        kind="training",
    )
    if options.json:
        print_json({"folder": str(folder), "report": report, "run": run.folder} | measured)
        return
    say(streams.paragraphs(", ".join(f"{name} {value:.3f}" for name, value in measured.items())))
    say(f"wrote {folder}: config.json, model.safetensors, tokenizer.json\nreport  {report}\nrun     {run.folder}")


def learned(found: Any) -> dict[str, float]:
    """What a small model can do at the end."""
    from meta_icl.lm.texts import in_context_score

    return {
        "loss on held-out text": float(found["losses"][-1].mean()),
        "in-context score": float(in_context_score(found["losses"][-1:])[0]),
        "prefix matching": float(found["prefix"][-1].max()),
        "previous token": float(found["previous"][-1].max()),
    }


def figures(found: Any) -> dict[str, Any]:
    """The loss, the in-context score and the best heads while a model learned."""
    from meta_icl.lm.texts import in_context_score
    from meta_icl.plotting import Grid, Lines, Series

    steps, score = found["step"], in_context_score(found["losses"])
    heads = [Series(title, steps, found[name].max((1, 2)))
             for title, name in (("prefix matching", "prefix"), ("previous token", "previous"))]  # fmt: skip
    return {"training": Grid("While it learned", (
        Lines("Loss", "step", "nats per token", [Series("held-out text", steps, found["losses"].mean(1))]),
        Lines("In-context score", "step", "nats", [Series("held-out text", steps, score)]),
        Lines("Best heads", "step", "attention", heads)), 3)}  # fmt: skip
