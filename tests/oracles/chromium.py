"""Chromium as a judge of pages: with the network blocked, at any width, light or dark, and with axe-core.

Browser and driver are Debian's (`apt-get install chromium chromium-driver`), selenium is a package of Python, and
axe-core is one of npm (`npm install --prefix .cache axe-core`). What is not installed is not asked.
"""

import contextlib
import os
import shutil
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = Path(os.environ.get("META_ICL_AXE", ROOT / ".cache/node_modules/axe-core/axe.min.js"))
WAIT = 300  # seconds, of a machine that a dozen others use
SETTLED = 10  # seconds after which a page that draws itself again for another width has done so
WIDTHS, SCHEMES = (1400, 800, 400), ("light", "dark")
JUDGED = {(WIDTHS[-1], "light"), (WIDTHS[0], "dark")}  # where axe looks, which takes a second or more
BLOCKED = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
needs_chromium = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="apt-get install chromium chromium-driver"),
]
ASKED = """
const done = arguments[arguments.length - 1]
axe.run(document, { resultTypes: ["violations"], preload: false }).then(({ violations }) => done(
  violations.filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => `${one.id}: ${one.nodes.slice(0, 4).map((node) => node.target.join(" ")).join(" | ")}`)))
"""
WIDER = """
// What reaches beyond the right edge and does not stand in something that scrolls by itself, nor fills the screen.
function* all(root) {
  for (const e of root.querySelectorAll("*")) { yield e; if (e.shadowRoot) yield* all(e.shadowRoot) }
}
const sideways = (e) => e.scrollWidth > e.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
const filling = [...all(document.body)].filter((e) => e.clientWidth >= innerWidth - 16 && sideways(e))
if (filling.length) return filling.map((e) => `${e.className}: ${e.scrollWidth} > ${e.clientWidth}`)
const { clientWidth, scrollWidth } = document.documentElement
if (scrollWidth <= clientWidth) return []
const hidden = (e) => e && (getComputedStyle(e).overflowX !== "visible" || hidden(e.parentElement))
const found = [...document.body.querySelectorAll("*")].filter(
  (e) => e.getBoundingClientRect().right > clientWidth + 1 && !hidden(e.parentElement))
return [`${scrollWidth} > ${clientWidth}`, ...found.slice(0, 5).map((e) => e.outerHTML.slice(0, 80))]
"""


@contextlib.contextmanager
def started(downloads: Path | None = None):
    """A browser that reaches no network; at its end nothing that it would not log as an error may have happened."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000", BLOCKED):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(WAIT)
    driver.set_page_load_timeout(WAIT)
    try:
        yield driver
        errors = logged(driver)
        assert not errors, errors
    finally:
        driver.quit()


def logged(driver) -> list[str]:
    """Errors of the console since it was asked last."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def show_at(driver, width: int, scheme: str = "light", height: int = 1000) -> None:
    """From now on pages are as wide as this, and the system wishes this scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def overflow(driver) -> list[str]:
    """What makes the page wider than the screen."""
    return driver.execute_script(WIDER)


def barriers(driver) -> list[str]:
    """Serious and critical findings of axe-core; none where it is not installed."""
    if not AXE.exists():
        return []
    driver.execute_script(AXE.read_text("utf-8"))
    return driver.execute_async_script(ASKED)


def faults(driver, *, axe: bool = True) -> dict[tuple[int, str], list[str]]:
    """What is wrong with the open page, by width and scheme: overflow in all of them, barriers in two.

    Without `axe` pages are looked at in one scheme, since no width hangs on it. In the end the page is wide and light.
    """
    found = {}
    for scheme in SCHEMES if axe else SCHEMES[:1]:
        for width in WIDTHS:
            show_at(driver, width, scheme)
            eventually(lambda width=width: driver.execute_script("return innerWidth") == width)
            end = time.monotonic() + SETTLED
            while (wide := overflow(driver)) and time.monotonic() < end:
                time.sleep(0.2)
            found[width, scheme] = wide + (barriers(driver) if axe and (width, scheme) in JUDGED else [])
    show_at(driver, WIDTHS[0])
    return {place: told for place, told in found.items() if told}


def eventually(ask):
    """What a question answers once it is answered with something."""
    end = time.monotonic() + WAIT
    while not (found := ask()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.2)
    return found


class _Page(HTMLParser):
    """The anchors, the links and the kinds of elements of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: Counter[str] = Counter()
        self.links: list[str] = []
        self.kinds: set[tuple[str, str]] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.kinds.update((tag, name) for name in (given.get("class") or "").split() or [""])
        self.anchors.update([given["id"]] if given.get("id") else [])
        self.links += [value for name in ("href", "src") if (value := given.get(name))]


def kinds(text: str) -> set[tuple[str, str]]:
    """The kinds of elements that a page has: tag and class."""
    return _Page(text).kinds


def lost_links(folder: Path) -> list[str]:
    """Links of the pages in a folder that lead to no file or no anchor, and anchors that stand twice on a page."""
    pages = {path: _Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}
    lost = [f"{p.name} has #{name} {n} times" for p, page in pages.items() for name, n in page.anchors.items() if n > 1]
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or address.startswith("//"):
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            there = target in pages and (not anchor or unquote(anchor) in pages[target].anchors)
            if not (there if target.suffix == ".html" else target.exists()):
                lost.append(f"{path.relative_to(folder)}: {link}")
    return lost
