"""The page: one HTML file that holds its styles, scripts, data and plotly, and that can reach no network.

A content security policy inside the file forbids every load, so that offline is enforced and not only intended.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import meta_icl
from meta_icl.apps.report.claims import claim_list, coded, comparison_table, prose
from meta_icl.apps.report.facts import facts_line, provenance_section
from meta_icl.errors import require
from meta_icl.plotting import Chart, tree, trees_on_common_axes
from meta_icl.plotting.theme import COLOURS, Scheme, marked_up
from meta_icl.runs import write_atomically

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)


SECTIONS = {"claims": "Claims", "figures-list": "Figures", "provenance": "Provenance"}


@dataclass(frozen=True, eq=False)
class Reported:
    """One run as a report shows it: claims of `meta_icl.runs.claims`, figures by name, provenance of a run folder."""

    title: str
    claims: Sequence[Any]
    figures: Mapping[str, Chart]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    intro: str = ""


def write_report(
    path: str | PathLike[str],
    *,
    title: str,
    claims: Sequence[Any],
    figures: Mapping[str, Chart],
    provenance: Mapping[str, Any],
    intro: str = "",
) -> None:
    """Write the report of one run as a single HTML file that works offline; the file is whole or not there.

    `claims` and their `checks` are those of `meta_icl.runs.claims`. `figures` are drawn in their order.
    `provenance` is that of a run folder and may also hold `preset` and `config`. `intro` is plain text whose blank
    lines part paragraphs and whose back-ticks mark code.
    """
    nodes = [(name, chart.title, chart.caption, tree(chart)) for name, chart in figures.items()]
    sections = [claim_list(claims) if claims else "", _figures(nodes), provenance_section([(title, provenance)])]
    header = _header("reproduction", title, facts_line(provenance), sections)
    _write(path, title, [header, _paragraphs(intro), *sections], [node for *_, node in nodes])


def write_comparison(path: str | PathLike[str], *, runs: Sequence[Reported], title: str = "Runs side by side") -> None:
    """Write one page for several runs: every claim with a column per run, every figure on axes common to the runs."""
    require(len(runs) > 0, "runs", list(runs), "at least one run")
    nodes: list[tuple[str, str, str, dict[str, Any]]] = []
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        having = [run for run in runs if name in run.figures]
        charts = [run.figures[name] for run in having]
        trees = trees_on_common_axes(charts)
        cells = [{"title": marked_up(run.title), "node": node} for run, node in zip(having, trees, strict=True)]
        grid = {"kind": "grid", "columns": min(2, len(cells)), "cells": cells}
        nodes.append((name, charts[0].title, charts[0].caption, grid))
    facts = "".join(f"<h3>{escape(run.title)}</h3>{facts_line(run.provenance)}" for run in runs)
    sections = [
        comparison_table([(run.title, run.claims) for run in runs]),
        _figures(nodes),
        provenance_section([(run.title, run.provenance) for run in runs]),
    ]
    header = _header("comparison", title, facts, sections)
    _write(path, title, [header, *sections], [node for *_, node in nodes])


def _write(path: str | PathLike[str], title: str, body: Sequence[str], nodes: Sequence[dict[str, Any]]) -> None:
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
</head>
<body>
<main>
{chr(10).join(part for part in body if part)}
</main>
<script type="application/json" id="figures">{_embedded(list(nodes))}</script>
<script>{_plotly()}</script>
<script>{_asset("report.js")}</script>
</body>
</html>
"""
    write_atomically(Path(path), page.encode("utf-8", "replace"))


def _header(kind: str, title: str, facts: str, sections: Sequence[str]) -> str:
    there = "".join(sections)
    links = [(target, name) for target, name in SECTIONS.items() if f'<section id="{target}"' in there]
    return f"""<header>
<div class="topline"><p class="eyebrow">meta_icl · {kind}</p>
<nav aria-label="sections">{"".join(f'<a href="#{target}">{name}</a>' for target, name in links)}</nav>
<button type="button" class="scheme" aria-label="switch between light and dark">◐</button></div>
<h1>{escape(title)}</h1>
{facts}
</header>"""


def _paragraphs(text: str) -> str:
    blocks = [re.sub(r"\s+", " ", block).strip() for block in re.split(r"\n\s*\n", text)]
    paragraphs = [f"<p>{_inline(block)}</p>" for block in blocks if block]
    return f'<section class="intro">{"".join(paragraphs)}</section>' if paragraphs else ""


def _inline(text: str) -> str:
    return re.sub(r"^([A-Z][a-z]+[.:])(?= )", r"<b>\1</b>", coded(escape(text)))  # the labels of a paper's docstring


def _figures(nodes: Sequence[tuple[str, str, str, dict[str, Any]]]) -> str:
    if not nodes:
        return ""
    figures = [
        f'<figure class="card" id="figure-{escape(name)}"><h3>{marked_up(title)}</h3>'
        f'<div class="mount" data-figure="{index}"></div>'
        + (f"<figcaption>{prose(caption)}</figcaption>" if caption else "")
        + "</figure>"
        for index, (name, title, caption, _) in enumerate(nodes)
    ]
    return f'<section id="figures-list"><h2>Figures</h2>{"".join(figures)}</section>'


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
    from plotly.offline import get_plotlyjs

    return re.sub(r"</(?=script)", r"<\\/", get_plotlyjs(), flags=re.IGNORECASE)
