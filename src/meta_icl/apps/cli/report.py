"""`meta-icl report RUN [RUN ...]`: one self-contained HTML file of one run, or of several side by side."""

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from meta_icl.apps.cli import listing, own
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.which import find_run
from meta_icl.errors import BadInput
from meta_icl.runs import Claim, Run, default_root

EXAMPLES = (
    "rossi2024",
    "rossi2024_understanding_icl-smoke rossi2024_understanding_icl-small --out comparison.html",
    "first blocks --out both.html",
    "last --json",
)

SMOKE = " (preset smoke: that everything runs; its verdicts count for nothing)"


@dataclass(frozen=True)
class Options:
    """Write the report of a finished run from what is in its folder, or of several runs side by side."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """The runs (folder, name or the beginning of it, or last)."""
    out: Path | None = None
    """The file (default: report.html in the run's folder, or in the folder of the runs if there are several)."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="report", examples=EXAMPLES)
    if not options.runs:
        raise BadInput("report needs a run (see `meta-icl runs list`)")
    found = [find_run(name, options.root) for name in options.runs]
    told = [told_by(run) for run in found]
    if len(told) == 1:
        path = options.out or found[0].folder / "report.html"
        write(path, told[0])
    else:
        from meta_icl.apps.report import Reported, write_comparison

        path = options.out or options.root / "report.html"
        runs = [Reported(**(content | {"title": run.name})) for run, content in zip(found, told, strict=True)]
        write_comparison(path, runs=runs)
    if options.json:
        print_json({"report": path, "runs": [run.folder for run in found]})
    else:
        say(f"report  {path}")
    return 0


def told_by(run: Run, claims: Sequence[Claim] | None = None) -> dict[str, Any]:
    """What a report shows of a finished run: title, intro, claims, figures, provenance."""
    if not run.done:
        raise BadInput(f"run {run.folder} is not finished")
    provenance = run.provenance | {"preset": run.config.get("preset"), "config": run.config.get("config", run.config)}
    if run.config.get("command") == "train":
        return training(run) | {"title": run.name, "provenance": provenance}
    if run.config.get("command") == "sweep":
        from meta_icl.apps.cli.sweep_report import told

        return told(run) | {"title": run.name, "provenance": provenance}
    from meta_icl.apps.report import Story

    paper = paper_of(run)
    title, _, intro = (paper.__doc__ or run.name).strip().partition("\n")
    shown = run.load_claims() if claims is None else list(claims)
    # A demo is a first report: it shows what it decides, and names what it never tried.
    left_out = [c.id for c in shown if not c.checks] if run.config.get("preset") == "demo" else []
    return {
        "title": title.rstrip(".") + (SMOKE if run.config.get("preset") == "smoke" else ""),
        "intro": intro.strip(),
        "claims": [claim for claim in shown if claim.id not in left_out],
        "figures": paper.figures(run),
        "provenance": provenance,
        "story": Story(**paper.story(run)) if hasattr(paper, "story") and not run.config.get("claims") else Story(),
        "left_out": left_out,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the report of one run."""
    from meta_icl.apps.report import write_report

    write_report(path, **content)


def training(run: Run) -> dict[str, Any]:
    """What a report shows of a run of `meta-icl train`: learning curves over seeds for every point of its sweep."""
    from meta_icl.apps.cli.train import losses_by_point, summaries
    from meta_icl.apps.report import of_training

    parts = {name: part.config["arguments"] for name, part in run.parts().items()}
    results = {name: part.load_arrays("result") for name, part in run.parts().items()}
    curves = losses_by_point(parts, results)
    steps = next(iter(results.values()))["history/step"]
    shown = {label: (steps[len(steps) - len(losses) :], losses) for label, losses in curves.items()}
    return of_training(run.config, shown, summaries(parts, results))


def paper_of(run: Run) -> Any:
    """The module of the paper that a run reproduces."""
    name = run.config.get("paper")
    if not isinstance(name, str):
        raise BadInput(f"run {run.folder} is neither the reproduction of a paper nor a training")
    record = run.config.get("own")
    return own.again(record) if record else importlib.import_module(f"meta_icl.papers.{listing.find_paper(name)}")
