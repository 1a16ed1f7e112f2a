"""Trained predictors as one file: arrays in the format of safetensors, and a header of JSON that names the model.

Nothing is unpickled and no code of the file is run: the header names classes of this package with their fields. A model
of your own is given to `load` as it was given to `train`.
"""

import dataclasses
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

import meta_icl
from meta_icl.data.cache import digest, write_bytes
from meta_icl.errors import BadInput
from meta_icl.training.arguments import drawing
from meta_icl.training.state import from_arrays, to_arrays
from meta_icl.training.trained import Trained

FORMAT = "meta_icl trained predictors, 1"
ROOMS = ("meta_icl.models.", "meta_icl.algorithms.")  # whose classes a header may name
LARGEST_ARRAY = 100_000  # numbers of an array that is a field of a description
Simple = None | bool | int | float | str


def save(trained: Trained, path: str | Path) -> Path:
    """Write trained predictors, what was recorded and what they are to a file, atomically."""
    path = Path(path)
    history = {f"history/{name}": values for name, values in trained.history.items()}
    arrays = {name: np.ascontiguousarray(a) for name, a in (to_arrays(trained.stacked, "predictor") | history).items()}
    header = {
        "format": FORMAT,
        "version": meta_icl.__version__,
        "model": described(trained.model),
        "text": repr(trained.model),
        "replicas": trained.replicas,
        "diverged": {str(member): step for member, step in trained.diverged.items()},
        "sha256": digest(arrays).hex(),
    }
    try:
        write_bytes(path, to_bytes(arrays, metadata={"meta_icl": json.dumps(header)}))
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
    return path


def load(path: str | Path, model: Any = None) -> Trained:
    """The trained predictors that `save` wrote.

    `model`, as it was given to `train`, is needed where the file cannot name it: a function, or a class of your own.
    Raises `BadInput` for a file that is damaged, of another kind, or of another model.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("meta_icl", "")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {' '.join(str(error).split())}") from None
    try:
        header = json.loads(text)
        known = header["format"] == FORMAT
        replicas = tuple(dict(replica) for replica in header["replicas"])
        diverged = {int(member): int(step) for member, step in header.get("diverged", {}).items()}
        stated, named, shown = header["sha256"], header["model"], str(header["text"])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadInput(f"{path} was not written by net.save: it has no header of {FORMAT!r}") from None
    if not known:
        raise BadInput(f"{path} is of format {header['format']!r}, expected {FORMAT!r}")
    if stated != digest(arrays).hex():
        raise BadInput(f"{path} is damaged: its arrays are not those that its checksum names")
    if model is None and named is None:
        raise BadInput(
            f"{path} does not say how its model is drawn; give load the model that was trained: {shown[:80]}"
        )
    model = rebuilt(named) if model is None else model
    one = drawing(model)(key=jax.random.key(0))
    n = len(replicas)
    like = jax.tree.map(lambda leaf: jnp.stack([leaf] * n) if eqx.is_array(leaf) else leaf, one)
    history = {name.removeprefix("history/"): a for name, a in arrays.items() if name.startswith("history/")}
    expected = to_arrays(like, "predictor").keys() | {f"history/{name}" for name in history}
    if extra := sorted(arrays.keys() - expected):
        raise BadInput(f"{path} has an array {extra[0]!r} that the model has not: it belongs to another model")
    return Trained(from_arrays(like, arrays, "predictor"), history, replicas, model, diverged)


def described(value: Any) -> Any:
    """A description as JSON, {"class": .., "fields": ..}; None where something in it is not of this package."""
    try:
        return _described(value)
    except TypeError:
        return None


def _described(value: Any) -> Any:
    if isinstance(value, Simple):
        return value
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [_described(item) for item in value]}
    if isinstance(value, np.ndarray | jax.Array) and value.size <= LARGEST_ARRAY and value.dtype.kind in "biuf":
        return {"array": np.asarray(value).tolist(), "dtype": str(value.dtype)}
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if dataclasses.is_dataclass(value) and name.startswith(ROOMS) and "<" not in name:
        fields = {f.name: _described(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"class": name, "fields": fields}
    raise TypeError(name)


def rebuilt(text: Any) -> Any:
    """The description of which `described` made JSON; raises `BadInput` for what is not one."""
    if isinstance(text, Simple):
        return text
    try:
        if "class" in text:
            module, _, name = text["class"].partition(":")
            kind = getattr(import_module(module), name) if module.startswith(ROOMS) else None
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
                raise BadInput(f"the file names {text['class']!r}, which is no description of this version")
            return kind(**{name: rebuilt(value) for name, value in text["fields"].items()})
        if "array" in text:
            return jnp.asarray(np.array(text["array"], text["dtype"]))
        return (tuple if "tuple" in text else list)(rebuilt(item) for item in text.get("tuple", text.get("list")))
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        raise BadInput(f"the file describes its model as this version does not: {error}; give load the model") from None
