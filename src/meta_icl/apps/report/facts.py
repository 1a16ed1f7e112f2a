"""Where a run comes from, as HTML: one line under the title, and everything in a table at the end."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from meta_icl.apps.report.tables import table


def facts_line(provenance: Mapping[str, Any]) -> str:
    """Preset, seeds, time, commit and device, as far as they are known."""
    config = provenance.get("config")
    code = provenance.get("code") or {}
    starts = provenance.get("starts") or [{}]
    facts = [
        ("preset", provenance.get("preset")),
        ("seeds", config.get("seeds") if isinstance(config, Mapping) else None),
        ("computed in", duration(provenance.get("wall_seconds"))),
        ("on", moment(starts[-1].get("started"))),
        ("device", devices(provenance.get("devices") or [])),
        ("commit", commit(code)),
        ("meta_icl", code.get("version")),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts if value)
    return f'<dl class="facts">{items}</dl>' if items else ""


def devices(names: Sequence[str]) -> str:
    """Devices `platform: kind` in words; just `cpu` where jax knows no more of the kind than that."""
    return ", ".join(name.partition(": ")[0] if len(set(name.split(": "))) == 1 else name for name in names)


def in_short(provenance: Mapping[str, Any]) -> str:
    """Preset, seeds and time, to follow the kind of a report."""
    config = provenance.get("config")
    seeds = config.get("seeds") if isinstance(config, Mapping) else None
    facts = [
        f"preset {provenance['preset']}" if provenance.get("preset") else None,
        f"{seeds} seed{'s' * (seeds != 1)}" if isinstance(seeds, int) else None,
        duration(provenance.get("wall_seconds")),
    ]
    return "".join(f" · {escape(fact)}" for fact in facts if fact)


def provenance_section(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """All that is known of where the runs come from, one table per run."""
    tables = []
    for title, provenance in runs:
        if not provenance:
            continue
        rows = [[escape(name), _value(value)] for name, value in _flat(provenance)]
        heading = f"<h3>{escape(title)}</h3>" if len(runs) > 1 else ""
        tables.append(heading + table(f"provenance of {title}", ("name", "value"), rows, "provenance"))
    return f'<section id="provenance"><h2>Provenance</h2>{"".join(tables)}</section>' if tables else ""


def duration(seconds: Any) -> str | None:
    """Seconds in words: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if not isinstance(seconds, int | float) or not seconds:
        return None
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(text: Any) -> str | None:
    """An ISO time in UTC as `2026-11-23 01:05 UTC`."""
    found = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", str(text))
    return f"{found[1]} {found[2]} UTC" if found else None


def commit(code: Mapping[str, Any]) -> str | None:
    """The first ten digits of the commit, and whether the files differ from it."""
    if not code.get("commit"):
        return None
    return str(code["commit"])[:10] + (", with local changes" if code.get("dirty") else "")


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            rows += _flat(item, f"{prefix}{name} · ")
        else:
            rows.append((f"{prefix}{name}", item))
    return rows


def _value(value: Any) -> str:
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        entries = ({name: item for name, item in entry.items() if not isinstance(item, Mapping)} for entry in value)
        return "<br>".join(escape(", ".join(f"{name} {item}" for name, item in entry.items())) for entry in entries)
    if isinstance(value, list | tuple):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return escape(str(value))
