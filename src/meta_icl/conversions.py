"""What people give, as arrays: numbers, pairs of inputs and targets, tokens. One place for all rooms.

Checks look at values only where there are values; of arrays that are being traced the shapes and types are checked.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from meta_icl.errors import BadInput, require

LARGEST = 2**31 - 1  # the largest count that random draws of 32 bits can address


def number(value: ArrayLike) -> Array:
    """A leaf from a number or an array; a Python number adapts to the precision of what it is multiplied with."""
    return jnp.asarray(float(value) if isinstance(value, int | float | np.integer) else value)


def numbers(value: ArrayLike) -> Array:
    """A leaf from nested numbers or an array, in the floating-point precision in use."""
    return jnp.asarray(value, jnp.result_type(float))


def optional_numbers(value: ArrayLike | None) -> Array | None:
    """As `numbers`; nothing stays nothing."""
    return None if value is None else numbers(value)


def leaf_of(kind: Any) -> Callable[[Any], Any]:
    """The converter of a task's field annotated as `kind`: real numbers and arrays of numpy become array leaves.

    An integer does where the annotation says that it is a real number; everything else stays as it is.
    """
    real = kind in (float, "float") or "Float[" in str(kind)

    def converted(value: Any) -> Any:
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        number_like = isinstance(value, float | np.floating | np.ndarray) or (real and whole)
        return number(value) if number_like else value

    return converted


def random_key(key: Any) -> Array:
    """A random key, made from its number where an integer is given."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        require(0 <= int(key) < 2**32, "key", key, "a key, as meta_icl.key(0), or its number from 0 to 2^32 - 1")
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.ndim == 1:
        return jax.random.wrap_key_data(key)  # as `jax.random.PRNGKey` makes them
    raise BadInput(f"key must be a key, as meta_icl.key(0), or its number, got {key!r}")


def require_entries(
    test: Callable[[np.ndarray], np.ndarray], field: str, value: ArrayLike, allowed: str, *, infinite: bool = False
) -> None:
    """Raise `BadInput` unless every entry passes `test` and, unless `infinite` ones are allowed, is finite."""
    if not isinstance(value, Tracer):
        entries = np.asarray(value)
        passes = bool(np.all(test(entries))) and (infinite or bool(np.all(np.isfinite(entries))))
        require(passes, field, entries.tolist(), allowed)


def require_count(field: str, value: Any, *, each: int = 1) -> None:
    """Raise `BadInput` unless `value` is a positive integer, and so small that that many times `each` can be drawn."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    most = LARGEST // each
    require(whole and 1 <= int(value) <= most, field, value, f"an integer from 1 to {most}")


def pairs(x: Any, y: Any) -> tuple[Array, Array]:
    """Inputs "*batch n dx" and targets, "*batch n dy" of real numbers or "*batch n" of integer labels.

    The rank tells them apart: of as many axes as x, targets are real, and integers become real numbers; of one axis
    less, integers are labels 0, 1, .. and real numbers are the one channel of "*batch n 1". Raises `BadInput`.
    """
    x, y = _array("x", x), _array("y", y)
    if x.ndim < 2:
        raise BadInput(f"x of a prompt must have shape (n, dx), one row per example, got {x.shape}")
    whole = jnp.issubdtype(y.dtype, jnp.integer)
    if y.ndim not in (x.ndim, x.ndim - 1) or y.shape[: x.ndim - 1] != x.shape[:-1]:
        rows = ", ".join(map(str, x.shape[:-1]))
        raise BadInput(
            f"y of a prompt must have shape ({rows}, dy), or ({rows},) for labels or one channel, as x has shape "
            f"{x.shape}; got {y.shape}"
        )
    if y.ndim == x.ndim:
        return _real(x), _real(y)
    if not whole:
        return _real(x), y[..., None]
    if not isinstance(y, Tracer) and y.size:
        smallest = int(np.asarray(y).min())
        allowed = "labels 0, 1, .. when they are integers of shape (n,); give real targets as floats or as (n, 1)"
        require(smallest >= 0, "y of a prompt", smallest, allowed)
    return _real(x), y


def tokens(values: Any, mask: Any) -> tuple[Array, Array]:
    """Token numbers "*batch t" and a mask of the same shape; raises `BadInput`."""
    values, mask = _array("tokens", values), _array("loss_mask", mask, boolean=True)
    require(jnp.issubdtype(values.dtype, jnp.integer), "tokens", values.dtype, "integers")
    require(values.ndim >= 1 and mask.shape == values.shape, "loss_mask", mask.shape, f"of shape {values.shape}")
    return values, mask.astype(bool)


def _array(name: str, value: Any, *, boolean: bool = False) -> Array:
    """An array of real numbers or integers; truth values become integers unless they are wanted."""
    if not isinstance(value, jax.Array):
        try:
            given = np.asarray(value)
        except ValueError:
            raise BadInput(f"{name} must be an array, got rows of different lengths") from None
        require(given.dtype.kind in "biuf" or given.dtype.name == "bfloat16", name, str(given.dtype), "real numbers")
        value = jnp.asarray(given)
    require(not jnp.issubdtype(value.dtype, jnp.complexfloating), name, str(value.dtype), "real numbers")
    return value.astype(jnp.int32) if value.dtype == jnp.bool_ and not boolean else value


def _real(value: Array) -> Array:
    """In the floating-point precision that it has, or in the one in use."""
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.result_type(float))
