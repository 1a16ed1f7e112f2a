"""Claims as HTML: the summary, the table of all, each with every check and seed, and the table that compares runs."""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from meta_icl.apps.report.tables import Cell, table
from meta_icl.plotting.theme import marked_up

# verdict -> colour of the theme
VERDICTS = {"holds": "holds", "fails": "fails", "not decided": "open", "not converged": "open"}
PLURALS = {"holds": "hold", "fails": "fail", "not decided": "not decided", "not converged": "not converged"}
SIGNS = {"holds": "✓", "fails": "✗", "not decided": "–", "not converged": "○"}
WIDTH, HEIGHT = 170, 26  # of the strip of seeds, in pixels


def claim_table(claims: Sequence[Any], links: Mapping[str, Sequence[str]], titles: Mapping[str, str]) -> str:
    """Summary, filter and one row per claim, with links to its checks and to the figures that decide it."""
    rows, data = [], []
    for claim in claims:
        good = sum(bool(check.holds) for check in claim.checks)
        drawn = ", ".join(f'<a href="#figure-{escape(name)}">{marked_up(titles[name])}</a>' for name in links[claim.id])
        rows.append(
            [
                Cell(chip(claim.verdict), claim.verdict),
                f'<a class="id" href="#{anchor(claim.id)}">{escape(claim.id)}</a>',
                prose(claim.statement),
                Cell(f"{good} of {len(claim.checks)}", good) if claim.checks else Cell("none", 0),
                drawn or "no figure",
            ]
        )
        data.append(f'class="row" data-verdict="{escape(claim.verdict)}"')
    head = ("verdict", "claim", "statement", "checks that hold", "decided in")
    return f"""<section id="claims"><h2>Claims</h2>
{summary(claims)}
<div class="filters" role="group" aria-label="show claims">{_filters(claims)}
<button type="button" class="expand" aria-pressed="false">open all</button></div>
{table("claims", head, rows, "overview", data)}</section>"""


def claim_details(claims: Sequence[Any], links: Mapping[str, Sequence[str]], titles: Mapping[str, str]) -> str:
    """Claims that unfold into their checks; those that fail stand open."""
    return f'<div class="claims">{"".join(_claim(claim, links[claim.id], titles) for claim in claims)}</div>'


def anchor(id: str) -> str:
    """The name of a claim's place on the page."""
    return "claim-" + re.sub(r"[^A-Za-z0-9.-]", "-", id)


def comparison_table(runs: Sequence[tuple[str, Sequence[Any]]], *, scripted: bool = True) -> str:
    """One row per claim, one column per run: verdict and median of the first checks."""
    by_run = [{claim.id: claim for claim in claims} for _, claims in runs]
    ids = dict.fromkeys(claim.id for _, claims in runs for claim in claims)
    if not ids:
        return ""
    rows = []
    for id in ids:
        claim = next(known[id] for known in by_run if id in known)
        cells = [Cell(_short(known[id]), known[id].verdict) if id in known else "—" for known in by_run]
        rows.append([f'<span class="id">{escape(id)}</span>', prose(claim.statement), *cells])
    head = ["id", "statement", *(title for title, _ in runs)]
    shown = table("claims by run", head, rows, "comparison", scripted=scripted)
    return f'<section id="claims"><h2>Claims</h2>{shown}</section>'


def chip(verdict: str) -> str:
    """A verdict as a coloured label with a sign, so that it does not rest on colour alone."""
    return f'<span class="chip {VERDICTS.get(verdict, "open")}">{SIGNS.get(verdict, "–")} {escape(verdict)}</span>'


def prose(text: str) -> str:
    """Text as HTML: sub- and superscripts, and what stands in back-ticks as code."""
    return coded(marked_up(text))


def coded(markup: str) -> str:
    """HTML in which what stands in back-ticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", markup)


def number(value: float) -> str:
    """Four significant digits; a true minus sign."""
    if math.isnan(value):
        return "NaN"
    return f"{value:.4g}".replace("inf", "∞").replace("-", "−")


def expected(check: Any) -> str:
    """What is expected, in words."""
    return str(getattr(check, "expected", None) or check.rule.text)


def measured(check: Any) -> str:
    """The median and, over several seeds, the spread."""
    text = getattr(check, "measured_text", None)
    if text is not None:
        return str(text).replace("-", "−").replace("e−", "e-")
    low, high = check.spread
    return number(check.median) + (f" [{number(low)}, {number(high)}]" if len(check.measured) > 1 else "")


def seed_strip(check: Any) -> str:
    """Every seed as a dot on a line, with the accepted interval shaded and the median as a tick.

    Seeds that did not converge are hollow.
    The scale is logarithmic where all numbers are positive and span more than a factor of 30.
    """
    values = [float(value) for value in check.measured]
    finite = [value for value in values if math.isfinite(value)]
    interval = getattr(check.rule, "interval", (-math.inf, math.inf))
    ends = [end for end in interval if math.isfinite(end)]
    shown = [*finite, *ends]
    if not finite:
        return '<span class="none">no number</span>'
    log = min(shown) > 0 and max(shown) / min(shown) > 30
    scale = math.log10 if log else float
    low, high = min(map(scale, shown)), max(map(scale, shown))
    margin = 0.12 * (high - low) or max(abs(high) * 0.1, 0.1)
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        if not math.isfinite(value):
            return 0.0 if value < 0 else float(WIDTH)
        if log and value <= 0:
            return 0.0
        return (scale(value) - low) / (high - low) * WIDTH

    start, end = place(interval[0]), place(interval[1])
    colour = VERDICTS[check.verdict]
    middle = HEIGHT / 2
    parts = [
        f'<rect class="accepted" x="{start:.1f}" width="{max(end - start, 2):.1f}" y="4" height="{HEIGHT - 8}"/>',
        f'<line class="base" x1="0" x2="{WIDTH}" y1="{middle}" y2="{middle}"/>',
        *(
            f'<circle class="{kind}" cx="{place(value):.1f}" cy="{middle}" r="3.4"/>'
            for value, kind in zip(values, _kinds(check), strict=True)
            if math.isfinite(value)
        ),
    ]
    if math.isfinite(check.median):
        x = place(check.median)
        parts.append(f'<line class="median {colour}" x1="{x:.1f}" x2="{x:.1f}" y1="3" y2="{HEIGHT - 3}"/>')
    if len(finite) < len(values):
        parts.append(f'<text x="{WIDTH}" y="10" text-anchor="end">{len(values) - len(finite)} not finite</text>')
    listed = ", ".join(number(value) for value in values)
    title = f"{len(values)} seed{'s' * (len(values) > 1)}: {listed}" + (" (logarithmic scale)" if log else "")
    title += "" if all(_count(check)) else f"; {_count(check).count(False)} not converged"
    return (
        f'<svg class="seeds" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _kinds(check: Any) -> list[str]:
    """For every seed whether it satisfies the rule by itself, or is left out since it did not converge."""
    accepted = ["holds" if check.rule.accepts(value) else "fails" for value in check.measured]
    return [kind if counts else "left-out" for kind, counts in zip(accepted, _count(check), strict=True)]


def _count(check: Any) -> Sequence[bool]:
    """For every seed whether it converged; without a guard all did."""
    return [True] * len(check.measured) if check.converged is None else check.converged.seeds


def evidence(claim: Any) -> str:
    """A claim in one line: verdict, statement and the first number that decides it so."""
    told = ""
    if claim.checks:
        check = next((check for check in claim.checks if check.verdict == claim.verdict), claim.checks[0])
        told = f" {prose(check.quantity)}: <b>{escape(measured(check))}</b>, expected {escape(expected(check))}."
    link = f'<a class="id" href="#{anchor(claim.id)}">{escape(claim.id)}</a>'
    return f"{chip(claim.verdict)} {link} {prose(claim.statement)}.{told}"


def _claim(claim: Any, drawn: Sequence[str], titles: Mapping[str, str]) -> str:
    checks = list(claim.checks)
    good = sum(bool(check.holds) for check in checks)
    counted = f"{good} of {len(checks)} check{'s' * (len(checks) != 1)}" if checks else ""
    remarks = "".join(
        f'<p class="remark"><b>{heading}:</b> {prose(text)}</p>' for heading, text in claim.remarks.items()
    )
    links = ", ".join(f'<a href="#figure-{escape(name)}">{marked_up(titles[name])}</a>' for name in drawn)
    remarks += f'<p class="remark"><b>Decided in:</b> {links}</p>' if links else ""
    state = " open" * (claim.verdict == "fails")
    return f"""<details class="claim" id="{anchor(claim.id)}" data-verdict="{escape(claim.verdict)}"{state}>
<summary>{chip(claim.verdict)}<span class="id">{escape(claim.id)}</span>
<span class="statement">{prose(claim.statement)}</span><span class="count">{counted}</span></summary>
<div class="evidence"><p class="source">Source: {prose(claim.source)}</p>{_checks(checks, claim.id)}{remarks}</div>
</details>"""


def _checks(checks: Sequence[Any], id: str) -> str:
    if not checks:
        return ""
    rows = [
        [
            Cell(f'<span class="{VERDICTS[check.verdict]}">{SIGNS[check.verdict]}</span>', check.verdict),
            prose(check.quantity),
            escape(expected(check)),
            Cell(f'<span class="number">{escape(measured(check))}</span>', check.median),
            Cell(seed_strip(check), "; ".join(str(value) for value in check.measured)),
        ]
        for check in checks
    ]
    head = ("(verdict)", "quantity", "expected", "measured: median [range over seeds]", "(value of every seed)")
    return table(f"checks of {id}", head, rows, "checks")


def _short(claim: Any) -> str:
    lines = "".join(
        f'<li title="{escape(check.quantity)}, expected {escape(expected(check))}">{escape(measured(check))}</li>'
        for check in claim.checks
    )
    return chip(claim.verdict) + (f'<ul class="medians">{lines}</ul>' if lines else "")


def _counts(claims: Sequence[Any]) -> dict[str, int]:
    return {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS}


def summary(claims: Sequence[Any]) -> str:
    counts = _counts(claims)
    parts = "".join(f'<i class="{VERDICTS[v]}" style="flex-grow:{n}"></i>' for v, n in counts.items() if n)
    words = "".join(
        f'<span class="{VERDICTS[verdict]}"><b>{n}</b> {verdict if n == 1 else PLURALS[verdict]}</span>'
        for verdict, n in counts.items()
        if n
    )
    return f'<div class="summary"><div class="bar" aria-hidden="true">{parts}</div><p>{words}</p></div>'


def _filters(claims: Sequence[Any]) -> str:
    options = [("all", len(claims)), *_counts(claims).items()]
    return "".join(
        f'<button type="button" data-show="{name}" aria-pressed="{"true" if name == "all" else "false"}">'
        f"{name} <b>{n}</b></button>"
        for name, n in options
        if n
    )
