"""Named numpy arrays as safetensors, exact in value, type and shape; bfloat16 and scalars included."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.errors import BadInput
from meta_icl.runs.files import write_atomically

_TYPES = {
    "BOOL": "bool",
    "C64": "complex64",
    "BF16": "bfloat16",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def to_bytes(arrays: Mapping[str, Any]) -> bytes:
    """The safetensors form of named arrays; jax arrays and numbers count as arrays."""
    from safetensors.numpy import save

    known = set(_TYPES.values())
    dense: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        array = np.array(value, order="C")  # safetensors writes the raw buffer: it must be contiguous
        if array.dtype.name not in known:
            raise BadInput(f"array {name!r} has type {array.dtype}, which cannot be saved (known: {sorted(known)})")
        dense[name] = array
    return save(dense)


def from_bytes(data: bytes) -> dict[str, np.ndarray]:
    """The arrays that `to_bytes` wrote, writable; `ValueError` if the data are damaged."""
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    arrays = {}
    for name, entry in entries:
        dtype = _dtype(_TYPES[entry["dtype"]])
        arrays[name] = np.frombuffer(bytes(entry["data"]), dtype).reshape(entry["shape"]).copy()
    return arrays


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays atomically."""
    write_atomically(path, to_bytes(arrays))


def from_file(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """The arrays in the bytes of a file; damaged ones are a `BadInput` that names it."""
    try:
        return from_bytes(data)
    except (ValueError, KeyError) as error:
        raise BadInput(f"{path} cannot be read as safetensors ({error}); nothing was changed") from None


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
