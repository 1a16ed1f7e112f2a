"""The documentation site: what is generated is complete and true to `results/`, and it builds without a warning."""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import chromium
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

import kept  # noqa: E402
import paper_pages  # noqa: E402
import readme  # noqa: E402
import reference  # noqa: E402
import rooms  # noqa: E402

PAPERS = kept.papers()


def test_the_readme_tells_what_is_kept():
    text = (ROOT / "README.md").read_text()
    assert readme.written(text) == text, "make readme"
    with pytest.raises(ValueError, match="must have the lines"):
        readme.written("no marks")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.short)
def test_findings_are_true_to_the_kept_verdicts(paper):
    """What a clause says holds or fails did so in the last run of `small` or, if it leaves that open, of a preset."""
    verdicts = {}
    others = (ROOT / "results").glob(f"{paper.name}-*")
    for folder in (*others, ROOT / "results" / paper.name):  # what `small` decides counts
        told = {claim["id"]: claim["verdict"] for claim in json.loads((folder / "claims.json").read_text())["claims"]}
        verdicts |= {id: verdict for id, verdict in told.items() if verdict in ("holds", "fails") or id not in verdicts}
    found = {name: verdicts.get(name) for name in paper.stated}  # what has not converged is open, too
    found = {name: "not decided" if verdict == "not converged" else verdict for name, verdict in found.items()}
    assert paper.stated and found == paper.stated


def test_what_a_finding_states():
    paper = kept.Paper("a2020_b", "", "", [], {}, "one (A-1, A-2), two (not A-3), three (open: A-4)", {}, [])
    expected = {"A-1": "holds", "A-2": "holds", "A-3": "fails", "A-4": "not decided"}
    assert paper.stated == {f"a2020/{name}": verdict for name, verdict in expected.items()}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.short)
def test_a_page_tells_all_claims_reasons_and_figures(paper):
    page = paper_pages.page(paper, "../..")
    for result in paper.results:
        for claim in result.claims:
            named = rf"\| (\[{claim.id.split('/')[1]}\]|{claim.id.split('/')[1]} )"
            assert re.search(named, page), claim.id
        for figure in result.figures:
            assert f"../../results/{result.folder.name}/figures/{figure.name}" in page
    assert all(f"`{preset}`" in page for preset in paper.times)


def test_every_claim_stands_once_on_the_page_across_papers():
    page = paper_pages.standing(PAPERS)
    ids = [claim.id for paper in PAPERS for claim in paper.results[0].claims]
    assert {name: page.count(f"[{name}](") for name in ids} == dict.fromkeys(ids, 1)
    assert sorted(name for names in paper_pages.THEMES.values() for name in names) == [p.short for p in PAPERS]


def test_the_drawing_of_rooms():
    chain = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert rooms.levels(chain) == {"c": 0, "b": 1, "a": 2}
    assert rooms.reduced(chain) == {"a": {"b"}, "b": {"c"}, "c": set()}
    with pytest.raises(ValueError, match="in a circle: a > b > a"):
        rooms.levels({"a": {"b"}, "b": {"a"}})
    _, edges = rooms.imports()
    places = rooms.placed(edges)
    assert all(places[room][1] < places[other][1] for room, others in edges.items() for other in others)
    assert {"models", "papers", "lm"} <= set(edges) and "prompt" in edges["models"] and "models" not in edges["runs"]
    drawn = ElementTree.fromstring(rooms.drawing())
    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert set(edges) <= texts


def test_every_room_with_public_names_has_a_page():
    """Papers are pages of their own, the applications are commands, and `torch` is the door of the adapters."""
    rooms_of_code = {path.parent.name for path in (ROOT / "src" / "meta_icl").glob("*/__init__.py")}
    assert rooms_of_code - {"adapters", "apps", "papers"} <= set(reference.ROOMS)
    page = reference.pages()["reference/evaluation.md"]
    assert "autofunction:: meta_icl.evaluation.compare" in page and "autoclass:: meta_icl.evaluation.Curves" in page


def cells(source: str) -> list[str]:
    """The code cells of a percent script."""
    found = re.split(r"^# %%", source, flags=re.MULTILINE)[1:]
    return [cell.partition("\n")[2].strip() for cell in found if not cell.startswith(" [markdown]")]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebooks_of_the_site_are_those_scripts_with_their_outputs(path):
    notebook = json.loads((ROOT / "docs" / "notebooks" / f"{path.stem}.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]).strip() for cell in code] == cells(path.read_text()), "make notebooks"
    assert any(cell["outputs"] for cell in code)
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_for_nothing_from_elsewhere(site):
    assert (site / ".nojekyll").exists()
    for page in site.rglob("*.html"):
        loads = re.findall(r'<(?:link|script|img|iframe)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', page.read_text())
        assert not loads, f"{page.name} loads {loads}"


@pytest.mark.slow
def test_every_link_of_the_site_lands(site):
    assert chromium.lost_links(site) == []


def test_a_lost_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="x"></p><p id="x"></p><a href="b.html#y">b</a><a href="#x">x</a><img src="c.png">'
    )
    (tmp_path / "b.html").write_text('<p id="y"></p><a href="a.html#z">a</a><a href="https://elsewhere.org">out</a>')
    assert sorted(chromium.lost_links(tmp_path)) == ["a.html has #x 2 times", "a.html: c.png", "b.html: a.html#z"]


def test_defaults_of_signatures_are_short():
    told = "(d: int, block: Block | None = Block(Attention(n=1), (1, 2)), norm: Norm = Norm(), at: tuple = (1, 2))"
    assert reference.folded(told) == "(d: int, block: Block | None = Block(…), norm: Norm = Norm(), at: tuple = (1, 2))"
