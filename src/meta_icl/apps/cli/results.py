"""Kept results: what of a run is worth keeping under version control, and the page that tells of all of them."""

import importlib.resources
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meta_icl.apps.cli import listing
from meta_icl.runs import Claim, Run, read_json, reused, write_atomically
from meta_icl.runs.judged import read_claims

INTRODUCTION = """# Results

The last real run of every paper, as it came out: claims that fail stay. The preset is `small` where a name ends with
no other. `claims.json` holds all checks with the measured value of every seed; `provenance.json` the commits, versions
and times; `config.json` is what was asked for. `meta-icl reproduce PAPER --results results` makes them again, and this
page. A claim is "not decided" where the preset cannot say, and "not converged" where too few seeds reached what their
training aims at: then what they measured is recorded, not judged. Of several seeds the median decides, of those that
converged where a claim says what that is.
"""


def folder_of(results: Path, paper: str, preset: str) -> Path:
    """Where the run of a paper is kept: under its name, with that of the preset unless it is `small`."""
    return results / (paper if preset == "small" else f"{paper}-{preset}")


def keep(run: Run, figures: Mapping[str, Any], folder: Path) -> None:
    """Copy claims, configuration, provenance and small figures of a run into `folder`."""
    from meta_icl.plotting import save

    for name in ("claims.json", "config.json"):
        write_atomically(folder / name, (run.folder / name).read_bytes())
    provenance = dict(run.provenance)
    # Where the run stood is of no interest to others; what was asked for is in config.json.
    starts = [{key: value for key, value in start.items() if key != "command"} for start in provenance["starts"]]
    commits = {name: part.provenance["code"].get("commit") for name, part in run.parts().items()}
    seconds = {name: run.part(name).provenance["wall_seconds"] for name in reused(run)}
    kept = provenance | {"starts": starts, "commits_of_parts": commits, "seconds_of_reused_parts": seconds}
    write_atomically(folder / "provenance.json", json.dumps(kept, indent=2).encode())
    for name, chart in figures.items():
        save(chart, folder / "figures" / f"{name}.svg")


def write_page(folder: Path) -> None:
    """Write README.md: every kept claim with its verdict, and of those that fail what was measured."""
    sections = [INTRODUCTION, *(_section(path.parent) for path in sorted(folder.glob("*/claims.json")))]
    write_atomically(folder / "README.md", ("\n".join(sections).rstrip() + "\n").encode())


def write_short(folder: Path, file: Path) -> None:
    """Write the short form of all kept results that the installed command tells: a claim per line."""
    lines = []
    for name, told in listing.kept(folder).items():
        claims = ",\n".join(f"      {json.dumps(claim, ensure_ascii=False)}" for claim in told["claims"])
        head = f'"commit": {json.dumps(told["commit"])}, "seconds": {json.dumps(told["seconds"])}'
        lines.append(f'  {json.dumps(name)}: {{\n    {head},\n    "claims": [\n{claims}\n    ]\n  }}')
    write_atomically(file, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _section(folder: Path) -> str:
    paper = Path(str(importlib.resources.files("meta_icl.papers"))) / folder.name.partition("-")[0]
    claims = listing.explained(read_claims(folder), listing.reasons(paper))
    provenance = read_json(folder / "provenance.json")
    counts = Counter(claim.verdict for claim in claims)
    verdicts = f"{counts['holds']} hold, {counts['fails']} fail, {counts['not decided']} not decided"
    if counts["not converged"]:
        verdicts += f", {counts['not converged']} not converged"
    commit, minutes = str(provenance["code"].get("commit"))[:10], provenance["wall_seconds"] / 60
    times = f"{minutes:.0f} minutes"
    if lent := provenance.get("seconds_of_reused_parts"):
        commits = sorted({str(provenance["commits_of_parts"][name])[:10] for name in lent})
        earlier = " and ".join(f"`{one}`" for one in commits)
        several = f"{len(lent)} of {len(provenance['commits_of_parts'])} parts"
        times += f"; {several} reused from runs of {earlier}, {sum(lent.values()) / 60:.0f} minutes"
    drawn = sorted((folder / "figures").glob("*.svg"))
    links = ", ".join(f"[{path.stem.replace('_', ' ')}]({folder.name}/figures/{path.name})" for path in drawn)
    rows = [f"| {claim.id} | {_told(claim)} | {claim.verdict} |" for claim in claims]
    head = [f"## {folder.name}", "", f"{verdicts}; commit `{commit}`, {times}.", "", f"Figures: {links}."]
    return "\n".join([*head, "", "| claim | statement, and what missed | verdict |", "|---|---|---|", *rows, ""])


def _told(claim: Claim) -> str:
    """The statement, with the first checks that miss and why, or why nothing is decided, and what was revised."""
    text = claim.statement
    missed = [check for check in claim.checks if check.verdict == "fails"] if claim.verdict == "fails" else []
    if missed:
        told = [f"{check.quantity}: expected {check.expected}, measured {check.measured_text}" for check in missed[:3]]
        text += " -- missed: " + "; ".join(told) + ("; ..." if len(missed) > 3 else "")
    if claim.undecided:
        text += f" -- {claim.undecided}"
    short = [guard for guard in claim.guards if not all(guard.seeds)]
    if short and not claim.undecided:
        text += " -- " + "; ".join(guard.text for guard in short[:3]) + ("; ..." if len(short) > 3 else "")
    if claim.verdict == "fails" and claim.note:
        text += f" -- why: {claim.note}"
    if claim.revised:
        text += f" -- revised: {claim.revised}"
    return text.replace("|", "\\|")  # a bar would end the cell


if __name__ == "__main__":  # `make verdicts`
    write_short(Path(sys.argv[1]), Path(sys.argv[2]))
