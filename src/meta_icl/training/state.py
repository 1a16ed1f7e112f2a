"""Trees of arrays to named numpy arrays and back: the form in which checkpoints are kept."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from meta_icl.errors import BadInput

T = TypeVar("T")


def to_arrays(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """Every array leaf under the name `prefix` + its path in the tree; random keys as their raw words."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    return {prefix + jax.tree_util.keystr(path): np.asarray(_raw(leaf)) for path, leaf in leaves}


def from_arrays(like: T, arrays: dict[str, np.ndarray], prefix: str) -> T:
    """The tree `like` with its array leaves replaced by those named as `to_arrays` names them.

    Raises `BadInput` if an array is missing or has another shape or type: the checkpoint belongs to another model.
    """
    dynamic, static = eqx.partition(like, eqx.is_array)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(dynamic)
    restored = []
    for path, leaf in leaves:
        name = prefix + jax.tree_util.keystr(path)
        if name not in arrays:
            raise BadInput(f"the checkpoint has no array {name!r}: it belongs to another model or version")
        raw, expected = arrays[name], _raw(leaf)
        if raw.shape != expected.shape or raw.dtype != expected.dtype:
            raise BadInput(
                f"array {name!r} of the checkpoint is {raw.dtype}{list(raw.shape)}, expected "
                f"{expected.dtype}{list(expected.shape)}: it belongs to another model or version"
            )
        array = jnp.asarray(raw)
        restored.append(jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array)
    return eqx.combine(jax.tree_util.tree_unflatten(treedef, restored), static)


def from_text(text: str) -> np.ndarray:
    """A text as an array, in which form a checkpoint keeps it."""
    return np.frombuffer(text.encode(), np.uint8)


def to_text(array: np.ndarray) -> str:
    """The inverse of `from_text`."""
    return array.tobytes().decode(errors="replace")


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
