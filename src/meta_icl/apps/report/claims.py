"""Claims as HTML: the summary, the list with every check and seed, and the table that compares runs."""

import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from meta_icl.plotting.theme import marked_up

# verdict -> colour of the theme
VERDICTS = {"holds": "holds", "fails": "fails", "not decided": "open", "not converged": "open"}
PLURALS = {"holds": "hold", "fails": "fail", "not decided": "not decided", "not converged": "not converged"}
SIGNS = {"holds": "✓", "fails": "✗", "not decided": "–", "not converged": "○"}
WIDTH, HEIGHT = 170, 26  # of the strip of seeds, in pixels


def claim_list(claims: Sequence[Any]) -> str:
    """Summary, filter and all claims; those that fail stand open."""
    rows = "\n".join(_claim(claim) for claim in claims)
    return f"""<section id="claims"><h2>Claims</h2>
{_summary(claims)}
<div class="filters" role="group" aria-label="show claims">{_filters(claims)}
<button type="button" class="expand" aria-pressed="false">open all</button></div>
<div class="claims">{rows}</div></section>"""


def comparison_table(runs: Sequence[tuple[str, Sequence[Any]]]) -> str:
    """One row per claim, one column per run: verdict and median of the first checks."""
    by_run = [{claim.id: claim for claim in claims} for _, claims in runs]
    ids = dict.fromkeys(claim.id for _, claims in runs for claim in claims)
    if not ids:
        return ""
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in runs)
    rows = []
    for id in ids:
        claim = next(known[id] for known in by_run if id in known)
        cells = "".join(f"<td>{_short(known[id]) if id in known else '—'}</td>" for known in by_run)
        rows.append(f'<tr><td class="id">{escape(id)}</td><td>{prose(claim.statement)}</td>{cells}</tr>')
    return f"""<section id="claims"><h2>Claims</h2><div class="scroll"><table class="comparison">
<thead><tr><th>id</th><th>statement</th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


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
        f'<svg class="seeds" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _kinds(check: Any) -> list[str]:
    """For every seed whether it satisfies the rule by itself, or is left out since it did not converge."""
    accepted = ["holds" if check.rule.accepts(value) else "fails" for value in check.measured]
    return [kind if counts else "left-out" for kind, counts in zip(accepted, _count(check), strict=True)]


def _count(check: Any) -> Sequence[bool]:
    """For every seed whether it converged; without a guard all did."""
    return [True] * len(check.measured) if check.converged is None else check.converged.seeds


def _claim(claim: Any) -> str:
    checks = list(claim.checks)
    good = sum(bool(check.holds) for check in checks)
    counted = f"{good} of {len(checks)} check{'s' * (len(checks) != 1)}" if checks else ""
    remarks = "".join(
        f'<p class="remark"><b>{heading}:</b> {prose(text)}</p>' for heading, text in claim.remarks.items()
    )
    return f"""<details class="claim" data-verdict="{escape(claim.verdict)}"{" open" * (claim.verdict == "fails")}>
<summary>{chip(claim.verdict)}<span class="id">{escape(claim.id)}</span>
<span class="statement">{prose(claim.statement)}</span><span class="count">{counted}</span></summary>
<div class="evidence"><p class="source">Source: {prose(claim.source)}</p>{_checks(checks)}{remarks}</div>
</details>"""


def _checks(checks: Sequence[Any]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f'<tr><td class="{VERDICTS[check.verdict]}">{SIGNS[check.verdict]}</td>'
        f"<td>{prose(check.quantity)}</td><td>{escape(expected(check))}</td>"
        f'<td class="number">{escape(measured(check))}</td><td>{seed_strip(check)}</td></tr>'
        for check in checks
    )
    head = "<th></th><th>quantity</th><th>expected</th><th>measured: median [range over seeds]</th><th>seeds</th>"
    return (
        f'<div class="scroll"><table class="checks"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _short(claim: Any) -> str:
    lines = "".join(
        f'<li title="{escape(check.quantity)}, expected {escape(expected(check))}">{escape(measured(check))}</li>'
        for check in claim.checks
    )
    return chip(claim.verdict) + (f'<ul class="medians">{lines}</ul>' if lines else "")


def _counts(claims: Sequence[Any]) -> dict[str, int]:
    return {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS}


def _summary(claims: Sequence[Any]) -> str:
    counts = _counts(claims)
    parts = "".join(f'<i class="{VERDICTS[v]}" style="flex-grow:{n}"></i>' for v, n in counts.items() if n)
    words = "".join(
        f'<span class="{VERDICTS[verdict]}"><b>{n}</b> {verdict if n == 1 else PLURALS[verdict]}</span>'
        for verdict, n in counts.items()
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
