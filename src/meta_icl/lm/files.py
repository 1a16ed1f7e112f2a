"""Checkpoints on disk as a configuration and tensors: read rightly, or refused by one line that names the cause.

A checkpoint is a folder in Hugging Face's format (`config.json` with `model.safetensors` or its shards), a `.gguf`
file, or the name of a model that `meta-icl models get` has fetched. Nothing is ever downloaded or unpickled here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from meta_icl.errors import BadInput, first_line, require
from meta_icl.lm import gguf
from meta_icl.lm.configurations import shape_of
from meta_icl.lm.gguf import Stored
from meta_icl.lm.name_tables import NAMES
from meta_icl.lm.names import expected
from meta_icl.lm.packages import located
from meta_icl.lm.shapes import Shape

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
# Names by which the libraries of quantisation keep scales, zeros and packed weights beside a model's own.
QUANTISED = re.compile(
    r"(weight_scale|weight_scale_inv|input_scale|activation_scale|\.scales?|\.scb|\.SCB|qweight|qzeros|g_idx|absmax"
    r"|quant_map|quant_state\S*|weight_packed|weight_zero_point|weight_shape|zero_point|_blocks|_scales)$"
)
ADAPTER = re.compile(r"lora_[AB]|lora_embedding|lora_magnitude")
LAYER = re.compile(r"(?:layers|h)\.(\d+)\.")
ASIDE = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector)\.")  # of Gemma 3, whose text model is read alone


class Tensors(Mapping[str, np.ndarray]):
    """Tensors by name, each read from disk when it is asked for, in its stored type.

    Raises `BadInput` for values that are not finite and for data that cannot be read.
    """

    def __init__(self, stored: Mapping[str, Stored], source: Path):
        self._stored, self._source = stored, source

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            array = self._stored[name].read()
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{name} of {self._source} cannot be read ({first_line(error)})") from None
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        require(bad == 0, f"{name} of {self._source}", f"{bad} NaN or infinite values of {array.size}", "finite")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._stored[name].shape


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose names and shapes are all as its configuration says."""

    path: Path
    config: dict[str, Any]
    shape: Shape
    tensors: Tensors  # under the family's names of `lm.names`, without what was ignored
    notes: tuple[str, ...]  # what was ignored, a line each

    @property
    def family(self) -> str:
        """The `model_type`."""
        return self.shape.family


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in a folder, a `.gguf` file, or of a fetched model's name; of its weights nothing is read yet.

    Raises `BadInput` for anything that would not be read rightly: a missing place, a damaged file, quantised weights in
    a folder, an adapter without its base, an option that is not supported, a tensor that is missing, superfluous or of
    another shape or type.
    """
    path = located(path)
    if path.is_file() and path.suffix == ".gguf":
        file = gguf.open_gguf(path)
        config = gguf.configuration(file)
        shape, notes = shape_of(config)
        return _checked(path, config, shape, gguf.tensors(file, config), notes)
    if not path.exists():
        raise BadInput(f"there is no checkpoint {path}: neither a folder, nor a .gguf file, nor a fetched model")
    require(path.is_dir(), "checkpoint", str(path), "a folder with config.json, or a .gguf file")
    config = read_config(path)
    shape, notes = shape_of(config)
    files, more = _weight_files(path)
    return _checked(path, config, shape, _stored(files), notes + more)


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder; `BadInput` where there is none, or it is no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        what = (
            "an adapter without its base model" if (folder / "adapter_config.json").is_file() else "no language model"
        )
        raise BadInput(f"{folder} holds {what}: it has no config.json")
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file, with or without a byte order mark; `BadInput` for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({first_line(error)})") from None
    require(isinstance(value, dict), str(path), type(value).__name__, "a JSON object")
    return value


def _weight_files(folder: Path) -> tuple[dict[Path, list[str] | None], list[str]]:
    """The files that hold the model, with the names to take from each (none: all), and notes on those left alone."""
    present = sorted(file.name for file in folder.glob("*.safetensors"))
    if not present:
        pickled = sorted(file.name for file in folder.glob("*.bin")) + sorted(f.name for f in folder.glob("*.pt*"))
        reason = (
            f"only {pickled[0]}, which is never unpickled: save it as safetensors" if pickled else "no *.safetensors"
        )
        raise BadInput(f"{folder} holds no weights that can be read: {reason}")
    index = folder / INDEX
    if SINGLE in present:  # as the Hugging Face library chooses
        files: dict[Path, list[str] | None] = {folder / SINGLE: None}
    elif index.is_file():
        named: dict[Path, list[str]] = {}
        placed: Any = read_object(index).get("weight_map")
        good = isinstance(placed, dict) and bool(placed) and all(isinstance(f, str) for f in placed.values())
        require(good, f"weight_map of {index}", placed, "an object of file names")
        for name, file in sorted(placed.items()):
            require(Path(file).name == file, f"file of {name!r} in {index}", file, "a name in the same folder")
            if file not in present:
                raise BadInput(f"{folder} is incomplete: {file} is missing, which {INDEX} names")
            named.setdefault(folder / file, []).append(name)
        files = {**named}
    else:
        require(len(present) == 1 and not present[0].startswith("adapter_"), f"weights in {folder}", present,
                f"{SINGLE}, or shards with {INDEX}")  # fmt: skip
        files = {folder / present[0]: None}
    used = {file.name for file in files}
    notes = [f"{name} is ignored: it is no part of the model" for name in present if name not in used]
    if SINGLE in used and index.is_file():
        notes.append(f"{INDEX} is ignored: {SINGLE} is there")
    if (folder / "adapter_config.json").is_file():
        notes.append("the adapter beside the model (adapter_config.json) is not applied")
    return files, notes


def _stored(files: Mapping[Path, list[str] | None]) -> dict[str, Stored]:
    """The tensors of safetensors files, unread."""
    found: dict[str, Stored] = {}
    for path, wanted in files.items():
        try:
            opened = safe_open(path, framework="numpy")
            names = list(opened.keys())
            slices = {name: opened.get_slice(name) for name in names}
            described = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is damaged or cut short ({first_line(error)})") from None
        for name in names if wanted is None else wanted:
            if name not in described:
                raise BadInput(f"{path} has no tensor {name!r}, which {INDEX} places there")
            kind, shape = described[name]
            found[name] = Typed(shape, _reader(opened, name), kind)
    return found


@dataclass(frozen=True)
class Typed(Stored):
    """One of a safetensors file, which states the type."""

    kind: str = "F32"


def _reader(opened: Any, name: str) -> Any:
    return lambda: opened.get_tensor(name)


def _checked(
    path: Path, config: dict[str, Any], shape: Shape, stored: Mapping[str, Stored], notes: list[str]
) -> Checkpoint:
    """A checkpoint whose tensors are those that its configuration asks for, each under the family's usual name."""
    for name in sorted(stored):
        if QUANTISED.search(name):
            raise BadInput(f"{path} holds quantised weights ({name} beside them): only plain ones are read")
        if ADAPTER.search(name):
            raise BadInput(f"{path} holds an adapter that is not merged into its base model ({name})")
    wanted, table = expected(shape), NAMES[shape.family]
    body = [row.stored for row in table.rows if row.stored.startswith("{b}")]
    first = body[0]
    prefix = next((p for p in table.prefixes if first.replace("{b}", p) in stored), None)
    if prefix is None:
        raise BadInput(f"{path} has no tensor {first.replace('{b}', table.prefixes[0])!r}")
    kept: dict[str, Stored] = {}
    for name, tensor in stored.items():
        usual = _usual(name, prefix, shape)
        if usual in wanted:
            kept[usual] = tensor
            _check_tensor(path, name, tensor, wanted[usual])
        elif usual == _readout(shape):
            notes.append(_stale(name, tensor, stored[first.replace("{b}", prefix)]))
        elif not re.search(table.buffers, name) and not ASIDE.search(name):
            layer = LAYER.search(name)
            if layer and int(layer[1]) >= shape.n_layers:
                raise BadInput(
                    f"{path} has layer {layer[1]} ({name}), but its configuration states {shape.n_layers} layers"
                )
            raise BadInput(f"{path} has a tensor that its configuration has no place for: {name}")
    for name in wanted:
        if name not in kept:
            why = " (its configuration does not tie the read-out to the embedding)" if name == _readout(shape) else ""
            raise BadInput(f"{path} has no tensor {name!r}{why}")
    return Checkpoint(path, config, shape, Tensors(kept, path), tuple(notes))


def _check_tensor(path: Path, name: str, tensor: Stored, wanted: tuple[int, ...]) -> None:
    kind = getattr(tensor, "kind", "F32")
    if kind not in TYPES:
        raise BadInput(
            f"{name} of {path} has the type {kind}: quantised weights are not read (known: {', '.join(TYPES)})"
        )
    require(tensor.shape == wanted, f"shape of {name} of {path}", tensor.shape, f"{wanted} by its configuration")


def _usual(name: str, prefix: str, shape: Shape) -> str:
    """A name as the family's own models have it: with its prefix, and the read-out by its own name."""
    if re.search(r"(^|\.)(lm_head|embed_out)\.weight$", name):
        return _readout(shape)
    usual = NAMES[shape.family].prefixes[0]
    return usual + name.removeprefix(prefix) if name.startswith(prefix) else name


def _readout(shape: Shape) -> str:
    return next(row.stored for row in NAMES[shape.family].rows if row.when == "untied")


def _stale(name: str, tensor: Stored, embedding: Stored) -> str:
    """The note on a read-out that is ignored since the configuration ties it to the embedding."""
    same = tensor.shape == embedding.shape and np.array_equal(tensor.read(), embedding.read())
    how = "and equals it" if same else "but DIFFERS from it"
    return f"{name} is ignored: the configuration ties the read-out to the embedding ({name} is in the file {how})"
