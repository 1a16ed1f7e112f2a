"""A report in Chromium without a network: what can be pressed does what it says, at every width, light and dark."""

import base64
import csv
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from chromium import WIDTHS, eventually, faults, logged, needs_chromium, show_at, started

from meta_icl.apps.report import write_report
from meta_icl.apps.report.story import Story
from meta_icl.apps.report.tables import Table
from meta_icl.plotting import (
    Heatmaps,
    Lines,
    Panel,
    Series,
    attention_explorer,
    attention_film,
    gradient_animation,
    moving_task,
    weight_products,
)
from meta_icl.runs.claims import Check, Claim, at_most, relative, within

pytestmark = needs_chromium
STEPS, TOKENS = (0, 10, 100), ("x1", "l1", "q")
# Steps, prompts, layers, heads: each map looks at one key, and which one tells which map it is.
KEYS = np.indices((3, 2, 2, 2)).sum(0) % 3
MAPS = np.broadcast_to(np.eye(3)[KEYS][..., None, :], (3, 2, 2, 2, 3, 3))
ROWS = [["beta", 10, 0.5], ["alpha, with a comma", 9, 0.25], ["gamma", -1, 3.0]]
SENT = "document.querySelector(arguments[0]).dispatchEvent(new Event(arguments[1], { bubbles: true }))"
NEXT = """
// Whether all figures are drawn; if not, the next one comes to the screen, since they are drawn when they come near it.
const next = document.querySelector(".mount:not([data-mounted])")
if (next) next.scrollIntoView({ behavior: "instant" })
return !next
"""
HELD = """
// Whether every figure is drawn for the present width and stays within its place.
const all = (selector, holds) => [...document.querySelectorAll(selector)].every(holds)
return all(".mi-plot", (e) => Math.abs(e._fullLayout.width - e.clientWidth) <= 1)
  && all(".mount", (e) => e.scrollHeight <= e.clientHeight + 1)
"""
CLIPBOARD = """
window.copied = []
Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => copied.push(text) } })
"""
HEADINGS = "return [...document.querySelectorAll('#figure-film .mi-plot')].map((e) => e.data[0].z ?? e.layout.shapes)"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    curve = Lines("Loss of training (Fig. 1)", "step", "loss", [Series("mine", STEPS, [1.0, 0.5, 0.1])])
    figures = {
        "curve": curve,
        "film": attention_film(STEPS, MAPS[:, 0], curve, labels=TOKENS, decides=("a2020/2",)),
        "explorer": attention_explorer(MAPS, steps=STEPS, prompts=(TOKENS, ("a", "b", "c"))),
        "weights": weight_products({"W_Q W_K^T": np.eye(3)}),
        "map": Heatmaps("A map", (Panel("one", np.arange(9.0).reshape(3, 3) - 4),)),
        "moving": moving_task(np.eye(2), np.eye(2), rate=1.0),
        "arrows": gradient_animation([0, 1], np.ones((2, 6, 2)), np.ones((6, 2))),
    }
    claims = [
        Claim("a2020/1", "The loss falls", "Fig. 1", (Check("loss", at_most(0.2), (0.1, 0.12, 0.3)),)),
        Claim("a2020/2", "A head forms", "Fig. 2", (Check("score", relative(1.0, 0.1), (0.5,)),), note="too few steps"),
        Claim("a2020/3", "It lasts", "Tab. 1", undecided="needs the preset `paper`"),
        Claim("a2020/10", "It is large", "Tab. 2", (Check("size", within(1, 3), (2.0,)),)),
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    provenance = {
        "code": {"version": "0.1.0", "commit": "0123456789abcdef"},
        "devices": ["cpu: cpu"],
        "preset": "small",
    }
    write_report(
        path,
        title="What a small network learns",
        claims=claims,
        figures=figures,
        provenance=provenance | {"config": {"seeds": 3, "a_long_name_of_a_field": list(range(40))}},
        intro="Does the loss fall?\n\nSetting. As `published`.",
        story=Story(answer="It falls to 0.1."),
        tables=[Table("Losses", ["name", "rank", "loss"], ROWS)],
    )
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def opened(saved, report):
    """The report, wide and light, with all figures drawn."""
    with started(saved) as driver:
        show_at(driver, WIDTHS[0])
        driver.get(report.as_uri())
        eventually(lambda: driver.execute_script("return document.documentElement.dataset.ready"))
        eventually(lambda: driver.execute_script(NEXT))
        yield driver


@pytest.fixture
def page(opened):
    """The same for every test; nothing may go wrong on it."""
    show_at(opened, WIDTHS[0])
    yield opened
    assert opened.execute_script("return [...document.querySelectorAll('.failed')].map((e) => e.textContent)") == []
    assert logged(opened) == []


def find(page, selector):
    return page.find_element("css selector", selector)


def press(page, selector):
    """Click on something; again where the page still moved under the mouse, as on a busy machine."""
    from selenium.common.exceptions import ElementClickInterceptedException

    def pressed():
        page.execute_script(
            "arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })", find(page, selector)
        )
        try:
            find(page, selector).click()
        except ElementClickInterceptedException:
            return False
        return True

    eventually(pressed)


def move(page, selector, value):
    """A range is moved to a place, as by the reader."""
    page.execute_script("document.querySelector(arguments[0]).value = arguments[1]", selector, value)
    page.execute_script(SENT, selector, "input")


def test_no_width_and_no_scheme_has_an_overflow_or_a_barrier(page):
    press(page, ".expand")
    assert faults(page) == {}
    eventually(lambda: page.execute_script(HELD))


def test_the_explorer_shows_the_map_that_is_chosen(page):
    def looked_at(prompt, layer, head, step):
        for name, value in (("prompt", prompt), ("layer", layer), ("head", head)):
            selector = f"#figure-explorer select[data-set={name}]"
            page.execute_script("document.querySelector(arguments[0]).value = arguments[1]", selector, str(value))
            page.execute_script(SENT, selector, "change")
        move(page, "#figure-explorer input", step)
        return find(page, "#figure-explorer output").text, find(page, "#figure-explorer .mi-looks li").text

    for step, prompt, layer, head in np.ndindex(KEYS.shape):
        where, told = looked_at(prompt, layer, head, step)
        key = KEYS[step, prompt, layer, head]
        tokens = TOKENS if prompt == 0 else ("a", "b", "c")
        assert where == f"step {STEPS[step]}" and f"looks at {tokens[key]} (column {key + 1}): 1.00" in told
    find(page, "#figure-explorer svg").send_keys("\ue013")  # the key that points up
    assert "(row 2) looks at" in find(page, "#figure-explorer .mi-looks li").text


def test_the_film_goes_to_the_step_of_its_slider(page):
    def shown():
        maps = [e for e in page.execute_script(HEADINGS) if e and isinstance(e[0], list)]
        return np.array(maps), find(page, "#figure-film output").text

    for step in (0, 2, 1):
        move(page, "#figure-film input[type=range]", step)
        maps, told = shown()
        assert told == str(STEPS[step])
        np.testing.assert_allclose(maps, MAPS[step, 0].reshape(4, 3, 3))
    press(page, "#figure-film [aria-label='next value']")
    assert shown()[1] == "100"


def test_dragging_a_range_of_the_moving_task_moves_its_answer(page):
    before = find(page, "#figure-moving .mi-readout").text
    move(page, "#figure-moving input[type=range]", "0.9")
    assert find(page, "#figure-moving .mi-readout").text != before


def test_tables_are_sorted_and_copied(page):
    head = "#tables th:nth-child({}) button"

    def column(n):
        return [cell.text for cell in page.find_elements("css selector", f"#tables tbody td:nth-child({n})")]

    press(page, head.format(2))
    assert column(2) == ["−1", "9", "10"] or column(2) == ["-1", "9", "10"]
    press(page, head.format(2))
    assert column(1) == ["beta", "alpha, with a comma", "gamma"]
    assert find(page, "#tables th:nth-child(2)").get_attribute("aria-sort") == "descending"
    press(page, head.format(1))
    # What is copied is read where the page would hand it to the system.
    page.execute_script(CLIPBOARD)
    press(page, "#tables [data-csv]")
    (text,) = eventually(lambda: page.execute_script("return copied"))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["name", "rank", "loss"]
    assert [[name, float(rank), float(loss)] for name, rank, loss in rows[1:]] == [ROWS[1], ROWS[0], ROWS[2]]


def test_every_figure_is_saved_as_svg_and_png(page, saved):
    for name in ("curve", "film", "explorer", "weights", "map", "moving", "arrows"):
        for kind in ("svg", "png"):
            press(page, f"#figure-{name} [data-save={kind}]")
            path = saved / f"{name}.{kind}"
            eventually(lambda path=path: path.exists() and path.stat().st_size > 500)
        drawn = ElementTree.parse(saved / f"{name}.svg").getroot()
        shapes = {element.tag.rpartition("}")[2] for element in drawn.iter()}
        assert shapes & {"path", "rect", "circle", "line"} and (name != "film" or "linearGradient" in shapes)
        data = (saved / f"{name}.png").read_bytes()
        size = [int.from_bytes(data[at : at + 4]) for at in (16, 20)]
        wanted = [2 * float(drawn.get("width")), 2 * float(drawn.get("height"))]
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and size == pytest.approx(wanted, abs=2)


def test_the_scheme_stays_when_the_page_is_opened_again(page, report):
    def ground():
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = ground()
    press(page, ".scheme")
    dark = ground()
    assert dark != light
    page.get(report.as_uri())
    assert ground() == dark
    eventually(lambda: page.execute_script("return document.documentElement.dataset.ready"))
    press(page, ".scheme")
    assert ground() == light
    eventually(lambda: page.execute_script(NEXT))


def test_every_link_lands_on_the_screen(page):
    links = page.execute_script(
        "return [...new Set([...document.querySelectorAll('a')].map((a) => a.getAttribute('href')))]"
    )
    assert len(links) > 6 and all(link.startswith("#") for link in links)
    for link in links:
        page.execute_script("location.hash = ''; window.scrollTo({ top: 0, behavior: 'instant' })")
        page.execute_script("location.hash = arguments[0]", link)
        top = "return document.getElementById(location.hash.slice(1)).getBoundingClientRect().top"
        eventually(lambda top=top: -5 < page.execute_script(top) < 900)


def test_filters_show_the_claims_of_a_verdict(page):
    press(page, ".filters [data-show=fails]")
    seen = page.execute_script(
        "return [...document.querySelectorAll('.overview .row')].filter((e) => !e.hidden).map((e) => e.textContent)"
    )
    assert len(seen) == 1 and "A head forms" in seen[0]
    press(page, ".filters [data-show=all]")


def test_print_has_all_claims_open_and_all_figures(page):
    paper = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert paper.startswith(b"%PDF") and 2 <= paper.count(b"/Type /Page\n") <= 14
    opened = page.execute_script("return [...document.querySelectorAll('details.claim')].map((e) => e.open)")
    assert opened and all(opened)
