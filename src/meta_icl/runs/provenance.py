"""Where a run comes from: code, versions, command, device, times."""

import functools
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import meta_icl
from meta_icl.errors import BadInput
from meta_icl.runs.files import FORMAT, read_versioned, write_json

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "scikit-learn")


class Session:
    """One process's work on a run, and its entry in `provenance.json`; `BadInput` if that is damaged."""

    def __init__(self, folder: Path):
        self._path, self._began = folder / "provenance.json", time.monotonic()
        starts: Any = read_versioned(self._path).get("starts") if os.path.lexists(self._path) else []
        if not isinstance(starts, list) or not all(map(_is_start, starts)):
            raise BadInput(f"{self._path} holds no starts of a run; nothing was changed")
        self._told: dict[str, Any] = {"format": FORMAT, **provenance(), "devices": [], "generator": None}
        self._told |= {"resumed": len(starts), "wall_seconds": 0.0, "starts": [*starts, start()]}
        write_json(self._path, self._told)

    def note(self, ended: str | None = None) -> None:
        """Write how long the work has taken so far, and on which devices."""
        starts = self._told["starts"]
        starts[-1]["wall_seconds"] = round(time.monotonic() - self._began, 3)
        starts[-1]["ended"] = ended
        self._told["wall_seconds"] = round(sum(one["wall_seconds"] for one in starts), 3)
        self._told |= {"devices": devices(), "generator": generator()}
        write_json(self._path, self._told)


def _is_start(one: Any) -> bool:
    """Whether an entry of the provenance says how long one process worked on the run."""
    return isinstance(one, dict) and isinstance(one.get("wall_seconds"), int | float)


def provenance() -> dict[str, Any]:
    """Code and library versions; the same for the whole life of a process."""
    return {"code": code(), "versions": versions(PACKAGES), "platform": f"{platform.system()} {platform.machine()}"}


def start() -> dict[str, Any]:
    """What is known at the start of one process's work on a run."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    return {"command": command, "code": code(), "started": now(), "ended": None, "wall_seconds": 0.0}


def now() -> str:
    """The present time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def devices() -> list[str]:
    """The devices that jax computes on, if this process uses jax at all; it is never imported here."""
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "devices"):
        return []
    try:
        return [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
    except Exception:  # none of the platform that was asked for: who computes with it is told by jax
        return []


def generator() -> str | None:
    """The random generator of new keys, if this process uses jax: the same key gives other numbers in another."""
    jax = sys.modules.get("jax")
    return None if jax is None or not hasattr(jax, "config") else jax.config.jax_default_prng_impl


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of Python and packages; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def code() -> dict[str, Any]:
    """Version of the package and, if its files are tracked by git, commit and whether they differ from it."""
    folder = Path(__file__).resolve().parent.parent
    version = {"version": meta_icl.__version__}
    try:
        _git(folder, "ls-files", "--error-unmatch", "errors.py")  # fails for an installation inside another checkout
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return version
    return version | {"commit": commit, "dirty": dirty}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
