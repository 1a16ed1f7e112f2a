"""The board of claims: every claim of every paper with its kept verdicts and those of the runs in the folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import panel as pn
import panel_material_ui as pmui

from meta_icl.apps.cli import listing
from meta_icl.apps.dashboard.drawing import text_pane
from meta_icl.apps.dashboard.folder import RunsFolder
from meta_icl.apps.report.claims import PLURALS, chip, prose
from meta_icl.apps.report.tables import table
from meta_icl.errors import BadInput
from meta_icl.runs.claims import VERDICTS

ALL = "all"


@dataclass
class Line:
    """One claim: its statement, and its verdict in every kept result and run that judged it, by name."""

    id: str
    statement: str
    kept: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    @property
    def verdicts(self) -> set[str]:
        """All verdicts that were ever given."""
        return {*self.kept.values(), *self.runs.values()}

    @property
    def differs(self) -> bool:
        """Whether a run here decided otherwise than a kept one."""
        decided = {"holds", "fails"}
        return any({mine, theirs} == decided for mine in self.runs.values() for theirs in self.kept.values())


def board(results: Path, folder: RunsFolder) -> list[Line]:
    """All claims, in the order of the papers; a run whose claims cannot be read is left out."""
    lines: dict[str, Line] = {}
    for name, told in listing.kept(results).items():
        for id, verdict, statement in told["claims"]:
            lines.setdefault(id, Line(id, statement)).kept[name] = verdict
    for info in folder.infos():
        try:
            claims = folder.run(info.name).load_claims()
        except BadInput:
            continue
        for claim in claims:
            lines.setdefault(claim.id, Line(claim.id, claim.statement)).runs[info.name] = claim.verdict
    return list(lines.values())


def chosen(
    lines: Iterable[Line], *, paper: str = ALL, verdict: str = ALL, text: str = "", differing: bool = False
) -> list[Line]:
    """The claims of a paper that were ever given a verdict and in which a text occurs."""
    words = text.lower().split()
    return [
        line
        for line in lines
        if paper in (ALL, paper_of(line))
        and (verdict == ALL or verdict in line.verdicts)
        and all(word in f"{line.id} {line.statement}".lower() for word in words)
        and (line.differs or not differing)
    ]


def paper_of(line: Line) -> str:
    """The short name of the paper of a claim, such as rossi2024."""
    return line.id.partition("/")[0]


def as_html(lines: Sequence[Line]) -> str:
    """The board as a table; everything that a run names is escaped."""
    if not lines:
        return '<p class="note">No claim fits.</p>'
    rows = [
        [f'<span class="id">{escape(line.id)}</span>', _chips(line.kept), _chips(line.runs), prose(line.statement)]
        for line in lines
    ]
    return table("claims", ("claim", "kept results", "runs here", "statement"), rows, "board", scripted=False)


def _chips(verdicts: Mapping[str, str]) -> str:
    """Every verdict once, with the names of those who gave it; long lists say how many more."""
    by: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        by.setdefault(verdict, []).append(name)
    return "".join(f'<div title="{escape(", ".join(names))}">{chip(v)} {_who(names)}</div>' for v, names in by.items())


def _who(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    preset = names[0].partition("-")[2] if names[0].partition("-")[2] else ""
    return f'<span class="who">{escape(preset)}{more}</span>' if preset or more else ""


class ClaimsView:
    """The board with its filters."""

    def __init__(self, results: Path, folder: RunsFolder):
        self._results, self._folder = results, folder
        self.paper = pmui.Select(label="paper", options=[ALL], value=ALL, width=200)
        self.verdict = pmui.Select(label="verdict", options=[ALL, *VERDICTS], value=ALL, width=170)
        self.text = pmui.TextInput(label="words", placeholder="such as ridge", width=200)
        self.differing = pmui.Checkbox(label="only where a run here differs from the kept one", value=False)
        self.told = text_pane()
        self.again = pmui.Button(label="read again", variant="outlined", on_click=lambda event: self.read())
        for widget in (self.paper, self.verdict, self.text, self.differing):
            widget.param.watch(lambda event: self.show(), "value")
        self.text.param.watch(lambda event: self.show(), "value_input")
        filters = pn.FlexBox(self.paper, self.verdict, self.text, self.differing, self.again, align_items="center")
        self.view = pn.Column(filters, self.told, sizing_mode="stretch_width")
        self.lines: list[Line] = []
        self.read()

    def read(self) -> None:
        """Read results and runs again."""
        self.lines = board(self._results, self._folder)
        self.paper.options = [ALL, *dict.fromkeys(map(paper_of, self.lines))]
        self.show()

    def show(self) -> None:
        """Show the claims that fit the filters."""
        found = chosen(
            self.lines,
            paper=self.paper.value,
            verdict=self.verdict.value,
            text=self.text.value_input or self.text.value,
            differing=self.differing.value,
        )
        counts = {verdict: sum(verdict in line.kept.values() for line in found) for verdict in VERDICTS}
        told = ", ".join(f"{count} {PLURALS[verdict]}" for verdict, count in counts.items() if count)
        head = f'<p class="note">{len(found)} of {len(self.lines)} claims; of the kept results {told or "none"}.</p>'
        self.told.object = head + as_html(found)
