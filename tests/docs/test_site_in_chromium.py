"""The pages of the site in Chromium, opened from their folder with the network blocked."""

import pytest
from chromium import SCHEMES, WIDTHS, barriers, eventually, logged, needs_chromium, overflow, show_at, started

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    with started() as driver:
        yield driver


def test_pages_fit_every_width_and_have_no_barrier(browser, site):
    """Of all pages; axe looks at each of them on a narrow light and on a wide dark screen."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        show_at(browser, WIDTHS[0])
        browser.get(path.as_uri())
        for scheme in SCHEMES:
            for width in WIDTHS:
                show_at(browser, width, scheme)
                eventually(lambda width=width: browser.execute_script("return innerWidth") == width)
                asked = (width, scheme) in ((WIDTHS[-1], "light"), (WIDTHS[0], "dark"))
                found[path.name, width, scheme] = overflow(browser) + (barriers(browser) if asked else [])
        found[path.name, "console", ""] = logged(browser)
    assert len(found) > 150
    assert {place: faults for place, faults in found.items() if faults} == {}


def test_the_search_finds_a_term(browser, site):
    show_at(browser, WIDTHS[0])
    browser.get(site.joinpath("search.html").as_uri() + "?q=ablation")
    eventually(lambda: "glossary.html" in browser.execute_script("return document.body.innerHTML"))
