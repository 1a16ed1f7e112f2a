"""What a report tells first, and which figures decide which claims."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meta_icl.plotting import Chart

# "Fig. 5", "Figs. 4 and 8", "Fig. 5c, 5d", "Table 2", "Tabs. 2, 5": the kind, and then numbers
_LABELS = re.compile(
    r"\b(Fig|Tab)(?:ure|le)?s?\.?\s*((?:[A-Z]\.?)?\d+[a-z]?(?:\s*(?:,|and|to)\s*(?:[A-Z]\.?)?\d+[a-z]?)*)"
)
_NUMBER = re.compile(r"(?:[A-Z]\.?)?\d+[a-z]?")


@dataclass(frozen=True)
class Story:
    """The first screen of a report: what was asked, the answer in one sentence with its number, the figure that shows
    it (the name of one of the figures); what is empty is derived from the claims."""

    question: str = ""
    answer: str = ""
    figure: str = ""


@dataclass(frozen=True)
class Chapter:
    """Claims and the figures that decide them."""

    claims: Sequence[Any]
    figures: Sequence[str]


def figures_of(claims: Sequence[Any], figures: Mapping[str, Chart]) -> dict[str, list[str]]:
    """{id of a claim: names of the figures that decide it}.

    A figure names its claims (`decides`); one that names none decides those whose source is a figure or table of the
    paper that its title names too.
    """
    named = {name: {_short(id) for id in chart.decides} for name, chart in figures.items()}
    labels = {name: set() if chart.decides else labels_in(chart.title) for name, chart in figures.items()}
    return {
        claim.id: [
            name for name in figures if _short(claim.id) in named[name] or _meet(labels_in(claim.source), labels[name])
        ]
        for claim in claims
    }


def labels_in(text: str) -> set[str]:
    """The figures and tables of a paper that a text names: {"Fig 5c", "Tab 2"}."""
    return {f"{kind} {number}" for kind, numbers in _LABELS.findall(text) for number in _NUMBER.findall(numbers)}


def chapters(claims: Sequence[Any], figures: Mapping[str, Chart]) -> list[Chapter]:
    """Claims that share figures together, in the order of the claims; then those without a figure, then the figures
    that decide no claim, then claims that this run never tried."""
    links = figures_of(claims, figures)
    groups: list[tuple[list[Any], list[str]]] = []
    for claim in claims:
        if not links[claim.id]:
            continue
        touching = [group for group in groups if set(group[1]) & set(links[claim.id])]
        members = [member for group in touching for member in group[0]] + [claim]
        drawn = list(dict.fromkeys([name for group in touching for name in group[1]] + links[claim.id]))
        place = groups.index(touching[0]) if touching else len(groups)
        groups = [group for group in groups if group not in touching]
        groups.insert(place, (members, drawn))
    found = [Chapter(members, drawn) for members, drawn in groups]
    alone = [claim for claim in claims if not links[claim.id]]
    rest = [name for name in figures if not any(name in names for names in links.values())]
    found += [Chapter([claim for claim in alone if claim.checks], []), Chapter([], rest)]
    found += [Chapter([claim for claim in alone if not claim.checks], [])]
    return [chapter for chapter in found if chapter.claims or chapter.figures]


def lead(claims: Sequence[Any], figures: Mapping[str, Chart]) -> tuple[Any | None, str]:
    """The claim that opens a report and its figure: the first that holds and has one, else that fails and has one."""
    links = figures_of(claims, figures)
    for verdict in ("holds", "fails"):
        for claim in claims:
            if claim.verdict == verdict and links[claim.id]:
                return claim, links[claim.id][0]
    decided = [claim for claim in claims if claim.verdict in ("holds", "fails")]
    return (decided[0] if decided else None), next(iter(figures), "")


def counted(claims: Sequence[Any]) -> str:
    """How many claims hold, fail, are not converged or not decided, as one sentence."""
    counts = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in ("holds", "fails")}
    open_ = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in ("not converged", "not decided")}
    n = sum(counts.values())
    rest = [f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in open_.items() if count]
    if not n:
        told = "This run decides none of its claims"
    elif counts["fails"] == 0:
        told = "The one claim that this run decides holds" if n == 1 else f"All {n} claims that this run decides hold"
    elif counts["holds"] == 0:
        told = "The one claim that this run decides fails" if n == 1 else f"All {n} claims that this run decides fail"
    else:
        holds, fails = counts["holds"], counts["fails"]
        told = f"{holds} of the {n} claims that this run decides {'holds' if holds == 1 else 'hold'}, "
        told += f"{fails} {'fails' if fails == 1 else 'fail'}"
    return told + (f"; {' and '.join(rest)}" if rest else "") + "."


def asked(intro: str) -> tuple[str, str]:
    """What was asked, and the other paragraphs: the paragraph of the claims, else the first, without its label."""
    blocks = re.split(r"\n\s*\n", intro.strip())
    place = next((i for i, block in enumerate(blocks) if re.match(r"Claims?[.:]\s", block)), 0)
    rest = blocks[:place] + blocks[place + 1 :]
    return re.sub(r"^[A-Z][a-z]+[.:]\s+", "", blocks[place]), "\n\n".join(rest)


def _short(id: str) -> str:
    return id.rsplit("/", 1)[-1]


def _meet(some: set[str], others: set[str]) -> bool:
    """Whether two sets name one figure; "Fig 5" is also its panel "Fig 5c"."""
    return any(
        a == b or (a.rstrip("abcdefgh") == b.rstrip("abcdefgh") and a[-1:].isdigit() != b[-1:].isdigit())
        for a in some
        for b in others
    )
