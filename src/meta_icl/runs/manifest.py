"""`DONE`: what a finished run consists of, file by file, so that nothing else is taken for it.

RUN/DONE holds the digest of the configuration, the names of all parts with the digest of what each consists of, and the
SHA-256 of every file of the result. A part also states its name and the run that it belongs to. `read_file` is where
the files of a run are opened and compared with it. Checkpoints may be removed from a finished run, and claims be judged
again (`runs.judged` binds them to the results); no other file changes.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs.config import parts_in, place_of
from meta_icl.runs.files import digest, read_json, read_regular, sealed, unsealed, write_json

DONE = "DONE"
FORMAT = 2  # 1 held no hashes
RESULTS = ("arrays/*.safetensors", "json/*.json", "metrics.parquet", "provenance.json")
CHECKPOINTS = ("checkpoints/*/state.safetensors", "checkpoints/*/checksum.json")


@dataclass(frozen=True)
class Manifest:
    """What a finished run consists of; `parts` holds nothing for a part that was not finished, or by an older version.

    `diverged` says which members (of a run with parts: which parts) are not finite, and from which step.
    """

    finished: str
    config: str
    part: str | None
    of: str | None
    parts: Mapping[str, str | None]
    files: Mapping[str, str]
    diverged: Mapping[str, int]
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    claims: bool = False

    @property
    def results(self) -> str:
        """The digest of all that the results are."""
        names = ("config", "part", "of", "parts", "files", "diverged")
        return digest({name: getattr(self, name) for name in names})


def is_done(folder: Path) -> bool:
    """Whether a run is marked as finished, be it rightly or not."""
    return os.path.lexists(folder / DONE)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Mark a run as finished."""
    write_json(folder / DONE, sealed({"format": FORMAT, **vars(manifest)}))


def made_manifest(folder: Path, config: Mapping[str, Any], finished: str, diverged: Mapping[str, int]) -> Manifest:
    """The manifest of what is in a run folder now."""
    place = place_of(folder) or (None, None)
    parts: dict[str, str | None] = {}
    diverged = dict(diverged)
    for name, path in parts_in(folder).items():
        part = read_manifest(path) if is_done(path) else None
        parts[name] = part.results if part is not None else None
        if part is not None and part.diverged:
            diverged[name] = min(part.diverged.values())
    files, checkpoints = (
        {name: _sha256(read_regular(folder / name)) for name in sorted(found(folder, patterns))}
        for patterns in (RESULTS, CHECKPOINTS)
    )
    claims = os.path.lexists(folder / "claims.json")
    return Manifest(finished, digest(dict(config)), *place, parts, files, diverged, checkpoints, claims)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished run, itself verified; `None` if an older version finished it."""
    path = folder / DONE
    value = read_json(path)
    if isinstance(value, dict) and value.get("format") == 1 and set(value) == {"format", "finished"}:
        return None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BadInput(f"{path} is damaged or of another version; nothing was changed")
    content = unsealed(value, path)
    del content["format"]
    try:
        return Manifest(**content)
    except TypeError as error:
        raise BadInput(f"{path} is of another version ({error}); nothing was changed") from None


def verified_manifest(folder: Path, config: Mapping[str, Any]) -> Manifest | None:
    """The manifest of a finished run, if it is the one of this configuration and, of a part, of this place."""
    manifest = read_manifest(folder)
    if manifest is not None:
        if manifest.config != digest(dict(config)):
            raise BadInput(f"{folder / 'config.json'} is not the configuration with which {folder} was finished")
        require_place(folder, manifest.part, manifest.of, folder)
    return manifest


def require_place(folder: Path, part: str | None, of: str | None, what: Path) -> None:
    """`BadInput` if `what`, which says that it belongs to this part of this run, stands in another one."""
    place = place_of(folder)
    if place is None or place == (part, of):
        return
    if part is None:
        raise BadInput(f"{what} was copied from another run: it was no part there, and here it is part {folder.name}")
    if part != place[0]:
        raise BadInput(f"{what} was copied from part {part}, and here it is part {folder.name}")
    raise BadInput(f"{what} was copied from part {part} of a run with another configuration")


def read_file(folder: Path, name: str, manifest: Manifest | None) -> bytes:
    """The bytes of a file of a run; if the run is finished, exactly those with which it was finished."""
    path = folder / name
    stated = None if manifest is None else manifest.files.get(name)
    try:
        data = read_regular(path)
    except FileNotFoundError:
        if stated is not None:
            raise BadInput(f"{path} is missing: the run was finished with it") from None
        raise BadInput(f"{path} does not exist") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error}); nothing was changed") from None
    if manifest is not None and stated is None:
        raise BadInput(f"{path} was added after the run was finished")
    if stated is not None and _sha256(data) != stated:
        raise BadInput(f"{path} is not the file with which the run was finished; `meta-icl runs verify` says more")
    return data


def found(folder: Path, patterns: tuple[str, ...]) -> Iterator[str]:
    """The names, relative to the folder, of what matches; its path is no pattern, whatever characters it holds."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            yield path.relative_to(folder).as_posix()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
