"""The pages of the site in Chromium, opened from their folder with the network blocked."""

from pathlib import Path

import pytest
from chromium import SCHEMES, WIDTHS, barriers, eventually, kinds, logged, needs_chromium, overflow, show_at, started

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
    """All pages are opened at every width; axe looks at representatives, narrow and light, and wide and dark."""
    pages, found = sorted(site.rglob("*.html")), {}
    assert len(pages) > 60
    asked = representatives(pages)
    assert len(asked) < 20
    for page in pages:
        name = str(page.relative_to(site))
        show_at(browser, WIDTHS[0])
        browser.get(page.as_uri())
        for width in WIDTHS:
            show_at(browser, width)
            eventually(lambda width=width: browser.execute_script("return innerWidth") == width)
            found[name, width] = overflow(browser)
        if page in asked:
            for width, scheme in zip((WIDTHS[-1], WIDTHS[0]), SCHEMES, strict=True):
                show_at(browser, width, scheme)
                eventually(lambda width=width: browser.execute_script("return innerWidth") == width)
                found[name, width, scheme] = barriers(browser)
        found[name, "console"] = logged(browser)
    assert {place: faults for place, faults in found.items() if faults} == {}


def test_the_search_finds_a_term(browser, site):
    show_at(browser, WIDTHS[0])
    browser.get(site.joinpath("search.html").as_uri() + "?q=ablation")
    eventually(lambda: "glossary.html" in browser.execute_script("return document.body.innerHTML"))
