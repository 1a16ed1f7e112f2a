"""What stands in `results/`: real runs with provenance, told truly in its README."""

import importlib
import json
import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "results"
KEPT = sorted(path.parent for path in RESULTS.glob("*/claims.json"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_readme_tells_every_verdict(folder):
    """One row per claim, `| id | statement | verdict |`, with the verdict that follows from the measured numbers.

    A run that was asked for some claims, or that asks a language model, tells of those alone.
    """
    from meta_icl.runs.claims_json import claims_from_json

    page = (RESULTS / "README.md").read_text()
    table = page.split(f"\n## {folder.name}\n")[1].split("\n## ")[0]  # presets of one paper tell of the same claims
    rows = dict(re.findall(r"^\| (\S+/\S+) \|.*\| (holds|fails|not decided|not converged) \|$", table, re.M))
    paper = importlib.import_module(f"meta_icl.papers.{folder.name.split('-')[0]}")
    told = {id.split("/")[1] for id in rows}
    assert told and told <= set(paper.IDS)
    for claim in claims_from_json(json.loads((folder / "claims.json").read_text()), "results"):
        assert rows[claim.id] == claim.verdict


@pytest.mark.parametrize("name", sorted({folder.name.split("-")[0] for folder in KEPT}))
def test_no_claim_of_a_paper_is_left_out(name):
    """Every claim is told by the kept runs of its paper, all of them by one, decided or not."""
    kept = [json.loads(path.read_text())["claims"] for path in RESULTS.glob(f"{name}*/claims.json")]
    told = [{claim["id"].split("/")[1] for claim in claims} for claims in kept]
    assert set().union(*told) == set(importlib.import_module(f"meta_icl.papers.{name}").IDS)
    assert max(map(len, told)) == len(set().union(*told))


@pytest.mark.parametrize("name", sorted({folder.name.split("-")[0] for folder in KEPT}))
def test_every_failure_is_told_with_a_reason(name):
    """By the run's own note or by `reasons.toml` of the paper, which explains nothing that does not fail."""
    from meta_icl.apps.cli.listing import explained, reasons
    from meta_icl.runs.claims_json import claims_from_json

    known = reasons(Path(importlib.import_module(f"meta_icl.papers.{name}").__file__).parent)
    failed = [
        claim
        for path in RESULTS.glob(f"{name}*/claims.json")
        for claim in explained(claims_from_json(json.loads(path.read_text()), "results"), known)
        if claim.verdict == "fails"
    ]
    assert all(claim.note for claim in failed), [claim.id for claim in failed if not claim.note]
    assert set(known) <= {claim.id.split("/")[1] for claim in failed}


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_provenance_names_a_commit_of_a_finished_run(folder):
    provenance = json.loads((folder / "provenance.json").read_text())
    text = json.dumps(provenance)
    assert re.search(r'"commit": "[0-9a-f]{40}"', text)
    assert '"dirty": false' in text
    assert not re.search(r"/(root|tmp|work)/", text), "a path of the machine it ran on"
    assert list((folder / "figures").glob("*.svg"))
