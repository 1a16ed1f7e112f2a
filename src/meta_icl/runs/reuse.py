"""Finished parts of other runs, taken over instead of computed again.

A part is a function called with arguments, both of which stand in its configuration: another run that has finished the
same part has its result. So a run asked for two claims does not train anew what an earlier one trained for the first.
Runs of the same configuration, but for what they were asked for, lend by themselves, where the code and the libraries
are those of now; a run that is named lends whatever code it was made by. A part that was taken states `reused_from` in
its provenance, which is that of where it was computed; everything else in it is sealed anew as a part of its run.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs import provenance as origin
from meta_icl.runs import results
from meta_icl.runs.asked import ASKED
from meta_icl.runs.config import config_hash, parts_in, stated_config
from meta_icl.runs.files import canonical, write_atomically, write_json
from meta_icl.runs.lock import Lock
from meta_icl.runs.manifest import is_done, made_manifest, read_file, verified_manifest, write_manifest
from meta_icl.runs.run import Run

PROVENANCE = "provenance.json"


def reuse_parts(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Take those of a run's unfinished parts that others have finished, unless begun; the names of these runs by part.

    A lender that is damaged lends nothing; of one that was named (`run.lenders`) it is a `BadInput`.
    """
    taken: dict[str, str] = {}
    for folder in run.lenders:
        lender = Run.load(folder)
        taken |= _take(run, dict(_lent(run, [name for name in names if name not in taken], lender)), lender)
    for lender in _siblings(run):
        try:
            own = dict(_lent(run, [name for name in names if name not in taken], lender))
            taken |= _take(run, {name: part for name, part in own.items() if _of_today(part)}, lender)
        except BadInput:
            continue
    return taken


def reused(run: Run) -> dict[str, str]:
    """Where the parts of a run were taken from that were not computed for it, by name."""
    told = {name: part.provenance.get("reused_from") for name, part in run.parts().items()}
    return {name: source for name, source in told.items() if source is not None}


def _siblings(run: Run) -> Iterator[Run]:
    """The runs beside one that were asked for something else and are alike in all the rest."""
    stem, _, end = run.name.rpartition("-")
    if end != config_hash(run.config):  # it was not named after its configuration, so that nothing is beside it
        return
    for folder in sorted(run.folder.parent.iterdir()):
        if folder.name.rpartition("-")[0] != stem or folder.name == run.name or folder.is_symlink():
            continue
        try:
            other = Run.load(folder)
        except BadInput:
            continue
        if canonical(_rest(other.config)) == canonical(_rest(run.config)):
            yield other


def _rest(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in ASKED}


def _lent(run: Run, names: Sequence[str], lender: Run) -> Iterator[tuple[str, Run]]:
    """The parts that a run has finished and that are the same in another, where nobody has begun them."""
    there = parts_in(lender.folder)
    for name in names:
        own = run.part_folder(name)
        begun = (own / PROVENANCE).exists()
        if name not in there or not is_done(there[name]) or begun or parts_in(there[name]):
            continue
        if canonical(stated_config(there[name])) == canonical(stated_config(own)):
            yield name, lender.part(name)


def _of_today(part: Run) -> bool:
    """Whether a part was made by this very code and these libraries."""
    code, made = origin.code(), part.provenance
    return not code.get("dirty") and made["code"] == code and made["versions"] == origin.versions(origin.PACKAGES)


def _take(run: Run, parts: Mapping[str, Run], lender: Run) -> dict[str, str]:
    for name, part in parts.items():
        _copy(part, run.part_folder(name), f"{lender.name}, part {name}")
    return dict.fromkeys(parts, lender.name)


def _copy(part: Run, folder: Path, source: str) -> None:
    """Make what a finished part has left a finished part in this folder; its mark comes last."""
    manifest = verified_manifest(part.folder, part.config)
    if manifest is None:
        raise BadInput(f"{part.folder} was finished by an older version that kept no hashes: it cannot be reused")
    lock = Lock(folder)
    try:
        for file in manifest.files:
            path, data = part.folder / file, read_file(part.folder, file, manifest)
            if file.startswith("arrays/"):
                results.save_arrays(folder, part.config, path.stem, results.arrays_from(data, path, part.config))
            elif file.startswith("json/"):
                results.save_value(folder, part.config, path.stem, results.value_from(data, path, part.config))
            elif file != PROVENANCE:
                write_atomically(folder / file, data)
        told = part.provenance
        write_json(folder / PROVENANCE, told | {"reused_from": told.get("reused_from", source)})
        write_manifest(folder, made_manifest(folder, part.config, manifest.finished, manifest.diverged))
    finally:
        lock.release()
