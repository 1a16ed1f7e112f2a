"""The pages of the site in Chromium, opened from their folder with the network blocked."""

from pathlib import Path

import pytest
from chromium import WIDTHS, eventually, faults, kinds, logged, needs_chromium, show_at, started

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    with started() as driver:
        yield driver


def representatives(pages: list[Path]) -> list[Path]:
    """Few pages that between them have every kind of element that any of the pages has."""
    has = {page: kinds(page.read_text("utf-8")) for page in pages}
    left, chosen = set().union(*has.values()), []
    while left:
        chosen.append(max(pages, key=lambda page: (len(has[page] & left), -page.stat().st_size)))
        left -= has[chosen[-1]]
    return chosen


def test_representatives_have_every_kind_of_element(tmp_path):
    for name, text in (("a", "<p>"), ("b", '<p><b class="x y">'), ("c", '<b class="x">'), ("d", '<b class="z">')):
        (tmp_path / name).write_text(text)
    assert {page.name for page in representatives(sorted(tmp_path.iterdir()))} == {"b", "d"}


def test_pages_fit_every_width_and_have_no_barrier(browser, site):
    """All pages are opened, at every width; axe looks at representatives."""
    pages, found = sorted(site.rglob("*.html")), {}
    assert len(pages) > 60
    asked = representatives(pages)
    assert len(asked) < 20
    for page in pages:
        browser.get(page.as_uri())
        found[str(page.relative_to(site))] = faults(browser, axe=page in asked), logged(browser)
    assert {name: told for name, told in found.items() if any(told)} == {}


def test_the_search_finds_a_term(browser, site):
    show_at(browser, WIDTHS[0])
    browser.get(site.joinpath("search.html").as_uri() + "?q=ablation")
    eventually(lambda: "glossary.html" in browser.execute_script("return document.body.innerHTML"))
