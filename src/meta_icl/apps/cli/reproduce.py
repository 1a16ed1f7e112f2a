"""`meta-icl reproduce PAPER`: train, measure, judge the claims, write the report."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from meta_icl.apps.cli import listing, report, results, tables
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.spec import replaced
from meta_icl.errors import choose, require
from meta_icl.runs import Claim, Run, default_root, reused
from meta_icl.runs.claims_json import claims_to_json
from meta_icl.runs.config import parts_in
from meta_icl.runs.provenance import code
from meta_icl.runs.query import named_run
from meta_icl.sweeps import compile_soon, compute_like_a_worker, use_compilation_cache
from meta_icl.sweeps.environment import AT_ONCE, SOON

BRIEF = {"smoke": AT_ONCE, "demo": SOON}  # presets that wait for compilation more than for training
EXAMPLES = (
    "rossi2024",
    "rossi2024 --preset smoke",
    "vonoswald2022 --seeds 5 --claims VO-1 VO-2 --details --strict",
    "rossi2024 --set steps=2000 batch=256 --workers 2",
    "./my_paper --preset small",
)


@dataclass(frozen=True)
class Options:
    """Train, measure and judge the claims of a paper; print the claim table and write report.html in the run folder.

    The same command again continues an interrupted run and shows a finished one at once.
    """

    paper: tyro.conf.Positional[str]
    """Name of the paper, its beginning, or a word of its topic and the year (`titans2025`; see `meta-icl papers`); your
    own as ./file.py, ./folder or package:module."""
    preset: str = "small"
    """Size of the experiments."""
    seeds: int | None = None
    """Number of seeds, instead of the preset's."""
    set: tuple[str, ...] = ()
    """Fields of the preset to change, as field=value."""
    claims: tuple[str, ...] = ()
    """Ids of the claims to show (default: all); a paper that says what they need trains no more than that."""
    details: bool = False
    """Also print the checks of every claim, expected and measured."""
    strict: bool = False
    """Exit with status 1 if a claim fails."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    workers: int | None = None
    """Worker processes (default: one per core; 0: train in this process)."""
    reuse: tuple[str, ...] = ()
    """Runs, or the beginnings of their names, whose finished parts are taken over where they are the same, whatever
    code made them. Runs of the same preset asked for other claims lend theirs by themselves, if this code made them."""
    results: Path | None = None
    """Also keep claims, provenance and figures in this folder, by paper and preset, and tell of them in its README."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="reproduce", examples=EXAMPLES)
    require(options.workers is None or options.workers >= 0, "--workers", options.workers, "zero or more")
    if options.workers is not None:
        os.environ["META_ICL_WORKERS"] = str(options.workers)
    use_compilation_cache()
    if options.preset in BRIEF:
        compile_soon(BRIEF[options.preset])
    compute_like_a_worker()
    name, paper, record = listing.load_paper(options.paper)
    config = configured(paper, options)
    ids = asked_for(paper, options.claims)
    file = Path(paper.__file__)
    known = listing.reasons(file.parent) if file.stem == "__init__" else {}
    described = {"paper": name, "preset": options.preset, "config": config} | ({"own": record} if record else {})
    needed = needed_by(paper, ids, config)
    lenders = [named_run(run, options.root) for run in options.reuse]
    if needed is not None:  # another run than one of everything
        described |= {"claims": ids, "experiments": needed}
    with Run.open(options.root, described, name=f"{name}-{options.preset}") as run:
        if not run.done:
            if told := made_before(run):
                print(told, file=sys.stderr)
            run.begin_again()
            run.lenders = tuple(lenders)
            paper.run(config, run)
            for lender in lenders:
                if not reused(run).keys() & parts_in(lender).keys():
                    told = f"nothing reused from {lender}: it has finished no part that this run needed"
                    print(told, file=sys.stderr)
            run.finish()
        judged = [claim for claim in paper.claims(run) if needed is None or claim.id.rpartition("/")[2] in ids]
        claims = listing.explained(judged, known)
        run.save_claims(judged)  # reasons are known from other runs, and may be worded anew
        content = report.told_by(run, claims)
        path = run.folder / "report.html"
        report.write(path, content)
        if options.results is not None:
            results.keep(run, content["figures"], results.folder_of(options.results, name, options.preset))
            results.write_page(options.results)
    require(len(claims) > 0 or not paper.IDS, "claims", [], f"some of {', '.join(paper.IDS)}; the run is kept")
    shown = chosen(claims, options.claims)
    if options.json:
        print_json({"run": run.folder, "report": path, **claims_to_json(shown)})
    else:
        tables.show(tables.claim_table(f"{name}, preset {options.preset}", shown))
        if options.details:
            print(tables.claim_details(shown))
        if options.preset == "smoke":
            say(
                "smoke   shows that everything runs; trained so little, its verdicts count for nothing (--preset small)"
            )
        say(f"run     {run.folder}\nreport  {path}")
    return 1 if options.strict and any(claim.verdict == "fails" for claim in shown) else 0


def made_before(run: Run) -> str:
    """What a run that goes on holds of other code than this, in words: it is kept, and bits may depend on it."""
    made = [part.provenance["code"] for part in run.parts().values() if part.done]
    others = [str(one.get("commit", one["version"]))[:10] for one in made if one != code()]
    by = ", ".join(sorted(set(others)))
    return f"parts   {len(others)} of {len(made)} that are done were made by other code ({by})" if others else ""


def asked_for(paper: Any, ids: Sequence[str]) -> list[str]:
    """The ids of claims, without the paper's name in front; a wrong one is told long before the claims are there."""
    return [choose("claim", id.rpartition("/")[2], paper.IDS) for id in ids]


def needed_by(paper: Any, ids: Sequence[str], config: Any) -> list[str] | None:
    """The parts that the claims asked for need, as patterns, if the paper says so (`NEEDS`); `None` for all of them.

    It says so of its trainings; a preset of another kind, which asks a language model, has parts of its own.
    """
    needs = getattr(paper, "NEEDS", {})
    if not ids or not all(id in needs for id in ids) or type(config) is not type(next(iter(paper.PRESETS.values()))):
        return None
    return sorted({pattern for id in ids for pattern in needs[id]})


def configured(paper: Any, options: Options) -> Any:
    """The preset with the changes that were asked for."""
    config = paper.PRESETS[choose("preset", options.preset, paper.PRESETS)]
    if options.seeds is not None:
        require(options.seeds >= 1, "--seeds", options.seeds, "a positive integer")
        config = replaced(config, [f"seeds={options.seeds}"])
    changed = replaced(config, options.set)
    for field in dataclasses.fields(changed):
        value, before = getattr(changed, field.name), getattr(config, field.name)
        least = min([1, *_integers(before)])  # sizes: what no preset has zero of cannot be zero
        allowed = f"{'integers' if isinstance(value, tuple) else 'an integer'} of at least {least}"
        require(all(n >= least for n in _integers(value)), field.name, value, allowed)
    return changed


def _integers(value: Any) -> list[int]:
    """The integers in a value of a configuration, however deep in tuples."""
    if isinstance(value, tuple):
        return [n for item in value for n in _integers(item)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def chosen(claims: Sequence[Claim], ids: Sequence[str]) -> list[Claim]:
    """The claims of the given ids, with or without the paper's name in front."""
    if not ids:
        return list(claims)
    known = {claim.id.rsplit("/", 1)[-1]: claim for claim in claims} | {claim.id: claim for claim in claims}
    return [known[choose("claim", id, known)] for id in ids]
