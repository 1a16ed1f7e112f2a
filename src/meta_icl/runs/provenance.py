"""Where a run comes from: code, versions, command, device, times."""

import functools
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import meta_icl

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "scikit-learn")


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
