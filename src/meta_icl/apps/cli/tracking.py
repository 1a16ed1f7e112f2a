"""What `--track` names: trackers of `meta_icl.runs.trackers`, or one of the user's own."""

from collections.abc import Sequence

from meta_icl.apps.cli import own
from meta_icl.runs.trackers import Maker, known_tracker

TRACKER = own.Kind(
    "tracker",
    "a class made from (folder, config), with log(series, step, values) and close()",
    lambda found: isinstance(found, type) and hasattr(found, "log") and hasattr(found, "close"),
)


def trackers_of(names: Sequence[str]) -> dict[str, Maker]:
    """{name: what makes the tracker}; `BadInput` for one that is not known or not installed."""
    return {name: own.find(TRACKER, name)[0] if own.place(name) else known_tracker(name) for name in names}
