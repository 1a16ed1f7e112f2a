"""A run: the folder in which one piece of work keeps its configuration, rows, checkpoints and results.

RUN/config.json        what was asked for, enough to ask again
    provenance.json    code, versions, device, command, times
    metrics.jsonl      rows while it runs; metrics.parquet once it is finished
    checkpoints/       the last two, with checksums
    arrays/, json/     results that figures and claims are made of
    claims.json        the claims with what was measured
    parts/NAME/        runs inside this run
    lock, DONE             the latter with the hash of all of the above that is a result
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from meta_icl.errors import BadInput
from meta_icl.runs import provenance as origin
from meta_icl.runs import results as kept
from meta_icl.runs.asked import LeftOut
from meta_icl.runs.claims import Claim
from meta_icl.runs.config import (
    CONFIG,
    checked_name,
    config_hash,
    existing_config,
    parts_in,
    require_same,
    stated_config,
    write_config,
)
from meta_icl.runs.files import (
    TEMPORARY,
    CannotWrite,
    parse_json,
    plain,
    remove,
    restored,
    versioned,
)
from meta_icl.runs.interrupts import stop_requested
from meta_icl.runs.journal import Journal
from meta_icl.runs.judged import read_claims, write_claims
from meta_icl.runs.lock import Lock, locked
from meta_icl.runs.manifest import is_done, made_manifest, read_file, verified_manifest, write_manifest
from meta_icl.runs.metrics import LINES, compact, log_of, read_metrics

ERROR = "error.json"  # in the folder of a part that failed
DIVERGED = "diverged"  # the name under which a run keeps which of its members are not finite

State = Literal["unfinished", "done", "failed", "diverged"]


class Run:
    """A run folder; made by `Run.open` (to work in it, locked) or `Run.load` (to read it)."""

    def __init__(self, folder: Path, config: dict[str, Any], lock: Lock | None):
        self.folder = folder
        self.config = config
        self.lenders: tuple[Path, ...] = ()  # runs whose finished parts are taken, whatever code made them
        self._lock = lock
        self._journal = Journal(folder, config)
        self._session: origin.Session | None = None
        self._manifest = verified_manifest(folder, config) if is_done(folder) else None

    @classmethod
    def open(cls, folder: str | Path, config: Mapping[str, Any], *, name: str | None = None) -> "Run":
        """Open the run of a configuration for work, making it if it does not exist.

        With a `name` the run is `folder/NAME-HASH`, HASH being that of `config`, so that asking again for the same
        configuration finds the same run, finished or not; without, it is `folder` itself. Raises `BadInput` if the
        folder is in use, damaged, of another format or another configuration, or not a run; nothing is changed then.
        """
        folder = Path(folder)
        if name is not None:
            folder = folder / f"{checked_name(name)}-{config_hash(config)}"
        wanted = plain(dict(config))
        existing = existing_config(folder)
        if existing is not None:
            require_same(folder, existing, wanted)
        try:
            lock = locked(folder)
        except OSError as error:
            raise BadInput(f"cannot make or use the run folder {folder}: {error.strerror or error}") from None
        try:
            existing = existing_config(folder)  # once more under the lock: it may have been made or removed meanwhile
            if existing is not None:
                require_same(folder, existing, wanted)
            run = cls(folder, restored(wanted), lock)
            run._begin(existing is None)
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Open an existing run for reading, without taking its lock; a finished one must be what it was finished as."""
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise BadInput(f"{folder} is not a run: it has no {CONFIG}")
        return cls(folder, stated_config(folder), None)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.state})"

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.folder.name

    @property
    def done(self) -> bool:
        """Whether the work is finished."""
        return is_done(self.folder)

    @property
    def state(self) -> State:
        """Whether the work is finished, with numbers that are finite or not, or failed, or neither yet."""
        if self.done:
            return "diverged" if self._manifest is not None and self._manifest.diverged else "done"
        failed = any(os.path.lexists(folder / ERROR) for folder in (self.folder, *parts_in(self.folder).values()))
        return "failed" if failed else "unfinished"

    @property
    def diverged(self) -> dict[str, int]:
        """The members (of a finished run with parts: the parts) that are not finite, and the step when it was seen."""
        if self._manifest is not None:
            return dict(self._manifest.diverged)
        return self.load_json(DIVERGED) if (self.folder / kept.json_file(DIVERGED)).exists() else {}

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for (Ctrl-C): save a checkpoint, then raise `KeyboardInterrupt`."""
        return stop_requested()

    @property
    def provenance(self) -> dict[str, Any]:
        """Code, versions, devices, random generator, and for every start its command, times and wall seconds."""
        path = self.folder / "provenance.json"
        return versioned(parse_json(self._read(path.name), path), path)

    def finish(self) -> None:
        """Compact the metrics, complete the provenance and mark the run `DONE`, with the hashes of all results."""
        self._require_writable()
        if self.done:
            return
        self._journal.close()
        lines = self.folder / LINES
        if lines.exists():
            compact(self.folder)
        self._session_begun().note(ended=origin.now())
        self._manifest = made_manifest(self.folder, self.config, origin.now(), self.diverged)
        if self._manifest.claims:
            write_claims(self.folder, read_claims(self.folder), self.config, self._manifest.results)
        write_manifest(self.folder, self._manifest)
        lines.unlink(missing_ok=True)  # only now: until DONE stands, the lines are the rows

    def close(self) -> None:
        """Release the lock; the run can still be read."""
        self._journal.close()
        if self._lock is not None:
            try:
                if self._session is not None and not self.done:
                    self._session.note(ended=origin.now())
            except CannotWrite:  # times are no results, and what went before this has told of the full disk
                pass
            finally:
                self._lock.release()
                self._lock = None

    # Parts

    def part(self, name: str, config: Mapping[str, Any] | None = None) -> "Run":
        """The run `parts/NAME` inside this one: for reading if it is done or this run is, else open for work.

        Without a `config`, an existing part keeps its own and a new one has none.
        """
        folder = self.part_folder(name)
        existing = existing_config(folder)
        wanted = plain(dict(config if config is not None else existing or {}))
        if existing is not None and (is_done(folder) or self._lock is None):
            require_same(folder, existing, wanted)
            return self._part(name)
        self._require_writable()
        return Run.open(folder, wanted)

    def parts(self) -> dict[str, "Run"]:
        """All parts by name, for reading; of a finished run exactly those with which it was finished."""
        names = list(parts_in(self.folder))
        if self._manifest is not None and (missing := sorted(set(self._manifest.parts) - set(names))):
            raise BadInput(f"part {missing[0]} of {self.folder} is missing: the run was finished with it")
        return {name: self._part(name) for name in names}

    def part_folder(self, name: str) -> Path:
        """Where the part of a name is, or will be."""
        return self.folder / "parts" / checked_name(name)

    def part_arrays(self, name: str) -> dict[str, np.ndarray]:
        """What the part of a name has left for figures and claims."""
        return self._part(name).load_arrays("result")

    def arrays_of_parts(self, start: str = "") -> dict[str, dict[str, np.ndarray]]:
        """What all parts whose names begin with `start` have left, by the rest of their names."""
        found = {name.removeprefix(start): part for name, part in self.parts().items() if name.startswith(start)}
        return {name: part.load_arrays("result") for name, part in found.items()}

    # Metrics

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row of numbers, strings, booleans or flat lists of numbers to the metrics."""
        self._require_unfinished()
        self._journal.log.log(row)

    def rewind(self, step: int) -> None:
        """Drop the rows of steps after `step`, because they will be made again.

        At the step of the checkpoint read last, exactly those logged since it was saved, also rows without a step; at
        -1, where there was none, those of earlier starts.
        """
        self._require_unfinished()
        self._journal.rewind(step)

    def begin_again(self) -> None:
        """Drop the rows of earlier starts if no checkpoint remembers them: the work begins anew."""
        if self.latest_checkpoint() is None:
            self.rewind(-1)

    def metrics(self) -> list[dict[str, Any]]:
        """All rows logged so far."""
        return read_metrics(self.folder, self._manifest)

    def log_file(self) -> Path | None:
        """The file with the rows logged so far, verified as far as the run says what it must be."""
        return log_of(self.folder, self._manifest)

    def note_divergence(self, members: Mapping[str, int]) -> None:
        """Keep which members of a training are not finite, and the step when that was seen."""
        self.save_json(DIVERGED, dict(members))

    # Checkpoints

    def save_checkpoint(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Save the state after `step` steps, with what its bits depend on; the newest two checkpoints are kept."""
        self._require_unfinished()
        self._journal.save_checkpoint(step, arrays)
        self._session_begun().note()

    def latest_checkpoint(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """The newest checkpoint that verifies, or `None`; `BadInput` if there are some and all are damaged.

        It must be one of this run and part and, where work goes on from it, of the same generator, precision, device,
        flags of XLA and versions, because the bits that follow depend on them.
        """
        return self._journal.latest_checkpoint(going_on=self._lock is not None and not self.done)

    # Results

    def save_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Keep named arrays for figures and claims."""
        self._require_unfinished()
        kept.save_arrays(self.folder, self.config, name, arrays)

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays kept under a name."""
        file = kept.arrays_file(name)
        return kept.arrays_from(self._read(file), self.folder / file, self.config)

    def save_json(self, name: str, value: Any) -> None:
        """Keep a value of numbers, strings, lists and mappings; NaN and infinity survive."""
        self._require_unfinished()
        kept.save_value(self.folder, self.config, name, value)

    def load_json(self, name: str) -> Any:
        """The value kept under a name."""
        file = kept.json_file(name)
        return kept.value_from(self._read(file), self.folder / file, self.config)

    def has(self, name: str) -> bool:
        """Whether arrays or a value are kept under a name."""
        return any((self.folder / file).exists() for file in (kept.arrays_file(name), kept.json_file(name)))

    def save_claims(self, claims: Sequence[Claim]) -> None:
        """Write `claims.json`: every claim with what was measured and its verdict, bound to the results."""
        self._require_writable()
        manifest = self._manifest
        write_claims(self.folder, claims, self.config, manifest.results if manifest is not None else None)
        if manifest is not None and not manifest.claims:
            self._manifest = dataclasses.replace(manifest, claims=True)
            write_manifest(self.folder, self._manifest)

    def load_claims(self) -> list[Claim]:
        """The claims as last written; none if none were. `BadInput` if they are those of other results."""
        return read_claims(self.folder, self._manifest)

    # Private

    def _begin(self, new: bool) -> None:
        """Under the lock: clear what a kill left, write the configuration once, note the start in the provenance."""
        for folder in (self.folder, *(self.folder / name for name in ("checkpoints", "arrays", "json"))):
            for leftover in folder.glob(f"{TEMPORARY}*"):
                remove(leftover)
        if new:
            write_config(self.folder, self.config)  # compared, if another process has made the run since we looked
        if self.done:
            return
        self._session = origin.Session(self.folder)

    def _session_begun(self) -> origin.Session:
        assert self._session is not None, "a run that can be written and is not finished has begun"
        return self._session

    def _part(self, name: str) -> "Run":
        """A part for reading; of a finished run the very part with which it was finished."""
        if "experiments" in self.config and existing_config(self.part_folder(name)) is None:
            raise LeftOut(f"part {name} was left out of {self.folder}: the claims that were asked for do not need it")
        part = Run.load(self.part_folder(name))
        if self._manifest is not None:
            if name not in self._manifest.parts:
                raise BadInput(f"part {name} was added to {self.folder} after the run was finished")
            found = part._manifest.results if part._manifest is not None else None
            if found != self._manifest.parts[name]:
                raise BadInput(f"part {name} of {self.folder} is not the one with which the run was finished")
        return part

    def _read(self, file: str) -> bytes:
        return read_file(self.folder, file, self._manifest)

    def _require_unfinished(self) -> None:
        self._require_writable()
        if self.done:
            raise BadInput(f"run {self.folder} is finished: its results do not change any more")

    def _require_writable(self) -> None:
        if self._lock is None:
            raise BadInput(f"run {self.folder} is open for reading only")
