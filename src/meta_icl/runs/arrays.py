"""Named numpy arrays as safetensors, exact in value, type and shape; bfloat16 and scalars included."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_icl.errors import BadInput

_TYPES = {
    "BOOL": "bool",
    "C64": "complex64",
    "BF16": "bfloat16",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def dense(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Named arrays as they can be saved; jax arrays and numbers count as arrays."""
    known = set(_TYPES.values())
    found: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        array = np.asarray(value, order="C")  # safetensors writes the raw buffer: it must be contiguous
        if array.dtype.name not in known:
            raise BadInput(f"array {name!r} has type {array.dtype}, which cannot be saved (known: {sorted(known)})")
        found[name] = array
    return found


def to_bytes(arrays: Mapping[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    """The safetensors form of named arrays, with texts beside them."""
    from safetensors.numpy import save

    return save(dense(arrays), metadata)


def metadata_of(data: bytes) -> dict[str, str]:
    """The texts that stand beside the arrays; `ValueError` if the data are damaged."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header.get("__metadata__", {})


def from_bytes(data: bytes) -> dict[str, np.ndarray]:
    """The arrays that `to_bytes` wrote, writable, by name; `ValueError` if the data are damaged."""
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    arrays = {}
    for name, entry in sorted(entries):  # the library hands them out in another order every time
        dtype = _dtype(_TYPES[entry["dtype"]])
        arrays[name] = np.frombuffer(bytes(entry["data"]), dtype).reshape(entry["shape"]).copy()
    return arrays


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
