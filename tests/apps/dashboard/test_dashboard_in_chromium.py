"""The dashboard in Chromium without a network, where browser, driver and selenium are installed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from chromium import eventually, faults, needs_chromium, started

from meta_icl.runs import Run

pytest.importorskip("panel")
pytestmark = needs_chromium
WALK = """
function* all(root) {
  for (const e of root.querySelectorAll("*")) { yield e; if (e.shadowRoot) yield* all(e.shadowRoot) }
}
const [text, selector] = arguments
for (const e of all(document)) if (e.matches(selector) && e.textContent.trim().startsWith(text)) return e
return null
"""
LEFT = "\ue012"  # the key that points left
SOURCES = """
const [column] = arguments, found = []
for (const model of Bokeh.documents[0]._all_models.values()) {
  if (model.type === "ColumnDataSource" && model.data[column]) found.push([...model.data[column]])
}
return found
"""
PLACE = """
// Where a point of the context stands on the screen, and where it is in the chart.
for (const view of Bokeh.index.roots ?? []) for (const one of walk(view)) {
  if (one.model.type !== "Figure" || !one.frame) continue
  const marks = one.model.renderers.filter((r) => r.glyph?.type === "Scatter" && r.data_source.data.x.length > 1)
  if (!marks.length) continue
  const data = marks[0].data_source.data, box = one.canvas_view.el.getBoundingClientRect()
  const x = one.frame.x_scale.compute(data.x[0]), y = one.frame.y_scale.compute(data.y[0])
  return [box.left + x, box.top + y, data.x[0], data.y[0]]
}
function* walk(view) { yield view; for (const child of view.child_views ?? []) yield* walk(child) }
return null
"""


@pytest.fixture
def server(tmp_path):
    """The address of a dashboard over the runs of a folder, ended as by Ctrl-C; it must end without a word."""
    command = [sys.executable, "-m", "meta_icl", "dashboard", "--port", "0", "--root", str(tmp_path / "runs")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "JAX_NUMPY_RANK_PROMOTION": "allow"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    first = process.stdout.readline()
    try:
        yield first.split()[1]
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[0]
        assert process.returncode == 0 and "Traceback" not in told, told
    finally:
        process.kill()


@pytest.fixture
def browser():
    with started() as driver:
        yield driver


def element(browser, text, selector):
    return eventually(lambda: browser.execute_script(WALK, text, selector))


def dragged(browser):
    """The place of the first point after it was pulled down; answers to what was asked before may put it back."""
    left, top = browser.execute_script(PLACE)[:2]
    mouse = pytest.importorskip("selenium.webdriver").ActionChains(browser)
    mouse.w3c_actions.pointer_action.move_to_location(int(left), int(top))
    mouse.click_and_hold().move_by_offset(0, 20).move_by_offset(0, 20).release().perform()
    time.sleep(1)
    return browser.execute_script(PLACE)


def test_runs_are_followed_and_the_playground_answers(server, browser, tmp_path):
    with Run.open(tmp_path / "runs" / "live", {}) as run:
        run.log({"step": 1, "loss": 0.5})
        browser.get(server)
        element(browser, "live", "span")
        eventually(lambda: [0.5] in browser.execute_script(SOURCES, "y"))
        run.log({"step": 2, "loss": 0.25})
        eventually(lambda: [0.5, 0.25] in browser.execute_script(SOURCES, "y"))
    assert faults(browser) == {}

    element(browser, "Playground", "button[role=tab]").click()
    element(browser, "at the query", "th")
    assert faults(browser) == {}
    element(browser, "layer 1, head 2", "button").click()
    element(browser, "network, whole", "span")
    element(browser, "layer 1, head 2", "button").click()
    eventually(lambda: browser.execute_script(WALK, "network, whole", "span") is None)

    before = browser.execute_script(SOURCES, "y")
    slider = element(browser, "", "input[aria-label='noise'], input[type=range]")
    slider.send_keys(LEFT * 5)
    eventually(lambda: browser.execute_script(SOURCES, "y") != before)

    x, y = eventually(lambda: browser.execute_script(PLACE))[2:]
    moved = eventually(lambda: (now := dragged(browser)) and abs(now[3] - y) > 1e-3 and now)
    assert moved[2] == pytest.approx(x, abs=0.1)
