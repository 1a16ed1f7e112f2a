"""Verification of whole runs: every file against what the run says it consists of, and where a foreign one is from."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs import checkpoints, results
from meta_icl.runs.config import parts_in, stated_config
from meta_icl.runs.files import read_regular
from meta_icl.runs.judged import read_claims
from meta_icl.runs.lock import holder
from meta_icl.runs.manifest import (
    CHECKPOINTS,
    RESULTS,
    Manifest,
    found,
    is_done,
    read_file,
    read_manifest,
    verified_manifest,
)
from meta_icl.runs.metrics import log_of, read_metrics
from meta_icl.runs.query import nested

OLDER = "older format"


@dataclass(frozen=True)
class Finding:
    """Something in a run that is not as it was left.

    `kind` is "missing", "added", "changed", "exchanged" (it is `origin`), "unreadable" (because of `origin`) or "older
    format" (not verifiable: the version that made it kept no hashes).
    """

    run: str
    part: str
    file: str
    kind: str
    origin: str = ""

    @property
    def text(self) -> str:
        """The finding in words."""
        return {"exchanged": f"exchanged: it is {self.origin}", "unreadable": self.origin}.get(self.kind, self.kind)


Found = Callable[..., Finding]  # (file, kind, origin) in the folder at hand


def verify(runs: Sequence[Path]) -> list[Finding]:
    """All findings in these run folders and their parts; none if everything is as it was left."""
    folders = [(run, part) for run in runs for part in nested(run)]
    origins: dict[str, str] = {}
    for run, folder in folders:
        try:
            manifest = read_manifest(folder) if is_done(folder) else None
        except BadInput:
            continue
        if manifest is not None:
            place = "/".join(filter(None, (run.name, _part(run, folder))))
            origins |= {sha: f"{name} of {place}" for name, sha in manifest.files.items()}
            origins[manifest.results] = place
    return [finding for run, folder in folders for finding in _findings(run, folder, origins)]


def _findings(run: Path, folder: Path, origins: Mapping[str, str]) -> Iterator[Finding]:
    part = _part(run, folder)

    def finding(file: str, kind: str, origin: str = "") -> Finding:
        return Finding(run.name, part, file, kind, origin)

    try:
        config = stated_config(folder)
    except BadInput as error:
        yield finding("config.json", "unreadable", str(error))
        return
    if not is_done(folder):
        yield from _unfinished(folder, config, finding)
        return
    try:
        manifest = verified_manifest(folder, config)
    except BadInput as error:
        yield finding("DONE", "unreadable", str(error))
        return
    if manifest is None:
        yield finding("DONE", OLDER)
        return
    yield from _files(folder, manifest, origins, finding)
    yield from _parts(folder, manifest, origins, finding)
    try:
        read_claims(folder, manifest)
    except BadInput as error:
        yield finding("claims.json", "unreadable", str(error))


def _files(folder: Path, manifest: Manifest, origins: Mapping[str, str], finding: Found) -> Iterator[Finding]:
    for patterns, stated in ((RESULTS, manifest.files), (CHECKPOINTS, manifest.checkpoints)):
        there = set(found(folder, patterns))
        for name in sorted(there - stated.keys()):
            yield finding(name, "added")
        for name, sha in stated.items():
            if name not in there:
                if patterns is RESULTS:  # checkpoints of a finished run may be removed
                    yield finding(name, "missing")
                continue
            try:
                is_now = hashlib.sha256(read_regular(folder / name)).hexdigest()
            except OSError as error:
                yield finding(name, "unreadable", str(error))
                continue
            if is_now != sha:
                yield finding(name, *(("exchanged", origins[is_now]) if is_now in origins else ("changed",)))


def _parts(folder: Path, manifest: Manifest, origins: Mapping[str, str], finding: Found) -> Iterator[Finding]:
    there = parts_in(folder)
    for name in sorted(there.keys() - manifest.parts.keys()):
        yield finding(f"parts/{name}", "added")
    for name, stated in manifest.parts.items():
        if name not in there:
            yield finding(f"parts/{name}", "missing")
            continue
        try:
            part = read_manifest(there[name]) if is_done(there[name]) else None
        except BadInput:
            continue  # told of the part itself
        results = None if part is None else part.results
        if results != stated:
            origin = origins.get(results or "", "")
            yield finding(f"parts/{name}", *(("exchanged", origin) if origin and stated else ("changed",)))


def _unfinished(folder: Path, config: Mapping[str, Any], finding: Found) -> Iterator[Finding]:
    """Of a run that is not finished, its checkpoints and rows say what they must be; while it runs they come and go."""
    if holder(folder) is not None:
        return
    for path in checkpoints.checkpoints(folder / "checkpoints"):
        try:
            checkpoints.require_belonging(checkpoints.read_checkpoint(path), folder, config)
        except BadInput as error:
            yield finding(f"checkpoints/{path.name}", "unreadable", str(error))
    for name in found(folder, RESULTS[:2]):
        read = results.arrays_from if name.startswith("arrays") else results.value_from
        try:
            read(read_file(folder, name, None), folder / name, config)
        except BadInput as error:
            yield finding(name, "unreadable", str(error))
    try:
        if log_of(folder) is not None:
            read_metrics(folder)
    except BadInput as error:
        yield finding("metrics.jsonl", "unreadable", str(error))


def _part(run: Path, folder: Path) -> str:
    return "/".join(folder.relative_to(run).parts[1::2])
