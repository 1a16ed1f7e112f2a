"""A run: the folder in which one piece of work keeps its configuration, rows, checkpoints and results.

RUN/config.json        what was asked for, enough to ask again
    provenance.json    code, versions, device, command, times
    metrics.jsonl      rows while it runs; metrics.parquet once it is finished
    checkpoints/       the last two, with checksums
    arrays/, json/     results that figures and claims are made of
    claims.json        the claims with what was measured
    parts/NAME/        runs inside this run
    lock, DONE
"""

import hashlib
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from meta_icl.errors import BadInput, require
from meta_icl.runs import arrays as array_files
from meta_icl.runs import checkpoints
from meta_icl.runs import provenance as origin
from meta_icl.runs.claims import Claim, claims_from_json, claims_to_json
from meta_icl.runs.files import FORMAT, TEMPORARY, canonical, plain, read_versioned, restored, write_json
from meta_icl.runs.interrupts import stop_requested
from meta_icl.runs.lock import Lock
from meta_icl.runs.metrics import LINES, MetricsLog, compact, read_metrics

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_=,.+-]{0,150}")


class Run:
    """A run folder; made by `Run.open` (to work in it, locked) or `Run.load` (to read it)."""

    def __init__(self, folder: Path, config: dict[str, Any], lock: Lock | None):
        self.folder = folder
        self.config = config
        self._lock = lock
        self._log: MetricsLog | None = None
        self._began = time.monotonic()
        self._provenance: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: str | Path, config: Mapping[str, Any], *, name: str | None = None) -> "Run":
        """Open the run of a configuration for work, making it if it does not exist.

        With a `name` the run is `folder/NAME-HASH`, HASH being that of `config`, so that asking again for the same
        configuration finds the same run, finished or not; without, it is `folder` itself. Raises `BadInput` if the
        folder is in use, damaged, of another format or another configuration, or not a run; nothing is changed then.
        """
        folder = Path(folder)
        if name is not None:
            folder = folder / f"{_checked(name)}-{config_hash(config)}"
        wanted = plain(dict(config))
        existing = _existing_config(folder)
        if existing is not None:
            _require_same(folder, existing, wanted)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder)
        except OSError as error:
            raise BadInput(f"cannot make or use the run folder {folder}: {error.strerror}") from None
        run = cls(folder, restored(wanted), lock)
        try:
            run._begin(existing is None)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Open an existing run for reading, without taking its lock."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise BadInput(f"{folder} is not a run: it has no config.json")
        return cls(folder, _stated_config(folder), None)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {'done' if self.done else 'unfinished'})"

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.folder.name

    @property
    def done(self) -> bool:
        """Whether the work is finished."""
        return (self.folder / "DONE").exists()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for (Ctrl-C): save a checkpoint, then raise `KeyboardInterrupt`."""
        return stop_requested()

    @property
    def provenance(self) -> dict[str, Any]:
        """Code, versions, devices, random generator, and for every start its command, times and wall seconds."""
        return read_versioned(self.folder / "provenance.json")

    def finish(self) -> None:
        """Compact the metrics, complete the provenance and mark the run `DONE`."""
        self._require_writable()
        if self.done:
            return
        if self._log is not None:
            self._log.close()
            self._log = None
        lines = self.folder / LINES
        if lines.exists():
            compact(self.folder)
        self._note_time(ended=origin.now())
        write_json(self.folder / "DONE", {"format": FORMAT, "finished": origin.now()})
        lines.unlink(missing_ok=True)  # only now: until DONE stands, the lines are the rows

    def close(self) -> None:
        """Release the lock; the run can still be read."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            if self._provenance and not self.done:
                self._note_time(ended=origin.now())
            self._lock.release()
            self._lock = None

    # Parts

    def part(self, name: str, config: Mapping[str, Any] | None = None) -> "Run":
        """The run `parts/NAME` inside this one: for reading if it is done or this run is, else open for work.

        Without a `config`, an existing part keeps its own and a new one has none.
        """
        folder = self.part_folder(name)
        existing = _existing_config(folder)
        wanted = plain(dict(config if config is not None else existing or {}))
        if existing is not None and ((folder / "DONE").exists() or self._lock is None):
            _require_same(folder, existing, wanted)
            return Run.load(folder)
        self._require_writable()
        return Run.open(folder, wanted)

    def parts(self) -> dict[str, "Run"]:
        """All parts by name, for reading."""
        folders = sorted((self.folder / "parts").glob("*/config.json"))
        return {path.parent.name: Run.load(path.parent) for path in folders}

    def part_folder(self, name: str) -> Path:
        """Where the part of a name is, or will be."""
        return self.folder / "parts" / _checked(name)

    def part_arrays(self, name: str) -> dict[str, np.ndarray]:
        """What the part of a name has left for figures and claims."""
        return Run.load(self.part_folder(name)).load_arrays("result")

    def arrays_of_parts(self, start: str = "") -> dict[str, dict[str, np.ndarray]]:
        """What all parts whose names begin with `start` have left, by the rest of their names."""
        names = [name for name in self.parts() if name.startswith(start)]
        return {name.removeprefix(start): self.part_arrays(name) for name in names}

    # Metrics

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row of numbers, strings, booleans or flat lists of numbers to the metrics."""
        self._metrics().log(row)

    def rewind(self, step: int) -> None:
        """Drop the rows of steps after `step`, because they will be made again."""
        self._metrics().rewind(step)

    def metrics(self) -> list[dict[str, Any]]:
        """All rows logged so far."""
        return read_metrics(self.folder)

    # Checkpoints

    def save_checkpoint(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Save the state after `step` steps; the newest two checkpoints are kept."""
        require(step >= 0, "step", step, "zero or more")
        self._metrics().sync()
        checkpoints.save_checkpoint(self.folder / "checkpoints", step, arrays)
        self._note_time()

    def latest_checkpoint(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """The newest checkpoint that verifies, or `None`; `BadInput` if there are some and all are damaged."""
        return checkpoints.latest_checkpoint(self.folder / "checkpoints")

    # Results

    def save_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Keep named arrays for figures and claims."""
        self._require_writable()
        array_files.save_arrays(self._arrays(name), arrays)

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays kept under a name."""
        return array_files.load_arrays(self._arrays(name))

    def save_json(self, name: str, value: Any) -> None:
        """Keep a value of numbers, strings, lists and mappings; NaN and infinity survive."""
        self._require_writable()
        write_json(self._json(name), {"format": FORMAT, "value": value})

    def load_json(self, name: str) -> Any:
        """The value kept under a name."""
        return read_versioned(self._json(name)).get("value")

    def has(self, name: str) -> bool:
        """Whether arrays or a value are kept under a name."""
        return self._arrays(name).exists() or self._json(name).exists()

    def save_claims(self, claims: Sequence[Claim]) -> None:
        """Write `claims.json`: every claim with what was measured and its verdict."""
        self._require_writable()
        write_json(self.folder / "claims.json", claims_to_json(claims))

    def load_claims(self) -> list[Claim]:
        """The claims as last written; none if none were."""
        path = self.folder / "claims.json"
        return claims_from_json(read_versioned(path), str(path)) if path.exists() else []

    # Private

    def _begin(self, new: bool) -> None:
        """Under the lock: clear what a kill left, write the configuration once, note the start in the provenance."""
        for folder in (self.folder, *(self.folder / name for name in ("checkpoints", "arrays", "json"))):
            for leftover in folder.glob(f"{TEMPORARY}*"):
                _remove(leftover)
        if new:
            existing = _existing_config(self.folder)  # another process may have made the run since we looked
            if existing is not None:
                _require_same(self.folder, existing, self.config)
            write_config(self.folder, self.config)
        if self.done:
            return
        path = self.folder / "provenance.json"
        starts = read_versioned(path)["starts"] if path.exists() else []
        self._provenance = {"format": FORMAT, **origin.provenance(), "devices": [], "generator": None}
        self._provenance |= {"resumed": len(starts), "wall_seconds": 0.0, "starts": [*starts, origin.start()]}
        write_json(path, self._provenance)

    def _note_time(self, ended: str | None = None) -> None:
        starts = self._provenance["starts"]
        starts[-1]["wall_seconds"] = round(time.monotonic() - self._began, 3)
        starts[-1]["ended"] = ended
        self._provenance["wall_seconds"] = round(sum(one["wall_seconds"] for one in starts), 3)
        self._provenance |= {"devices": origin.devices(), "generator": origin.generator()}
        write_json(self.folder / "provenance.json", self._provenance)

    def _metrics(self) -> MetricsLog:
        self._require_writable()
        if self.done:
            raise BadInput(f"run {self.folder} is finished: its metrics and checkpoints do not change any more")
        if self._log is None:
            self._log = MetricsLog(self.folder)
        return self._log

    def _require_writable(self) -> None:
        if self._lock is None:
            raise BadInput(f"run {self.folder} is open for reading only")

    def _arrays(self, name: str) -> Path:
        return self.folder / "arrays" / f"{_checked(name)}.safetensors"

    def _json(self, name: str) -> Path:
        return self.folder / "json" / f"{_checked(name)}.json"


def config_hash(config: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that name a configuration."""
    return hashlib.sha256(canonical(dict(config)).encode()).hexdigest()[:10]


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Make a run folder with its configuration, or check that an existing one has the same."""
    wanted = plain(dict(config))
    existing = _existing_config(folder)
    if existing is None:
        write_json(folder / "config.json", {"format": FORMAT, "config": wanted})
    else:
        _require_same(folder, existing, wanted)


def _existing_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a run folder; `None` if there is no run yet and none of anybody's files either."""
    if (folder / "config.json").exists():
        return _stated_config(folder)
    if folder.exists():
        if not folder.is_dir():
            raise BadInput(f"{folder} is a file, not a run folder")
        foreign = sorted(path.name for path in folder.iterdir() if path.name != "lock" and TEMPORARY not in path.name)
        if foreign:
            raise BadInput(f"{folder} is not a run (it has no config.json) and not empty ({foreign[0]}): left alone")
    return None


def _stated_config(folder: Path) -> dict[str, Any]:
    config = read_versioned(folder / "config.json").get("config")
    if not isinstance(config, dict):
        raise BadInput(f"{folder / 'config.json'} holds no configuration; nothing was changed")
    return config


def _require_same(folder: Path, existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if canonical(existing) == canonical(wanted):
        return
    there, asked = _flat(existing), _flat(wanted)
    field = next(name for name in sorted(there | asked) if there.get(name, ...) != asked.get(name, ...))
    said = [repr(side[field]) if field in side else "nothing" for side in (there, asked)]
    raise BadInput(f"run {folder} was made with {field} = {said[0]}, now it is {said[1]}; nothing was changed")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: plain(value)}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _checked(name: str) -> str:
    allowed = "letters, digits and any of _=,.+- (starting with a letter, digit or _)"
    require(NAME.fullmatch(name) is not None, "name", name, allowed)
    return name


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
