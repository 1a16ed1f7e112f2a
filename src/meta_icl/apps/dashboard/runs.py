"""The runs: what there is, the curves of those that are chosen, live while they train, and what they claim."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypeGuard

import numpy as np
import panel as pn
import panel_material_ui as pmui

from meta_icl.apps.dashboard.drawing import LinePlot, problem, text_pane
from meta_icl.apps.dashboard.folder import RunsFolder
from meta_icl.apps.report.claims import comparison_table
from meta_icl.apps.report.facts import duration, moment
from meta_icl.apps.report.tables import Cell, table
from meta_icl.errors import BadInput
from meta_icl.plotting import Lines, Series, thin
from meta_icl.runs import RunInfo
from meta_icl.runs.follow import Follower
from meta_icl.runs.metrics import Row

ALL = "all"
STATES = (ALL, "running", "done", "unfinished", "failed", "diverged", "unreadable")
MOST_CURVES = 24
MOST_ROWS = 200  # of the table of runs
POINTS = 400  # of a curve, on either way of thinning


def fitting(infos: Iterable[RunInfo], state: str = ALL, text: str = "") -> list[RunInfo]:
    """The runs in a state in whose names a text occurs."""
    return [info for info in infos if state in (ALL, info.state) and text.lower() in info.name.lower()]


def as_html(infos: Sequence[RunInfo]) -> str:
    """The runs as a table; their names are escaped."""
    if not infos:
        return '<p class="note">No run fits.</p>'
    rows = [
        [
            f'<span class="id">{escape(info.name)}</span>',
            Cell(escape(info.state), info.state),
            Cell(f"{info.parts_done} of {info.parts}", info.parts_done) if info.parts else "",
            escape(moment(info.started) or ""),
            escape(duration(info.wall_seconds) or ""),
        ]
        for info in infos[:MOST_ROWS]
    ]
    more = f'<p class="note">and {len(infos) - MOST_ROWS} older ones</p>' if len(infos) > MOST_ROWS else ""
    head = ("run", "state", "parts done", "started", "time")
    return table("runs", head, rows, "runs", scripted=False) + more


def columns_of(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """What was logged in numbers, the loss first; steps and labels aside."""
    last = (row for logged in rows.values() for row in logged[-3:])
    found = {name for row in last for name, value in row.items() if _drawn(value) and not _is_label(name, value)}
    return sorted(found - {"step"}, key=lambda name: (name != "loss", name))


def curves(rows: Mapping[str, Sequence[Row]], column: str) -> list[Series]:
    """One curve of a column against the step for every log, and for every seed and point in it."""
    series: list[Series] = []
    for name, logged in rows.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for at, row in enumerate(logged):
            labels = [f"{key} = {value}" for key, value in row.items() if _is_label(key, value)]
            values = row.get(column)
            for i, value in enumerate(values if isinstance(values, list) else [values]):
                if _number(value):
                    entry = [f"{column} {i + 1}"] if isinstance(values, list) else []
                    label = ", ".join([*labels, *entry])
                    lines.setdefault(label, []).append((float(row.get("step", at)), float(value)))
        for label, points in lines.items():
            x, y = np.array(points).T
            known = np.isfinite(y)
            if known.any():
                told = f"{name}: {label}" if label and len(lines) > 1 else name
                series.append(Series(told, *thin(x[known], y[known], POINTS)))
    return series


def _drawn(value: Any) -> bool:
    """Whether a value is a number, or a list of numbers."""
    return _number(value) or (isinstance(value, list) and bool(value) and all(map(_number, value)))


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_label(key: str, value: Any) -> bool:
    """Whether an entry of a row says which seed or point of a sweep the row is of."""
    return key == "seed" or key.startswith(("task.", "model.", "optimiser.")) or isinstance(value, str)


class RunsView:
    """The table of runs with its filters, the curves of those that are chosen, and their claims side by side."""

    def __init__(self, folder: RunsFolder):
        self._folder = folder
        self._followers: dict[str, Follower] = {}
        self.text = pmui.TextInput(label="name", placeholder="part of a name", width=200)
        self.state = pmui.Select(label="state", options=list(STATES), value=ALL, width=150)
        self.chosen: Any = pmui.MultiChoice(label="runs to draw", options=[], value=[], sizing_mode="stretch_width")
        self.column = pmui.Select(label="curve of", options=["loss"], value="loss", width=200)
        self.log = pmui.Checkbox(label="logarithmic", value=True)
        self.listed = text_pane(css_classes=["tall"])
        self.plot = LinePlot()
        self.told = text_pane()
        self.ask = pmui.Button(label="compare on the same prompts", variant="outlined")
        self.compared = text_pane()
        self.claims = text_pane()
        self.text.param.watch(lambda event: self.show_list(), "value_input")
        self.state.param.watch(lambda event: self.show_list(), "value")
        for widget in (self.chosen, self.column, self.log):
            widget.param.watch(lambda event: self.draw(), "value")
        self.chosen.param.watch(lambda event: self._compare_claims(), "value")
        self.ask.on_click(lambda event: self.compare())
        self.infos: list[RunInfo] = []
        self.view = pn.Column(
            pn.FlexBox(self.text, self.state, align_items="center"),
            self.listed,
            self.chosen,
            pn.FlexBox(self.column, self.log, align_items="center"),
            self.plot.view,
            self.told,
            self.ask,
            self.compared,
            self.claims,
            sizing_mode="stretch_width",
        )
        self.refresh()
        self.chosen.value = [info.name for info in self.infos if info.state == "running"] or [
            info.name for info in self.infos[:1]
        ]

    def refresh(self) -> None:
        """Read the list of runs again."""
        self.infos = self._folder.infos()
        self.show_list()

    def show_list(self) -> None:
        """Show the runs that fit the filters, and offer them to be drawn."""
        found = fitting(self.infos, self.state.value, self.text.value_input or "")
        self.listed.object = as_html(found)
        kept = [name for name in self.chosen.value if name in {info.name for info in self.infos}]
        names = list(dict.fromkeys([*kept, *(info.name for info in found)]))
        if names != self.chosen.options:
            self.chosen.param.update(options=names, value=kept)

    def draw(self) -> None:
        """Draw what the chosen runs have logged until now."""
        rows, problems = self._rows()
        columns = columns_of(rows) or ["loss"]
        if columns != self.column.options:
            value = self.column.value if self.column.value in columns else columns[0]
            self.column.param.update(options=columns, value=value)
        series = curves(rows, self.column.value)
        positive = all((np.asarray(s.y) > 0).all() for s in series)
        words = [f"the first {MOST_CURVES} of {len(series)} curves"] if len(series) > MOST_CURVES else []
        if self.log.value and not positive:
            words.append("not logarithmic, since not all numbers are positive")
        words += [escape(problem) for problem in problems]
        words += ["nothing logged yet"] if not series and not problems else []
        self.told.object = "".join(f'<p class="note">{word}</p>' for word in words)
        shown = series[:MOST_CURVES]
        log = self.log.value and positive and bool(shown)
        self.plot.show(Lines("curves", "step", self.column.value.replace("_", " "), shown, log_y=log))

    def tick(self) -> None:
        """What happens every few seconds: new rows of the chosen runs are drawn."""
        if self.chosen.value:
            self.draw()

    def _rows(self) -> tuple[dict[str, list[Row]], list[str]]:
        """The rows of every log of the chosen runs, by the name of run and part; and what could not be read."""
        rows: dict[str, list[Row]] = {}
        problems = []
        for name in self.chosen.value:
            try:
                for part, folder in self._folder.parts(name).items():
                    follower = self._followers.setdefault(str(folder), Follower(folder))
                    label = " · ".join(filter(None, (name, part)))
                    if logged := follower.rows():
                        rows[label] = logged
            except (BadInput, OSError) as error:
                problems.append(str(error))
        return rows, problems

    def compare(self) -> None:
        """The networks of the chosen runs beside reference algorithms, on the same prompts."""
        from meta_icl.apps.dashboard import compared  # jax, which lists and curves do without

        try:
            runs = [self._folder.run(name) for name in self.chosen.value]
            self.compared.object = compared.as_html(compared.on_same_prompts(runs))
        except BadInput as error:
            self.compared.object = problem(error)

    def _compare_claims(self) -> None:
        """The claims of the chosen runs, a column for each."""
        judged = []
        for name in self.chosen.value:
            try:
                claims = self._folder.run(name).load_claims()
            except BadInput:
                continue
            if claims:
                judged.append((name, claims))
        self.claims.object = comparison_table(judged, scripted=False) if judged else ""
