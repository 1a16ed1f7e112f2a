"""The playground: a frozen network on a prompt that can be moved, beside gradient descent, ridge and Bayes."""

from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui

from meta_icl.apps.dashboard.drawing import HeadMap, LinePlot, bars, beside, problem, text_pane
from meta_icl.apps.dashboard.inspection import (
    ChoiceInspection,
    Head,
    Inspection,
    LanguageInspection,
    RegressionInspection,
    inspection_of,
)
from meta_icl.apps.dashboard.subjects import Opened
from meta_icl.apps.report.tables import table
from meta_icl.errors import BadInput
from meta_icl.plotting import Lines, Series

CONTEXT = "context (drag a point)"
MOST_MAPS = 12  # heads whose maps are drawn at once
ALL_LAYERS = "all"


class HeadsView:
    """Maps of attention; a click on a map, or on the button of a head, removes the head or puts it back."""

    def __init__(self, inspection: Inspection, changed: Callable[[], None]):
        self._inspection, self._changed = inspection, changed
        heads, layers = inspection.heads, inspection.layers
        many = len(heads) > MOST_MAPS
        options = {f"layer {layer + 1}": (layer,) for layer in layers}
        options = options if many else {ALL_LAYERS: tuple(layers)} | options
        start = next(iter(options.values()), ())
        self.layer = pmui.Select(label="layers", options=options, value=start, width=160, visible=len(layers) > 1)
        self.removed: Any = pmui.CheckButtonGroup(label="removed heads", options={}, value=[], size="small")
        self._maps: dict[Head, HeadMap] = {}
        self._boxes = pn.FlexBox(gap="6px")
        self.layer.param.watch(lambda event: self.arrange(), "value")
        self.removed.param.watch(self._pressed, "value")
        about = "Click on a map, or on the name of a head, to remove the head; rows read, columns are read."
        note = text_pane(f'<p class="note">{about}</p>')
        self.view = pn.Column(pn.FlexBox(self.layer, self.removed, align_items="center"), note, self._boxes)
        self.view.visible = bool(layers)
        self.arrange()

    def arrange(self) -> None:
        """Show the heads of the chosen layers."""
        chosen = [head for head in self._inspection.heads if head[0] in self.layer.value]
        pressed = [head for head in chosen if head in self._inspection.removed]
        self.removed.param.update(options={told(head): head for head in chosen}, value=pressed)
        self._maps = {head: HeadMap(told(head), lambda head=head: self.click(head)) for head in chosen}
        self._boxes.objects = [one.view for one in self._maps.values()]
        self.show()

    def click(self, head: Head) -> None:
        """Remove a head, or put it back."""
        self.removed.value = [*{*self.removed.value} ^ {head}]

    def show(self) -> None:
        """Draw the maps of the prompt as it stands."""
        if not self._maps:
            return
        layers, patterns = self._inspection.layers, self._inspection.patterns()
        names = self._inspection.names()
        high = max(float(np.abs(patterns).max()), 1e-6)
        for (layer, head), one in self._maps.items():
            one.show(patterns[layers.index(layer), head], names, high, (layer, head) in self._inspection.removed)

    def _pressed(self, event: Any) -> None:
        shown = set(self._maps)
        wanted = {tuple(head) for head in event.new} | (self._inspection.removed - shown)
        if wanted != self._inspection.removed:
            self._inspection.removed = wanted
            self._changed()


class RegressionView:
    """Answers along one input channel, with sliders for the numbers of the task and points to drag."""

    def __init__(self, inspection: RegressionInspection):
        self.inspection = inspection
        self.plot = LinePlot(dragged=CONTEXT, moved=self._dragged)
        self.numbers = text_pane()
        self.query = _slider("query x", -2.0, 2.0, 0.01, float(inspection.prompt.x[-1, 0]))
        self.length = pmui.IntSlider(
            label="examples", start=1, end=inspection.longest, value=inspection.longest, width=260
        )
        self.sliders = {name: _slider(told_field(name), *span(value)) for name, value in inspection.fields().items()}
        self.again = pmui.Button(label="draw another prompt", variant="outlined")
        self.heads = HeadsView(inspection, self.show)
        self.query.param.watch(self._asked, "value")
        self.length.param.watch(self._cut, "value_throttled")
        for name, slider in self.sliders.items():
            slider.param.watch(lambda event, name=name: self._moved(name, event.new), "value")
        self.again.on_click(lambda event: self._drawn())
        controls = pn.FlexBox(self.query, self.length, *self.sliders.values(), self.again, align_items="center")
        drawn = pn.Column(self.plot.view, self.numbers, sizing_mode="stretch_width")
        self.view = pn.Column(controls, beside(drawn, self.heads.view), sizing_mode="stretch_width")
        self.show()

    def show(self) -> None:
        """Ask everyone again."""
        along, answers = self.inspection.curves()
        x, y = self.inspection.points()
        styles = {"network": "line", "ridge": "dotted"}  # which lies on that of Bayes where the weights are normal
        series = [Series(name, along[:-1], v[:-1], style=styles.get(name, "dashed")) for name, v in answers.items()]
        here = Series("query", along[-1:], answers["network"][-1:], style="points")
        context = Series(CONTEXT, x, y, style="points")
        channel = "x" if self.inspection.prompt.x.shape[-1] == 1 else f"input channel {self.inspection.channel + 1}"
        self.plot.show(Lines("answers", channel, "answer", [*series, context, here]))
        rows = [[escape(name), f"{v[-1]:.4f}", f"{v[-1] - answers['network'][-1]:+.4f}"] for name, v in answers.items()]
        head = ("at the query", "answer", "less that of the network")
        unfit = "".join(f'<p class="note">{escape(why)}</p>' for why in self.inspection.unfit)
        self.numbers.object = table("answers at the query", head, rows, "answers", scripted=False) + unfit
        self.heads.show()

    def _dragged(self, x: np.ndarray, y: np.ndarray) -> None:
        with suppress(BadInput):  # a point was added or removed, or is nowhere
            self.inspection.drag(x, y)
        self.show()

    def _asked(self, event: Any) -> None:
        self.inspection.ask(event.new)
        self.show()

    def _moved(self, name: str, value: float) -> None:
        self.inspection.move(name, value)
        self._stay()

    def _cut(self, event: Any) -> None:
        self.inspection.n_context = event.new
        self.inspection.draw()
        self._stay()

    def _drawn(self) -> None:
        self.inspection.draw(self.inspection.number + 1)
        self._stay()

    def _stay(self) -> None:
        """The query stays where its slider is, whatever was drawn."""
        self.inspection.ask(self.query.value)
        self.show()


class ChoiceView:
    """The most probable answers, of labels, tokens or a text."""

    def __init__(self, inspection: ChoiceInspection | LanguageInspection):
        self.inspection = inspection
        self.answers = text_pane()
        self.heads = HeadsView(inspection, self.show)
        if isinstance(inspection, LanguageInspection):
            self.text = pmui.TextAreaInput(label="text", value=inspection.text, rows=5, sizing_mode="stretch_width")
            self.again = pmui.Button(label="what comes next?", variant="outlined")
            controls = pn.Column(self.text, self.again, sizing_mode="stretch_width")
        else:
            self.again = pmui.Button(label="draw another prompt", variant="outlined")
            controls = pn.Column(self.again)
        self.again.on_click(lambda event: self._next())
        asked = pn.Column(controls, self.answers, sizing_mode="stretch_width")
        self.view = pn.Column(beside(asked, self.heads.view), sizing_mode="stretch_width")
        self.show()

    def show(self) -> None:
        """Ask the network again."""
        names, values = self.inspection.choices()
        right = self.inspection.right() if isinstance(self.inspection, ChoiceInspection) else ""
        note = f'<p class="note">Right: {escape(right)}</p>' if right else ""
        self.answers.object = bars(names, values, "probability") + note
        self.heads.show()

    def _next(self) -> None:
        if isinstance(self.inspection, LanguageInspection):
            try:
                self.inspection.write(self.text.value)
            except BadInput as error:
                self.answers.object = problem(error)
                return
        else:
            self.inspection.draw(self.inspection.number + 1)
        self.show()


class Playground:
    """Choose what to play with; it is opened when it is chosen, or when the playground is first seen."""

    def __init__(self, offered: dict[str, Callable[[], Opened]]):
        self._offered = offered
        first = next(iter(offered))
        self.choice = pmui.Select(
            label="what to play with", options=list(offered), value=first, sizing_mode="stretch_width", max_width=420
        )
        self.stage = pn.Column(sizing_mode="stretch_width")
        self.view = pn.Column(self.choice, self.stage, sizing_mode="stretch_width")
        self.current: RegressionView | ChoiceView | None = None
        self._scheme: Any = "light"
        self.choice.param.watch(lambda event: self.open(), "value")

    def open(self) -> None:
        """Open what is chosen; one line where that cannot be done."""
        self.current = None
        try:
            inspection = inspection_of(self._offered[self.choice.value]())
            self.current = (
                RegressionView(inspection) if isinstance(inspection, RegressionInspection) else ChoiceView(inspection)
            )
        except (BadInput, OSError) as error:
            self.stage.objects = [text_pane(problem(error))]
            return
        self.paint(self._scheme)
        self.stage.objects = [self.current.view]

    def paint(self, scheme: Any) -> None:
        """Give the curves the colours of a scheme."""
        self._scheme = scheme
        if isinstance(self.current, RegressionView):
            self.current.plot.paint(scheme)


def told(head: Head) -> str:
    """A head in words, counted from 1."""
    return f"layer {head[0] + 1}, head {head[1] + 1}"


def told_field(name: str) -> str:
    """A number of a task in words."""
    return name.replace("_", " ")


def span(value: float) -> tuple[float, float, float, float]:
    """Start, end and step of the slider of a number, and the number."""
    end = max(2.0, 2.0 * abs(value))
    return 0.0 if value >= 0 else -end, end, end / 100, value


def _slider(label: str, start: float, end: float, step: float, value: float) -> pmui.FloatSlider:
    return pmui.FloatSlider(label=label, start=start, end=end, step=step, value=min(max(value, start), end), width=260)
