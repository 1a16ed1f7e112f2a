"""The page: one HTML file that holds its styles, scripts, data and plotly, and that can reach no network.

The first screen is the story: what was asked, the answer, the figure that shows it. Then come the claims, each with the
figures that decide it, and last the settings and where the run comes from. A content security policy inside the file
forbids every load, so that offline is enforced and not only intended.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import meta_icl
from meta_icl.apps.report.claims import (
    SIGNS,
    anchor,
    claim_details,
    claim_table,
    coded,
    comparison_table,
    evidence,
    prose,
)
from meta_icl.apps.report.facts import facts_line, in_short, provenance_section
from meta_icl.apps.report.story import Story, asked, chapters, counted, figures_of, lead
from meta_icl.apps.report.tables import Table, plain_table
from meta_icl.errors import choose, require
from meta_icl.plotting import Chart, told, tree, trees_on_common_axes
from meta_icl.plotting.theme import COLOURS, Scheme, marked_up
from meta_icl.runs import write_atomically

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)
SECTIONS = {
    "claims": "Claims",
    "evidence": "Evidence",
    "tables": "Tables",
    "figures-list": "Figures",
    "settings": "Settings",
    "provenance": "Provenance",
}


@dataclass(frozen=True, eq=False)
class Reported:
    """One run as a report shows it: claims of `meta_icl.runs.claims`, figures by name, provenance of a run folder.

    `intro` is plain text whose blank lines part paragraphs and whose back-ticks mark code; its first paragraph says
    what was asked, the others belong to the settings. `story` replaces what is derived from them. `left_out` are the
    ids of claims that the run never tried and that the report does not show.
    """

    title: str
    claims: Sequence[Any] = ()
    figures: Mapping[str, Chart] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    intro: str = ""
    story: Story = field(default_factory=Story)
    tables: Sequence[Table] = ()
    left_out: Sequence[str] = ()
    kind: str = "reproduction"


@dataclass(frozen=True)
class Drawn:
    """A figure on the page: its names, the tree that is drawn, and where that stands in the data of the page."""

    name: str
    title: str
    caption: str
    node: Mapping[str, Any]
    index: int


def write_report(path: str | PathLike[str], **content: Any) -> None:
    """Write the report of one run, given as the fields of `Reported`, as a single HTML file that works offline.

    The file is whole or not there. `provenance` may also hold `preset` and `config`. Raises `BadInput` if the story
    names a figure that is not there.
    """
    run = Reported(**content)
    figures = {
        name: Drawn(name, chart.title, told(chart), tree(chart), i)
        for i, (name, chart) in enumerate(run.figures.items())
    }
    links, titles = figures_of(run.claims, run.figures), {name: drawn.title for name, drawn in figures.items()}
    question, rest = asked(run.intro)
    story, shown = _story(run, question, figures)
    sections = [
        claim_table(run.claims, links, titles) if run.claims else "",
        _evidence(run, figures, links, titles)
        if run.claims
        else _figures(drawn for name, drawn in figures.items() if name != shown),
        f'<section id="tables"><h2>Tables</h2>{"".join(map(plain_table, run.tables))}</section>' if run.tables else "",
        _settings(rest, run.provenance),
        provenance_section([(run.title, run.provenance)]),
    ]
    header = _header(run.kind, run.title, in_short(run.provenance), sections)
    _write(path, run.title, [header, story, *sections], [d.node for d in figures.values()])


def write_comparison(path: str | PathLike[str], *, runs: Sequence[Reported], title: str = "Runs side by side") -> None:
    """Write one page for several runs: every claim with a column per run, every figure on axes common to the runs."""
    require(len(runs) > 0, "runs", list(runs), "at least one run")
    figures: list[Drawn] = []
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        having = [run for run in runs if name in run.figures]
        charts = [run.figures[name] for run in having]
        trees = trees_on_common_axes(charts)
        cells = [{"title": marked_up(run.title), "node": node} for run, node in zip(having, trees, strict=True)]
        grid = {"kind": "grid", "columns": min(2, len(cells)), "cells": cells}
        figures.append(Drawn(name, charts[0].title, told(charts[0]), grid, len(figures)))
    facts = "".join(f"<h3>{escape(run.title)}</h3>{facts_line(run.provenance)}" for run in runs)
    sections = [
        comparison_table([(run.title, run.claims) for run in runs]),
        _figures(figures),
        f'<section id="settings"><h2>Settings</h2>{facts}</section>',
        provenance_section([(run.title, run.provenance) for run in runs]),
    ]
    header = _header("comparison", title, "", sections)
    _write(path, title, [header, *sections], [drawn.node for drawn in figures])


def _write(path: str | PathLike[str], title: str, body: Sequence[str], nodes: Sequence[Mapping[str, Any]]) -> None:
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="generator" content="meta_icl {meta_icl.__version__}">
<title>{escape(title)}</title>
<style>
{_variables()}
{_asset("report.css")}
</style>
<script>{_asset("theme.js")}</script>
</head>
<body>
<main>
{chr(10).join(part for part in body if part)}
</main>
<script type="application/json" id="figures">{_embedded(list(nodes))}</script>
<script type="application/gzip;base64" id="plotly">{_plotly()}</script>
<script>"use strict";
(() => {{
{_asset("measures.js")}
{_asset("report.js")}
{_asset("tools.js")}
}})();</script>
</body>
</html>
"""
    write_atomically(Path(path), page.encode("utf-8", "replace"))


def _header(kind: str, title: str, short: str, sections: Sequence[str]) -> str:
    there = "".join(sections)
    links = [(target, name) for target, name in SECTIONS.items() if f'<section id="{target}"' in there]
    return f"""<header>
<div class="topline"><p class="eyebrow">meta_icl · {escape(kind)}{short}</p>
<nav aria-label="sections">{"".join(f'<a href="#{target}">{name}</a>' for target, name in links)}</nav>
<button type="button" class="scheme" aria-label="switch between light and dark">◐</button></div>
<h1>{escape(title)}</h1>
</header>"""


def _story(run: Reported, question: str, figures: Mapping[str, Drawn]) -> tuple[str, str]:
    """What was asked, the answer, and the figure that shows it, as HTML; and the name of that figure.

    With claims the figure stands a second time, beside those that it decides.
    """
    claim, shown = lead(run.claims, run.figures)
    shown = choose("figure of the story", run.story.figure, figures) if run.story.figure else shown
    question = run.story.question or question
    parts = [f'<p class="asked"><b>Asked:</b> {prose(_line(question))}</p>' if question else ""]
    answer = run.story.answer or (counted(run.claims) if run.claims else "")
    parts += [f'<p class="answer">{prose(answer)}</p>' if answer else ""]
    if run.story.answer and run.claims:
        parts += [f'<p class="counted">{counted(run.claims)}</p>']
    if claim is not None:
        parts += [f'<p class="first">{evidence(claim)}</p>']
    if run.left_out:
        these = ", ".join(f'<span class="whole">{escape(id.rsplit("/", 1)[-1])}</span>' for id in run.left_out)
        parts += [f'<p class="left-out">Not tried at this size, and so not shown: {these}.</p>']
    words = "".join(parts)
    if not shown:
        return f'<section class="story">{words}</section>' if words else "", ""
    drawn = figures[shown]
    small = drawn.node["kind"] == "plot" or (
        drawn.node["kind"] == "slider" and all(frame["kind"] == "plot" for frame in drawn.node["frames"])
    )
    style = "story beside" if small and words else "story"
    figure = _figure(drawn, "lead" if run.claims else f"figure-{shown}", "", 2)
    return f'<section class="{style}"><div class="words">{words}</div>{figure}</section>', shown


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _settings(text: str, provenance: Mapping[str, Any]) -> str:
    """The remaining paragraphs of the introduction, and the facts of the run."""
    blocks = [_line(block) for block in re.split(r"\n\s*\n", text)]
    paragraphs = "".join(f"<p>{_inline(block)}</p>" for block in blocks if block)
    told_ = f'<div class="intro">{paragraphs}</div>' if paragraphs else ""
    facts = facts_line(provenance)
    return f'<section id="settings"><h2>Settings</h2>{facts}{told_}</section>' if facts or told_ else ""


def _inline(text: str) -> str:
    return re.sub(r"^([A-Z][a-z]+[.:])(?= )", r"<b>\1</b>", coded(escape(text)))  # the labels of a paper's docstring


def _evidence(
    run: Reported, figures: Mapping[str, Drawn], links: Mapping[str, Sequence[str]], titles: Mapping[str, str]
) -> str:
    """Chapter by chapter the claims with the figures that decide them."""
    parts = []
    for chapter in chapters(run.claims, run.figures):
        claims = claim_details(chapter.claims, links, titles) if chapter.claims else "<h3>Other figures</h3>"
        deciding = {name: [c for c in chapter.claims if name in links[c.id]] for name in chapter.figures}
        drawn = [_figure(figures[name], f"figure-{name}", _decided(deciding[name])) for name in chapter.figures]
        parts.append(f'<div class="chapter">{claims}{"".join(drawn)}</div>')
    return f'<section id="evidence"><h2>Evidence</h2>{"".join(parts)}</section>'


def _figures(figures: Iterable[Drawn]) -> str:
    drawn = "".join(_figure(figure, f"figure-{figure.name}", "") for figure in figures)
    return f'<section id="figures-list"><h2>Figures</h2>{drawn}</section>' if drawn else ""


def _decided(claims: Sequence[Any]) -> str:
    """Links back to the claims that a figure decides."""
    chips = " ".join(
        f'<a class="id" href="#{anchor(c.id)}">{SIGNS[c.verdict]} {escape(c.id.rsplit("/", 1)[-1])}</a>' for c in claims
    )
    return f'<p class="decides">Decides {chips}</p>' if claims else ""


def _figure(drawn: Drawn, id: str, decided: str, level: int = 3) -> str:
    """A figure that its heading names and its caption describes, with buttons that save it."""
    id, title = escape(id), marked_up(drawn.title)
    described = f' aria-describedby="{id}-caption"' if drawn.caption else ""
    caption = f'<figcaption id="{id}-caption">{prose(drawn.caption)}</figcaption>' if drawn.caption else ""
    words = escape(" ".join(part for part in (drawn.title + ".", drawn.caption) if part))
    save = "".join(
        f'<button type="button" data-save="{kind}" aria-label="save as {kind.upper()}: {escape(drawn.title)}">'
        f"{kind.upper()}</button>"
        for kind in ("svg", "png")
    )
    return (
        f'<figure class="card" id="{id}" aria-labelledby="{id}-title"{described}>'
        f'<h{level} id="{id}-title">{title}</h{level}>'
        f'<div class="mount" data-figure="{drawn.index}" data-name="{escape(drawn.name)}" data-words="{words}"></div>'
        f'{caption}<div class="foot">{decided}<p class="save">{save}</p></div></figure>'
    )


def _embedded(value: Any) -> str:
    """JSON that can stand inside a script element: no `<`, so no end tag and no comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _variables() -> str:
    """The theme's colours as CSS variables: light, dark by the system's wish, or as the reader chose on the page."""

    def block(scheme: Scheme) -> str:
        return "".join(f"--{name}:{value};" for name, value in COLOURS[scheme].items()) + f"color-scheme:{scheme};"

    return (
        f":root{{{block('light')}}}\n"
        f"@media (prefers-color-scheme: dark){{:root:not([data-scheme=light]){{{block('dark')}}}}}\n"
        f":root[data-scheme=dark]{{{block('dark')}}}"
    )


def _asset(name: str) -> str:
    return (resources.files("meta_icl.apps.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Plotly's script, compressed: a third of its size, and the text of the page is there before it is unpacked."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
