"""The page of the dashboard and its server, which listens on this machine alone unless told otherwise."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any

import panel as pn
import panel_material_ui as pmui
from panel import reactive

from meta_icl.apps.dashboard.claims import ClaimsView
from meta_icl.apps.dashboard.drawing import text_pane
from meta_icl.apps.dashboard.folder import RunsFolder
from meta_icl.apps.dashboard.playground import Playground
from meta_icl.apps.dashboard.runs import RunsView
from meta_icl.apps.dashboard.subjects import offered
from meta_icl.errors import BadInput, require
from meta_icl.plotting.theme import COLOURS
from meta_icl.runs.interrupts import handled

PATIENCE_SECONDS = 2.0  # after Ctrl-C, for what is being computed
LOOK_MS, LIST_MS = 1500, 10_000  # between two looks at the logs, and at the list of runs
TABS = ("Runs", "Claims", "Playground")


@dataclass(frozen=True)
class Settings:
    """What the dashboard shows: the folder of the runs, that of kept results, and what else can be played with."""

    root: Path
    results: Path
    subjects: tuple[str, ...] = ()


class Dashboard:
    """One reader's page: the views, and what makes them live."""

    def __init__(self, settings: Settings):
        folder = RunsFolder(settings.root)
        self.runs = RunsView(folder)
        self.claims = ClaimsView(settings.results, folder)
        self.playground = Playground(offered(folder, settings.subjects))
        self.tabs = pmui.Tabs(
            *zip(TABS, (self.runs.view, self.claims.view, self.playground.view), strict=True),
            sizing_mode="stretch_width",
            dynamic=True,
        )
        heading = text_pane('<h1 class="unseen">meta_icl: runs, claims, playground</h1>', height=0, margin=0)
        self.page = pmui.Page(
            title="meta_icl",
            main=[pn.Column(heading, self.tabs, sizing_mode="stretch_width", margin=(8, 16, 32, 16))],
            raw_css=[_colours()],
            template=resources.files("meta_icl.apps.dashboard").joinpath("page.html").read_text("utf-8"),
        )
        self.page.param.watch(lambda event: self._paint(), "dark_theme")
        self.tabs.param.watch(self._seen, "active")
        self._paint()

    def _paint(self) -> None:
        scheme = "dark" if self.page.dark_theme else "light"
        self.runs.plot.paint(scheme)
        self.playground.paint(scheme)

    def _seen(self, event: Any) -> None:
        if TABS[event.new] == "Playground" and self.playground.current is None:
            self.playground.open()


def page(settings: Settings) -> pmui.Page:
    """The page for one reader, who sees what is in the folders now and what is appended to the logs from now on."""
    document = pn.state.curdoc
    if document is not None:  # before anything is made, which would else name a distant server for its styles
        document.template_variables["dist_url"] = pn.io.resources.LOCAL_DIST
    made = Dashboard(settings)
    if document is not None:
        pn.state.add_periodic_callback(made.runs.tick, period=LOOK_MS)
        pn.state.add_periodic_callback(made.runs.refresh, period=LIST_MS)
    return made.page


def serve(
    settings: Settings,
    *,
    port: int = 5006,
    address: str = "127.0.0.1",
    origins: tuple[str, ...] = (),
    ready: Callable[[str], None] = print,
    browse: bool = False,
) -> None:
    """Serve until Ctrl-C; `ready` is told the place. Raises `BadInput` where the port cannot be had.

    Browsers may connect from the address itself and from localhost; from other names of the machine only as `origins`,
    "HOST:PORT" each. Everything that a page loads comes from here.
    """
    offered(RunsFolder(settings.root), settings.subjects)  # what was named must be there before anything is served
    require(":" not in address, "--address", address, "an IPv4 address or the name of a machine")
    try:
        with socket.socket(socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            port = probe.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot listen on {address}, port {port}: {reason}") from None
    names = {address, "localhost", "127.0.0.1"}
    # Styles of what belongs to no document yet, which it would take from a distant server.
    reactive.__dict__["CDN_DIST"] = pn.io.resources.LOCAL_DIST
    server: Any = pn.io.server.get_server(
        lambda: page(settings),
        port=port,
        address=address,
        websocket_origin=[*(f"{name}:{port}" for name in sorted(names)), *origins],
        title="meta_icl dashboard",
        show=browse,
        start=False,
    )
    for name in ("asyncio", "tornado.application", "tornado.general"):
        logging.getLogger(name).addFilter(_worth_telling)
    logging.getLogger("bokeh").setLevel(logging.ERROR)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    server.start()
    ready(f"http://{address}:{port}/")
    at_last = threading.Timer(PATIENCE_SECONDS, os._exit, (0,))  # nothing is lost, whatever is being computed
    at_last.daemon = True

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        server.io_loop.asyncio_loop.call_soon_threadsafe(server.io_loop.stop)
        if not at_last.is_alive():
            at_last.start()

    with handled(stop):
        server.io_loop.start()
    at_last.cancel()
    server.stop()


def _worth_telling(record: logging.LogRecord) -> bool:
    """Whether an entry of a log tells more than that a reader has closed the page."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ not in ("WebSocketClosedError", "StreamClosedError")


def _colours() -> str:
    """The colours of the plotting room as variables, which reach into every part of the page."""
    parts = []
    for scheme, colours in COLOURS.items():
        own = {name: value for name, value in colours.items() if name not in ("paper", "page", "raised")}
        variables = "".join(f"--{name}:{value};" for name, value in own.items())
        parts.append(f"html.{scheme}{{{variables}}}")
    return "\n".join(parts)
